"""Several masks behind each other: what they put in the place of numbers, and in which order it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import compile_model
from tests.support.models import assert_agrees, plaintext
from tests.support.tables import computed, save

LEAST = float(np.finfo(np.float32).min)
TWICE = """<ir_version: 8, opset_import: ["": 17]>
twice (float[batch, 4] x, bool[batch, 4] m, bool[batch, 4] n) => (OUT y)
<int64[1] three = {3}>
{
    a = Where (m, x, first)
    b = Where (n, a, second)
    READ
}
"""
PLACES = {
    "place": ("int64[batch]", "y = ArgSIDE <axis = 1, keepdims = 0> (b)"),
    "last place": ("int64[batch]", "y = ArgSIDE <axis = 1, keepdims = 0, select_last_index = 1> (b)"),
    "ranks": ("int64[batch, 3]", "v, y = TopK <axis = 1, largest = UP> (b, three)"),
}


def twice(folder: Path, reader: str, up: bool, fills: tuple[float, float]) -> Path:
    out, read = PLACES[reader]
    read = read.replace("SIDE", "Max" if up else "Min").replace("UP", str(int(up)))
    found = onnx.parser.parse_model(TWICE.replace("OUT", out).replace("READ", read))
    for name, fill in zip(("first", "second"), fills, strict=True):
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(fill if up else -fill), name))
    return save(folder, found)


def marked(rows: int = 60) -> dict[str, np.ndarray]:
    """Rows that a first mask hides whole, a second one in part, or both in part."""
    rng = np.random.default_rng(4)
    m, n = rng.random((2, rows, 4)) < 0.6
    m[: rows // 2] = False
    return {"x": rng.uniform(-1.0, 1.0, (rows, 4)).astype(np.float32), "m": m, "n": n}


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("reader", PLACES)
@pytest.mark.parametrize("fills", [(-1e5, -65504.0), (-np.inf, -1e9), (-1e30, LEAST)])
def test_what_stands_for_fills_has_their_order(
    fills: tuple[float, float], reader: str, up: bool, tmp_path: Path
) -> None:
    """One number stood for both: in rows that the farther one hides whole another place was found, and nothing said."""
    feeds = marked()
    compiled = assert_agrees(twice(tmp_path, reader, up, fills), feeds, {"x": (-1.0, 1.0), "m": (0, 1), "n": (0, 1)})
    assert compiled.errors["y"] < 1e-5


def test_a_second_fill_makes_no_value_wider(tmp_path: Path) -> None:
    ranges = {"x": (-1.0, 1.0), "m": (0, 1), "n": (0, 1)}
    one, two = (
        compile_model(twice(tmp_path, "place", True, fills), ranges).plan for fills in ((-1e5, -1e5), (-1e5, -65504.0))
    )
    assert one.gates == two.gates
    assert max(wire.bits for wire in one.wires) == max(wire.bits for wire in two.wires)


ROUNDED = """<ir_version: 8, opset_import: ["": 17]>
rounded (float[batch, 4] x, bool[batch, 4] m) => (float[batch] y, float[batch] z)
{
    top = ReduceMax <axes = [1], keepdims = 1> (x)
    below = Sub (x, top)
    seen = Where (m, far, below)
    most = ReduceMax <axes = [1], keepdims = 0> (seen)
    y = Sign (most)
    least = ReduceMin <axes = [1], keepdims = 0> (seen)
    z = Sub (most, least)
}
"""


def test_what_rounding_decides_is_expected_beside_a_far_number(tmp_path: Path) -> None:
    """A third of the signs were others, and none was expected to be: beside -1e9 what they are off by was nothing."""
    found = onnx.parser.parse_model(ROUNDED)
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-1e9), "far"))
    path, feeds = save(tmp_path, found), marked()
    compiled = compile_model(path, {"x": (-1.0, 1.0), "m": (0, 1)})
    feeds = {"x": feeds["x"], "m": feeds["m"] & feeds["n"]}
    changed = (computed(compiled, feeds)[0] != plaintext(path, feeds)[0]).mean()
    assert changed < 0.01 or compiled.errors["y"] > changed / 4
