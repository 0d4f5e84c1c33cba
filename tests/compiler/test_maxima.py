"""Masks before a maximum: what is pooled of the others is right, and has its digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.graph import Range
from mpc.errors import ModelError
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


ADDED = """<ir_version: 8, opset_import: ["": 17]>
added (float[batch, 6] x, TYPE[batch, 6] m) => (OUT y)
<float one = {1}, float zero = {0}, int64[1] two = {2}, int64[1] last = {1}>
{
    marks = Cast <to = 1> (m)
    pad = Sub (one, marks)
    HIDDEN
    READ
}
"""
FORMS = {
    "added": "far = Mul (pad, fill)\n s = Add (x, far)",
    "taken away": "far = Mul (fell, pad)\n s = Sub (x, far)",
    "less one": "gap = Sub (marks, one)\n far = Mul (gap, fell)\n s = Add (far, x)",
    "chosen, then added": "where = Cast <to = 9> (pad)\n far = Where (where, fill, zero)\n s = Add (x, far)",
    "as transformers do": "where = Cast <to = 9> (pad)\n far = Where (where, fill, pad)\n s = Add (far, x)",
    "in its place": "where = Cast <to = 9> (pad)\n s = Where (where, fill, x)",
}
READERS = {
    "place": ("int64[batch]", "y = ArgMax <axis = 1, keepdims = 0> (s)"),
    "one of all": ("float[batch, 6]", "y = Hardmax <axis = 1> (s)"),
    "largest": ("float[batch]", "y = ReduceMax <axes = [1], keepdims = 0> (s)"),
    "shares": ("float[batch, 6]", "y = Softmax <axis = 1> (s)"),
    "power": ("float[batch, 6]", "y = Exp (s)"),
    "power of less": ("float[batch, 6]", "less = Sub (s, one)\n y = Exp (less)"),
    "part": ("float[batch, 6]", "y = Sigmoid (s)"),
    "shares, spelt out": ("float[batch, 6]", """top = ReduceMax <axes = [1], keepdims = 1> (s)
        below = Sub (s, top)
        powers = Exp (below)
        all = ReduceSum <keepdims = 1> (powers, last)
        y = Div (powers, all)"""),
    "both": ("float[batch, 2]", """top = ReduceMax <axes = [1], keepdims = 1> (s)
        where_it_is = ArgMax <axis = 1, keepdims = 1> (s)
        place = Cast <to = 1> (where_it_is)
        y = Concat <axis = 1> (top, place)"""),
    "shares and place": ("float[batch, 2]", """shares = Softmax <axis = 1> (s)
        top = ReduceMax <axes = [1], keepdims = 1> (shares)
        where_it_is = ArgMax <axis = 1, keepdims = 1> (s)
        place = Cast <to = 1> (where_it_is)
        y = Concat <axis = 1> (top, place)"""),
    "ranks": ("int64[batch, 2]", "v, y = TopK <axis = 1> (s, two)"),
    "ranked": ("float[batch, 2]", "y, i = TopK <axis = 1> (s, two)"),
}  # fmt: skip


def behind(folder: Path, form: str, reader: str, fill: float, kind: str = "int64") -> Path:
    out, read = READERS[reader]
    text = ADDED.replace("TYPE", kind).replace("OUT", out).replace("HIDDEN", FORMS[form]).replace("READ", read)
    found = onnx.parser.parse_model(text)
    for name, value in (("fill", fill), ("fell", -fill)):
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    return save(folder, found)


def rows(kind: str = "int64", least: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    marks = rng.random((200, 6)).argsort(axis=1) < rng.integers(least, 7, (200, 1))
    return {"x": rng.uniform(-4.0, 4.0, (200, 6)).astype(np.float32), "m": marks.astype(kind)}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_the_least_float_hides_from_whatever_reads_it(form: str, reader: str, tmp_path: Path) -> None:
    path, feeds = behind(tmp_path, form, reader, LEAST), rows()
    compiled = compile_model(path, {"x": (-4.0, 4.0), "m": (0, 1)})
    [ours], [right] = computed(compiled, feeds), plaintext(path, feeds)
    assert np.abs(ours - right).max() <= (0.0 if right.dtype == np.int64 else 2e-3)
    assert compiled.errors["y"] < 1e-3 or "TopK" in READERS[reader][1]


@pytest.mark.parametrize("kind", ["int64", "float32"])
@pytest.mark.parametrize("fill", [-1e4, -1e9, -1e10])
def test_places_behind_a_mask_are_found_with_all_digits(fill: float, kind: str, tmp_path: Path) -> None:
    """Of two hundred rows three had another place behind -1e9, and sixty behind -1e10."""
    path, feeds = behind(tmp_path, "added", "place", fill, kind.replace("float32", "float")), rows(kind)
    compiled = assert_agrees(path, feeds, {"x": (-4.0, 4.0), "m": (0, 1)})
    assert compiled.errors["y"] < 1e-5
    counted = any("counts as a mask of zeros and ones" in note for note in compiled.notes)
    assert counted == (kind == "float32" and fill < -1e4)


@pytest.mark.parametrize(("find", "sign"), [("ArgMin", -1.0), ("ArgMax", 1.0)])
@pytest.mark.parametrize("form", ["added", "in its place"])
def test_the_least_is_found_below_what_hides_it(form: str, find: str, sign: float, tmp_path: Path) -> None:
    path, feeds = behind(tmp_path, form, "place", -1e10 * sign), rows()
    changed = onnx.load(path)
    changed.graph.node[-1].op_type = find
    compiled = assert_agrees(save(tmp_path, changed), feeds, {"x": (-4.0, 4.0), "m": (0, 1)})
    assert compiled.errors["y"] < 1e-5


def test_of_rows_that_are_hidden_whole_places_agree_or_a_note_speaks(tmp_path: Path) -> None:
    feeds, ranges = rows(least=0), {"x": (-4.0, 4.0), "m": (0, 1)}
    assert (feeds["m"].sum(axis=1) == 0).any()
    compiled = assert_agrees(behind(tmp_path, "in its place", "place", -np.inf), feeds, ranges)
    assert not compiled.notes and compiled.errors["y"] < 1e-5
    notes = compile_model(behind(tmp_path, "added", "place", -1e9), ranges).notes
    assert any("where a mask hides all that a maximum is taken of" in note for note in notes)


def test_a_mask_that_is_added_to_nothing_keeps_its_number(tmp_path: Path) -> None:
    changed, feeds = onnx.load(behind(tmp_path, "added", "largest", -2e6)), rows(least=0)
    changed.graph.node[-1].input[0] = "far"
    path = save(tmp_path, changed)
    compiled = compile_model(path, {"x": (-4.0, 4.0), "m": (0, 1)})
    assert np.abs(computed(compiled, feeds)[0] - plaintext(path, feeds)[0]).max() < 1.0


def test_a_number_that_others_are_below_hides_nothing(tmp_path: Path) -> None:
    path, feeds = behind(tmp_path, "in its place", "largest", -2e4), rows(least=0)
    feeds["x"] *= 1e4
    compiled = assert_agrees(path, feeds, {"x": (-4e4, 4e4), "m": (0, 1)}, tolerance=0.05)
    assert not compiled.notes


def test_where_a_far_number_stays_the_remedy_is_about_it(tmp_path: Path) -> None:
    """No range of inputs makes it smaller."""
    changed = onnx.load(behind(tmp_path, "added", "power", LEAST))
    changed.graph.node[-1].op_type = "Sin"
    with pytest.raises(ModelError, match="too large") as refused:
        compile_model(changed, {"x": (-4.0, 4.0), "m": (0, 1)})
    assert "-1e4 does for minus infinity" in str(refused.value.remedy)


@pytest.mark.parametrize("fill", [-1e6, -1e9, -1e10])
def test_a_place_has_its_digits_where_the_number_stays_since_others_read_it(fill: float, tmp_path: Path) -> None:
    changed, feeds = onnx.load(behind(tmp_path, "added", "place", fill)), rows()
    changed.graph.output.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, ["batch", 6]))
    path = save(tmp_path, changed)
    compiled = compile_model(path, {"x": (-4.0, 4.0), "m": (0, 1)})
    assert (computed(compiled, feeds)[0] == plaintext(path, feeds)[0]).all()
    assert compiled.errors["y"] < 1e-4


@pytest.mark.parametrize("reader", ["ranks", "ranked"])
def test_ranks_of_what_a_mask_makes_equal_are_sure(reader: str, tmp_path: Path) -> None:
    """Of such ranks a tenth was said to be others."""
    path, feeds, ranges = behind(tmp_path, "in its place", reader, -5.0), rows(least=0), {"x": (-4.0, 4.0), "m": (0, 1)}
    compiled = compile_model(path, ranges)
    assert np.abs(computed(compiled, feeds)[0] - plaintext(path, feeds)[0]).max() < 1e-4
    assert compiled.errors["y"] < 1e-4 and not compiled.messages
    notes = compile_model(behind(tmp_path, "added", reader, -1e9), ranges).notes
    assert any("fewer numbers than are ranked" in note for note in notes)


WHOLE = {"added": "far = Mul (marks, fill)\n s = Add (x, far)", "less one": FORMS["added"]}


@pytest.mark.parametrize("reader", ["largest", "place"])
@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.parametrize("ends", [(-1, 1), (0, 2), (-3, 0), (0, 1)])
def test_whole_numbers_that_may_be_others_than_zero_and_one_are_no_mask(
    ends: tuple[int, int], form: str, reader: str, tmp_path: Path
) -> None:
    """Of 0:2 nine maxima in ten were off by the mask's number, and nothing was said."""
    rng, (low, high), fill = np.random.default_rng(7), ends, -(2.0**30)
    out, read = READERS[reader]
    text = ADDED.replace("TYPE", "int64").replace("OUT", out).replace("HIDDEN", WHOLE[form]).replace("READ", read)
    found = onnx.parser.parse_model(text)
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(fill), "fill"))
    marks = rng.integers(low, high + 1, (200, 6))
    if ends == (0, 1):  # no row is hidden whole
        marks[:, 0] = form == "less one"
    feeds = {"x": rng.integers(-16, 17, (200, 6)).astype(np.float32) / 4, "m": marks}
    [ours] = computed(compile_model(save(tmp_path, found), {"x": (-4.0, 4.0), "m": ends}), feeds)
    right = feeds["x"].astype(np.float64) + (marks if form == "added" else 1 - marks) * fill
    chosen = ours if reader == "largest" else np.take_along_axis(right, ours[:, None], 1)[:, 0]
    np.testing.assert_allclose(chosen, right.max(axis=1), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("reader", ["power", "largest"])
@pytest.mark.parametrize("ends", [(0, 2), None])
def test_of_the_least_float_the_remedy_is_to_declare_a_mask(ends: Range | None, reader: str, tmp_path: Path) -> None:
    """An exponential was taken twice for a 2, and its opposite for a number that hid."""
    ranges: dict[str, Range] = {"x": (-4.0, 4.0)} | ({} if ends is None else {"m": ends})
    with pytest.raises(ModelError, match="too large") as refused:
        compile_model(behind(tmp_path, "added", reader, LEAST), ranges)
    assert "--range m=0:1" in str(refused.value.remedy)


@pytest.mark.parametrize("fill", [-1e4, -1e9])
def test_of_a_mask_that_no_range_is_declared_of_it_is_said_what_to_declare(fill: float, tmp_path: Path) -> None:
    """Numbers of -32:32 are no mask, and nothing said what makes them one."""
    path = behind(tmp_path, "less one", "largest", fill)
    for ranges, told in (({}, True), ({"m": (0, 1)}, False), ({"m": (0, 2)}, False)):
        notes = compile_model(path, {"x": (-4.0, 4.0), **ranges}).notes
        assert any("--range m=0:1" in note for note in notes) == told


def test_an_exponential_beyond_all_bounds_says_what_to_declare_of_a_mask(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its argument can reach") as refused:
        compile_model(behind(tmp_path, "added", "power", -1e9), {"x": (-4.0, 4.0)})
    assert "--range m=0:1" in str(refused.value.remedy)


@pytest.mark.parametrize(("made", "hides"), [("Mul (m, m)", True), ("Add (m, m)", False)])
def test_what_zeros_and_ones_make_is_a_mask_if_it_is_zero_and_one_number(
    made: str, hides: bool, tmp_path: Path
) -> None:
    text = ADDED.replace("marks = Cast <to = 1> (m)", f"made = {made}\n marks = Cast <to = 1> (made)")
    form = "far = Mul (marks, fill)\n s = Add (x, far)"
    out, read = READERS["place"]
    changed = onnx.parser.parse_model(
        text.replace("TYPE", "int64").replace("OUT", out).replace("HIDDEN", form).replace("READ", read)
    )
    changed.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-1e9), "fill"))
    compiled = compile_model(save(tmp_path, changed), {"x": (-4.0, 4.0), "m": (0, 1)})
    assert any("a mask hides" in note for note in compiled.notes) == hides


