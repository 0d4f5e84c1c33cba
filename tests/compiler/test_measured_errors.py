"""A sample of many small models on many kinds of rows: no error is told far too small, or far too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from mpc.compiler.compile import compile_model
from tests.support.tables import computed, save

COLUMNS, ROWS = 6, 120
HEAD = """<ir_version: 8, opset_import: ["": 17]>
sample (float[batch, 6] x) => (float[batch, k] y)
<float one = {1}, float three = {3}, float half = {0.5}, float little = {1e-5}, int64[1] axis = {1}, float p = {1.5}>
"""
ABSOLUTE, SQUARE = "a = Abs (x)\n", "q = Mul (x, x)\n"
SUM = "s = ReduceSum <keepdims = 1> (a, axis)\n"
APART = "m = ReduceMean <axes = [1], keepdims = 1> (x)\nd = Sub (x, m)\nq = Mul (d, d)\n"
MEAN = "v = ReduceMean <axes = [1], keepdims = 1> (q)\n"
SIGNED = {
    "quotient": ABSOLUTE + SUM + "t = Add (s, one)\ny = Div (x, t)",
    "inverse": SQUARE + "t = Add (q, one)\ny = Div (one, t)",
    "largest": ABSOLUTE + "m = ReduceMax <axes = [1], keepdims = 1> (a)\nt = Add (m, half)\ny = Div (x, t)",
    "norm": SQUARE + MEAN + "t = Add (v, half)\nr = Sqrt (t)\ny = Div (x, r)",
    "layer": APART + MEAN + "t = Add (v, half)\nr = Sqrt (t)\ny = Div (d, r)",
    "mean": ABSOLUTE + "y = ReduceMean <axes = [1], keepdims = 1> (a)",
    "variance": APART + "y = ReduceMean <axes = [1], keepdims = 1> (q)",
    "softmax": "y = Softmax <axis = -1> (x)",
    "peaked": "t = Mul (x, three)\ny = Softmax <axis = -1> (t)",
    "logarithms": "y = LogSoftmax <axis = -1> (x)",
    "softplus": "y = Softplus (x)",
    "gelu": "t = Mul (x, half)\ne = Erf (t)\nf = Add (e, one)\ny = Mul (x, f)",
}
POSITIVE = {
    "log": "t = Add (x, half)\ny = Log (t)",
    "root": "t = Add (x, half)\ny = Sqrt (t)",
    "power": "t = Add (x, half)\ny = Pow (t, p)",
    "share": "s = ReduceSum <keepdims = 1> (x, axis)\nt = Add (s, half)\ny = Div (x, t)",
}
MODELS = [(name, -reach, reach) for name in SIGNED for reach in (1.0, 16.0)]
MODELS += [(name, 0.0, reach) for name in POSITIVE for reach in (1.0, 16.0)]


def kinds(low: float, high: float) -> dict[str, np.ndarray]:
    """Rows of each kind, within the range."""
    rng = np.random.default_rng(5)
    x, first = rng.uniform(low, high, (ROWS, COLUMNS)), np.arange(COLUMNS) == 0
    found = {
        "ordinary": x,
        "tiny": x * np.exp2(-rng.uniform(0, 16, (ROWS, 1))),
        "positive": np.abs(x),
        "negative": -np.abs(x) if low < 0 else x / 2,
        "sparse": np.where(rng.random(x.shape) < 0.7, 0.0, x),
        "one large": np.where(first, high * rng.uniform(0.5, 1, (ROWS, 1)), x / 16),
        "at one end": high - (high - low) * rng.uniform(0, 0.25, x.shape),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


@pytest.mark.parametrize(("name", "low", "high"), MODELS)
def test_what_is_told_is_what_is_measured(name: str, low: float, high: float, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(f"{HEAD}{{\n{SIGNED.get(name) or POSITIVE[name]}\n}}")
    compiled = compile_model(save(tmp_path, model), {"x": (low, high)})
    [told] = compiled.rehearsal.expected.values()
    evaluator = ReferenceEvaluator(_in_doubles(model))
    found = {}
    for kind, x in kinds(low, high).items():
        [ours], [right] = computed(compiled, {"x": x}), evaluator.run(None, {"x": x.astype(np.float64)})
        found[kind] = float(np.sqrt(np.square(ours - right).mean()))
        odd = max(told.tiny, told.part, told.empty) if kind in ("tiny", "sparse", "one large") else 0.0
        assert found[kind] < 4 * max(told.error, odd), kind
    assert told.error < 100 * max(found.values())


def _in_doubles(model: onnx.ModelProto) -> onnx.ModelProto:
    double = onnx.ModelProto.FromString(model.SerializeToString())
    for value in (*double.graph.input, *double.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for number, constant in enumerate(double.graph.initializer):
        if constant.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(constant).astype(np.float64)
            double.graph.initializer[number].CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
    return double
