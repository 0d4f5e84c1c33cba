"""Infinite constants, and what converters write for them: they decide by themselves, or are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, plaintext
from tests.support.tables import computed

X = {"x": np.random.default_rng(3).uniform(-4, 4, (9, 2, 4)).astype(np.float32)}
SHAPE = ("batch", 2, 4)
RANGE = (-4.0, 4.0)
LARGEST = np.float32(3.4e38)
LEVELS = {
    "all": np.full(4, LARGEST, np.float32),
    "one": np.array(np.inf, np.float32),
    "some": np.array([0.5, np.inf, -LARGEST, -0.25], np.float32),
    "both axes": np.array([[0.5, np.inf, 1.0, -np.inf], [np.inf, 0.25, 1.0, 2.0]], np.float32),
    "no number": np.array([np.nan, 1.0, np.nan, 0.0], np.float32),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("operator", ["Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("name", LEVELS)
def test_comparisons(name: str, operator: str, first: bool, tmp_path: Path) -> None:
    reads = ["level", "x"] if first else ["x", "level"]
    nodes = [node(operator, reads, ["bit"]), node("Cast", ["bit"], ["b"], to=1), node("Add", ["b", "x"], ["y"])]
    path = save_model(tmp_path, nodes, {"level": LEVELS[name]}, SHAPE)
    compiled = assert_agrees(path, X, {"x": RANGE})
    steps = [compiled.plan.wire[gate.out].shape for gate in compiled.plan.gates if gate.kind == "step"]
    assert len(steps) == (0 if name in ("all", "one") else 1)
    if name in ("some", "no number"):
        assert steps == [("batch", 2, 2, 1)]  # of the two columns that are not decided


def test_a_level_beyond_the_range_that_is_no_infinity_stays_secret(tmp_path: Path) -> None:
    nodes = [node("Less", ["x", "level"], ["bit"]), node("Cast", ["bit"], ["y"], to=1)]
    path = save_model(tmp_path, nodes, {"level": np.float32(5.3)}, SHAPE)
    assert any(gate.kind == "step" for gate in compile_model(path, RANGE).plan.gates)


NEUTRAL = {
    "Max": {
        "one": np.array(-np.inf, np.float32),
        "some": np.array([-np.inf, 0.3, -LARGEST, 1.0], np.float32),
        "both axes": np.array([[0.5, -np.inf, 1.0, 0.0], [-np.inf, 0.25, 1.0, 2.0]], np.float32),
    },
}
NEUTRAL["Min"] = {name: -values for name, values in NEUTRAL["Max"].items()}


@pytest.mark.parametrize("operator", NEUTRAL)
@pytest.mark.parametrize("name", NEUTRAL["Max"])
def test_what_a_maximum_or_minimum_leaves_as_it_is(operator: str, name: str, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(operator, ["x", "c"], ["y"])], {"c": NEUTRAL[operator][name]}, SHAPE)
    compiled = assert_agrees(path, X, {"x": RANGE}, tolerance=1e-4)
    assert sum(gate.kind == "relu" for gate in compiled.plan.gates) == (name != "one")


@pytest.mark.parametrize("operator", NEUTRAL)
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_an_infinite_result_is_refused_by_name(operator: str, value: float, tmp_path: Path) -> None:
    constant = np.float32(value if operator == "Max" else -value)
    path = save_model(tmp_path, [node(operator, ["x", "c"], ["y"], name="far")], {"c": constant}, SHAPE)
    with pytest.raises(ModelError, match="node 'far'") as refused:
        compile_model(path, RANGE)
    assert "replace that constant" in str(refused.value.remedy)


def _read_from_table(folder: Path, last: str) -> tuple[Path, np.ndarray]:
    table = np.array([[0.0, -np.inf, 1.0], [2.0, 0.0, -np.inf], [0.5, 0.25, 0.125]], np.float32)
    nodes = [node("Gather", ["table", "x"], ["t"], name="read")]
    nodes.append(node(last, ["t"], ["y"], **({"axis": -1} if last == "Softmax" else {})))
    return save_model(folder, nodes, {"table": table}, ("batch",), element=TensorProto.INT64), table


def test_a_table_of_masks_that_a_softmax_reads(tmp_path: Path) -> None:
    path, _ = _read_from_table(tmp_path, "Softmax")
    assert_agrees(path, {"x": np.array([0, 1, 2, 1], np.int64)}, {"x": (0.0, 2.0)})


def test_another_table_of_infinities_is_refused_by_name(tmp_path: Path) -> None:
    path, _ = _read_from_table(tmp_path, "Neg")
    with pytest.raises(ModelError, match="node 'read'.*table") as refused:
        compile_model(path, (0.0, 2.0))
    assert "-1e4" in str(refused.value.remedy)


@pytest.mark.parametrize("fill", [-np.inf, -LARGEST, -1e4])
@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_an_exponential_is_0_where_a_mask_hides_its_argument(
    fill: float, public: bool, first: bool, tmp_path: Path
) -> None:
    """As in Mamba2's sums over segments, and in a softmax that a model spells out."""
    nodes = [
        node("Greater", ["x", "half"], ["above"]),
        node("Where", ["c" if public else "above", *(["fill", "x"] if first else ["x", "fill"])], ["hidden"]),
        node("Exp", ["hidden"], ["e"]),
        node("Add", ["e", "x"], ["y"]),
    ]
    constants = {"fill": np.float32(fill), "half": np.float32(0.5), "c": np.tri(2, 4, dtype=bool)}
    used = nodes[1:] if public else nodes
    read = {name for each in used for name in each.input}
    path = save_model(tmp_path, used, {name: constants[name] for name in constants if name in read}, SHAPE)
    compiled = assert_agrees(path, X, {"x": RANGE})
    assert compiled.errors["y"] < 1e-3


