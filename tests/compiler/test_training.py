"""A step of training as a plan: parties = reference = gradients of PyTorch's kind, at the cost that is promised."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mpc import field as fp
from mpc.compiler.graph.attributes import Link
from mpc.compiler.roles import Roles
from mpc.compiler.training.optimisers import SGD, Rate
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.resumed import goes_on
from mpc.compiler.training.train import Training, compile_training
from mpc.compiler.training.trained import compile_prediction, compile_telling
from mpc.errors import ModelError, UsageError
from mpc.field import P
from mpc.fixedpoint import decode, encode
from mpc.gates.fourier import Fourier
from mpc.gates.linear import Combine
from mpc.gates.relu import Relu
from mpc.interpret import reference
from mpc.interpret.reference import no_words
from mpc.plan.cost import plan_cost
from mpc.plan.program import Program, Told
from tests.support.statistics import assert_uniform
from tests.support.training import batches, integers, on_integers, on_reals, perceptron
from tests.support.worlds import Trial

Arrays = dict[str, np.ndarray]


def data(rows: int, inputs: int, outputs: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows in [0, 1], and one-hot classes that a linear map of them decides."""
    rng = np.random.default_rng(seed)
    x = rng.random((rows, inputs))
    classes = (x @ rng.standard_normal((inputs, outputs))).argmax(axis=1)
    return x, np.eye(outputs)[classes]


def held_to_the_reference(training: Training, feeds: list[Arrays], parties: int) -> None:
    """Every wire of each step, states carried over, at the declared cost."""
    trial = Trial(training.plan, training.weights, parties)
    for one in feeds:
        trial.run(integers(training, one), 1)


def test_whatever_is_made_of_a_checked_training_is_checked() -> None:
    training = compile_training(perceptron((6, 3)), batch=4, roles=Roles(security="active"), keep=True)
    told = tuple(Told(output=name, first=3) for name in training.keeps.values())
    bound = training.plan.with_program(Program(steps=2, told=told))
    made = [training.at(3).plan, goes_on(bound, "bob"), bound.at(1), compile_prediction(training, "bob").plan]
    assert all(plan.is_checked for plan in [*made, compile_telling(training, "bob").plan])


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 4, 3)])
def test_parties_train_as_the_reference_does_bit_for_bit(sizes: tuple[int, ...], parties: int) -> None:
    training = compile_training(perceptron(sizes), batch=4, optimizer=SGD(0.5), ranges={"x": (0, 1)})
    held_to_the_reference(training, list(islice(batches(*data(40, sizes[0], sizes[-1]), 4), 3)), parties)


@pytest.mark.parametrize("momentum", [0.0, 0.75])
@pytest.mark.parametrize(("loss", "off"), [("one_vs_all", 0.03), ("cross_entropy", 0.03), ("mse", 0.03)])
def test_steps_are_those_of_real_numbers_but_for_rounding(loss: str, off: float, momentum: float) -> None:
    """Ten steps: weights move as gradients of PyTorch's kind move them."""
    ranges = {"x": (0, 1), "target": (0, 1)}
    training = compile_training(perceptron((6, 8, 3)), loss, SGD(0.25, momentum), 16, ranges)
    x, y = data(160, 6, 3)
    *_, wanted = on_reals(training, batches(x, y, 16))
    *_, found = on_integers(training, batches(x, y, 16))
    begun = {state.name: state.values for state in training.step.states if not state.velocity}
    assert set(found) == set(wanted) == {"w0", "b0", "w1", "b1"}
    for name, values in wanted.items():
        assert np.abs(found[name] - values).max() < off * np.abs(values - begun[name]).max()


def test_the_costs_are_those_that_are_promised() -> None:
    """Batch 128: logistic regression on 784 numbers and ten classes, and the network A."""
    costs = {}
    for sizes in ((784, 10), (784, 128, 128, 10)):
        training = compile_training(perceptron(sizes), batch=128, optimizer=SGD(0.5), ranges={"x": (0, 1)})
        costs[sizes] = plan_cost(training.plan)
    regression, network = costs.values()
    assert (regression.rounds, network.rounds) == (3, 15)
    assert regression.sent <= 85_000 and regression.dealt <= 720_000
    assert network.sent <= 2_100_000 and network.dealt <= 5_100_000


