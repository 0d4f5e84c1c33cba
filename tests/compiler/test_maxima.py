"""Masks before a maximum: what is pooled of the others is right, and has its digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import compile_model
from tests.support.models import assert_agrees, plaintext
from tests.support.tables import computed, save

LEAST = float(np.finfo(np.float32).min)
POOLED = """<ir_version: 8, opset_import: ["": 17]>
pooled (float[batch, 6, 4] x, float[batch, 6] m) => (float[batch, 4] y)
<int64[1] last = {2}, float half = {0.5}>
{
    marks = Unsqueeze (m, last)
    pad = Less (marks, half)
    seen = Where (pad, far, x)
    BODY
}
"""
BODIES = {
    "reduced": "y = ReduceMax <axes = [1], keepdims = 0> (seen)",
    "pooled": """t = Transpose <perm = [0, 2, 1]> (seen)
        p = MaxPool <kernel_shape = [6]> (t)
        y = Squeeze (p, last)""",
    "all over": """t = Transpose <perm = [0, 2, 1]> (seen)
        p = GlobalMaxPool (t)
        y = Squeeze (p, last)""",
    "normalised": """top = ReduceMax <axes = [1], keepdims = 0> (seen)
        n = ReduceL2 <axes = [1], keepdims = 1> (top)
        y = Div (top, n)""",
    "masked again": """low = Less (x, half)
        few = Where (low, far, seen)
        y = ReduceMax <axes = [1], keepdims = 0> (few)""",
}


def model(folder: Path, body: str, far: float) -> Path:
    found = onnx.parser.parse_model(POOLED.replace("BODY", BODIES.get(body, body)))
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(far), "far"))
    return save(folder, found)


def data(reach: float) -> dict[str, np.ndarray]:
    """Rows of which some places are marked; one of them has a number above a half everywhere."""
    rng = np.random.default_rng(3)
    x, number = rng.uniform(-reach, reach, (20, 6, 4)), rng.integers(1, 7, (20, 1))
    x[np.arange(20), number[:, 0] - 1] = rng.uniform(0.6, 1.0, (20, 4))
    return {"x": x.astype(np.float32), "m": (np.arange(6) < number).astype(np.float32)}


@pytest.mark.parametrize("far", [-1e9, -np.inf, LEAST])
@pytest.mark.parametrize("body", BODIES)
def test_a_maximum_of_what_a_mask_leaves_has_its_digits(body: str, far: float, tmp_path: Path) -> None:
    """Its error was one in a thousand of the mask's number, and a norm of it had no digit."""
    ranges = {"x": (-2.0, 2.0), "m": (0.0, 1.0)}
    compiled = assert_agrees(model(tmp_path, body, far), data(2.0), ranges, tolerance=1e-4)
    assert compiled.errors["y"] < 1e-4
    assert any("where a mask hides all that a maximum is taken of" in note for note in compiled.notes)


def test_values_may_be_smaller_than_what_stands_for_minus_infinity_in_scores(tmp_path: Path) -> None:
    path, feeds = model(tmp_path, "reduced", -1e9), data(2.0)
    feeds["x"] -= np.float32(30000.0)
    assert_agrees(path, feeds, {"x": (-40000.0, 2.0), "m": (0.0, 1.0)}, tolerance=0.01)


@pytest.mark.parametrize("body", ["top = ReduceMax <axes = [1], keepdims = 0> (seen)\n s = ReduceMean <axes = [1],"
    " keepdims = 0> (seen)\n y = Add (top, s)", "reduced"])  # fmt: skip
def test_what_others_read_too_or_is_no_mask_stays(body: str, tmp_path: Path) -> None:
    """Rows that are hidden whole are the number then."""
    path, feeds = model(tmp_path, body, -1e9 if body != "reduced" else -1e4), data(2.0)
    feeds["m"][0] = 0
    compiled = compile_model(path, {"x": (-2.0, 2.0), "m": (0.0, 1.0)})
    [ours], [right] = computed(compiled, feeds), plaintext(path, feeds)
    assert np.abs(ours[0] / right[0] - 1).max() < 1e-3
    assert not any("a mask hides" in note for note in compiled.notes)