LEAST = np.finfo(np.float32).min
MASK = node("Greater", ["x", "half"], ["m"], name="hidden")
NUMBERS = {"half": np.float32(0.5), "zero": np.float32(0), "fill": LEAST}
WAYS = {
    "kept": [node("Where", ["m", "x", "fill"], ["w"])],
    "replaced": [node("Where", ["m", "fill", "x"], ["w"])],
    "two constants": [node("Where", ["m", "zero", "fill"], ["w"])],
    "twice": [
        node("Where", ["m", "x", "fill"], ["v"], name="inner"),
        node("Greater", ["x", "zero"], ["n"], name="more"),
        node("Where", ["n", "v", "zero"], ["w"]),
    ],
}


@pytest.mark.parametrize("operator", ["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_condition_put_there_is_found_by_it(way: str, operator: str, tmp_path: Path) -> None:
    levels = np.array([LEAST, LEAST / 2, -np.inf, -LEAST], np.float32)
    last = [node(operator, ["w", "level"], ["bit"]), node("Cast", ["bit"], ["y"], to=1)]
    path = save_model(tmp_path, [MASK, *WAYS[way], *last], {**NUMBERS, "level": levels}, SHAPE)
    assert_agrees(path, X, {"x": RANGE})


MOVED = {
    "as it is": [],
    "unsqueezed": [node("Unsqueeze", ["w", "second"], ["t"]), node("Squeeze", ["t", "second"], ["v"])],
    "transposed": [
        node("Transpose", ["w"], ["t"], perm=[0, 2, 1]),
        node("Transpose", ["t"], ["v"], "back", perm=[0, 2, 1]),
    ],
    "reshaped": [node("Flatten", ["w"], ["t"]), node("Reshape", ["t", "shape"], ["v"])],
}


FOUND = [
    *((operator, "unsqueezed", False) for operator in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")),
    *(("LessOrEqual", moved, False) for moved in MOVED if moved != "unsqueezed"),
    ("Greater", "unsqueezed", True),
]


@pytest.mark.parametrize(("fill", "level"), [(LEAST, LEAST), (-np.inf, -np.inf), (-np.inf, -1.0), (LEAST, -1e9)])
@pytest.mark.parametrize(("operator", "moved", "public"), FOUND)
def test_what_a_condition_put_there_is_found_behind_moves(
    operator: str, moved: str, public: bool, fill: float, level: float, tmp_path: Path
) -> None:
    """Moves hid the condition, minus infinity had no wire, and other numbers none beside the least float32."""
    named = "v" if MOVED[moved] else "w"
    nodes = [node("Where", ["c" if public else "m", "x", "fill"], ["w"]), *MOVED[moved]]
    nodes += [node(operator, [named, "level"], ["bit"]), node("Cast", ["bit"], ["y"], to=1)]
    constants = {"fill": np.float32(fill), "level": np.float32(level), "half": np.float32(0.5)}
    constants |= {"second": np.array([1]), "shape": np.array([0, *SHAPE[1:]]), "c": np.tri(2, 4, dtype=bool)}
    nodes = nodes if public else [MASK, *nodes]
    read = {name for each in nodes for name in each.input}
    path = save_model(tmp_path, nodes, {name: constants[name] for name in constants if name in read}, SHAPE)
    compiled = compile_model(path, {"x": RANGE})
    [ours], [right] = computed(compiled, X), plaintext(path, X)
    assert (ours == right).all() and compiled.errors["y"] < 1e-5


def test_a_public_choice_is_found_by_it(tmp_path: Path) -> None:
    nodes = [node("Where", ["m", "x", "fill"], ["w"]), node("LessOrEqual", ["w", "fill"], ["bit"])]
    constants = {"m": np.array([True, False, True, False]), "fill": np.float32(LEAST)}
    path = save_model(tmp_path, [*nodes, node("Cast", ["bit"], ["y"], to=1)], constants, SHAPE)
    assert_agrees(path, X, {"x": RANGE})


def test_a_mask_found_by_half_the_least_number_hides_from_a_softmax(tmp_path: Path) -> None:
    last = [
        node("Less", ["w", "level"], ["bit"]),
        node("Where", ["bit", "fill", "x"], ["scores"], name="mask"),
        node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    nodes, level = [MASK, *WAYS["two constants"], *last], np.float32(LEAST / 2)
    path = save_model(tmp_path, nodes, {**NUMBERS, "level": level}, SHAPE)
    seen = X["x"][(X["x"] > 0.5).any(axis=-1).all(axis=-1)]
    assert_agrees(path, {"x": seen}, {"x": RANGE})


@pytest.mark.parametrize("between", ["Neg", "Add"])
def test_a_value_that_holds_such_numbers_otherwise_is_not_compared_with_them(between: str, tmp_path: Path) -> None:
    reads = ["w", "x"] if between == "Add" else ["w"]
    last = [node("Less", ["v", "level"], ["bit"], name="far"), node("Cast", ["bit"], ["y"], to=1)]
    nodes, level = [MASK, *WAYS["kept"], node(between, reads, ["v"]), *last], np.float32(LEAST / 2)
    path = save_model(tmp_path, nodes, {**NUMBERS, "level": level}, SHAPE)
    with pytest.raises(ModelError, match="may hold such numbers") as refused:
        compile_model(path, RANGE)
    assert "node 'far'" in str(refused.value)
