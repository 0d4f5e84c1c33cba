"""What rounds gives onnxruntime's number and none beside it: on grids, at halves, at scales of any kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.emitter import Emitter
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput
from mpc.compiler.lowering.lower import lower
from mpc.compiler.roles import Roles
from mpc.compiler.training.train import compile_training
from mpc.errors import ModelError
from mpc.plan.cost import plan_cost
from parties.client.running.feeds import to_integers
from tests.support.effort import FULL
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, clear, encrypted, plaintext
from tests.support.worlds import make_world

HALVES = np.array([[0.5, 1.5, 2.5, -0.5], [-1.5, -2.5, 3.25, -7.75], [7.0, -8.0, 0.0, 2.75]], np.float32)
WHOLE = np.array([[0, 1, 2, 3], [-1, -2, -3, 7], [7, -8, 14, -14], [100, -99, -98, 63]], np.int64)
ROUNDINGS = ("Floor", "Ceil", "Round")


@pytest.mark.parametrize("operator", ROUNDINGS)
@pytest.mark.parametrize("widest", [8.0, 1.0, 1000.0])
def test_numbers_on_a_grid_are_rounded_as_onnxruntime_does(operator: str, widest: float, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(operator, ["x"], ["y"])])
    compiled = assert_agrees(path, {"x": HALVES * (widest / 8)}, {"x": (-widest, widest)}, 0)
    assert compiled.errors["y"] < 1e-3


@pytest.mark.parametrize("operator", ROUNDINGS)
def test_a_round_for_the_truncation_and_a_comparison(operator: str, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(operator, ["x"], ["h"]), node("MatMul", ["h", "w"], ["y"])], {"w": np.eye(4)})
    plan = compile_model(path, {"x": (-8, 8)}).plan
    names = [gate.kind for gate in plan.gates if not gate.is_linear(plan.wire)]
    assert names.count("truncate") + names.count("step") <= 3
    assert plan_cost(plan, 1).rounds == 5  # the product's result is one more


@settings(max_examples=200 if FULL else 25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    operator=st.sampled_from(ROUNDINGS),
    factor=st.sampled_from([1.0, 0.25, 3.0, 0.2, 1 / 7, 0.37, 2.5, 1.0001, 11.7]),
    bias=st.sampled_from([0.0, 0.5, -0.125, 0.3]),
    span=st.sampled_from([0.75, 6.0, 40.0]),
    number=st.integers(0, 1 << 30),
)
def test_any_scale(
    tmp_path_factory: pytest.TempPathFactory, operator: str, factor: float, bias: float, span: float, number: int
) -> None:
    """But for numbers that fixed point itself has on the other side of a step."""
    nodes = [node("Mul", ["x", "c"], ["h"]), node("Add", ["h", "b"], ["z"]), node(operator, ["z"], ["y"])]
    constants = {"c": np.float32(factor), "b": np.float32(bias)}
    path = save_model(tmp_path_factory.mktemp("scales"), nodes, constants)
    x = np.random.default_rng(number).uniform(-span, span, (16, 4)).astype(np.float32)
    x[::4] = np.rint(x[::4] * 4) / 4
    inner = x.astype(np.float64) * np.float32(factor) + np.float32(bias)
    [got] = encrypted(compile_model(path, {"x": (-span, span)}), {"x": x})
    wanted = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.rint}[operator](inner)
    edge = inner - 0.5 if operator == "Round" else inner
    near = np.abs(edge - np.rint(edge)) < 2.0**-18
    assert (np.abs(got - wanted) <= near).all()
    exact = near & (factor in (1.0, 0.25, 2.5)) & (bias != 0.3) & (np.abs(edge - np.rint(edge)) == 0)
    assert (got == wanted)[exact].all()


@pytest.mark.parametrize("divisor", [3, 7, -3, 8, -8, 1, 1000, 100003])
@pytest.mark.parametrize("operator", ["Mod", "fmod", "Div"])
def test_whole_numbers_are_divided_exactly(divisor: int, operator: str, tmp_path: Path) -> None:
    more = 1 if abs(divisor) < 100 else 997
    attributes = {} if operator == "Div" else {"fmod": int(operator == "fmod")}
    nodes = [node("Div" if operator == "Div" else "Mod", ["x", "c"], ["y"], **attributes)]
    path = save_model(tmp_path, nodes, {"c": np.int64(divisor)}, element=TensorProto.INT64)
    assert_agrees(path, {"x": WHOLE * more}, {"x": (-100 * more, 100 * more)}, 0)


def test_whole_numbers_are_divided_by_columns(tmp_path: Path) -> None:
    nodes = [node("Mod", ["x", "c"], ["y"])]
    path = save_model(tmp_path, nodes, {"c": np.array([5, -7, 1, 64])}, element=TensorProto.INT64)
    assert_agrees(path, {"x": WHOLE}, {"x": (-100, 100)}, 0)


@pytest.mark.parametrize("divisor", [1.5, -0.75, 4.0])
def test_the_rest_of_reals_has_their_sign(divisor: float, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Mod", ["x", "c"], ["y"], fmod=1)], {"c": np.float32(divisor)})
    assert_agrees(path, {"x": HALVES}, {"x": (-8, 8)}, 1e-6)


NEGATED = [node("Mul", ["x", "x"], ["h"]), node("Neg", ["h"], ["g"]), node("Mod", ["g", "m"], ["y"], fmod=1)]
CENTRED = [
    node("ReduceMean", ["x"], ["s"], axes=[1], keepdims=1),
    node("Sub", ["x", "s"], ["h"]),
    node("Mod", ["h", "m"], ["y"], fmod=1),
]
SCALED = [node("MatMul", ["x", "w"], ["h"]), node("Mod", ["h", "m"], ["y"], fmod=1)]


@pytest.mark.parametrize(("nodes", "divisor"), [(NEGATED, 2.0), (CENTRED, 1.0), (SCALED, 2.0), (SCALED, 3.0)])
def test_the_rest_of_what_is_nearly_a_negative_multiple_is_nearly_zero(
    nodes: list, divisor: float, tmp_path: Path
) -> None:
    """Just below 0, and at multiples below it, the rest was once minus the divisor: steps are seen less finely."""
    known = {"m": np.float32(divisor), "w": np.full((2, 2), 0.3, np.float32)}
    path = save_model(tmp_path, nodes, {n: known[n] for n in ("m", "w") if n == "m" or nodes is SCALED}, ("batch", 2))
    compiled = compile_model(path, {"x": (-20.0, 20.0)})
    rows = np.array([[2, 0], [0, -10], [1e-4, 3e-4], [-10, 10], [2, -4], [3, 5], [-1e-5, -2e-5]], np.float32)
    [right] = plaintext(path, {"x": rows})
    off = clear(compiled, rows) - right
    off -= divisor * np.rint(off / divisor) * (np.abs(right) > 0.5)  # of what is nearly the divisor, it may be 0
    assert np.abs(off).max() < 1e-3


@pytest.mark.parametrize("operator", ["Cast", "Floor"])
def test_a_little_less_than_zero_is_no_whole_number_above_it(operator: str, tmp_path: Path) -> None:
    more = {"to": TensorProto.INT32} if operator == "Cast" else {}
    nodes = [node("MatMul", ["x", "w"], ["h"]), node(operator, ["h"], ["y"], **more)]
    path = save_model(tmp_path, nodes, {"w": np.full((2, 2), 0.3, np.float32)}, ("batch", 2))
    x = -np.geomspace(1e-8, 1e-4, 60).astype(np.float32).reshape(-1, 2)
    assert (clear(compile_model(path, {"x": (-9.0, 9.0)}), x) <= 0).all()


def test_whole_numbers_are_rounded_for_nothing(tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), *(node(each, ["f"], [each]) for each in ROUNDINGS)]
    path = save_model(tmp_path, nodes, outputs=ROUNDINGS, element=TensorProto.INT64)
    assert not {"step", "relu"} & {gate.kind for gate in compile_model(path, {"x": (-9, 9)}).plan.gates}


# ------------------------------------------------------------------- held between ends


def held(how: str, low: float, high: float, ceiling: int, factor: float = 1.0, roles: Roles | None = None) -> Compiled:
    """The plan of one rounding whose result is held, of an input times a constant."""
    e = Emitter()
    e.shapes["x"] = ("batch", 4)
    e.to_whole(e.scale("x", np.full(4, factor)), how, "y", ceiling)
    given = GraphInput("x", ("batch", 4), "float32", (low, high))
    graph = Graph([given], e.nodes, [GraphOutput("y", "y", ("batch", 4), "float32")])
    return lower(graph, roles or Roles())  # type: ignore[return-value]


@pytest.mark.parametrize("how", ["floor", "nearest", "zero"])
@pytest.mark.parametrize("ends", [(-20.0, 20.0), (-20.0, 4.0), (0.0, 20.0), (0.0, 6.0), (-300.0, -200.0)])
@pytest.mark.parametrize("factor", [1.0, 0.3, 1 / 3])
def test_what_is_held_is_rounded_and_then_cut(how: str, ends: tuple[float, float], factor: float) -> None:
    ceiling = 7
    compiled = held(how, *ends, ceiling, factor)
    rng = np.random.default_rng(4)
    x = rng.uniform(*ends, (64, 4)).astype(np.float32)
    x[::2] = np.rint(x[::2] * 2) / 2 if factor == 1.0 else x[::2]
    [got] = encrypted(compiled, {"x": x})
    rounded = {"floor": np.floor, "nearest": np.rint, "zero": np.trunc}[how](x.astype(np.float64) * factor)
    assert (got == np.clip(rounded, 0, ceiling)).all()


def test_holding_costs_a_round_where_ends_can_be_passed_and_nothing_elsewhere() -> None:
    free, low, both = (plan_cost(held("nearest", *ends, 7).plan, 1) for ends in ((0, 7), (-4, 7), (-20, 20)))
    assert (free.rounds, low.rounds, both.rounds) == (4, 6, 6)  # a fresh mask for the output is the last
    assert free.sent < low.sent < both.sent


@pytest.mark.parametrize("how", ["floor", "nearest"])
def test_checked_runs_round_alike(how: str) -> None:
    compiled = held(how, -20.0, 20.0, 7, roles=Roles(security="active"))
    x = np.random.default_rng(2).integers(-80, 80, (3, 4)) / np.float32(4)
    integers = to_integers(compiled.plan, {"x": x}, ["x"])
    run = make_world(compiled.plan, compiled.weights, 2, 3, checked=True).run(integers, 3)
    [out] = compiled.plan.outputs
    rounded = (np.floor if how == "floor" else np.rint)(x)
    assert (run.outputs[out.wire] == np.clip(rounded, 0, 7)).all()


def test_a_model_that_rounds_does_not_train(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Round", ["h"], ["r"]), node("MatMul", ["r", "v"], ["y"])]
    path = save_model(tmp_path, nodes, {"w": np.ones((4, 5), np.float32), "v": np.ones((5, 3), np.float32)})
    with pytest.raises(ModelError, match=r"derivative of 'whole' is zero") as caught:
        compile_training(path, batch=4, ranges={"x": (0, 1)})
    assert "frozen" in (caught.value.remedy or "")


@pytest.mark.parametrize("size", [2, 4, 6, 10])
@pytest.mark.parametrize(
    "how", ["mean", "mean of what is positive", "half a sum", "half a product", "half the largest"]
)
def test_halves_of_whole_numbers_go_to_the_even_one(how: str, size: int, tmp_path: Path) -> None:
    """Of a sum's roundings it could be that a half is none, and then it went up."""
    axis = {"axes": [-1]}
    nodes = {
        "mean": [node("ReduceMean", ["x"], ["m"], **axis)],
        "mean of what is positive": [node("Relu", ["x"], ["r"]), node("ReduceMean", ["r"], ["m"], **axis)],
        "half a sum": [node("ReduceSum", ["x", "last"], ["s"]), node("Mul", ["s", "half"], ["m"])],
        "half a product": [node("MatMul", ["x", "halves"], ["m"])],
        "half the largest": [node("ReduceMax", ["x"], ["s"], **axis), node("Mul", ["s", "half"], ["m"])],
    }[how]
    known = {"half": np.float32(0.5), "halves": np.full((size, 1), 0.5, np.float32), "last": np.array([-1])}
    read = {name for each in nodes for name in each.input}
    constants = {name: value for name, value in known.items() if name in read}
    path = save_model(tmp_path, [*nodes, node("Round", ["m"], ["y"])], constants, ("batch", size))
    x = np.random.default_rng(size).integers(-8, 8, (200, size)).astype(np.float32)
    assert_agrees(path, {"x": x}, {"x": (-8.0, 8.0)}, tolerance=0.0)


