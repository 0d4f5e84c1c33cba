"""Small networks as PyTorch's two exporters write them; tests/vectors/torch_networks/make.py made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.onnx.load import load_model
from tests.support.models import assert_agrees

VECTORS = Path(__file__).parent.parent / "vectors" / "torch_networks"
MODELS = sorted(path.name for path in VECTORS.glob("*.onnx"))
RANGE = (-4.0, 4.0)


def feeds_of(path: Path, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    feeds = {}
    for given in load_model(path).graph.input:
        sizes = [d.dim_value or rows for d in given.type.tensor_type.shape.dim]
        feeds[given.name] = np.clip(rng.standard_normal(sizes), *RANGE).astype(np.float32)
    return feeds


def test_all_of_them_are_here() -> None:
    assert len(MODELS) == 22


@pytest.mark.parametrize("name", MODELS)
def test_exported_network(name: str) -> None:
    path = VECTORS / name
    feeds = feeds_of(path, rows=3)
    assert_agrees(path, feeds, dict.fromkeys(feeds, RANGE), tolerance=1e-3)