def test_an_update_is_exact_and_opens_nothing_but_the_gradient() -> None:
    """W' = W - k G in integers, and G is all that a weight costs; with momentum one more opening, beside the first."""
    plain, heavy = (
        compile_training(perceptron((6, 3)), batch=4, optimizer=SGD(0.5, momentum), ranges={"x": (0, 1)})
        for momentum in (0.0, 0.5)
    )
    costs = [plan_cost(training.plan) for training in (plain, heavy)]
    weights = 6 * 3 + 3
    assert costs[0].rounds == costs[1].rounds == 3
    assert (costs[1].sent - costs[0].sent, costs[1].dealt - costs[0].dealt) == (8 * weights, 16 * weights)
    assert plain.rate.factor == 1 and plain.learning_rate == 0.5
    x, y = data(4, 6, 3)
    plan = plain.plan.bind(1)
    states = reference.first_states(plan, plain.weights)
    given = {**plain.weights, **states, **integers(plain, {"x": x, "target": y})}
    values = reference.evaluate(plan, given, lambda name, shape: np.full(shape, 12345, dtype=np.uint64))
    for state in plan.states:
        update = next(gate for gate in plan.gates if state.out in gate.writes)
        assert isinstance(update, Combine) and update.factors == (1, -1)
        assert (values[state.out] == values[state.in_] - values[update.xs[1]]).all()
        assert values[update.xs[1]].any()


def test_both_views_of_a_state_are_uniform_and_each_step_has_another() -> None:
    """W^, which parties know, and its mask, which the provider does: alone, and beside those of the step before."""
    training = compile_training(perceptron((40, 50)), batch=4, optimizer=SGD(0.5, 0.5), ranges={"x": (0, 1)})
    trial, before = Trial(training.plan, training.weights, 2), {}
    for one in islice(batches(*data(40, 40, 50), 4), 3):
        checked = trial.run(integers(training, one), 1)
        for state in training.plan.states:
            if checked.plan.wire[state.out].shape != (40, 50):
                continue
            views = {"public": checked.run.public[state.out], "mask": checked.masks[state.out]}
            for view, values in views.items():
                assert_uniform(values, 0, f"{state.name}, {view}")
                if (state.name, view) in before:
                    assert_uniform(fp.sub(values, before[state.name, view]), 0, f"{state.name}, {view}, between steps")
                before[state.name, view] = values
    assert len(before) == 4


def test_a_sigmoid_of_few_bits_is_off_by_noise_alone() -> None:
    """Coefficients are rounded after turning: over many coins a series of 9 + 5 bits has the mean that reals give."""
    few = Precision(loss=14)
    training = compile_training(perceptron((1, 1)), batch=4096, optimizer=SGD(0.5), ranges={"x": (0, 1)}, precision=few)
    plan = training.plan.bind(1)
    gate = next(gate for gate in plan.gates if isinstance(gate, Fourier))
    rng, off = np.random.default_rng(1), []
    for level in (0.0, 3.0, 20.0, -30.0):
        z = np.full((4096, 1), round(level * float(plan.wire[gate.x].scale)), dtype=np.int64)
        run = reference.Reference(
            plan.wire, {}, lambda name, shape: rng.integers(0, P, shape, dtype=np.uint64), no_words
        )
        run.values[gate.x] = z
        gate.reference(run)
        found = run.values[gate.out] / float(plan.wire[gate.out].scale)
        assert 0.002 < found.std() < 0.01  # noise there is: 0.008
        off.append(abs(found.mean() - 1 / (1 + np.exp(-level))))
    assert max(off) < 0.006  # the fit's 0.0045, and what noise leaves of 4,096 draws


def test_the_series_has_the_digits_that_cost_hardly_anything() -> None:
    """In no round more; whatever a step tells and keeps, since one training's steps hand their weights on."""
    ranges = {"x": (0, 1)}

    def made(sizes: tuple[int, ...], batch: int, **more: Any) -> tuple[Training, int]:
        training = compile_training(perceptron(sizes), batch=batch, optimizer=SGD(0.5), ranges=ranges, **more)
        [bits] = {node.of(Link).fraction for node in training.step.graph.nodes if node.op == "link"}
        return training, bits

    for sizes, batch, bits in (((6, 3), 4, 20), ((6, 5, 3), 8, 20), ((784, 128, 128, 10), 128, 16)):
        few, least = made(sizes, batch, precision=Precision(loss=14))
        more, found = made(sizes, batch)
        usual, cost = plan_cost(few.plan), plan_cost(more.plan)
        assert (least, found) == (14, bits) and cost.rounds == usual.rounds
        assert cost.sent <= usual.sent * 1.008 + 256 and cost.dealt <= usual.dealt * 1.008 + 256
    scales = []
    for tells, keep in (((), False), (("loss", "beyond"), True)):
        training, _ = made((6, 5, 3), 8, tells=tells, keep=keep, checkpoints=keep)
        scales.append({state.name: training.plan.wire[state.in_].scale for state in training.plan.states})
    assert scales[0] == scales[1]