@pytest.mark.parametrize("operator", ["Round", "Floor", "Ceil"])
def test_whole_numbers_that_are_clipped_fit_a_types_ends(operator: str, tmp_path: Path) -> None:
    """As quantisers are spelt out: sides of a clip of whole numbers are not rounded, and so have no room beyond it."""
    nodes = [
        node("Mul", ["x", "scale"], ["a"]),
        node(operator, ["a"], ["b"]),
        node("Clip", ["b", "low", "high"], ["c"]),
    ]
    nodes.append(node("Cast", ["c"], ["y"], to=TensorProto.UINT8))
    constants = {"scale": np.float32(127.5), "low": np.float32(0), "high": np.float32(255)}
    x = np.random.default_rng(4).uniform(-4, 4, (9, 4)).astype(np.float32)
    x[0] = [-4.0, 4.0, 0.0, 0.25]
    assert_agrees(save_model(tmp_path, nodes, constants, ("batch", 4)), {"x": x}, {"x": (-4.0, 4.0)})


CLIPS = {
    "a clip": [node("Clip", ["d", "low", "high"], ["c"])],
    "from above first": [node("Min", ["d", "high"], ["e"]), node("Max", ["e", "low"], ["c"])],
    "from below first": [node("Max", ["d", "low"], ["e"]), node("Min", ["e", "high"], ["c"])],
    "two clips": [node("Clip", ["d", "low"], ["e"]), node("Clip", ["e", "", "high"], ["c"], name="second")],
}