@pytest.mark.parametrize("fill", [-1.1e6, -1.5e6, -2.2e6])
@pytest.mark.parametrize("reader", ["largest", "place"])
@pytest.mark.parametrize("form", ["added", "chosen, then added", "twice"])
def test_an_added_number_that_is_not_far_stays(form: str, reader: str, fill: float, tmp_path: Path) -> None:
    """Of values up to a million those stay larger that -1.1e6 is added to: eight maxima in a hundred were others.

    So they do where something hides the rest by a number that is far.
    """
    twice = "low = Less (x, half)\n far = Mul (pad, fill)\n near = Add (x, far)\n s = Where (low, least, near)"
    out, read = READERS[reader]
    text = ADDED.replace("TYPE", "int64").replace("OUT", out).replace("READ", read)
    text = text.replace("HIDDEN", FORMS.get(form, twice))
    found, feeds = onnx.parser.parse_model(text), rows(least=0)
    for name, value in (("fill", fill), ("half", -5e5), ("least", LEAST)):
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    feeds["x"] = np.rint(feeds["x"] * 2.5e5).astype(np.float32)
    feeds["x"][:, 0] = np.abs(feeds["x"][:, 0])
    ranges = {"x": (-1e6, 1e6), "m": (0, 1)}
    assert_agrees(save(tmp_path, found), feeds, ranges, tolerance=1.0)


