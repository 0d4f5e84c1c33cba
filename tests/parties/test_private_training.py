"""Logistic regression with noise in every step: one plan, which every party proves, and which is charged once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import onnxruntime
import pytest

from mpc.errors import PlanError, PrivateDataError, UsageError
from mpc.gates.gaussian import Gaussian
from mpc.plan.cost import plan_cost
from mpc.privacy.facts import StoredFacts
from mpc.privacy.gaussian import MOST_DELTA
from mpc.privacy.guarantee import guarantee
from parties.cli.noise import noise_and_total
from parties.client.cluster import Cluster
from parties.client.training import private as private_training
from parties.client.training import unrolled
from parties.party.consent import tables
from tests.support.asking import word
from tests.support.grants import budget, dp, grant
from tests.support.parties import InProcess
from tests.support.plans import with_parts

ANALYST, HOSPITAL = "analyst", "hospital"
ROWS, STEPS, EPSILON = 320, 2, 4


def table(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Three columns of other units, the last of which says nothing, and who is ill."""
    rng = np.random.default_rng(4)
    x = rng.uniform([0, 10, -1], [100, 50, 1], (rows, 3))
    likely = 1 / (1 + np.exp(-((x[:, 0] - 50) / 8 - (x[:, 1] - 30) / 8)))
    return x, (rng.uniform(size=rows) < likely).astype(int)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("training"), 2) as running:
        x, y = table()
        columns = {"age": x[:, 0], "bmi": x[:, 1], "dice": x[:, 2], "ill": y}
        ranges = {"age": (0, 100), "bmi": (10, 50), "dice": (-1, 1), "ill": (0, 1)}
        hospital = Cluster(running.client(HOSPITAL).config)
        hospital.datasets.put("visits", columns, ranges=ranges, rows_per_person=1, visible=[ANALYST])
        yield running
        hospital.close()


def allow(cluster: InProcess, epsilon: int) -> None:
    now = int(time.time())
    said = grant(
        parties=cluster.names,
        dataset="hospital/visits",
        created=now,
        not_before=now - 60,
        expires=now + 3600,
        question=dp(epsilon, mechanisms=("gaussian",), delta=Fraction(1, 10**5)),
    )
    total = budget(epsilon, dataset="hospital/visits", delta=Fraction(1, 10**5))
    for index in range(len(cluster.names)):
        for each in (said, total):
            cluster.consent(index, HOSPITAL).Say(word(each, cluster.identity(HOSPITAL)))


def test_it_is_charged_once_and_learns(cluster: InProcess) -> None:
    analyst = Cluster(cluster.client(ANALYST).config)
    data = analyst.dataset("hospital/visits")
    x, y = data[["age", "bmi", "dice"]], data[["ill"]]
    with pytest.raises(PrivateDataError):
        analyst.fit_private(x, y, EPSILON, steps=STEPS)
    allow(cluster, EPSILON)
    found = analyst.fit_private(x, y, EPSILON, steps=STEPS, center=[50, 30, 0], spread=[29, 12, 0.6])
    assert (found.epsilon, found.rows) == (EPSILON, ROWS)
    assert 0 < found.delta <= Fraction(1, 10**6)
    for ledger in cluster.ledgers:
        with ledger.reading() as database:
            spent = tables.spent_on(database, "hospital/visits")
        assert spent.epsilon == EPSILON * 10**9
        assert 0 < spent.delta <= 10**12
    rows, ill = table(4000)
    right = (found.decision(rows) > 0) == ill
    assert right.mean() > 0.8  # without noise 0.89; guessing 0.5
    assert ((found.probability(rows) > 0.5) == (found.decision(rows) > 0)).all()
    with pytest.raises(PrivateDataError, match="budget"):
        analyst.fit_private(x, y, 1, steps=1)
    analyst.close()


def test_arguments_that_make_no_sense(cluster: InProcess) -> None:
    analyst = Cluster(cluster.client(ANALYST).config)
    data = analyst.dataset("hospital/visits")
    x, y = data[["age"]], data[["ill"]]
    for arguments in (
        (x, data[["age"]], 1),
        (x, data[["ill", "age"]], 1),
        (np.zeros((3, 1)), y, 1),
        (x, y, 0),
        (x, y, 6),
        (x, y, 1, 0.5),
        (x, y, 1, "1/1000000", 0),
        (x, y, 1, "1/1000000", 51),
        (x, y, 1, "1/1000000", 3, 0),
        (x, y, 1, "1/1000000", 3, 1, -1),
        (x, y, 1, "1/1000000", 3, 1, 0, 101),
        (x, y, 1, "1/1000000", 3, 1, 0, [1, 2]),
        (x, y, 1, "1/1000000", 3, 1, 0, "middle"),
        (x, y, 1, "1/1000000", 3, 1, 0, 50, 0),
        (x, y, 1, "1/1000000", 3, 1, 0, 50, 101),
        (x, y, 1, "1/1000000", 3, 1, 0, float("nan")),
        (x[:5], y, 1),
    ):
        with pytest.raises(UsageError):
            analyst.fit_private(*arguments)
    analyst.close()


