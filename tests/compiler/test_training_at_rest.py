"""Steps on rows that lie at the parties: what they cost, and that they are the steps of real numbers on those rows."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import InputError
from mpc.field import P
from mpc.interpret import reference
from mpc.plan.cost import Cost, plan_cost
from mpc.plan.program import Program
from mpc.wires import Masking
from tests.support.training import on_reals, perceptron

CLASSES = StoredInput((Fraction(1),), (0.0,), (9.0,))
BITS = StoredInput((Fraction(1),), (0.0,), (1.0,))
PIXELS = StoredInput((Fraction(1),), (0.0,), (255.0,))

MIXED = StoredInput((Fraction(1), Fraction(1 << 16), Fraction(1 << 4)), (0.0,) * 3, (2.0, 1.0, 0.5))


def reals(bits: int) -> StoredInput:
    return StoredInput((Fraction(1 << bits),), (0.0,), (1.0,))


def scaled(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """The model behind a division of its input."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(by), "end"))
    model.graph.node.insert(0, helper.make_node("Div", ["x", "end"], ["parts"], name="scaled"))
    model.graph.node[1].input[0] = "parts"
    return model


def at_rest(
    model: onnx.ModelProto, x: StoredInput, y: StoredInput, batch: int = 128, loss: str = "one_vs_all"
) -> Training:
    return compile_training(model, loss, SGD(0.5), batch, stored={"x": x, "target": y})


def price(training: Training) -> Cost:
    program = Program(steps=9, rows=training.batch, seed="0" * 64)
    return plan_cost(training.plan.with_program(program).at(2))


def test_rows_at_rest_cost_no_round_and_no_byte_more() -> None:
    """Logistic regression of 784-10 at a batch of 128; a class a row in place of ten bits, dealt 16 kB for it."""
    entered = compile_training(perceptron((784, 10)), "one_vs_all", SGD(0.5), 128, {"x": (0, 1)}).plan
    assert (plan_cost(entered).rounds, plan_cost(entered).sent, plan_cost(entered).dealt) == (3, 83_232, 595_200)
    for model, x in (
        (perceptron((784, 10)), reals(8)),
        (perceptron((784, 10)), PIXELS),
        (scaled(perceptron((784, 10)), 255.0), PIXELS),
    ):
        found = at_rest(model, x, CLASSES)
        cost = price(found)
        assert (cost.rounds, cost.sent, cost.dealt) == (3, 83_232, 611_584)
        kinds = {gate.kind: found.plan.wire[gate.writes[0]].masking for gate in found.plan.gates}
        assert kinds["onehot"] is kinds["fourier"] is Masking.UNOPENED


def test_networks_on_rows_at_rest_take_fifteen_rounds() -> None:
    cost = price(at_rest(perceptron((784, 128, 128, 10)), reals(8), CLASSES))
    assert (cost.rounds, cost.sent, cost.dealt) == (15, 2_086_944, 5_097_472)


def test_many_fractional_bits_cost_a_round() -> None:
    few, many = (price(at_rest(perceptron((6, 1)), reals(bits), BITS, 8)) for bits in (14, 28))
    assert (few.rounds, many.rounds) == (3, 4)
    assert many.sent == few.sent + 8 * 6 * 8


@pytest.mark.parametrize(
    ("x", "sizes", "end", "loss"),
    [
        (reals(8), (3, 4), 1.0, "one_vs_all"),
        (PIXELS, (3, 4), 255.0, "one_vs_all"),
        (MIXED, (3, 4), 1.0, "one_vs_all"),
        (reals(20), (3, 5, 4), 1.0, "cross_entropy"),
    ],
)  # fmt: skip
def test_steps_are_those_of_real_numbers(x: StoredInput, sizes: Sequence[int], end: float, loss: str) -> None:
    rng, batch = np.random.default_rng(3), 16
    model = perceptron(sizes) if end == 1.0 else scaled(perceptron(sizes), end)
    training = at_rest(model, x, StoredInput((Fraction(1),), (0.0,), (3.0,)), batch, loss)
    high = np.broadcast_to(x.high, 3)
    feeds = []
    scale = np.broadcast_to([float(each) for each in x.scales], 3)
    for _ in range(6):
        values = np.rint(rng.uniform(0, high, (batch, 3)) * scale) / scale
        feeds.append({"x": values, "target": rng.integers(0, 4, batch)})
    wires = {given.name: given.wire for given in training.plan.inputs}
    plan = training.plan.at(1)
    states = reference.first_states(plan, training.weights)
    for one in feeds:
        integers = {wires["x"]: np.rint(one["x"] * scale).astype(np.int64), wires["target"]: one["target"]}
        given = {**training.weights, **states, **integers}
        values = reference.evaluate(plan, given, lambda name, shape: rng.integers(0, P, shape, dtype=np.uint64))
        states = reference.next_states(plan, values)
    found = training.parameters(states)
    *_, wanted = on_reals(training, iter(feeds))
    begun = {state.name: np.asarray(state.values) for state in training.step.states}
    apart, went = (
        sum(float(np.square(values - other[name]).sum()) for name, values in wanted.items()) for other in (found, begun)
    )
    assert (apart / went) ** 0.5 < 0.05


@pytest.mark.parametrize(
    ("y", "loss", "problem"),
    [
        (StoredInput((Fraction(1),), (0.0,), (4.0,)), "one_vs_all", "goes from 0 to 4"),
        (StoredInput((Fraction(1),), (-1.0,), (3.0,)), "one_vs_all", "goes from -1 to 3"),
        (StoredInput((Fraction(2),), (0.0,), (3.0,)), "one_vs_all", "goes from 0 to 3"),
        (StoredInput((Fraction(1),), (0.0,), (1.0,), row=(3,)), "one_vs_all", "has shape"),
        (StoredInput((Fraction(1),), (0.0,), (3.0,)), "mse", "has shape"),
        (StoredInput((Fraction(1), Fraction(2)), (0.0, 0.0), (1.0, 1.0), row=(2,)), "one_vs_all", "different units"),
    ],
)
def test_targets_that_say_nothing_are_refused(y: StoredInput, loss: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        at_rest(perceptron((3, 4)), reals(8), y, 8, loss)


def test_arrays_and_single_numbers_are_targets_too() -> None:
    array = StoredInput((Fraction(1),), (0.0,), (1.0,), row=(4,))
    assert "onehot" not in {gate.kind for gate in at_rest(perceptron((3, 4)), reals(8), array, 8).plan.gates}
    price_of = StoredInput((Fraction(1 << 10),), (-5.0,), (5.0,))
    assert price(at_rest(perceptron((3, 1)), reals(8), price_of, 8, "mse")).rounds == 3
