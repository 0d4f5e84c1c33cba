"""The examples run as they stand, and say what they promise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.effort import patient

EXAMPLES = Path(__file__).parents[2] / "examples"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is there on Linux only")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cheater", r"passive: 20 of 20 answers are wrong.*\nactive: .*a party deviates.*\(exit code 7\)"),
        ("hospital_and_lab", "171 patients, 95.9% of the answers right"),
        (
            "hospitals_under_a_budget",
            r"north +[\d.]+ days.*, 0 of epsilon left\n(.*\n)+a third time: .*0 of its budget is left",
        ),
        ("k_means", r"step 6: .*\n.*within 1e-3 at the end: True"),
        (
            "one_bit_each",
            r"another network: (.*\n)+bag 1: alarm.* a 8\nbag 0: nothing(.*\n)+once more: .*used up",
        ),
        ("power_iteration", r"first principal component: (0\.99|1\.00)"),
        (
            "private_diagnosis",
            r"77 of 80 diagnoses are right\nsomebody else: .*other coordinators\n.*not name the recipient lab",
        ),
        ("public_weights", "weights public: 100% right, 6 rounds"),
        ("randomised_response", r"estimated: \d\d\.\d%, give or take 4\.3%\n.*\n.*off by 0\.07%"),
        ("scikit_learn", r"accuracy, private +(\S+)\naccuracy, plaintext +\1"),
        pytest.param("three_organisations", r"\['0.002', '0.854', '0.016', '0.895', '0.003'\]", marks=LINUX),
    ],
)
def test_an_example_runs(name: str, said: str) -> None:
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=patient(100))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # daemons that an example left, if it failed
        process.wait()
    assert process.returncode == 0, err
    assert re.search(said, out), out
