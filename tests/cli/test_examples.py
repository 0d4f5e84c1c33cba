"""The examples run as they stand, and say what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.effort import patient

EXAMPLES = Path(__file__).parents[2] / "examples"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is there on Linux only")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hospital_and_lab", "171 patients, 95.9% of the answers right"),
        ("public_weights", "weights public: 100% right, 6 rounds"),
        ("scikit_learn", r"accuracy, private +(\S+)\naccuracy, plaintext +\1"),
        pytest.param("three_organisations", r"\['0.002', '0.854', '0.016', '0.895', '0.003'\]", marks=LINUX),
    ],
)
def test_an_example_runs(name: str, said: str) -> None:
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(100), check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout), done.stdout
