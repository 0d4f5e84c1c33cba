"""What a step tells: the loss of squares, and whether anything has left the range that its bound takes for granted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import UsageError
from mpc.fixedpoint import decode, encode
from mpc.plan.cost import Cost, plan_cost
from mpc.plan.program import Program, Told
from tests.support.training import Arrays, integers, on_reals, perceptron
from tests.support.worlds import make_world

BATCH = 4


def told(training: Training, feeds: Arrays, weights: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
    """What two parties tell of one step on shares, which show no bound that is broken: from the model's weights, or
    from others."""
    plan, begun = training.plan, dict(training.weights)
    for state in plan.states:
        if weights is not None and state.name in weights and state.init is not None:
            begun[state.init] = encode(weights[state.name], plan.wire[state.in_].scale)
    found = make_world(plan, begun, 2).run(integers(training, feeds), 1).outputs
    return {out.name: decode(found[out.wire], plan.wire[out.wire].scale).item() for out in plan.outputs}


def feeds(outputs: int = 3, columns: int = 6, seed: int = 3) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"x": rng.random((BATCH, columns)), "target": np.eye(outputs)[rng.integers(0, outputs, BATCH)]}


@pytest.mark.parametrize(("loss", "last"), [("one_vs_all", "Sigmoid"), ("cross_entropy", "Softmax"), ("mse", "")])
def test_the_loss_that_is_told_is_the_sum_of_squares(loss: str, last: str) -> None:
    ranges = {"x": (0.0, 1.0), "target": (0.0, 1.0)}
    training = compile_training(perceptron((6, 5, 3), last=last), loss, SGD(0.5), BATCH, ranges, tells=("loss",))
    given = feeds()
    weights = {state.name: np.asarray(state.values) for state in training.step.states}
    z = np.maximum(given["x"] @ weights["w0"] + weights["b0"], 0) @ weights["w1"] + weights["b1"]
    powers = np.exp(z)
    p = {"one_vs_all": 1 / (1 + 1 / powers), "cross_entropy": powers / powers.sum(1, keepdims=True), "mse": z}[loss]
    wanted = float(np.square(p - given["target"]).sum())
    assert told(training, given)["loss"] == pytest.approx(wanted, abs=0.15)  # p is a sum of roundings, of 0.02 each


def test_what_is_not_told_costs_nothing() -> None:
    settings = (perceptron((6, 5, 3)), "one_vs_all", SGD(0.5, 0.5), BATCH, {"x": (0, 1)})
    plain, telling = (compile_training(*settings, tells=tells) for tells in ((), ("loss", "beyond")))
    program = Program(steps=3, told=(Told(output="loss", first=2), Told(output="beyond", first=3)))
    first, second, third = (plan_cost(telling.plan.with_program(program).at(run)) for run in (1, 2, 3))
    assert first == plan_cost(plain.plan)
    assert second == Cost(first.rounds, first.sent + 8, first.dealt + 8, first.held + 16)
    assert third.rounds > first.rounds and third.sent > first.sent


@pytest.mark.parametrize("momentum", [0.0, 0.75])
@pytest.mark.parametrize(
    ("weight", "beyond"), [(1.9, 0), (-1.9, 0), (2.05, 1), (-2.05, 1), (30.0, 1), (-400.0, 1), (8000.0, 1)]
)
def test_a_weight_beyond_its_range_is_seen_however_far_it_went(weight: float, beyond: int, momentum: float) -> None:
    """By one element of many, whatever the rest of the step makes of it."""
    training = compile_training(
        perceptron((6, 3)), "one_vs_all", SGD(1 / 64, momentum), BATCH, {"x": (0, 1)},
        precision=Precision(weights=2.0), tells=("beyond",),
    )  # fmt: skip
    weights = {state.name: np.asarray(state.values).copy() for state in training.step.states if not state.velocity}
    weights["w0"][3, 1] = weight
    assert told(training, feeds(), weights)["beyond"] == beyond


def test_a_weight_that_an_update_takes_out_of_its_range_is_seen_in_that_step() -> None:
    training = compile_training(
        perceptron((6, 3)), "one_vs_all", SGD(4.0), BATCH, {"x": (0, 1)}, precision=Precision(weights=1.0),
        tells=("beyond",),
    )  # fmt: skip
    given = {"x": np.ones((BATCH, 6)), "target": np.tile([1.0, 0.0, 0.0], (BATCH, 1))}
    [after] = on_reals(training, iter([given]))
    assert max(float(np.abs(values).max()) for values in after.values()) > 1.2
    assert told(training, given)["beyond"] == 1


@pytest.mark.parametrize(("size", "beyond"), [(7.0, 0), (-7.0, 0), (7.99, 1), (-7.99, 1)])
def test_an_output_that_the_sigmoid_takes_for_another_is_seen(size: float, beyond: int) -> None:
    training = compile_training(
        perceptron((6, 2)), "one_vs_all", SGD(1 / 64), BATCH, {"x": (0, 1)}, precision=Precision(weights=16.0),
        tells=("beyond",),
    )  # fmt: skip
    weights = {"w0": np.zeros((6, 2)), "b0": np.zeros(2)}
    weights["w0"][:, 0] = size + np.sign(size) * 0.2  # 6 of 8.19 are more than 48
    given = {"x": np.ones((BATCH, 6)), "target": np.ones((BATCH, 2))}
    assert told(training, given, weights)["beyond"] == beyond


@pytest.mark.parametrize(("scale", "beyond"), [(1.0, 0), (3.0, 0), (100.0, 1)])
def test_a_bound_that_rests_on_samples_is_looked_after(scale: float, beyond: int) -> None:
    """Samples a hundred times smaller than what comes; a margin of four is theirs."""
    samples = feeds()
    small = {**samples, "x": samples["x"] / 100}
    training = compile_training(
        perceptron((6, 5, 3)), "one_vs_all", SGD(1 / 64), BATCH, {"x": (0, 1)}, samples=small, tells=("beyond",)
    )
    weights = {state.name: np.asarray(state.values).copy() for state in training.step.states}
    weights |= {"b0": np.zeros(5), "b1": np.zeros(3)}
    given = {**samples, "x": small["x"] * scale}
    assert told(training, given, weights)["beyond"] == beyond


def test_what_a_step_does_not_tell_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="does not tell 'accuracy'"):
        compile_training(perceptron((6, 3)), tells=("accuracy",))
