"""Training on rows that lie at the parties, of one owner and of several, in stretches that survive whoever dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import InputError, MpcError, PolicyError, SessionError, UsageError
from mpc.plan.program import Program
from parties import SGD, Cluster, Trainer
from parties.agreed.bindings import Binding
from parties.agreed.objects import Manifest
from parties.agreed.questions import ExactPlan
from parties.client.at_rest.keeping import Keeping, keeps
from parties.client.running.prepared import Prepared
from parties.client.session import Session
from parties.client.training.rows import read_rows
from parties.client.training.stretches import Course, course
from parties.client.training.training_list import Listed, read_list
from parties.party.stored import StoredRows
from tests.support.parties import COORDINATOR, InProcess
from tests.support.training import on_reals, perceptron

BATCH, WIDE, CLASSES = 8, 6, 3
NEAR = 0.05
"""What rounding coins may move weights by, a part of their way; a step too few moves them by 0.1, one more by 0.16."""
NAMES = [f"c{number}" for number in range(CLASSES)]


def rows(number: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.rint(256 * rng.random((number, WIDE))) / 256
    return x.astype(np.float32), ((x - 0.5) @ np.random.default_rng(3).standard_normal((WIDE, CLASSES))).argmax(axis=1)


def put(cluster: Cluster, x: np.ndarray, y: np.ndarray, name: str = "rows", **said: Any) -> Any:
    """An array a row, and which class it is of."""
    table = {"x": x, "y": np.array(NAMES)[y]}
    return cluster.datasets.put(
        name, table, ranges={"x": (0, 1)}, bits={"x": 8}, categories={"y": NAMES}, rows_per_person=1, **said
    )


def trainer(cluster: Cluster, optimizer: SGD | None = None) -> Trainer:
    return cluster.trainer(
        perceptron((WIDE, 5, CLASSES)), optimizer=optimizer or SGD(0.5, 0.5), batch=BATCH, ranges={"x": (0, 1)}
    )


def wanted(
    trainer: Trainer, x: np.ndarray, y: np.ndarray, steps: int, seed: int, stored: bool = True
) -> dict[str, np.ndarray]:
    """What real numbers make of these rows in the order of a seed."""
    order = Program(steps=steps, rows=BATCH, seed=f"{seed:064x}")
    read = [order.rows_of(step, len(x)) for step in range(1, steps + 1)]
    targets = y.astype(float) if stored else np.eye(CLASSES)[y]
    *_, found = on_reals(trainer.training, ({"x": x[each], "target": targets[each]} for each in read))
    return found


def off(trainer: Trainer, found: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """How far weights are from others, as a part of how far those went."""
    begun = {state.name: np.asarray(state.values) for state in trainer.training.step.states if not state.velocity}
    assert found.keys() == other.keys()
    apart, went = (
        sum(float(np.square(values - one[name]).sum()) for name, values in other.items()) for one in (found, begun)
    )
    return float((apart / went) ** 0.5)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


@pytest.fixture
def cluster(pair: InProcess) -> Iterator[Cluster]:
    with Cluster(pair.client().config) as found:
        yield found


def test_a_dataset_is_trained_on_where_it_lies(pair: InProcess, cluster: Cluster) -> None:
    x, y = rows(44)
    ds, made = put(cluster, x, y), trainer(cluster)
    seen: list[tuple[int, int]] = []
    with made.fit(ds["x"], ds["y"], epochs=2, seed=5, progress=lambda *done: seen.append(done)) as model:
        assert seen == [(step, 10) for step in range(1, 11)]
        assert made.last_step is not None and made.last_step.rounds > 0
        found = model.release()
        assert off(made, found, wanted(made, x, y, 10, 5)) < NEAR
        assert off(made, found, wanted(made, x, y, 10, 6)) > 0.3  # in another order weights go elsewhere
        [logits] = model.run(None, {"x": x[:7]})
        hidden = np.maximum(x[:7] @ found["w0"] + found["b0"], 0)
        np.testing.assert_allclose(logits, hidden @ found["w1"] + found["b1"], atol=0.01)
    assert model.manifest.kept is not None
    assert [each.name for each in model.manifest.kept.origins] == [f"{COORDINATOR}/rows"]


def test_steps_that_tell_nothing_wait_for_no_disk_and_are_charged_to_nobody(pair: InProcess, cluster: Cluster) -> None:
    """32 runs are burnt in one write; a crash in between burns them all."""
    x, y = rows(44)
    ds = put(cluster, x, y)
    trainer(cluster).fit(ds["x"], ds["y"], epochs=8, seed=5)
    ledger = pair.ledgers[0]
    training = ledger.history(1)[0]
    states = pair.run_states(0, bytes.fromhex(training.session_id))
    assert states == ["kept"] * 39 + ["revealed"] and (training.runs, training.revealed) == (40, 1)


# ------------------------------------------------------------------ several owners

OWNERS = ("north", "south", "west")


class Hospitals:
    """Five cases each, and somebody who holds none."""

    def __init__(self, pair: InProcess, stack: ExitStack) -> None:
        self.x, self.y = rows(15)
        self.of = {name: stack.enter_context(Cluster(pair.client(name).config)) for name in OWNERS}
        for place, cluster in enumerate(self.of.values()):
            mine = slice(5 * place, 5 * place + 5)
            put(cluster, self.x[mine], self.y[mine], visible=True)
        self.lab = stack.enter_context(Cluster(pair.client("lab").config))
        self.sets = [self.lab.dataset(f"{name}/rows") for name in OWNERS]

    def read(self) -> tuple[list[Any], list[Any]]:
        return [each["x"] for each in self.sets], [each["y"] for each in self.sets]

    def grant(self, listed: list[ExactPlan], names: tuple[str, ...] = OWNERS, **said: Any) -> None:
        for name in names:
            self.of[name].datasets.grant("rows", "lab", plans=listed, **said)


@pytest.fixture
def hospitals(pair: InProcess) -> Iterator[Hospitals]:
    with ExitStack() as stack:
        yield Hospitals(pair, stack)


def test_hospitals_with_five_cases_each_train_one_model(pair: InProcess, hospitals: Hospitals) -> None:
    made, read = trainer(hospitals.lab), hospitals.read()
    listed = made.listed(*read, epochs=6, seed=2)
    assert len(listed) == 3  # the training, predictions, being told
    hospitals.grant(listed[:2], ("north", "south"))
    with pytest.raises((PolicyError, SessionError), match="west"):
        made.fit(*read, epochs=6, seed=2)  # one of them has not said a word
    hospitals.grant(listed[:2], ("west",), uses=2)
    with pytest.raises((PolicyError, SessionError)):
        made.fit(*read, epochs=6, seed=3)  # in another order, nobody has granted it
    with made.fit(*read, epochs=6, seed=2) as model:
        [logits] = model.run(None, {"x": hospitals.x})
        best = wanted(made, hospitals.x, hospitals.y, 6, 2)
        hidden = np.maximum(hospitals.x @ best["w0"] + best["b0"], 0)
        assert np.abs(logits - (hidden @ best["w1"] + best["b1"])).max() < 0.3
        with pytest.raises((PolicyError, SessionError)):
            model.release()  # which they have not granted
    given = {each.grant.owner: each.uses for each in _given(hospitals.lab)}
    assert given == dict.fromkeys(OWNERS, 2)  # one training, one run of its model
    with pytest.raises((PolicyError, SessionError), match="used up|west"):
        made.fit(*read, epochs=6, seed=2)


def _given(cluster: Cluster) -> Any:
    from parties.client.consent import granting

    return granting.given(cluster.parties)


def test_rows_that_are_not_held_alike_are_refused(pair: InProcess, hospitals: Hospitals) -> None:
    made, (xs, ys) = trainer(hospitals.lab), hospitals.read()
    north = hospitals.of["north"]
    table = {"x": hospitals.x[:5], "y": np.array(NAMES)[hospitals.y[:5]]}
    said: dict[str, Any] = {"ranges": {"x": (0, 1)}, "rows_per_person": 1}
    fine = north.datasets.put("fine", table, categories={"y": NAMES}, **said)
    turned = north.datasets.put("turned", table, bits={"x": 8}, categories={"y": NAMES[::-1]}, **said)
    for error, problem, x, y in (
        (InputError, "not held alike", [*xs, fine["x"]], [*ys, fine["y"]]),
        (InputError, "not held alike", [*xs, turned["x"]], [*ys, turned["y"]]),
        (InputError, "different numbers of rows", xs, ys[:2]),
        (InputError, "not what the model reads", {"z": xs}, ys),
        (UsageError, "is an array", xs, hospitals.y),
        (InputError, "there are 5 rows", xs[0], ys[0]),
    ):
        with pytest.raises(error, match=problem):
            made.fit(x, y)
    with pytest.raises(UsageError, match="nobody has to grant"):
        made.listed(hospitals.x, hospitals.y)


# ------------------------------------------------------------------ checkpoints


def test_stretches_are_the_training_that_would_have_been(pair: InProcess, cluster: Cluster) -> None:
    """And each stretch is a version of the name; momentum goes on too."""
    x, y = rows(44)
    ds, made = put(cluster, x, y), trainer(cluster)
    whole = made.fit(ds["x"], ds["y"], epochs=2, seed=5, name="whole").release()
    cut = made.fit(ds["x"], ds["y"], epochs=2, seed=5, name="cut", checkpoint_every=4)
    assert cut.manifest.version == 3
    found = cut.release()
    assert off(made, found, wanted(made, x, y, 10, 5)) < NEAR
    assert off(made, found, whole) < NEAR


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with InProcess(tmp_path_factory.mktemp("chain"), 2) as running, Cluster(running.client().config) as cluster:
        yield Chain(running, cluster)


class Chain:
    """A training of four stretches, of which two are made, by a coordinator that may bind them as it likes."""

    def __init__(self, pair: InProcess, cluster: Cluster) -> None:
        self.pair, self.cluster, (x, y) = pair, cluster, rows(44)
        ds, made = put(cluster, x, y), trainer(cluster)
        read = read_rows(["x"], "target", ds["x"], ds["y"])
        made.listed(
            ds["x"], ds["y"], epochs=2, checkpoint_every=3, check_every=None
        )  # compiles the step for these rows
        self.course, self.other = (course(made.training, read, 10, seed, 3, f"{COORDINATOR}/chain") for seed in (5, 6))
        self.first = self.run(self.course, 0, None)
        self.second = self.run(self.course, 1, self.first)

    def run(self, course: Course, number: int, kept: Manifest | None) -> Manifest:
        def step(step: int, run: int, session: Session) -> bool:
            session.run(None, None, 1)
            return False

        return course.run(self.cluster.parties, lambda session: None, number, kept, step)

    def require_refused(self, number: int, bindings: list[Binding], problem: str) -> None:
        """By each party alone; and through the front door."""
        plan = self.course.plans[number]
        made = keeps(self.cluster.parties, plan, {each.name: Keeping(self.course.name) for each in plan.kept})
        for node in self.pair.nodes:
            with pytest.raises(InputError, match=problem) as refused:
                StoredRows(plan, node.imagined(plan, bindings, made), node.vault)
            assert "trainer.resume" in str(refused.value.remedy)
        with pytest.raises(MpcError, match=problem):
            Session(self.cluster.parties, Prepared(plan, {}, []), bindings=bindings, keeps=made, quiet=True)


@pytest.mark.parametrize(("number", "left"), [(2, "first"), (1, "second"), (3, "second"), (3, "first")])
def test_a_stretch_that_is_left_out_made_twice_or_taken_out_of_turn_is_refused(
    chain: Chain, number: int, left: str
) -> None:
    bindings = chain.course.bindings(number, getattr(chain, left))
    chain.require_refused(number, bindings, "is not what the steps before these have left")


def test_a_stretch_of_another_training_is_refused(chain: Chain) -> None:
    """Its rows come in another order, and all else is alike."""
    another = chain.run(chain.other, 0, None)
    chain.require_refused(1, chain.course.bindings(1, another), "is not what the steps before these have left")


def test_states_begin_with_themselves_of_one_session(chain: Chain) -> None:
    """The first stretch made twice leaves two objects, of which one state each is no training's."""
    again = chain.run(chain.course, 0, None)
    one, other = chain.course.bindings(1, chain.first), chain.course.bindings(1, again)
    chain.require_refused(1, [*one[:-1], other[-1]], "what several sessions have left")
    place = {each.columns[0]: number for number, each in enumerate(one)}
    biased, moving = place["weight.1"], place["velocity.1"]  # of one shape
    swapped = [*one]
    swapped[biased], swapped[moving] = (
        replace(one[biased], columns=one[moving].columns),
        replace(one[moving], columns=one[biased].columns),
    )
    chain.require_refused(1, swapped, "begins with something else than itself")


