"""Masks that are drawn, behind each other and before what finds, compares or weighs: onnxruntime's answer, or a note.

Rows that a mask leaves something of agree; others do, or a note says not to use them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.models import plaintext
from tests.support.tables import computed, save

MODEL = """<ir_version: 8, opset_import: ["": 18]>
drawn (float[batch, 4] x, bool[batch, 4] m, int64[batch, 4] n) => (OUT y, float[batch, 4] seen)
<float zero = {0}, float one = {1}, int64[1] two = {2}, int64[1] last = {1}>
{
    bits = Cast <to = 9> (n)
    reals = Cast <to = 1> (n)
    off = Sub (one, reals)
    pad = Not (m)
    kept = Cast <to = 1> (m)
    s0 = Identity (x)
    HIDDEN
    seen = Identity (sLAST)
    READ
}
"""
STEPS = [
    "OUT = Where (m, IN, FILL)",
    "OUT = Where (bits, IN, FILL)",
    "OUT = Where (own, FILL, IN)",
    "aI = Mul (off, FILL)\n OUT = Add (IN, aI)",
    "aI = Where (pad, FILL, zero)\n OUT = Add (aI, IN)",
    "aI = Mul (off, FELL)\n OUT = Sub (IN, aI)",
    "OUT = Add (IN, added)",
    "aI = Add (IN, FILL)\n OUT = Where (m, IN, aI)",
    "aI = Mul (IN, kept)\n bI = Sub (one, kept)\n cI = Mul (bI, FILL)\n OUT = Add (aI, cI)",
    "OUT = Max (IN, FILL)",
    "aI = Unsqueeze (IN, last)\n OUT = Squeeze (aI, last)",
    "aI = Less (IN, FILL)\n OUT = Where (aI, FILL, IN)",
]
READERS = {
    "place": ("int64[batch]", "y = ArgMax <axis = 1, keepdims = 0> (sLAST)"),
    "one": ("float[batch, 4]", "y = Hardmax <axis = 1> (sLAST)"),
    "ranks": ("int64[batch, 2]", "v, y = TopK <axis = 1> (sLAST, two)"),
    "ranked": ("float[batch, 2]", "y, i = TopK <axis = 1> (sLAST, two)"),
    "largest": ("float[batch, 1]", "y = ReduceMax (sLAST, last)"),
    "pooled": ("float[batch, 1, 1]", "t = Unsqueeze (sLAST, last)\n y = MaxPool <kernel_shape = [4]> (t)"),
    "shares": ("float[batch, 4]", "y = Softmax <axis = 1> (sLAST)"),
    "logarithms": ("float[batch, 4]", "y = LogSoftmax <axis = 1> (sLAST)"),
    "spelt out": ("float[batch, 4]", """top = ReduceMax (sLAST, last)
        t = Sub (sLAST, top)
        e = Exp (t)
        all = ReduceSum (e, last)
        y = Div (e, all)"""),
    "found": ("bool[batch, 4]", "y = Less (sLAST, half)"),
    "equal": ("bool[batch, 4]", "y = Equal (sLAST, fill0)"),
}  # fmt: skip
FILLS = [-np.inf, float(np.finfo(np.float32).min), -1e30, -1e12, -1e9, -1e6, -1e5, -65504.0, -1e4]


def drawn(seed: int, reader: str) -> onnx.ModelProto:
    rng = np.random.default_rng([seed, sorted(READERS).index(reader)])
    steps, constants = list[str](), dict[str, np.ndarray]()
    for place in range(int(rng.integers(1, 4))):
        step, fill = STEPS[rng.integers(len(STEPS))], FILLS[rng.integers(len(FILLS))]
        if "Where" not in step or "zero" in step:
            fill = max(fill, -1e12)
        step = step.replace("IN", f"s{place}").replace("OUT", f"s{place + 1}").replace("I =", f"{place} =")
        step = step.replace("aI", f"a{place}").replace("bI", f"b{place}").replace("cI", f"c{place}")
        steps.append(step.replace("FILL", f"fill{place}").replace("FELL", f"fell{place}"))
        constants |= {f"fill{place}": np.float32(fill), f"fell{place}": np.float32(-fill)}
    own = rng.random(4) < 0.5
    constants |= {"own": own, "added": np.where(own[::-1], np.float32(-1e9), np.float32(0))}
    constants["half"] = constants["fill0"] / np.float32(2)
    out, read = READERS[reader]
    text = MODEL.replace("OUT", out).replace("HIDDEN", "\n".join(steps)).replace("READ", read)
    found = onnx.parser.parse_model(text.replace("LAST", str(len(steps))))
    for name, values in constants.items():
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return found


def rows() -> dict[str, np.ndarray]:
    """Rows of different numbers, hidden in part or whole."""
    rng = np.random.default_rng(6)
    x = rng.permuted(np.tile(np.arange(64), (80, 1)), axis=1)[:, :4] / 8 - 4
    m, n = rng.random((2, 80, 4)) < rng.choice([0.0, 0.6, 0.8, 1.0], (2, 80, 1))
    return {"x": x.astype(np.float32), "m": m, "n": n.astype(np.int64)}


def alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the output that tells what is hidden."""
    found = onnx.ModelProto.FromString(model.SerializeToString())
    del found.graph.output[1]
    return found


@pytest.mark.parametrize("reader", READERS)
def test_masks_that_are_drawn(reader: str, tmp_path: Path) -> None:
    feeds, few, compiled_ones = rows(), 2 if reader.startswith("rank") else 1, 0
    for seed in range(10):
        model = drawn(seed, reader)
        right, seen = plaintext(save(tmp_path, model), feeds)
        try:
            compiled = compile_model(alone(model), {"x": (-4.0, 4.0), "m": (0, 1), "n": (0, 1)})
        except ModelError as error:
            assert error.remedy, seed
            continue
        compiled_ones += 1
        [ours] = computed(compiled, feeds)
        assert ours.shape == right.shape and ours.dtype == right.dtype
        with np.errstate(invalid="ignore"):
            off = np.abs(ours.astype(np.float64) - right) > (2e-3 + 1e-4 * np.abs(right)) * (right.dtype.kind == "f")
        off, left = off & np.isfinite(right), np.abs(seen) <= 4
        if right.dtype != bool:
            off, left = off.reshape(len(right), -1).any(axis=1), left.sum(axis=1) >= few
        told = any("do not use" in note for note in compiled.notes)
        assert not off.any() or (told and not (off & left).any()), (seed, compiled.notes)
    assert compiled_ones >= 3
