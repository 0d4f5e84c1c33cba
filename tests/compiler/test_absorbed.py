"""Far numbers that masks add: what float32 loses beside them is kept here, and a note says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import Compiled, compile_model
from tests.support.tables import save

MODEL = """<ir_version: 8, opset_import: ["": 17]>
added (float[batch, 4] x, bool[batch, 4] m) => (OUT y)
<float zero = {0}, int64[1] two = {2}, int64[1] last = {1}>
{
    seen = Not (m)
    MADE
    READ
}
"""
MADE = {
    "multiplied": "pad = Cast <to = 1> (m)\n far = Mul (pad, fill)\n s = Add (x, far)",
    "subtracted": "pad = Cast <to = 1> (m)\n far = Mul (pad, fell)\n s = Sub (x, far)",
    "chosen": "far = Where (seen, zero, fill)\n s = Add (far, x)",
    "in part": "less = Add (x, fill)\n s = Where (m, less, x)",
    "clipped": "pad = Cast <to = 1> (m)\n far = Mul (pad, fill)\n a = Add (x, far)\n s = Max (a, least)",
    "the model's own": "s = Add (x, own)",
    "the model's own, clipped": "a = Add (x, own)\n s = Max (a, least)",
}
READ = {
    "place": ("int64[batch]", "y = ArgMax <axis = 1, keepdims = 0> (s)"),
    "least of the opposite": ("int64[batch]", "t = Neg (s)\n y = ArgMin <axis = 1, keepdims = 0> (t)"),
    "one of all": ("float[batch, 4]", "y = Hardmax <axis = 1> (s)"),
    "ranks": ("int64[batch, 2]", "v, y = TopK <axis = 1> (s, two)"),
    "place of shares": ("int64[batch]", "t = Softmax <axis = 1> (s)\n y = ArgMax <axis = 1, keepdims = 0> (t)"),
    "shares": ("float[batch, 4]", "y = Softmax <axis = 1> (s)"),
    "logarithms of shares": ("float[batch, 4]", "y = LogSoftmax <axis = 1> (s)"),
    "shares, spelt out": (
        "float[batch, 4]",
        """top = ReduceMax <axes = [1], keepdims = 1> (s)
        below = Sub (s, top)
        powers = Exp (below)
        all = ReduceSum <keepdims = 1> (powers, last)
        y = Div (powers, all)""",
    ),
    "differences": (
        "float[batch]",
        """top = ReduceMax <axes = [1], keepdims = 0> (s)
        low = ReduceMin <axes = [1], keepdims = 0> (s)
        y = Sub (top, low)""",
    ),
    "the largest ones": ("bool[batch, 4]", "top = ReduceMax <axes = [1], keepdims = 1> (s)\n y = Equal (s, top)"),
    "compared with that number": ("bool[batch, 4]", "y = LessOrEqual (s, fill)"),
    "shares of the opposite": ("float[batch, 4]", "t = Neg (s)\n u = Neg (t)\n y = Softmax <axis = 1> (u)"),
}


def compiled(folder: Path, made: str, read: str, fill: float, own: list[float] | None = None) -> Compiled:
    out, reader = READ[read]
    found = onnx.parser.parse_model(MODEL.replace("OUT", out).replace("MADE", MADE[made]).replace("READ", reader))
    for name, value in (("fill", fill), ("fell", -fill), ("least", fill), ("own", own or [0.0, fill, fill, fill])):
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    return compile_model(save(folder, found), {"x": (-1.0, 1.0), "m": (0, 1)})


def said(found: Compiled) -> bool:
    return any("do not use" in note for note in found.notes)


FORMS = [(made, -65504.0) for made in MADE if "own" not in made] + [("multiplied", -1e4), ("multiplied", -1e9)]


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize(("made", "fill"), FORMS)
def test_what_float32_loses_beside_a_mask_is_said(made: str, read: str, fill: float, tmp_path: Path) -> None:
    """Of rows that a mask hides whole up to half of the places were others, and -1e4 and -65504 brought no note."""
    assert said(compiled(tmp_path, made, read, fill))


@pytest.mark.parametrize(
    "made",
    [
        "a = Where (m, fill, x)\n b = Where (seen, x, a)\n s = Max (x, b)",
        "a = Where (m, fill, x)\n pad = Cast <to = 1> (m)\n s = Mul (a, pad)",
    ],
)
def test_nothing_is_said_of_what_a_mask_puts_in_the_place_of_numbers(made: str, tmp_path: Path) -> None:
    out, reader = READ["place"]
    found = onnx.parser.parse_model(MODEL.replace("OUT", out).replace("MADE", made).replace("READ", reader))
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-1e4), "fill"))
    assert not said(compile_model(save(tmp_path, found), {"x": (-1.0, 1.0), "m": (0, 1)}))


def test_nothing_is_said_of_a_comparison_far_from_what_hides(tmp_path: Path) -> None:
    for level in (-5e8, 0.0):
        text = MODEL.replace("MADE", MADE["multiplied"]).replace("OUT", "bool[batch, 4]")
        found = onnx.parser.parse_model(text.replace("READ", "y = LessOrEqual (s, level)"))
        for name, value in (("fill", -1e9), ("level", level)):
            found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
        assert not said(compile_model(save(tmp_path, found), {"x": (-1.0, 1.0), "m": (0, 1)}))


@pytest.mark.parametrize("read", ["place", "shares"])
def test_marks_that_are_reals_are_a_mask(read: str, tmp_path: Path) -> None:
    out, reader = READ[read]
    text = MODEL.replace("bool[", "float[").replace("seen = Not (m)", "").replace("OUT", out)
    text = text.replace("MADE", "far = Mul (m, fill)\n s = Add (x, far)").replace("READ", reader)
    found = onnx.parser.parse_model(text)
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-65504.0), "fill"))
    path = save(tmp_path, found)
    assert said(compile_model(path, {"x": (-1.0, 1.0), "m": (0, 1)}))
    assert not said(compile_model(path, {"x": (-1.0, 1.0), "m": (0, 2)}))


@pytest.mark.parametrize("read", ["place", "ranks"])
@pytest.mark.parametrize("made", ["multiplied", "in part"])
def test_nothing_is_said_of_a_number_that_is_near(made: str, read: str, tmp_path: Path) -> None:
    assert not said(compiled(tmp_path, made, read, -100.0))


@pytest.mark.parametrize("fill", [-1e4, -1e9])
@pytest.mark.parametrize("made", ["the model's own", "the model's own, clipped"])
@pytest.mark.parametrize(("read", "far", "noted"), [("ranks", 3, True), ("ranks", 2, False), ("place", 3, False)])
def test_of_a_public_mask_it_is_said_where_ranks_go_beyond_what_it_leaves(
    read: str, far: int, noted: bool, made: str, fill: float, tmp_path: Path
) -> None:
    """Behind a maximum with the number that it adds nothing was said."""
    own = [0.0] * (4 - far) + [fill] * far
    assert said(compiled(tmp_path, made, read, fill, own)) == noted


def test_of_a_public_mask_places_among_what_it_raises_are_said_not_to_be_used(tmp_path: Path) -> None:
    assert said(compiled(tmp_path, "the model's own", "place", 1e9, [0.0, 1e9, 1e9, 0.0]))
    assert not said(compiled(tmp_path, "the model's own", "place", 1e9, [0.0, 1e9, 0.0, 0.0]))