@pytest.mark.parametrize(("steps", "margin"), [(1, 0.0), (2, 3.0), (5, 2.0), (5, 0.0)])
def test_the_mean_of_the_second_half_is_told(steps: int, margin: float) -> None:
    """Without noise, as numpy has it; under noise the mean of k steps has a good part of it averaged out."""
    x, y = table(40)
    low, high, rate = np.array([0.0, 10, -1]), np.array([100.0, 50, 1]), 2.0
    course = unrolled.Course(steps, rate, margin, np.array([50.0, 30, 0]), np.array([25.0, 10, 0.5]))
    model = unrolled.write(course, low, high, len(x))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": x, "y": y[:, None].astype(float)})
    rows = (x - course.center) / course.spread / (3**0.5 / 3)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    assert (lengths > 1).any() and (lengths < 1).any()
    wide = np.hstack([rows / np.maximum(lengths, 1), np.full((len(x), 1), unrolled.ONE)])
    w, told = np.zeros(4), []
    for step in range(steps):
        off = 0.99 * (1 / (1 + np.exp(margin * (2 * y - 1) - wide @ w)) - 0.5)
        w = w - rate / len(x) * wide.T @ (off - (y - 0.5))
        if step >= steps // 2:
            told.append(w)
    np.testing.assert_allclose(found[:, 0], np.mean(told, axis=0), atol=1e-9)


FACTS = StoredFacts(ROWS, 1, "people")


def planned(
    cluster: InProcess, steps: int = 3, link: str | None = None
) -> tuple[private_training.Compiled, dict[str, StoredFacts]]:
    parties = cluster.client(ANALYST)
    data = Cluster(parties.config).dataset("hospital/visits")
    chosen = data[["age", "bmi", "dice"]], data[["ill"]]
    course = unrolled.Course(steps, 1.0, 0.0, np.array([50.0, 30, 0]), np.array([25.0, 10, 0.5]))
    made = private_training.compile_training(parties, *chosen, Fraction(3), Fraction(1, 10**6), course, link)
    return made, {gate.out: FACTS for gate in made.plan.stored}


def test_every_party_refuses_less_noise_in_any_step(cluster: InProcess) -> None:
    made, facts = planned(cluster)
    whole = guarantee(made.plan, facts)
    loss = whole.of(facts)
    assert loss.epsilon == 3
    assert Fraction(9, 10**7) < loss.delta <= Fraction(1, 10**6)
    assert max(each.loss.delta for each in whole.vectors) > MOST_DELTA  # no step hides anybody by itself
    noises = [gate for gate in made.plan.gates if isinstance(gate, Gaussian)]
    assert len(noises) == 3
    for one in noises:
        less = one.model_copy(update={"sigma": one.sigma / 4})
        gates = [less if gate.name == one.name else gate for gate in made.plan.gates]
        with pytest.raises(PlanError, match="a noised vector with a delta of"):
            guarantee(with_parts(made.plan, gates=gates), facts)
    half = {"epsilon": Fraction(1, 2)}
    claimed = [each.model_copy(update=half) if isinstance(each, Gaussian) else each for each in made.plan.gates]
    with pytest.raises(PlanError, match="a noised vector with a delta of"):
        guarantee(with_parts(made.plan, gates=claimed), facts)


def test_what_steps_tell_is_said_of_all_of_them_together(cluster: InProcess) -> None:
    """Alone none of them protects anybody by its delta; `mpc inspect` says what they do together."""
    made, _ = planned(cluster)
    noises, together = noise_and_total(made.plan)
    assert together is not None and together["epsilon"] == pytest.approx(3) and 0 < together["delta"] <= 1e-6
    assert len(noises) == 3 and sum(each["delta"] for each in noises) > 2 * together["delta"]


def test_more_steps_want_more_noise_by_their_root(cluster: InProcess) -> None:
    sigmas = []
    for steps in (1, 4):
        made, facts = planned(cluster, steps)
        found = guarantee(made.plan, facts)
        sigmas.append(max(float(each.sigma / each.euclidean) for each in found.vectors if each.sigma))
    assert sigmas[1] / sigmas[0] == pytest.approx(6**0.5, rel=0.05)  # the labels' sum counts as three of six


def test_a_declared_link_takes_rounds_off_where_that_is_faster_for_all_rows(cluster: InProcess) -> None:
    rounds = {}
    for link in (None, "1000:100000", "1000:0.01"):
        made, facts = planned(cluster, link=link)
        rounds[link] = plan_cost(made.plan, ROWS).rounds
        assert guarantee(made.plan, facts).vectors
    assert rounds["1000:100000"] < rounds[None] == rounds["1000:0.01"]


def test_what_a_row_can_change_does_not_grow_with_the_columns(cluster: InProcess) -> None:
    """Rows are shortened to a length of 1, beside 1/4 for the intercept: so far apart are two halves of them."""
    parties = cluster.client(ANALYST)
    data = Cluster(parties.config).dataset("hospital/visits")
    for columns in (["age"], ["age", "bmi", "dice"]):
        course = unrolled.Course(2, 1.0, 0.0, *private_training.defaults(data[columns]))
        made = private_training.compile_training(
            parties, data[columns], data[["ill"]], Fraction(3), Fraction(1, 10**6), course
        )
        found = guarantee(made.plan, {gate.out: FACTS for gate in made.plan.stored})
        wires = made.plan.wire
        moved = [float(each.euclidean / wires[each.wire].scale) for each in found.vectors]
        assert moved[0] == pytest.approx((1 + 1 / 16) ** 0.5, rel=0.05)
        assert 0 < moved[1] <= moved[0]  # at so small a rate the first step leaves p near 1/2
