"""Token ids and other places of a table, which a client enters as zeros and a one: nothing is compared."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.states import State
from mpc.compiler.graph.stored import StoredInput
from mpc.errors import InputError, PlanError
from mpc.fixedpoint import encode_places
from mpc.plan.cost import plan_cost
from mpc.plan.parse import parse_plan
from mpc.plan.placing import place
from mpc.plan.plan import Plan
from mpc.plan.verify import verify
from parties.client.running.feeds import check_feeds, describe_inputs
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, encrypted

RNG = np.random.default_rng(8)
TABLE = RNG.standard_normal((9, 4)).astype(np.float32)
COMPARING = {"step", "onehot", "relu", "maximum"}
VOCABULARY = 30_522


def embedding(folder: Path, table: np.ndarray = TABLE, shape: Any = ("batch", 3), **settings: Any) -> Path:
    return save_model(
        folder, [node("Gather", ["t", "x"], ["y"])], {"t": table}, shape, element=TensorProto.INT64, **settings
    )


def compares(compiled: Compiled) -> bool:
    return any(gate.kind in COMPARING for gate in compiled.plan.gates)


def test_a_vocabulary_of_a_real_model_is_looked_up_without_comparing(tmp_path: Path) -> None:
    table = (RNG.standard_normal((VOCABULARY, 2)) / 50).astype(np.float32)
    path = embedding(tmp_path, table, ("batch", 2))
    compiled = assert_agrees(path, {"x": RNG.integers(0, VOCABULARY, (1, 2))}, tolerance=1e-6)
    cost = plan_cost(compiled.plan, 1)
    assert (compares(compiled), cost.rounds, compiled.undeclared) == (False, 1, ())
    [given] = compiled.plan.inputs
    assert compiled.plan.wire[given.wire].shape == ("batch", 2, VOCABULARY) and given.places == VOCABULARY


@pytest.mark.parametrize("least", [None, 0.0, -9.0])
def test_ids_below_zero_count_from_the_end_and_others_are_refused_as_onnxruntime_does(
    tmp_path: Path, least: float | None
) -> None:
    path, ids = embedding(tmp_path), RNG.integers(0 if least == 0 else -9, 9, (5, 3))
    compiled = assert_agrees(path, {"x": ids}, None if least is None else {"x": (least, 8.0)})
    assert not compares(compiled)
    [given] = describe_inputs(compiled.plan)
    assert (given.shape, given.type) == (["batch", 3], "tensor(int64)")
    session = onnxruntime.InferenceSession(str(path))
    for outside in (9, -10, VOCABULARY):
        ids[2, 1] = outside
        with pytest.raises(InputError, match=rf"'x' has {outside} in column 1 .*outside the plan's range") as refused:
            check_feeds(compiled.plan, {"x": ids})
        assert "places in a table of the model" in str(refused.value)
        with pytest.raises(Exception, match="out of data bounds|out of bounds"):
            session.run(None, {"x": ids})


def columns_with_tables(folder: Path) -> Path:
    """Three categories of 3, 7 and 5 values in one input, as models of tables have them."""
    tables = {f"t{column}": RNG.standard_normal((size, 2)).astype(np.float32) for column, size in enumerate((3, 7, 5))}
    nodes = [
        node("Gather", ["x", "first"], ["c0"], name="c0", axis=1),
        node("Slice", ["x", "one", "two", "one"], ["s1"], name="s1"),
        node("Squeeze", ["s1", "one"], ["c1"], name="c1"),
        node("Split", ["x", "sizes"], ["rest", "s2"], name="s2", axis=1),
        node("Reshape", ["s2", "flat"], ["c2"], name="c2"),
        *(node("Gather", [f"t{column}", f"c{column}"], [f"e{column}"], name=f"e{column}") for column in range(3)),
        node("Concat", ["e0", "e1", "e2"], ["y"], axis=1),
    ]
    numbers = {"first": np.array(0), "one": np.array([1]), "two": np.array([2]), "sizes": np.array([2, 1])}
    constants = {**tables, **numbers, "flat": np.array([-1])}
    return save_model(folder, nodes, constants, ("batch", 3), element=TensorProto.INT64)


def test_columns_of_categories_have_tables_of_their_own(tmp_path: Path) -> None:
    """All had entered numbers below 3 alone, the shortest table's, and were compared with each."""
    path = columns_with_tables(tmp_path)
    ids = np.stack([np.arange(7) % size for size in (3, 7, 5)], 1)
    compiled = assert_agrees(path, {"x": ids}, tolerance=1e-5)
    [given] = compiled.plan.inputs
    assert (given.places, given.low, given.high) == (7, (0, 0, 0), (2, 6, 4)) and not compares(compiled)
    verify(parse_plan(compiled.plan.canonical))
    for column, size in enumerate((3, 7, 5)):
        beyond = ids[:1].copy()
        beyond[0, column] = size
        with pytest.raises(InputError, match=f"'x' has {size} in column {column} .*range 0:{size - 1};"):
            check_feeds(compiled.plan, {"x": beyond})
    narrower = compile_model(path, {"x": (0.0, 3.0)}).plan.inputs[0]
    assert (narrower.places, narrower.high) == (4, (2, 3, 3))


