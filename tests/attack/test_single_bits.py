"""A grant of single bits: whoever writes the plan tries to get more than one out of a use, or more than all uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mpc.errors import MpcError, PolicyError, UsageError
from mpc.gates.moves import Reshape
from mpc.gates.open import Open
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.plan.ends import PlanState
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from parties.agreed.bits import tells_one_bit
from parties.agreed.objects import Manifest
from parties.client.datasets import Datasets
from tests.support.asking import AGES, ANALYST, HOSPITAL, Kept, above, exactly, stored
from tests.support.parties import InProcess
from tests.support.plans import wire
from tests.support.questions import INHERITED, UNOPENED, WIDE, B, Question

ONE = {"rows": 1}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with InProcess(tmp_path_factory.mktemp("bits"), 2) as cluster:
        yield Kept(cluster)


@pytest.fixture
def table(kept: Kept) -> Manifest:
    """A table of its own for each test."""
    return kept.put(f"patients-{next(NUMBERS)}")


def plan_of(question: Question) -> Plan:
    return parse_plan(stored(question.unchecked(), ["x"], HOSPITAL, ANALYST).canonical)


def told(q: Question, name: str) -> None:
    """Any number, with a mask of its own, as the output."""
    known = next(each for each in q.wires if each.name == name)
    q.gate(Truncate(name="fresh", x=name, out="fresh", shift=0), wire("fresh", known.shape, known.bits))
    q.output("fresh")


MORE: dict[str, Callable[[Question], None]] = {}


def more(build: Callable[[Question], None]) -> Callable[[Question], None]:
    """A plan that tells more than one bit of one row."""
    MORE[build.__name__.replace("_", " ")] = build
    return build


@more
def two_outputs(q: Question) -> None:
    q.step(60)
    q.step(80, out="other")
    q.output("y", "other")


@more
def one_bit_told_twice(q: Question) -> None:
    q.step(60)
    q.output("y")
    q.outputs.append(q.outputs[0].model_copy(update={"name": "again"}))


@more
def two_levels_at_once(q: Question) -> None:
    q.step(60, 80)
    q.output("y")


@more
def two_bits_in_one_number(q: Question) -> None:
    q.step(60)
    q.step(80, out="other")
    told(q, q.combine("y", "other", factors=(1, 2)))


@more
def a_bit_and_what_stands_beside_it(q: Question) -> None:
    """The bit far up, the value below it: one element."""
    q.step(60)
    q.gate(Reshape(name="r", x="y", out="flat"), wire("flat", (B, 1), 1, **INHERITED))
    told(q, q.combine("x", "flat", factors=(1, 1 << 20)))


@more
def the_value_itself(q: Question) -> None:
    told(q, "x")


@more
def a_bit_that_goes_on(q: Question) -> None:
    q.step(60)
    q.combine("y")
    q.output("y")


@more
def a_bit_that_is_opened_twice(q: Question) -> None:
    half_open(q)
    q.gate(Open(name="o2", x="y", out="z2"), wire("z2", (B, 1, 1), 1))
    q.output("z")


@more
def a_sum_of_bits(q: Question) -> None:
    q.step(60)
    told(q, q.rows())


def half_open(q: Question) -> None:
    """A step whose result is left unopened, and its opening."""
    q.gate(Step(name="s", x="x", levels=(60,), shift=0, out="y"), wire("y", (B, 1, 1), 1, **UNOPENED))
    q.gate(Open(name="o", x="y", out="z"), wire("z", (B, 1, 1), 1))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", sorted(MORE))
def test_security_42_more_than_a_bit_is_refused_by_each_party_alone(
    kept: Kept, table: Manifest, name: str, index: int
) -> None:
    """The other party has a grant of that very plan without the condition, and opens."""
    question = Question((B, 1), bits=7)
    MORE[name](question)
    plan = plan_of(question)
    dataset, binding, before = table.id.hex(), kept.binding(table, **ONE), told_at(kept)
    kept.grant(dataset=dataset, question=exactly(plan, table, 1), only=[1 - index])
    kept.grant(dataset=dataset, question=exactly(plan, table, 1, bits=1), uses=3, only=[index])
    with pytest.raises(PolicyError, match=f"party-{index}: .*one bit a run"):
        kept.ask(plan, binding, batch=1)
    assert told_at(kept) == before
    kept.grant(dataset=dataset, question=exactly(plan, table, 1), only=[index])
    kept.ask(plan, binding, batch=1)  # the control: with a grant of the plan alone it is told
    assert told_at(kept) == [each + 1 for each in before]


def told_at(kept: Kept) -> list[int]:
    return [kept.revealed(index) for index in range(2)]


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_a_bit_of_each_of_many_rows_is_refused_by_each_party_alone(
    kept: Kept, table: Manifest, index: int
) -> None:
    """The plan is the one that was granted; that its run has many rows is seen when it is about to be told."""
    plan, dataset, before = above(), table.id.hex(), kept.revealed(index)
    kept.grant(dataset=dataset, question=exactly(plan, table), only=[1 - index])
    kept.grant(dataset=dataset, question=exactly(plan, table, bits=1), uses=3, only=[index])
    with pytest.raises(MpcError, match="one bit a run"):
        kept.ask(plan, kept.binding(table))
    assert kept.revealed(index) == before


def test_security_42_uses_are_runs_in_one_session_or_in_many(kept: Kept, table: Manifest) -> None:
    plan, dataset, before = above(), table.id.hex(), told_at(kept)
    kept.grant(dataset=dataset, question=exactly(plan, table, 1, bits=1), uses=3)
    binding = kept.binding(table, **ONE)
    early = [kept.open(plan, binding) for _ in range(2)]  # while all three are left
    for _ in range(2):
        early[0].run({}, 1, lambda: 0.0)
    assert kept.ask(plan, binding, batch=1).sum() == 0
    for session in early:
        with pytest.raises(PolicyError, match="used up"):
            session.run({}, 1, lambda: 0.0)
        session.close()
    with pytest.raises(PolicyError, match="used up"):
        kept.open(plan, binding)
    assert told_at(kept) == [each + 3 for each in before]


def test_the_bit_of_a_comparison_is_one_bit() -> None:
    opened = Question((B, 1), bits=7)
    half_open(opened)
    opened.output("z")
    for plan in (above(), plan_of(opened)):
        assert tells_one_bit(plan) and tells_one_bit(plan, 1) and not tells_one_bit(plan, 2)


def test_a_bit_that_stays_at_the_parties_is_none() -> None:
    plan = above()
    kept = plan.model_copy(update={"outputs": tuple(out.model_copy(update={"keep": True}) for out in plan.outputs)})
    assert not tells_one_bit(kept)
    looped = plan.model_copy(update={"states": (PlanState(name="state", in_="x", out=plan.outputs[0].wire),)})
    assert not tells_one_bit(looped)


def test_a_bit_of_a_sum_over_rows_is_one_whatever_their_number() -> None:
    q = Question((B, 1), bits=7)
    q.bound(width=7)
    q.rows()
    q.gate(Open(name="o", x="s", out="t"), wire("t", (1,), WIDE))
    q.step(120, x="t", out="b")
    q.output("b")
    assert tells_one_bit(plan_of(q), 5)


def test_owners_are_told_when_a_grant_of_bits_would_never_be_used(kept: Kept, table: Manifest) -> None:
    hospital, name = Datasets(kept.cluster.client(HOSPITAL)), table.name.partition("/")[2]
    ages, plan = hospital.get(table.name)[["age"]], above()
    q = Question((B, 1), bits=7)
    two_levels_at_once(q)
    for refused, chosen in ((plan_of(q), ages[2:3]), (plan, ages), (plan, ages[2:4])):
        with pytest.raises(UsageError, match="more than one bit"):
            hospital.grant(name, ANALYST, plans=refused, data={"x": chosen}, bit=True, uses=2)
    with pytest.raises(UsageError, match="says how many"):
        hospital.grant(name, ANALYST, plans=plan, data={"x": ages[2:3]}, bit=True)
    made = hospital.grant(name, ANALYST, plans=plan, data=[{"x": ages[2:3]}, {"x": ages[4:]}], bit=True, uses=2)
    assert made.question.exact is not None
    assert [each.bindings["x"].first for each in made.question.exact.plans] == [2, 4]
    for first in (2, 4):
        found = kept.ask(plan, kept.binding(table, first=first, rows=1), batch=1)
        assert found.reshape(-1) == (AGES[first] >= 60)
    with pytest.raises(PolicyError):
        kept.ask(plan, kept.binding(table, first=2, rows=1), batch=1)


def test_neighbouring_rows_are_for_models_and_in_no_question(kept: Kept) -> None:
    ages = Datasets(kept.cluster.client(ANALYST)).get("hospital/patients")[["age"]]
    some = ages[1:3]
    assert some.shape == (2, 1) and len(some) == 2 and list(some.bound_rows) == [1, 2] and "2 rows" in repr(some)
    assert list(ages[-2:].bound_rows) == [3, 4] and list(ages[:100].bound_rows) == list(range(5))
    for asked in (
        lambda: some.mean(),
        lambda: some + 1,
        lambda: np.sqrt(some),
        lambda: np.where(ages > 3, some, 0),
        lambda: some.group_by(ages),
        lambda: ages.group_by(some),
        lambda: some[:, 0],
        lambda: some.get(),
        lambda: some.quantile(0.5),
        lambda: np.stack([some, some], axis=1),
    ):
        with pytest.raises(UsageError, match="some rows of hospital/patients"):
            asked()
    for chosen in (slice(3, 3), slice(9, 12), slice(0, 4, 2), slice(None, None, -1), slice(0.5, 2), slice(ages, None)):
        with pytest.raises(UsageError, match="no neighbouring rows"):
            ages[chosen]
    with pytest.raises(UsageError, match="rows of rows"):
        some[0:1]
