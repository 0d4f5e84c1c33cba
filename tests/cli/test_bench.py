"""`mpc bench` with a real cluster: the keys, and what is counted; never how many seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import UsageError
from parties.bench.chart import check_plot, draw_bench
from tests.support.parties import data, tiny_model
from tests.support.parties_commands import mpc, mpc_here

pytestmark = pytest.mark.timeout(120)

KEYS = {
    "model", "batch", "parties", "security", "weights", "plaintext_s", "plaintext_all_threads_s", "pytorch_s",
    "online_s", "offline_s", "provider_s", "online_cpu_s", "rounds", "sent_bytes", "dealt_bytes", "peak_memory_bytes",
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
        report = json.loads(mpc_here("inspect", *words, "--batch", row["batch"], folder=tmp_path).stdout)
        assert all(row[key] == report[key] for key in ("rounds", "sent_bytes", "dealt_bytes", "parties"))
        assert row["max_abs_error"] < 1e-3 and row["argmax_agreement"] == 1
        assert row["runs_measured"] == 2 and row["slowdown_total"] > row["slowdown_online"] > 1


def test_a_link_is_inspected_as_it_is_measured(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    words, reports = ("tiny.onnx", "--range", "-4:4", "--json"), []
    for more in ((), ("--link", "wan")):
        reports.append(json.loads(mpc_here("inspect", *words, *more, folder=tmp_path).stdout))
    done = mpc("bench", *words, "--repeat", "1", "--link", "1:1000", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [row], (near, far) = json.loads(done.stdout), reports
    assert row["rounds"] == far["rounds"] == near["rounds"] - 1 and row["dealt_bytes"] == far["dealt_bytes"]
    assert far["digest"] != near["digest"]


def test_checked_runs_are_measured_beside_those_that_are_not(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    words = ("tiny.onnx", "--range", "-4:4", "--security", "active", "--json")
    done = mpc("bench", *words, "--repeat", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["security"] for row in found] == ["passive", "active"]
    plain, checked = found
    assert (checked["rounds"], checked["sent_bytes"]) == (plain["rounds"] + 4, plain["sent_bytes"] + 208)
    report = json.loads(mpc_here("inspect", *words, folder=tmp_path).stdout)
    assert all(checked[key] == report[key] for key in ("rounds", "sent_bytes", "dealt_bytes", "parties"))
    assert report["check"]["rounds"] == 4 and report["check"]["sent_bytes_per_peer"] == 208
    assert plain["dealt_bytes"] < report["check"]["dealt_bytes"] < checked["dealt_bytes"]  # tags are most of it


def test_a_chart_has_every_line_that_was_measured(tmp_path: Path) -> None:
    """Drawn without a display; the numbers are the table's."""
    row = {"model": "a.onnx", "parties": 2, "machine": {"cpu": "a processor"}, "pytorch_s": None}
    rows = [{**row, "batch": n, "online_s": 0.01 * n, "offline_s": 0.02, "plaintext_s": 1e-5 * n} for n in (1, 32)]
    for name in ("chart.png", "chart.svg"):
        draw_bench(tmp_path / name, rows)
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "chart.svg").read_text()


@pytest.mark.parametrize("name", ["chart.pdf", "nowhere/chart.png"])
def test_a_chart_that_cannot_be_drawn_is_refused_first(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check_plot(tmp_path / name)


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError) as caught:
        check_plot(tmp_path / "chart.png")
    assert "pip install" in str(caught.value.remedy)