class Cut(Exception):
    """Whoever coordinates is gone."""


@pytest.mark.parametrize("stored", [True, False])
def test_a_stretch_in_which_no_loss_is_due_tells_none(pair: InProcess, cluster: Cluster, stored: bool) -> None:
    """Of 2, 2 and 1 steps the second stretch tells the loss, of step 3; the training goes on, and its list is read."""
    x, y = rows(44)
    made, read = trainer(cluster), (x, y)
    if stored:
        ds = put(cluster, x, y)
        read = (ds["x"], ds["y"])
    options: dict[str, Any] = {"seed": 5, "checkpoint_every": 2, "release": {"loss": 3}}

    def die(done: int, steps: int) -> None:
        if done == 3:
            raise Cut

    with pytest.raises(Cut):
        made.fit(*read, **options, progress=die)
    seen: list[int] = []
    model = made.resume(*read, **options, progress=lambda done, steps: seen.append(done))
    assert seen == [3, 4, 5] and [*made.losses] == [3]
    assert off(made, model.release(), wanted(made, x, y, 5, 5, stored)) < NEAR
    if stored:
        stretches = read_list(made.training_list(*read, **options).content).granted()
        assert [*map(tells_loss, stretches)] == [[], [1], []]


def tells_loss(each: Listed) -> list[int]:
    """The runs of a stretch, and some after it, in which the loss is told."""
    return [run for run in range(1, 12) if "loss" in each.plan.part(run)[1]]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("who", ["client", "party", "provider"])