def test_digits_are_learned_as_well_as_on_real_numbers() -> None:
    """scikit-learn's digits, a third kept apart: a network and a logistic regression, on the same batches."""
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    rows = np.random.default_rng(9).permutation(len(x))
    train, test = rows[600:], rows[:600]
    for sizes, rate, momentum in (((64, 10), 1.0, 0.0), ((64, 32, 10), 0.5, 0.75)):
        training = compile_training(perceptron(sizes), batch=32, optimizer=SGD(rate, momentum), ranges={"x": (0, 1)})
        found = []
        for train_on in (on_integers, on_reals):
            *_, weights = train_on(training, batches(x[train], np.eye(10)[y[train]], 32, epochs=4))
            found.append((predicted(weights, x[test]) == y[test]).mean())
        assert found[1] > 0.9 and found[0] > found[1] - 0.01, (sizes, found)


def predicted(weights: Arrays, x: np.ndarray) -> np.ndarray:
    return outputs_of(weights, x).argmax(axis=1)


def outputs_of(weights: Arrays, x: np.ndarray) -> np.ndarray:
    layers = len(weights) // 2
    for i in range(layers):
        x = x @ weights[f"w{i}"] + weights[f"b{i}"]
        x = np.maximum(x, 0) if i < layers - 1 else x
    return x


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_weights_are_kept_in_the_last_step_and_cost_nothing_before(momentum: float) -> None:
    """Eight bytes a weight to each peer, in one round more at most; and parties = reference there too."""
    plain, kept = (
        compile_training(perceptron((6, 5, 3)), batch=4, optimizer=SGD(0.5, momentum), ranges={"x": (0, 1)}, keep=keep)
        for keep in (False, True)
    )
    assert kept.keeps == {"w0": "weight.0", "b0": "weight.1", "w1": "weight.2", "b1": "weight.3"}
    assert [out.name for out in kept.plan.outputs] == [*kept.keeps.values()]
    assert all(out.keep for out in kept.plan.outputs) and not kept.plan.recipients
    program = Program(steps=3, told=tuple(Told(output=out, first=3) for out in kept.keeps.values()))
    runs = [plan_cost(kept.plan.with_program(program).at(run)) for run in (1, 3)]
    assert runs[0] == plan_cost(plain.plan)
    assert runs[1].sent - runs[0].sent == 8 * (6 * 5 + 5 + 5 * 3 + 3)
    assert runs[1].rounds <= runs[0].rounds + 1
    held_to_the_reference(kept, list(islice(batches(*data(40, 6, 3), 4), 2)), 2)