def test_a_place_may_be_below_zero_where_columns_have_tables_of_their_own_if_it_is_declared(tmp_path: Path) -> None:
    path = columns_with_tables(tmp_path)
    compiled = assert_agrees(path, {"x": np.array([[-3, -7, -5], [2, 6, 4], [-1, -1, -1]])}, {"x": (-7.0, 6.0)})
    [given] = compiled.plan.inputs
    assert (given.places, given.low, given.high) == (None, (-3, -7, -5), (2, 6, 4))


def test_a_narrower_declared_range_enters_fewer_zeros(tmp_path: Path) -> None:
    compiled = assert_agrees(embedding(tmp_path), {"x": RNG.integers(0, 4, (5, 3))}, {"x": (0.0, 3.0)})
    assert compiled.plan.inputs[0].places == 4
    with pytest.raises(InputError, match="range 0:3"):
        check_feeds(compiled.plan, {"x": np.full((1, 3), 4)})


def test_ids_are_moved_before_they_index(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["c"], to=TensorProto.INT32),
        node("Transpose", ["c"], ["t"], perm=[1, 0]),
        node("Unsqueeze", ["t", "zero"], ["u"]),
        node("Slice", ["u", "zero", "two", "one"], ["s"]),
        node("Concat", ["s", "s"], ["k"], axis=2),
        node("Reshape", ["k", "shape"], ["r"]),
        node("Gather", ["table", "r"], ["y"]),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "shape": np.array([4, 5]), "table": TABLE,
    }  # fmt: skip
    path = save_model(tmp_path, nodes, constants, (5, 3), element=TensorProto.INT64)
    assert not compares(assert_agrees(path, {"x": RNG.integers(0, 9, (5, 3))}))


def test_tables_of_several_sizes_and_other_uses_of_an_id(tmp_path: Path) -> None:
    """As RoBERTa's: it counts the ids that are no padding, and looks places up; the number itself is a free sum."""
    nodes = [
        node("Gather", ["long", "x"], ["a"], name="a"),
        node("Gather", ["short", "x"], ["b"], name="b"),
        node("Equal", ["x", "pad"], ["e"]),
        node("Not", ["e"], ["n"]),
        node("Cast", ["n"], ["c"], to=TensorProto.FLOAT),
        node("Cast", ["x"], ["f"], to=TensorProto.FLOAT, name="f"),
        node("Add", ["f", "c"], ["g"]),
        node("Unsqueeze", ["g", "last"], ["u"]),
        node("Add", ["a", "b"], ["ab"], name="ab"),
        node("Add", ["ab", "u"], ["y"], name="sum"),
    ]
    constants = {"long": TABLE, "short": TABLE[:6], "pad": np.array(1), "last": np.array([-1])}
    path = save_model(tmp_path, nodes, constants, ("batch", 3), element=TensorProto.INT64)
    compiled = assert_agrees(path, {"x": RNG.integers(0, 6, (7, 3))})
    [given] = compiled.plan.inputs
    assert (compares(compiled), given.places, given.low, given.high) == (False, 6, (0,), (5,))
    with pytest.raises(InputError, match="range 0:5"):  # below zero it would be two places
        check_feeds(compiled.plan, {"x": np.full((1, 3), -1)})


def test_an_id_that_is_compared_with_what_it_cannot_be(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["t", "x"], ["g"]), node("Equal", ["x", "far"], ["e"]), node("Cast", ["e"], ["c"], to=1),
        node("Unsqueeze", ["c", "last"], ["u"]), node("Add", ["g", "u"], ["y"]),
    ]  # fmt: skip
    constants = {"t": TABLE, "far": np.array(-100), "last": np.array([-1])}
    path = save_model(tmp_path, nodes, constants, ("batch", 3), element=TensorProto.INT64)
    assert_agrees(path, {"x": RNG.integers(0, 9, (4, 3))})


