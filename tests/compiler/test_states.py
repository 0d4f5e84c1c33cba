"""Models whose outputs the next run reads: what is compiled of them, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.states import State
from mpc.compiler.roles import Roles
from mpc.errors import InputError, ModelError
from mpc.fixedpoint import decode, encode
from mpc.plan.cost import plan_cost
from mpc.plan.plan import Plan
from mpc.wires import Lifetime, Masking
from tests.support.states import FEATURES, RANGES, compiled, data, descent, model, stepped
from tests.support.worlds import Arrays, Trial

node = helper.make_node
GRID = {"x": [4, 3], "s": [4, 3]}


def entered(plan: Plan, number: int) -> Arrays:
    feeds = data(number)
    return {given.wire: encode(feeds[given.name], plan.wire[given.wire].scale) for given in plan.inputs}


@pytest.mark.parametrize("start", ["zeros", "secret", "public"])
def test_runs_are_those_of_the_model_on_reals(start: str) -> None:
    first = None if start == "zeros" else np.array([[0.5], [1.0], [-0.25]])
    found = compiled(start=first, public=start == "public")
    [state] = found.plan.states
    trial = Trial(found.plan, found.weights, 2)
    w = np.zeros((FEATURES, 1)) if first is None else first
    scale = found.plan.wire[state.in_].scale
    for number in range(12):
        np.testing.assert_allclose(decode(trial.state[state.in_], scale), w, atol=1e-3)
        checked = trial.run(entered(found.plan, number), 1)
        w, loss = stepped(w, data(number))
        [out] = found.plan.outputs
        assert abs(decode(checked.run.outputs[out.wire], found.plan.wire[out.wire].scale)[0] - loss) < 2e-2
    assert np.abs(w - [[1], [-2], [3]]).max() < 2  # on its way


def test_state_is_told_to_nobody_but_those_who_are_named_for_it() -> None:
    plan = compiled().plan
    assert [out.name for out in plan.outputs] == ["loss"] and not plan.wire[plan.states[0].out].holders
    assert [given.name for given in plan.inputs] == ["x", "y"]
    told = compiled(Roles(readers={"w_out": ("bob",)})).plan
    assert {out.name: told.wire[out.wire].holders for out in told.outputs} == {
        "loss": ("coordinator",),
        "w_out": ("bob",),
    }
    everybody = compiled(Roles(recipients=("bob", "carol"))).plan  # of all outputs: of those that are told
    assert [out.name for out in everybody.outputs] == ["loss"]
    assert compiled(outputs=False).plan.outputs == () and compiled(outputs=False).messages == []


def test_what_a_state_begins_with_is_a_weight_that_no_gate_reads() -> None:
    start = np.ones((FEATURES, 1))
    secret, public = compiled(start=start).plan, compiled(start=start, public=True).plan
    for plan, masking in ((secret, Masking.DRAWN), (public, Masking.PUBLIC)):
        [state] = plan.states
        wire = plan.wire[state.init or ""]
        assert wire.masking is masking and wire.holders == ("coordinator",)
        assert not any(wire.name in gate.reads for gate in plan.gates)
    assert public.public_weights == ()  # what is dealt does not hang on it
    assert compiled().plan.states[0].init is None


def test_state_adds_neither_rounds_nor_bytes() -> None:
    """The same model, with w entered for each run and its clipped successor told: w's mask, and no more."""
    carried, told = plan_cost(compiled().plan), plan_cost(compile_model(descent(), RANGES).plan)
    alone = compile_model(descent(), RANGES, Roles(readers={"w_out": ("bob",)}), states={"w_out": State("w")}).plan
    assert carried.rounds <= told.rounds and carried.sent <= told.sent and carried.dealt <= told.dealt
    assert plan_cost(alone).sent <= told.sent + 8 * FEATURES


def test_the_last_linear_map_needs_no_opening() -> None:
    """s + x: the sum of two masked values is masked."""
    plan = compile_model(
        model([node("Add", ["s", "x"], ["sum"]), node("Mul", ["sum", "half"], ["out"])], GRID, {"out": [4, 3]},
              {"half": 0.5}),
        {"x": (-1, 1), "s": (-1, 1)}, states={"out": State("s")},
    ).plan  # fmt: skip
    assert plan.outputs == () and {gate.kind for gate in plan.gates} <= {"input", "combine", "truncate"}
    trial = Trial(plan, {}, 3)
    [given], [state] = plan.inputs, plan.states
    x = np.full((4, 3), 0.5)
    for _ in range(3):
        trial.run({given.wire: encode(x, plan.wire[given.wire].scale)}, 1)
    np.testing.assert_allclose(decode(trial.state[state.in_], plan.wire[state.in_].scale), 0.4375, atol=1e-5)


