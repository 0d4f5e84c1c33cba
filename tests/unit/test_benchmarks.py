"""What benchmarks/ stands on: one definition of the networks for everybody, and peers that may fail without harm."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Modules of benchmarks/, which is no package; forgotten afterwards."""
    known = set(sys.modules)
    for folder in ("networks", "peers"):
        monkeypatch.syspath_prepend(str(BENCHMARKS / folder))
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["L", "A", "S", "M", "C"])
def test_numpy_and_the_onnx_file_are_the_same_network(name: str, load: object, tmp_path: Path) -> None:
    """Peers build theirs from the definition, ours is the file; the second opinion on errors is numpy's."""
    make: ModuleType = load("make")  # type: ignore[operator]
    serving: ModuleType = load("serving")  # type: ignore[operator]
    path = make.make_random_weights(name, tmp_path)
    found, layers, weights = serving.network(name)
    x = serving.random_input(found, 3)
    [theirs] = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert theirs.shape == serving.plain(layers, weights, x).shape
    assert np.abs(theirs - serving.plain(layers, weights, x)).max() < 1e-5


def test_products_are_those_of_the_definition(load: object) -> None:
    definitions: ModuleType = load("definitions")  # type: ignore[operator]
    everything = {**definitions.NETWORKS, **definitions.EXISTING}
    assert definitions.products(everything["A"]) == 784 * 128 + 128 * 128 + 128 * 10
    convolutions = 24 * 24 * 20 * 25 + 8 * 8 * 50 * 20 * 25
    assert definitions.products(everything["C"]) == convolutions + 800 * 500 + 500 * 10


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys\nfor line in sys.stdin: print('noise'); print('{\"seconds\": 1}', flush=True)", None),
        ("import time\ntime.sleep(60)", "no answer within"),
        ("raise SystemExit(1)", "it stopped"),
    ],
)
def test_a_peer_answers_or_says_why_not(
    script: str, said: str | None, load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems: ModuleType = load("systems")  # type: ignore[operator]
    python = tmp_path / "fake" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tmp_path / "peer.py").write_text(script)
    monkeypatch.setattr(systems, "ENVIRONMENTS", tmp_path)
    peer = replace(systems.PEERS["mpyc"], script=str(tmp_path / "peer.py"))
    monkeypatch.setitem(systems.PEERS, "fake", peer)
    with systems.Running("fake") as running:
        reply = running.ask({"network": "A"}, 30 if said != "no answer within" else 0.3)
    assert said in reply["failed"] if said else reply == {"seconds": 1}


def test_what_cannot_be_imported_is_not_installed(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems: ModuleType = load("systems")  # type: ignore[operator]
    python = tmp_path / "spu" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(systems, "ENVIRONMENTS", tmp_path)
    assert "No module named" in systems.install("spu")