def test_elements_of_secret_data_at_ids(tmp_path: Path) -> None:
    """Of a table and of data: the zeros and ones weigh both."""
    given = [
        helper.make_tensor_value_info("i", TensorProto.INT64, ["batch", 2]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 9]),
    ]
    nodes = [
        node("GatherElements", ["x", "i"], ["a"], axis=1),
        node("Gather", ["t", "i"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", given, [out], [numpy_helper.from_array(TABLE[:, 0].copy(), "t")])
    path = tmp_path / "both.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    feeds = {"i": RNG.integers(0, 9, (4, 2)), "x": RNG.uniform(-2, 2, (4, 9)).astype(np.float32)}
    assert not compares(assert_agrees(path, feeds, {"x": (-2, 2)}))


def test_what_no_client_enters_for_a_run_is_compared(tmp_path: Path) -> None:
    """What lies at the parties, what a run hands on, and rows that noise protects: a row of others counts as bits."""
    path = embedding(tmp_path, shape=("batch", 1))
    assert compares(compile_model(path, stored={"x": StoredInput((Fraction(1),), (0.0,), (8.0,))}))
    nodes = [node("Gather", ["t", "x"], ["y"]), node("Identity", ["x"], ["x_out"])]
    state = save_model(tmp_path, nodes, {"t": TABLE}, (3,), ("y", "x_out"), element=TensorProto.INT64)
    assert compares(compile_model(state, {"x": (0, 8)}, states={"x_out": State("x")}))
    summed = [node("Gather", ["t", "x"], ["g"]), node("ReduceSum", ["g", "rows"], ["y"], keepdims=0)]
    sums = save_model(tmp_path, summed, {"t": TABLE, "rows": np.array([0])}, ("batch", 1), element=TensorProto.INT64)
    assert compares(compile_model(sums, {"x": (0, 8)}, noise={"y": 1}))


def test_samples_are_ids(tmp_path: Path) -> None:
    path = embedding(tmp_path)
    compiled = compile_model(path, samples={"x": RNG.integers(0, 9, (6, 3))})
    ids = RNG.integers(-9, 9, (4, 3))
    [found] = encrypted(compiled, {"x": ids})
    assert np.abs(found - TABLE[ids]).max() < 1e-4 and compiled.errors["y"] < 1e-4
    with pytest.raises(InputError, match="the samples of input 'x' have shape"):
        compile_model(path, samples={"x": RNG.integers(0, 9, (6, 3, 9))})


def test_encoding() -> None:
    found = encode_places(np.array([[0, 2], [-1, -3]], np.int32), 3)
    assert found.tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 0, 1], [1, 0, 0]]] and found.dtype == np.int64
    assert encode_places(np.array(True), 2).tolist() == [0, 1]


def test_a_plan_without_places_has_no_word_of_them_and_one_with_them_is_read_back(tmp_path: Path) -> None:
    compiled = compile_model(embedding(tmp_path))
    assert b'"places":9' in compiled.plan.canonical and parse_plan(compiled.plan.canonical) == compiled.plan
    plain = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    assert b"places" not in compile_model(plain).plan.canonical


LIES: dict[str, dict[str, Any]] = {
    "more places than the wire has": {"places": 8},
    "numbers with digits": {"dtype": "float32"},
    "units": {"factor": (Fraction(2),)},
    "an offset": {"offset": (Fraction(1),)},
    "a place behind the last": {"high": (Fraction(9),)},
    "a place before the first": {"low": (Fraction(-10),)},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_plan_whose_places_are_none_is_refused(tmp_path: Path, lie: dict[str, Any]) -> None:
    plan = compile_model(embedding(tmp_path)).plan
    [given] = plan.inputs
    wrong = plan.model_copy(update={"inputs": (given.model_copy(update=lie),)})
    with pytest.raises(PlanError, match="input 'x': (places do not enter|its range has places|its units)"):
        verify(Plan(**{name: getattr(wrong, name) for name in Plan.model_fields}))


def test_places_are_never_read_from_a_dataset(tmp_path: Path) -> None:
    """A model at the parties, whose input would be bound to a table of columns."""
    plan = compile_model(embedding(tmp_path)).plan
    with pytest.raises(PlanError, match="cannot be read from a dataset") as refused:
        place(plan, {"x": "bob"}, {"y": ("carol",)}, {"x"})
    assert "enter it for the run" in str(refused.value)