@pytest.mark.parametrize("sizes", [(6, 3), (16, 12, 8, 3)])
def test_what_was_trained_is_what_the_model_computes(sizes: tuple[int, ...]) -> None:
    """The prediction's plan on a training's weights, and the plan that tells them: exact, and near to real numbers."""
    training = compile_training(perceptron(sizes), batch=4, optimizer=SGD(0.5), ranges={"x": (0, 1)}, keep=True)
    x = np.random.default_rng(2).random((5, sizes[0]))
    weights = {state.name: training.weights[state.init] for state in training.plan.states if state.init}
    reals = {
        name: decode(values, training.plan.wire[wires_of(training)[name]].scale) for name, values in weights.items()
    }
    for lowered in (compile_prediction(training, "alice"), compile_telling(training, "alice")):
        plan = lowered.plan
        assert plan.owners | plan.recipients == {"alice"}
        assert {gate.out for gate in plan.stored} == {state.init for state in plan.states}
        given = {state.in_: weights[state.name] for state in plan.states}
        given |= {one.wire: encode(x, plan.wire[one.wire].scale) for one in plan.inputs}
        given |= {state.init: weights[state.name] for state in plan.states if state.init}
        values = reference.evaluate(
            plan.bind(len(x)), given, lambda name, shape: np.full(shape, P // 3, dtype=np.uint64)
        )
        told = {out.name: decode(values[out.wire], plan.wire[out.wire].scale) for out in plan.outputs}
        if plan.inputs:
            [found] = told.values()
            np.testing.assert_allclose(found, outputs_of(reals, x), atol=0.01)
        else:
            assert all((told[out] == reals[name]).all() for name, out in training.keeps.items())
            assert all(plan.wire[out.wire].holders == ("alice",) for out in plan.outputs)


@pytest.mark.parametrize("ceiling", [0.5, 32.0])
def test_a_model_that_was_trained_cuts_its_results_where_the_training_did(ceiling: float) -> None:
    """What predicts has no ceiling of its own to be called with, so none that differs."""
    how = Precision(ceiling=ceiling)
    training = compile_training(perceptron((4, 3, 2)), batch=4, ranges={"x": (0, 1)}, precision=how, keep=True)
    plan = compile_prediction(training, "alice").plan
    [trained], [predicting] = (
        [gate for gate in each.gates if isinstance(gate, Relu)] for each in (training.plan, plan)
    )
    for gate, own in ((trained, training.plan), (predicting, plan)):
        most = float(own.wire[gate.out].scale) * ceiling
        assert gate.ceiling == most if ceiling < 1 else gate.ceiling in (None, most)
    assert training.precision == how


def test_a_model_that_was_trained_on_samples_has_no_ceiling() -> None:
    x, y = data(8, 4, 2)
    training = compile_training(
        perceptron((4, 3, 2)), batch=4, ranges={"x": (0, 1)}, samples={"x": x, "target": y}, keep=True
    )
    found = [gate.ceiling for gate in compile_prediction(training, "alice").plan.gates if isinstance(gate, Relu)]
    assert training.precision.ceiling is None and found == [None]


def wires_of(training: Training) -> dict[str, str]:
    return {state.name: state.in_ for state in training.plan.states}


def test_frozen_weights_stay_and_what_lies_before_them_alone_costs_nothing() -> None:
    sizes = (6, 5, 3)
    whole, last = (
        compile_training(perceptron(sizes), batch=4, ranges={"x": (0, 1)}, frozen=frozen)
        for frozen in ((), ("w0", "b0"))
    )
    assert {state.name for state in whole.plan.states} == {"w0", "b0", "w1", "b1"}
    assert {state.name for state in last.plan.states} == {"w1", "b1"}
    assert plan_cost(last.plan).rounds < plan_cost(whole.plan).rounds
    held_to_the_reference(last, list(islice(batches(*data(40, 6, 3), 4), 2)), 2)
    with pytest.raises(ModelError, match="no weight 'w9' to freeze") as caught:
        compile_training(perceptron(sizes), batch=4, frozen=["w9"])
    assert "b0, b1, w0, w1" in str(caught.value.remedy)


def test_a_last_activation_belongs_to_the_loss_or_is_refused() -> None:
    plain = compile_training(perceptron((6, 3)), batch=4, ranges={"x": (0, 1)})
    sigmoid = compile_training(perceptron((6, 3), last="Sigmoid"), batch=4, ranges={"x": (0, 1)})
    assert plan_cost(plain.plan) == plan_cost(sigmoid.plan)
    softmax = compile_training(perceptron((6, 3), last="Softmax"), "cross_entropy", batch=4, ranges={"x": (0, 1)})
    logits = compile_training(perceptron((6, 3)), "cross_entropy", batch=4, ranges={"x": (0, 1)})
    assert plan_cost(softmax.plan) == plan_cost(logits.plan)
    with pytest.raises(ModelError, match="brings an activation of its own"):
        compile_training(perceptron((6, 3), last="Softmax"), "one_vs_all", batch=4)


def test_rates_are_exact_where_they_can_be_and_said_where_not() -> None:
    assert SGD(0.5).rate(128) == Rate(1, 8) and SGD(3.0).rate(64) == Rate(3, 6)
    rate = SGD(0.1).rate(128)
    assert rate.factor <= 15 and rate.factor % 2 == 1 and abs(rate.of(128) - 0.1) < 0.1 / 16
    notes = compile_training(perceptron((6, 3)), batch=128, optimizer=SGD(0.1)).notes
    assert any("the learning rate is" in note for note in notes)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="a learning rate is a positive number"):
            SGD(wrong)
    for wrong in (0.999, 1.0, -0.5, float("nan")):
        with pytest.raises(UsageError, match=f"a momentum of {wrong}"):
            SGD(0.1, wrong)
    with pytest.raises(UsageError, match="a learning rate of 1e-12"):
        SGD(1e-12).rate(128)


def test_weights_that_begin_beyond_their_range_are_refused() -> None:
    with pytest.raises(ModelError, match="begins at .* declared to stay within 0.1"):
        compile_training(perceptron((6, 3)), batch=4, precision=Precision(weights=0.1))


def test_without_a_ceiling_a_deep_network_has_no_bound_that_fits() -> None:
    sizes = (64, 64, 64, 64, 64, 10)
    compile_training(perceptron(sizes), batch=4, ranges={"x": (0, 1)})
    with pytest.raises(ModelError, match="fractional bits of what it multiplies"):
        compile_training(perceptron(sizes), batch=4, ranges={"x": (0, 1)}, precision=Precision(ceiling=None))


def test_names_that_say_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no loss 'hinge'"):
        compile_training(perceptron((6, 3)), "hinge")
    with pytest.raises(UsageError, match="so is another input"):
        compile_training(perceptron((6, 3)), target="x")
    with pytest.raises(UsageError, match="a batch is a number of rows"):
        compile_training(perceptron((6, 3)), batch=0)