@pytest.mark.parametrize(("low", "high", "kind"), [(0, 255, "uint8"), (-128, 127, "int8")])
@pytest.mark.parametrize("zero", [100.0, -7.0])
@pytest.mark.parametrize("clip", CLIPS)
def test_a_zero_point_before_a_clip_is_not_taken_for_the_clips(
    clip: str, zero: float, low: int, high: int, kind: str, tmp_path: Path
) -> None:
    """What a clip reads may be a sum with a constant itself: its ends were measured from another value then."""
    nodes = [node("Mul", ["x", "scale"], ["a"]), node("Round", ["a"], ["b"]), node("Add", ["b", "zero"], ["d"])]
    nodes += [*CLIPS[clip], node("Cast", ["c"], ["y"], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))]
    ends = {"low": np.float32(low), "high": np.float32(high)}
    path = save_model(tmp_path, nodes, {"scale": np.float32(100), "zero": np.float32(zero), **ends})
    x = np.random.default_rng(4).uniform(-4, 4, (9, 4)).astype(np.float32)
    assert_agrees(path, {"x": x}, {"x": (-4.0, 4.0)})


HELD = {
    "a clip": [node("Clip", ["a", "low", "high"], ["b"])],
    "from above first": [node("Min", ["a", "high"], ["c"]), node("Max", ["c", "low"], ["b"])],
    "from below first": [node("Max", ["a", "low"], ["c"]), node("Min", ["c", "high"], ["b"])],
}


@pytest.mark.parametrize(("low", "high", "kind"), [(0, 255, "uint8"), (-10, 10, "int8"), (-128, 0, "int8")])
@pytest.mark.parametrize("operator", ["Cast", "Floor", "Ceil"])
@pytest.mark.parametrize("clip", HELD)
def test_what_is_held_at_a_whole_number_is_that_when_it_is_rounded(
    clip: str, operator: str, low: int, high: int, kind: str, tmp_path: Path
) -> None:
    """As pictures are made of reals: a few hundredths of what was held at 255 came out as 254."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [node("MatMul", ["x", "w"], ["a"]), *HELD[clip]]
    nodes.append(node(operator, ["b"], ["y"], **({"to": element} if operator == "Cast" else {})))
    ends = {"low": np.float32(low), "high": np.float32(high)}
    path = save_model(tmp_path, nodes, {"w": np.eye(4, dtype=np.float32) * np.float32(1.1), **ends})
    x = np.random.default_rng(4).uniform(-400, 400, (60, 4)).astype(np.float32)
    compiled = assert_agrees(path, {"x": x}, {"x": (-400.0, 400.0)}, 0)
    assert compiled.errors["y"] < 1e-3