def test_training_goes_on_after_anybody_has_died(pair: InProcess, cluster: Cluster, who: str, stored: bool) -> None:
    x, y = rows(44)
    made = trainer(cluster)
    read = (x, y)
    if stored:
        ds = put(cluster, x, y)
        read = (ds["x"], ds["y"])
    options: dict[str, Any] = {"epochs": 2, "seed": 5, "checkpoint_every": 4}

    def die(done: int, steps: int) -> None:
        if done == 6 and who == "client":
            raise Cut
        if done == 6 and who == "party":
            pair.crash(1)
        if done == 6 and who == "provider":
            pair.stop_provider()

    with pytest.raises(InputError, match="no checkpoint of this training"):
        made.resume(*read, **options)
    with pytest.raises((Cut, MpcError)):
        made.fit(*read, **options, progress=die)
    if who == "party":
        pair.revive(1)
    if who == "provider":
        pair.start_provider()
    with Cluster(pair.client().config) as again:  # as a client that is started again does
        made = trainer(again)
        seen: list[int] = []
        for changed in ({"checkpoint_every": 5}, *([{"seed": 6}] if stored else [])):
            with pytest.raises(InputError, match="no checkpoint of this training"):
                made.resume(*read, **{**options, **changed})
        model = made.resume(*read, **options, progress=lambda done, steps: seen.append(done))
        assert seen == [5, 6, 7, 8, 9, 10]  # from the checkpoint behind step 4
        found = model.release()
        whole = made.resume(*read, **options, progress=lambda done, steps: seen.append(done))
        assert whole.manifest == model.manifest and len(seen) == 6  # it is at its end
        assert off(made, found, wanted(made, x, y, 10, 5, stored)) < NEAR
