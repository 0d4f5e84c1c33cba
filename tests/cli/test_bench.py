"""`mpc bench` with a real cluster: the keys, and what is counted; never how many seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.parties import data, tiny_model
from tests.support.parties_commands import mpc

pytestmark = pytest.mark.timeout(120)

KEYS = {
    "model", "batch", "parties", "security", "plaintext_s", "plaintext_all_threads_s", "pytorch_s", "online_s",
    "offline_s", "provider_s", "online_cpu_s", "rounds", "sent_bytes", "dealt_bytes", "peak_memory_bytes",
    "slowdown_online", "slowdown_total", "max_abs_error", "argmax_agreement", "machine", "version",
}  # fmt: skip


def test_counts_are_those_of_inspect(tmp_path: Path) -> None:
    """An array, one object a batch; rounds and bytes are exactly what was predicted; answers are right."""
    tiny_model(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", data(4))
    words = ("tiny.onnx", "--range", "-4:4", "--json")
    done = mpc("bench", *words, "--input", "x.npy", "--batch", "1", "--batch", "6", "--repeat", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 rows; they are repeated" in done.stderr
    found = json.loads(done.stdout)
    assert [row["batch"] for row in found] == [1, 6]
    for row in found:
        assert row.keys() >= KEYS
        report = json.loads(mpc("inspect", *words, "--batch", row["batch"], folder=tmp_path).stdout)
        assert all(row[key] == report[key] for key in ("rounds", "sent_bytes", "dealt_bytes", "parties"))
        assert row["max_abs_error"] < 1e-3 and row["argmax_agreement"] == 1
        assert row["runs_measured"] == 2 and row["slowdown_total"] > row["slowdown_online"] > 1


def test_active_security_is_refused_before_anything_starts(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    done = mpc("bench", "tiny.onnx", "--security", "active", "--json", folder=tmp_path)
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["exit_code"] == 2
