"""Training through real links: weights as real numbers give them on the same batches, and a model that runs on them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from rich.console import Console
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from mpc.errors import InputError, ModelError, MpcError, MpcWarning, UsageError
from mpc.plan.cost import plan_cost
from mpc.plan.program import Program
from parties import SGD, Cluster, Precision, RunReport, Trainer
from parties.agreed.columns import Column
from parties.client.training.bar import Bar
from tests.support.objects import described, put
from tests.support.parties import COORDINATOR, InProcess
from tests.support.training import model, on_reals, perceptron

pytestmark = pytest.mark.filterwarnings(  # what every training says of its declared ranges and its rate
    "ignore:(weights are declared|the learning rate is|outputs beyond):mpc.errors.MpcWarning"
)
BATCH = 8


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with InProcess(tmp_path_factory.mktemp("cluster"), request.param) as running, Cluster(running.client().config) as c:
        yield c


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


def rows(number: int = 44) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.random((number, 6)).astype(np.float32)
    return x, ((x - 0.5) @ rng.standard_normal((6, 3))).argmax(axis=1)


def forward(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x @ weights["w0"] + weights["b0"], 0) @ weights["w1"] + weights["b1"])


def off(trainer: Trainer, found: dict[str, np.ndarray], data: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    """How far weights are from those of real numbers on the batches of a seed, as a part of how far those went."""
    order, (x, y) = Program(steps=10, rows=BATCH, seed=f"{seed:064x}"), data
    read = [order.rows_of(step, len(x)) for step in range(1, 11)]
    *_, wanted = on_reals(trainer.training, ({"x": x[rows], "target": np.eye(3)[y[rows]]} for rows in read))
    begun = {state.name: np.asarray(state.values) for state in trainer.training.step.states if not state.velocity}
    assert found.keys() == wanted.keys()
    apart, went = (
        sum(np.square(values - other[name]).sum() for name, values in wanted.items()) for other in (found, begun)
    )
    return float((apart / went) ** 0.5)


def test_a_network_is_trained_runs_and_is_released(cluster: Cluster) -> None:
    x, y = rows()
    trainer = cluster.trainer(perceptron((6, 5, 3)), optimizer=SGD(0.5, 0.5), batch=BATCH, ranges={"x": (0, 1)})
    seen: list[tuple[int, int]] = []
    with trainer.fit(x, y, epochs=2, seed=5, progress=lambda *done: seen.append(done)) as model:
        assert seen == [(step, 10) for step in range(1, 11)]
        cost, last = plan_cost(trainer.training.plan.with_program(Program(steps=1)).at(1)), trainer.last_step
        assert last is not None and last.rounds >= cost.rounds and last.online_s > 0
        found = model.release()
        assert off(trainer, found, (x, y), seed=5) < 0.15  # 0.02 to 0.07 by the coins of rounding
        assert off(trainer, found, (x, y), seed=6) > 0.3  # on other batches weights go elsewhere
        for some in (x[:20], x[20:23]):
            [logits] = model.run(None, {"x": some})
            np.testing.assert_allclose(logits, forward(found, some), atol=0.01)
        assert [given.name for given in model.get_inputs()] == ["x"]
    assert model.name == f"{COORDINATOR}/trained"


def test_a_declared_link_takes_rounds_off_a_step_and_off_what_is_trained(cluster: Cluster) -> None:
    x, y = rows(2 * BATCH)
    made: dict[str | None, tuple[int, int, str]] = {}
    for link in (None, "100:1000"):
        trainer = cluster.trainer(
            perceptron((6, 5, 3)), optimizer=SGD(0.5), batch=BATCH, ranges={"x": (0, 1)}, link=link
        )
        with trainer.fit(x, y, seed=5) as model:
            [logits] = model.run(None, {"x": x})
            np.testing.assert_allclose(logits, forward(model.release(), x), atol=0.01)
            assert trainer.last_step is not None and model.last_run is not None
            made[link] = trainer.last_step.rounds, model.last_run.rounds, trainer.training.plan.digest.hex()
    (plain, run, digest), (fewer, quick, other) = made.values()
    assert fewer < plain and quick < run and digest != other


def test_weights_are_told_as_the_file_has_them(pair: InProcess) -> None:
    """A square matrix, which the layer reads turned around: nobody would see it by its shape."""
    own = np.random.default_rng(1).uniform(-1, 1, (6, 6))
    node = helper.make_node("Gemm", ["x", "m"], ["z"], name="fc", transB=1)
    with Cluster(pair.client().config) as cluster:
        file = model([node], {"m": own}, ["rows", 6], ["rows", 6])
        trainer = cluster.trainer(file, optimizer=SGD(0.0625), batch=BATCH, ranges={"x": (0, 1)})
        told = trainer.fit(*rows(BATCH)).release()
    assert np.abs(told["m"] - own).max() < 0.1 < 0.5 < np.abs(told["m"] - own.T).max()


def test_breast_cancer_is_learned_as_scikit_learn_learns_it(pair: InProcess) -> None:
    data = load_breast_cancer()
    x = ((data.data - data.data.min(0)) / np.ptp(data.data, axis=0)).astype(np.float32)
    test = np.random.default_rng(1).permutation(len(x)) < 150
    theirs = LogisticRegression(C=10).fit(x[~test], data.target[~test]).score(x[test], data.target[test])
    with Cluster(pair.client().config) as cluster:
        trainer = cluster.trainer(perceptron((30, 1)), optimizer=SGD(1.0, 0.5), batch=32, ranges={"x": (0, 1)})
        with trainer.fit(x[~test], data.target[~test], epochs=6) as model:
            [logits] = model.run(None, {"x": x[test]})
    assert ((logits[:, 0] > 0) == data.target[test]).mean() > theirs - 0.03 > 0.9


@pytest.mark.filterwarnings("ignore:bounds rest on:mpc.errors.MpcWarning")
def test_bounds_of_a_model_that_is_too_deep_rest_on_samples(cluster: Cluster) -> None:
    """Its steps are those of real numbers, and a note says what bounds rest on; classes go by their numbers."""
    x, y = rows()
    choices = {"optimizer": SGD(0.5), "batch": BATCH, "ranges": {"x": (0, 1)}}
    trainer = cluster.trainer(perceptron((6, 5, 3)), samples=(x[:BATCH], y[:BATCH]), **choices)
    assert any("bounds rest on" in note for note in trainer.training.notes)
    with trainer.fit(x, y, epochs=2, name="sampled", progress=lambda step, steps: None) as found:
        assert off(trainer, found.release(), (x, y), 0) < 0.15
    for samples, says in (
        (x, "samples are rows and their targets"),
        ((x[:2], y[:2]), "no samples of input"),
        (({"q": x}, y), "not what the model reads"),
        ((x, y + 1), "no numbers of classes"),
    ):
        with pytest.raises((InputError, UsageError), match=says):
            cluster.trainer(perceptron((6, 5, 3)), samples=samples, **choices)


def test_what_cannot_be_trained_on_is_refused_by_name(pair: InProcess) -> None:
    """Before anything is sent: a whole argument is checked, not its first batch."""
    x, y = rows()
    client = pair.client()
    table = put(
        client,
        described("t", len(x), (Column(name="x", type="array", scale=Fraction(256), low=0, high=1, shape=(6,)),)),
        {"x": np.zeros((len(x), 6), np.int64)},
    )
    with Cluster(client.config) as cluster:
        trainer = cluster.trainer(perceptron((6, 3)), batch=BATCH, ranges={"x": (0, 1)})
        stored = cluster.dataset(table.name)
        beyond, lost = np.r_[x[:-1], 2 + x[-1:]], np.r_[x[:-1], x[-1:] * np.nan]
        for error, problem, xs, ys in (
            (UsageError, "is an array", stored, y),
            (UsageError, "is an array", stored[["x"]], y),
            (UsageError, "no array of numbers", [["a"] * 6], y),
            (InputError, "different numbers of rows", x[1:], y),
            (InputError, "rows of shape", x[:, 1:], y),
            (InputError, "not what the model reads", {"z": x}, y),
            (InputError, "what each of the 3 outputs should be", x, y + 1.0),
            (InputError, "what each of the 3 outputs should be", x, y / 2),
            (InputError, "range", beyond, y),
            (InputError, "NaN", lost, y),
            (InputError, "range", x, 2 * np.eye(3)[y]),
            (InputError, "there are 7 rows, and a step reads 8", x[:7], y[:7]),
        ):
            with pytest.raises(error, match=problem):
                trainer.fit(xs, ys)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="no name of yours"):
            trainer.fit(x, y, name="mallory/w")
        with pytest.raises(UsageError, match="the number of epochs"):
            trainer.fit(x, y, epochs=0)
        assert trainer.last_step is None
        for choices, problem in (
            ({"optimiser": SGD(0.1)}, "no argument 'optimiser'"),
            ({"optimizer": 0.1}, "an optimizer is an SGD"),
            ({"loss": "hinge"}, "no loss 'hinge'"),
            ({"batch": 0}, "the batch"),
            ({"frozen": "w0"}, "frozen are several"),
        ):
            with pytest.raises(UsageError, match=problem):
                cluster.trainer(perceptron((6, 3)), **choices)


def test_a_column_that_fixed_point_does_not_resolve_is_told_of_once(pair: InProcess) -> None:
    x, y = rows(16)
    x[:, 2] /= 1000
    with Cluster(pair.client().config) as cluster:
        trainer = cluster.trainer(perceptron((6, 3)), batch=BATCH, ranges={"x": (0, 1)})
        with pytest.warns(MpcWarning, match="column 2") as caught:
            trainer.fit(x, y)
    assert len([each for each in caught if "column" in str(each.message)]) == 1


def test_a_step_that_fails_ends_the_training_and_keeps_nothing(pair: InProcess) -> None:
    x, y = rows()

    def cut(done: int, steps: int) -> None:
        if done == 2:
            pair.stop_provider()

    with Cluster(pair.client().config) as cluster:
        trainer = cluster.trainer(perceptron((6, 3)), batch=BATCH, ranges={"x": (0, 1)})
        with pytest.raises(MpcError):
            trainer.fit(x, y, epochs=2, progress=cut)
        with pytest.raises(MpcError):
            cluster.dataset("trained")


def test_the_loss_is_told_where_it_is_released_and_nowhere_else(cluster: Cluster) -> None:
    """It is that of the batch, with the weights before the step."""
    x, y = rows()
    trainer = cluster.trainer(perceptron((6, 5, 3)), optimizer=SGD(2.0), batch=BATCH, ranges={"x": (0, 1)})
    trainer.fit(x, y, epochs=2, seed=5, release={"loss": 3})
    assert sorted(trainer.losses) == [3, 6, 9]
    trainer.fit(x, y, epochs=2, seed=5, release={"loss": 1})
    assert sorted(trainer.losses) == [*range(1, 11)]
    order = Program(steps=10, rows=BATCH, seed=f"{5:064x}")
    read = [order.rows_of(step, len(x)) for step in range(1, 11)]
    begun = {state.name: np.asarray(state.values) for state in trainer.training.step.states}
    after = on_reals(trainer.training, ({"x": x[rows], "target": np.eye(3)[y[rows]]} for rows in read))
    for step, (batch, weights) in enumerate(zip(read, [begun, *after], strict=False), 1):
        p = 1 / (1 + np.exp(-forward(weights, x[batch])))
        wanted = np.square(p - np.eye(3)[y[batch]]).sum(1).mean()
        assert trainer.losses[step] == pytest.approx(wanted, abs=0.1)  # they are 0.5 to 1.1
    trainer.fit(x, y, seed=5, release={"loss": 6})  # more than there are steps
    assert trainer.losses == {}


@pytest.mark.parametrize("check_every", [1, 2, 100])
def test_a_weight_that_leaves_its_range_stops_the_training(pair: InProcess, check_every: int) -> None:
    """Ranges are checked in the last step too, whose weights are then removed."""
    x, y = rows(3 * BATCH)
    with Cluster(pair.client().config) as cluster:
        trainer = cluster.trainer(
            perceptron((6, 3)), optimizer=SGD(8.0), batch=BATCH, ranges={"x": (0, 1)}, precision=Precision(weights=0.5)
        )
        seen: list[int] = []
        first = {1: 1, 2: 1, 100: 3}[check_every]
        with pytest.raises(ModelError, match=rf"left the range .* by step {first}"):
            trainer.fit(x, y, progress=lambda done, _: seen.append(done), check_every=check_every)
        assert len(seen) == {1: 0, 2: 0, 100: 3}[check_every]
        with pytest.raises(MpcError):
            cluster.dataset("trained")
        with trainer.fit(x, y, check_every=None):  # as its caller wants it
            pass


def test_what_a_training_will_cost_is_what_it_costs(cluster: Cluster) -> None:
    """Rounds and bytes of all steps, of those that tell the loss and check ranges too, and of the last."""
    x, y = rows()
    trainer = cluster.trainer(perceptron((6, 5, 3)), batch=BATCH, ranges={"x": (0, 1)})
    cost = trainer.cost(len(x), epochs=2, release={"loss": 3}, check_every=4)
    found: list[RunReport] = []

    def add(done: int, steps: int) -> None:
        assert trainer.last_step is not None
        found.append(trainer.last_step)

    trainer.fit(x, y, epochs=2, release={"loss": 3}, check_every=4, progress=add)
    assert cost.steps == len(found) == 10
    assert (cost.rounds, cost.sent_bytes, cost.dealt_bytes) == (
        sum(each.rounds for each in found), sum(each.sent_bytes for each in found),
        sum(each.dealt_bytes for each in found),
    )  # fmt: skip


def test_release_and_check_every_say_a_number_of_steps(pair: InProcess) -> None:
    x, y = rows()
    with Cluster(pair.client().config) as cluster:
        trainer = cluster.trainer(perceptron((6, 3)), batch=BATCH, ranges={"x": (0, 1)})
        for said in ({"release": 100}, {"release": {"accuracy": 1}}, {"release": {"loss": 0}}, {"check_every": 0}):
            with pytest.raises(UsageError):
                trainer.fit(x, y, **said)  # type: ignore[arg-type]
        assert trainer.last_step is None


def test_a_terminal_shows_a_bar_and_a_file_nothing(pair: InProcess, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = rows(2 * BATCH)
    with Cluster(pair.client().config) as cluster:
        trainer = cluster.trainer(perceptron((6, 3)), batch=BATCH, ranges={"x": (0, 1)})
        capsys.readouterr()
        trainer.fit(x, y, release={"loss": 1})
        shown = capsys.readouterr()
        assert "MB sent" not in shown.out + shown.err
        drawn = io.StringIO()
        with Bar(trainer, Console(file=drawn, force_terminal=True, width=120)) as bar:
            bar(1, 2)
        said = f"step 1/2, {trainer.last_step.sent_bytes / 1e6:,.1f} MB sent, loss {trainer.losses[2]:.4g}"  # type: ignore[union-attr]
        assert said in drawn.getvalue()


def test_who_trains_again_has_the_next_version(pair: InProcess) -> None:
    """And the first one still is what it was: a name is not what a model reads."""
    x, y = rows(16)
    with Cluster(pair.client().config) as cluster:
        trainer = cluster.trainer(perceptron((6, 3)), batch=BATCH, ranges={"x": (0, 1)})
        first, second = trainer.fit(x, y), trainer.fit(x, y, epochs=3)
        assert (first.manifest.version, second.manifest.version) == (1, 2)
        assert not np.allclose(first.release()["w0"], second.release()["w0"], atol=1e-4)