def test_whole_numbers_are_counted_exactly() -> None:
    graph = helper.make_graph(
        [node("Add", ["n", "x"], ["m"]), node("Clip", ["m", "low", "high"], ["n_out"])],
        "count",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [2]) for name in ("n", "x")],
        [helper.make_tensor_value_info("n_out", TensorProto.INT64, [2])],
        [numpy_helper.from_array(np.array(end, np.int64), name) for name, end in (("low", 0), ("high", 1000))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = compile_model(made, {"n": (0, 1000), "x": (0, 10)}, states={"n_out": State("n")})
    [given], [state] = found.plan.inputs, found.plan.states
    assert found.plan.wire[state.in_].scale == 1
    trial = Trial(found.plan, found.weights, 2)
    for _ in range(4):
        trial.run({given.wire: np.array([3, 7])}, 1)
    assert trial.state[state.in_].tolist() == [12, 28]


def test_an_input_that_is_handed_on_as_it_is() -> None:
    """A delay: the next run reads this run's x."""
    nodes = [node("Identity", ["x"], ["late"]), node("Sub", ["x", "s"], ["change"])]
    made = model(nodes, GRID, {"change": [4, 3], "late": [4, 3]})
    ranges = {"x": (-1, 1), "s": (-1, 1)}
    plan = compile_model(made, ranges, states={"late": State("s")}).plan
    trial, [given], [out] = Trial(plan, {}, 2), plan.inputs, plan.outputs
    told = []
    for value in (0.25, 0.75, 0.5):
        x = np.full((4, 3), value)
        run = trial.run({given.wire: encode(x, plan.wire[given.wire].scale)}, 1).run
        told.append(decode(run.outputs[out.wire], plan.wire[out.wire].scale)[0, 0])
    np.testing.assert_allclose(told, [0.25, 0.5, -0.25], atol=1e-4)


@pytest.mark.parametrize(
    ("states", "problem"),
    [
        ({"nothing": State("w")}, "no output 'nothing'"),
        ({"w_out": State("nothing")}, "no input 'nothing'"),
        ({"loss": State("w")}, r"their shapes are \(1,\) and \(3, 1\)"),
        ({"w_out": State("x")}, "their shapes are"),
        ({"w_out": State("w"), "loss": State("w")}, "is read from two outputs|their shapes are"),
    ],
)
def test_what_is_no_pair_is_refused(states: dict[str, State], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        compile_model(descent(), RANGES, states=states)


def test_state_that_could_grow_beyond_its_range_is_refused() -> None:
    made = model([node("Add", ["s", "x"], ["out"])], GRID, {"out": [4, 3]})
    with pytest.raises(ModelError, match=r"it can be -2\S* to 2\S*, and the next run reads -1\S* to 1\S* as 's'") as e:
        compile_model(made, {"x": (-1, 1), "s": (-1, 1)}, states={"out": State("s")})
    assert "Clip" in str(e.value.remedy)


def test_state_has_no_open_dimension() -> None:
    made = model([node("Neg", ["s"], ["out"])], {"s": ["batch", 3]}, {"out": ["batch", 3]})
    with pytest.raises(ModelError, match="a dimension that is open"):
        compile_model(made, {"s": (-1, 1)}, states={"out": State("s")})


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (np.zeros(FEATURES), "of shape"),
        (np.full((FEATURES, 1), 5.0), "input 'w' has 5 in column 0"),
        (np.full((FEATURES, 1), np.nan), "input 'w' holds NaN"),
        (np.full((FEATURES, 1), "a"), "type"),
    ],
)
def test_what_a_run_cannot_read_first_is_refused(start: np.ndarray, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        compiled(start=start)


def test_rows_of_different_lengths_are_no_array_to_begin_with() -> None:
    with pytest.raises(InputError, match="begins with an array of shape"):
        compile_model(descent(), RANGES, states={"w_out": State("w", [[1.0], [1.0, 2.0]])})


def test_an_integer_scale_is_the_one_at_both_ends() -> None:
    plan = compiled().plan
    [state] = plan.states
    read, left = plan.wire[state.in_], plan.wire[state.out]
    assert (read.scale, read.bits, read.shape) == (left.scale, left.bits, left.shape)
    assert read.scale == Fraction(1 << 20) and read.masking is Masking.DRAWN and not read.holders
    assert any(getattr(gate, "lifetime", None) is Lifetime.STATE for gate in plan.gates)