ALONE = """<ir_version: 8, opset_import: ["": 18]>
alone (float[batch, 2, 3] x, int64[batch, 2, 3] m) => (float[batch, 3] z)
<float one = {1}, float fill = {-1e9}, int64[1] first = {0}, int64[1] second = {1}, int64[0] none = {}>
{
    marks = Cast <to = 1> (m)
    pad = Sub (one, marks)
    where = Cast <to = 9> (pad)
    h = Where (where, fill, x)
    t = PASSED
    READ
}
"""
OF_ONE = {
    "pooled": "MaxPool <kernel_shape = [1]> (h)",
    "over no axis": "ReduceMax <noop_with_empty_axes = 1> (h, none)",
}
TURNED = {
    "least": "u = Neg (t)\n v = Relu (u)\n z = ReduceMin <keepdims = 0> (v, second)",
    "opposite": "u = Neg (t)\n z = ReduceMax <keepdims = 0> (u, second)",
    "beside another": """u = Neg (t)
        v = Where (where, fill, u)
        w = ReduceMax <keepdims = 0> (v, second)
        s = Sign (t)
        q = ReduceMax <keepdims = 0> (s, second)
        z = Add (w, q)""",
    "whole": "u = Cast <to = 7> (h)\n v = Cast <to = 1> (u)\n z = ReduceMax <keepdims = 0> (v, second)",
}


