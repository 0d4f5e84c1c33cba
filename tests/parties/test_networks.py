"""The field's standard networks on real MNIST, by real processes: answers, and what they cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mpc.compiler.compile import compile_model
from mpc.plan.cost import plan_cost
from parties import Cluster
from parties.local import launcher
from tests.support.models import encrypted, plaintext

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ROOT / "benchmarks" / "networks"
FILES = {"S": "sarda_s.onnx", "M": "minionn_m.onnx", "C": "lenet_c.onnx"}
LARGEST_ERROR = 2e-3
PRICE = {"M": (15, 135_000), "C": (15, 200_000)}
"""Rounds, and payload of each of two parties to the other, at batch 1."""
GIB = 1 << 30


def images(count: int) -> np.ndarray:
    """Test images of MNIST, pixels in [0, 1]."""
    sample = np.load(ROOT / "examples" / "mnist_sample.npz")["images"][:count]
    return (sample.reshape(-1, 1, 28, 28) / 255).astype(np.float32)


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The part of the rows whose largest logit is the same."""
    return float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster.local(parties=request.param) as connected:
        yield connected


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("batch", [1, 32, pytest.param(128, marks=pytest.mark.slow)])
def test_processes_answer_as_onnxruntime_does(cluster: Cluster, name: str, batch: int) -> None:
    path, x = NETWORKS / FILES[name], images(batch)
    with cluster.session(path) as session:
        [logits] = session.run(None, {"x": x})
        report = session.last_run
    expected = plaintext(path, {"x": x})[0]
    assert np.abs(logits - expected).max() <= LARGEST_ERROR
    assert agreement(logits, expected) == 1.0
    cost = plan_cost(session.plan, batch)
    assert report is not None
    peers = report.parties - 1
    assert (report.rounds, report.sent_bytes) == (cost.rounds, cost.sent * peers)
    if batch == 1 and peers == 1 and name in PRICE:
        rounds, payload = PRICE[name]
        assert report.rounds <= rounds and report.sent_bytes <= payload


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_thousand_images(cluster: Cluster, name: str) -> None:
    path, x = NETWORKS / FILES[name], images(1000)
    with cluster.session(path) as session:
        logits = np.concatenate([session.run(None, {"x": x[i : i + 125]})[0] for i in range(0, 1000, 125)])
    expected = plaintext(path, {"x": x})[0]
    assert np.abs(logits - expected).max() <= LARGEST_ERROR
    assert agreement(logits, expected) >= 0.998


@pytest.mark.parametrize("name", sorted(FILES))
def test_in_one_process_it_is_the_reference_bit_for_bit(name: str) -> None:
    path, x = NETWORKS / FILES[name], images(3)
    [logits] = encrypted(compile_model(path), {"x": x}, parties=3)
    assert np.abs(logits - plaintext(path, {"x": x})[0]).max() <= LARGEST_ERROR


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alexnet_runs_within_four_gigabytes_a_process(tmp_path: Path) -> None:
    make = NETWORKS / "make.py"
    subprocess.run([sys.executable, make, "--only", "alexnet", "--out", tmp_path], check=True, capture_output=True)
    (path,) = tmp_path.glob("*.onnx")
    x = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    with Cluster.local(parties=2) as connected:
        with connected.session(path) as session:
            [logits] = session.run(None, {"x": x})
            peaks = [peak_memory(member.pid) for member in launcher.status(connected.layout) if member.pid]
    expected = onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
    assert np.abs(logits - expected).max() <= LARGEST_ERROR
    assert len(peaks) == 3 and max(peaks) <= 4 * GIB


def peak_memory(pid: int) -> int:
    """The largest resident set that a process ever had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) * 1024
