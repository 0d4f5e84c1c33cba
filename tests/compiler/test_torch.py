"""Exports of PyTorch's two exporters; tests/vectors/torch/make.py made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.onnx.load import load_model
from tests.support.models import assert_agrees

VECTORS = Path(__file__).parent.parent / "vectors" / "torch"
MODELS = sorted(path.name for path in VECTORS.glob("*.onnx"))


def data_of(path: Path, rows: int) -> np.ndarray:
    [given] = load_model(path).graph.input
    dimensions = given.type.tensor_type.shape.dim
    dtype = np.float64 if given.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE else np.float32
    shape = (rows, *(d.dim_value for d in dimensions[1:]))
    return np.random.default_rng(3).standard_normal(shape).astype(dtype)


def test_both_exporters_are_here() -> None:
    assert {name.rsplit("_", 1)[1] for name in MODELS} == {"script.onnx", "dynamo.onnx"}


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_exported_model(name: str, rows: int) -> None:
    assert_agrees(VECTORS / name, {"x": data_of(VECTORS / name, rows)}, tolerance=2e-4)


def test_weights_beside_the_model(tmp_path: Path) -> None:
    model = onnx.load(VECTORS / "mlp_script.onnx")
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    assert_agrees(path, {"x": data_of(VECTORS / "mlp_script.onnx", 3)}, tolerance=2e-4)