@pytest.mark.parametrize("read", TURNED)
@pytest.mark.parametrize("passed", OF_ONE)
def test_a_maximum_of_one_number_hides_nothing(passed: str, read: str, tmp_path: Path) -> None:
    """What a mask hides became 0 then, and a half of the results were others."""
    text = ALONE.replace("PASSED", OF_ONE[passed]).replace("READ", TURNED[read])
    rng = np.random.default_rng(2)
    marks = rng.integers(0, 2, (100, 2, 3))
    marks[:, 0] = 1
    feeds = {"x": rng.uniform(-4.0, -1.0, (100, 2, 3)).astype(np.float32), "m": marks}
    ranges = {"x": (-4.0, 4.0), "m": (0, 1)}
    path = save(tmp_path, onnx.parser.parse_model(text))
    compiled = compile_model(path, ranges)
    np.testing.assert_allclose(computed(compiled, feeds)[0], plaintext(path, feeds)[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("kind", "ends"), [("int64", (-4, 4)), ("int64", (-8, -4)), ("float", (-8.0, -4.0))])
def test_the_least_of_a_range_is_not_as_small_as_what_is_hidden(kind: str, ends: Range, tmp_path: Path) -> None:
    """Of rows that had nothing else four in ten had the place of a hidden number before it."""
    text = ADDED.replace("6] x", "6] given").replace("float[batch, 6] g", f"{kind}[batch, 6] g")
    text = text.replace("marks =", "x = Cast <to = 1> (given)\n marks =").replace("TYPE", "int64")
    out, read = READERS["place"]
    found = onnx.parser.parse_model(
        text.replace("OUT", out).replace("HIDDEN", FORMS["in its place"]).replace("READ", read)
    )
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-1e9), "fill"))
    feeds = rows(least=1)
    feeds["given"] = np.full_like(feeds.pop("x"), ends[0]).astype("float32" if kind == "float" else kind)
    assert_agrees(save(tmp_path, found), feeds, {"given": ends, "m": (0, 1)})
