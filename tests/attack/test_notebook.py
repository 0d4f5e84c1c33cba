"""An attacker's notebook: plans, questions and words that try to get more than was allowed; each party alone says no.

The attacker has a certificate, writes plans by hand and speaks to the parties as it likes.  In each case one party was
told what owners allow, and the other one was made to accept anything; the controls show what an attack would get where
nobody says no.  What is elsewhere is listed at the end.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import MpcError, PolicyError
from mpc.gates.linear import Weigh
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.truncate import Truncate
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding, write_bindings
from parties.agreed.objects import Manifest
from parties.agreed.questions import Bound, Exact, ExactPlan, Question
from parties.client.consent import granting
from parties.client.running import stocks
from parties.pb import party_pb2
from tests.support.asking import AGES, ANALYST, HOSPITAL, ROWS, Kept, above, exactly, noised_sum, stored, word
from tests.support.grants import budget, dp, grant
from tests.support.objects import AGE, described, put
from tests.support.parties import InProcess
from tests.support.plans import wire
from tests.support.questions import INHERITED, UNOPENED, WIDE, B
from tests.support.questions import Question as Asking

ROOT = Path(__file__).parents[2]
W = 255
"""What a row can change: of eight bits."""
BARE = int(AGES.sum())
"""The sum that noise should hide."""


def one(question: Asking | None = None) -> Asking:
    """A question about ages, which are bounded to eight bits and summed."""
    q = question or Asking((B, 1), bits=7)
    q.bound(width=8)
    q.rows()
    return q


def fresh(q: Asking, name: str, out: str = "told") -> None:
    """A number with a mask of its own, as an output."""
    known = next(each for each in q.wires if each.name == name)
    q.gate(Truncate(name=f"fresh:{out}", x=name, out=out, shift=0), wire(out, known.shape, known.bits))
    q.output(out)


# ------------------------------------------------------------------ plans

Gain = Callable[[np.ndarray], bool]
PLANS: dict[str, tuple[Callable[[], Asking], str, Gain | None]] = {}


def attack(reason: str, gain: Gain | None = None) -> Callable[[Callable[[], Asking]], Callable[[], Asking]]:
    """A plan, why it is refused, and what its author would have of the answer."""

    def keep(build: Callable[[], Asking]) -> Callable[[], Asking]:
        PLANS[build.__name__.replace("_", " ")] = (build, reason, gain)
        return build

    return keep


def is_bare(found: np.ndarray) -> bool:
    return bool((found == BARE).any())


@attack("not those of epsilon")
def thresholds_off_by_one() -> Asking:
    q = one()
    q.noised(sensitivity=W)
    [place] = [n for n, gate in enumerate(q.gates) if gate.kind == "draw"]
    levels = q.gates[place].thresholds
    q.gates[place] = q.gates[place].model_copy(update={"thresholds": (levels[0] - 1, *levels[1:])})
    return q


@attack("not those of epsilon", lambda found: bool(np.abs(found / (1 << 20) - BARE).max() < 1))
def a_sum_weighed_behind_rows() -> Asking:
    """Noise for 255 units on a sum that was made a million times larger."""
    q = one()
    q.gate(Weigh(name="w", x="s", axis=0, factors=(1 << 20,), out="t"), wire("t", (1,), 59, **UNOPENED))
    q.noised("t", sensitivity=W)
    return q


@attack("2\\^52 or more")
def a_map_that_wraps_in_machine_words() -> Asking:
    """Twice 2^32: nothing in 64 bits, and 8 in the field, so noise for what seems to be no sum at all."""
    q = one()
    for name, x in (("t", "s"), ("u", "t")):
        q.gate(Weigh(name=name, x=x, axis=0, factors=(1 << 32,), out=name), wire(name, (1,), 59, **UNOPENED))
    q.noised("u")
    return q


@attack("as it was drawn", is_bare)
def noise_mapped_to_nothing() -> Asking:
    q = one()
    q.draw((1,), sensitivity=W)
    q.gate(Weigh(name="w", x="n", axis=0, factors=(0,), out="n0"), wire("n0", (1,), WIDE, **UNOPENED))
    q.told(q.combine("s", "n0"))
    return q


@attack("is multiplied", lambda found: int(found.reshape(-1)[0]) % (1 << 31) == BARE)
def noise_shifted_above_the_sum() -> Asking:
    q = one()
    q.draw((1,), sensitivity=W)
    q.told(q.combine("s", "n", factors=(1, 1 << 31)))
    return q


@attack("is shared by several elements", lambda found: int(np.diff(found.reshape(-1))[0]) == BARE)
def one_draw_for_two_sums() -> Asking:
    """The second one is twice the first: their difference has no noise."""
    q = one()
    q.gate(Take(name="t", x="s", axis=0, indices=(0, 0), out="t"), wire("t", (2,), WIDE, **UNOPENED))
    q.gate(Weigh(name="w", x="t", axis=0, factors=(1, 2), out="u"), wire("u", (2,), WIDE, **UNOPENED))
    q.draw((1,), sensitivity=3 * W)
    q.told(q.combine("u", "n"))
    return q


@attack("is read more than once", is_bare)
def noise_added_and_taken_off() -> Asking:
    q = one()
    q.draw((1,), sensitivity=W)
    q.told(q.combine("s", "n", "n", factors=(1, 1, -1)))
    return q


@attack("tells a sum without noise", is_bare)
def a_sum_beside_the_noised_one() -> Asking:
    q = one()
    q.noised(sensitivity=W)
    q.bound(width=8, out="again")
    q.rows("again", "bare")
    q.told("bare", "b")
    return q


@attack("nothing is proved of what a row contributes", lambda found: found.sum() > 0)
def a_sum_of_what_is_not_bounded() -> Asking:
    """The weight, which the asker chooses, makes one person's row larger than all noise."""
    q = Asking((B, 1), bits=7)
    q.gate(Multiply(name="m", x="x", y="x", out="p"), wire("p", (B, 1), 20))
    q.rows("p")
    q.noised(sensitivity=W)
    return q


@attack("not those of epsilon")
def bits_that_lie() -> Asking:
    """A value declared too small falls through comparisons in any pattern: a histogram's row changes more than 2."""
    q = Asking((B, 1), bits=7)
    q.bound(width=8, drawn=True)
    q.gate(Weigh(name="w", x="y", axis=1, factors=(1 << 8,), out="w"), wire("w", (B, 1), 4, **INHERITED))
    q.step(3, 7, 9, x="w", out="b")
    q.rows("b")
    for name, places in (("up", (-1, 0, 1, 2)), ("on", (0, 1, 2, -1))):
        q.gate(Take(name=name, x="s", axis=1, indices=places, out=name), wire(name, (1, 4), WIDE, **INHERITED))
    q.noised(q.combine("up", "on", factors=(1, -1), out="h"), sensitivity=2)
    return q


@attack("it moves rows")
def rows_mixed_by_a_reshape() -> Asking:
    """(batch, 2) turned over and read as (batch, 2): a row holds two people, and counts as one."""
    q = Asking((B, 1), bits=7)
    q.bound(width=8)
    q.gate(Concat(name="c", xs=("y", "y"), axis=1, out="c"), wire("c", (B, 2), 8, **UNOPENED))
    q.gate(Reshape(name="r", x="c", out="t", axes=(1, 0)), wire("t", (B, 2), 8, **UNOPENED))
    q.rows("t")
    q.noised(sensitivity=2 * W)
    return q


@attack("first axis of .* alone|rows beside another axis")
def rows_mixed_by_a_broadcast() -> Asking:
    """(batch,) laid against (batch, 1): every pair of rows, each to be told."""
    q = Asking((B, 1), bits=7)
    q.bound(width=8)
    q.gate(Reshape(name="r", x="y", out="t"), wire("t", (B,), 8, **UNOPENED))
    q.told(q.combine("y", "t", out="pairs", shape=(B, B)))
    return q


@attack("tells single rows", lambda found: np.array_equal(found.reshape(-1), AGES.reshape(-1)))
def the_rows_themselves() -> Asking:
    q = Asking((B, 1), bits=7)
    fresh(q, "x")
    return q


@attack("costs epsilon 3, and grant")
def one_epsilon_for_six_vectors() -> Asking:
    """Each is within the grant's epsilon a run; their mean has a sixth of the variance."""
    q = Asking((B, 1), bits=7)
    q.bound(width=8)
    for number in range(6):
        q.rows("y", f"s{number}")
        q.noised(f"s{number}", sensitivity=W, tag=str(number))
    return q


class Notebook(Kept):
    """A cluster with three tables: of two each, one party has the owner's word, and of the third no party has it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plans = {name: plan_of(build()) for name, (build, _, _) in PLANS.items()}
        self.told_to = [self.put("told-0"), self.put("told-1")]
        for index, manifest in enumerate(self.told_to):
            self.say(budget(20, dataset=manifest.name))
            self.grant(dataset=manifest.name, question=dp(10, 2, outputs=8), only=[index])
            self.anything(manifest, [1 - index])
        self.anything(self.manifest, [0, 1])

    def anything(self, manifest: Manifest, only: list[int]) -> None:
        """A grant of all these plans as they are: a party that has it lets them through."""
        bound = Bound(dataset=manifest.id.hex(), columns=("age",), first=0, rows=ROWS)
        listed = tuple(ExactPlan(plan=each.digest.hex(), bindings={"x": bound}) for each in self.plans.values())
        self.grant(dataset=manifest.id.hex(), question=Question(exact=Exact(plans=listed)), only=only)


def plan_of(question: Asking) -> Plan:
    return parse_plan(stored(question.unchecked(), ["x"], HOSPITAL, ANALYST).canonical)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with InProcess(tmp_path_factory.mktemp("notebook"), 2) as cluster:
        yield Notebook(cluster)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", sorted(PLANS))
def test_security_40_a_plan_is_refused_by_each_party_alone(notebook: Notebook, name: str, index: int) -> None:
    told, spent = notebook.revealed(index), notebook.spent(index, f"hospital/told-{index}")
    with pytest.raises(PolicyError, match=rf"party-{index}: .*({PLANS[name][1]})"):
        notebook.ask(notebook.plans[name], notebook.binding(notebook.told_to[index]))
    assert (notebook.revealed(index), notebook.spent(index, f"hospital/told-{index}")) == (told, spent)


def test_who_is_refused_by_one_party_takes_no_place_at_the_others(notebook: Notebook) -> None:
    """However often: a refused asker would keep everybody out."""
    plan, binding = notebook.plans["thresholds off by one"], notebook.binding(notebook.told_to[1])
    before = [len(node.proposals) for node in notebook.cluster.nodes]
    for _ in range(notebook.cluster.nodes[0].config.limits.max_sessions + 1):
        with pytest.raises(PolicyError, match="party-1"):
            notebook.ask(plan, binding)
    assert [len(node.proposals) for node in notebook.cluster.nodes] == before


@pytest.mark.parametrize("name", sorted(PLANS))
def test_the_same_plan_is_answered_where_no_party_minds(notebook: Notebook, name: str) -> None:
    """The control: the plan runs, and tells what its author wants."""
    gain = PLANS[name][2]
    session = notebook.open(notebook.plans[name])
    try:
        [answers, *_] = session.run({}, ROWS, lambda: 0.0)
    finally:
        session.close()
    assert gain is None or any(gain(found) for found in answers.values())


def test_the_honest_plan_is_answered_under_the_owners_word(notebook: Notebook) -> None:
    """The other control: with noise as it should be, both parties tell, and both charge."""
    honest = notebook.put("honest")
    notebook.say(budget(1, dataset=honest.name))
    notebook.grant(dataset=honest.name, question=dp(1))
    found = notebook.ask(noised_sum(), notebook.binding(honest))
    assert found.shape == (1,)
    assert [notebook.spent(index, honest.name) for index in range(2)] == [500_000_000] * 2


# ------------------------------------------------------------------ bindings


def two_readings() -> Plan:
    """One dataset read twice and added row by row, with noise for one row of it."""
    q = Asking((B, 1), bits=7)
    q.enter("other", (B, 1), 7)
    q.combine("x", "other", out="both")
    q.gate(Truncate(name="fresh", x="both", out="fresh", shift=0), wire("fresh", (B, 1), WIDE + 3))
    q.bound("fresh", width=8)
    q.rows()
    q.noised(sensitivity=W)
    return parse_plan(stored(q.unchecked(), ["x", "other"], HOSPITAL, ANALYST).canonical)


@pytest.mark.parametrize("index", [0, 1])
def test_security_40_one_dataset_bound_twice_with_an_offset(notebook: Notebook, index: int) -> None:
    """Row i of one reading is row i + 1 of the other: a person is in two rows of the sum, and the noise covers one."""
    plan, manifest = two_readings(), notebook.put(f"twice-{index}")

    def bound(second: int) -> tuple[Binding, ...]:
        return tuple(
            Binding(wire, manifest.id, ("age",), first, ROWS - 1) for wire, first in (("x", 0), ("other", second))
        )

    listed = granting.listed(plan, bound(1))
    notebook.say(budget(20, dataset=manifest.name))
    notebook.grant(dataset=manifest.name, question=dp(20))
    notebook.grant(dataset=manifest.id.hex(), question=Question(exact=Exact(plans=(listed,))), only=[1 - index])
    with pytest.raises(PolicyError, match=rf"party-{index}: .*not those of epsilon"):
        notebook.open(plan, bound(1))
    notebook.open(plan, bound(0)).close()  # the control: without the offset a person is in one row
    assert notebook.spent(index, manifest.name) == 0


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_columns_swapped_under_an_exact_grant(notebook: Notebook, index: int) -> None:
    """Consent to who is above sixty is none to whose score is."""
    cluster, plan, columns = notebook.cluster, above(), (AGE, AGE.model_copy(update={"name": "score"}))
    manifest = put(cluster.client(HOSPITAL), described(f"two-{index}", ROWS, columns))
    dataset = manifest.id.hex()
    swapped = Bound(dataset=dataset, columns=("score",), first=0, rows=ROWS)
    listed = ExactPlan(plan=plan.digest.hex(), bindings={"x": swapped})
    notebook.grant(dataset=dataset, question=exactly(plan, manifest))
    notebook.grant(dataset=dataset, question=Question(exact=Exact(plans=(listed,))), only=[1 - index])
    with pytest.raises(PolicyError, match=rf"party-{index}: .*reads other rows, columns, datasets or weights"):
        notebook.ask(plan, notebook.binding(manifest, columns=("score",)))
    notebook.ask(plan, notebook.binding(manifest))


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_two_versions_differenced(notebook: Notebook, index: int) -> None:
    """An exact answer of each of two versions, one person apart, is that person: a grant is of one of them."""
    plan, name = above(), f"versions-{index}"
    first, second = notebook.put(name), notebook.put(name)
    for only, manifests in (([index], [first]), ([1 - index], [first, second])):
        for manifest in manifests:
            notebook.grant(dataset=manifest.id.hex(), question=exactly(plan, manifest), only=only)
    notebook.ask(plan, notebook.binding(first))
    with pytest.raises(PolicyError, match=rf"party-{index}: .*granted analyst nothing"):
        notebook.ask(plan, notebook.binding(second))


# ------------------------------------------------------------------ words


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_a_word_of_another_cluster(notebook: Notebook, index: int) -> None:
    """A grant and a budget that an owner signed for another cluster of the same people and names."""
    hospital, now = notebook.cluster.identity(HOSPITAL), int(time.time())
    manifest = notebook.put(f"replayed-{index}")
    times = {"created": now, "not_before": now - 60, "expires": now + 600}
    given = grant(parties=notebook.cluster.names, dataset=manifest.name, **times)
    total = budget(1, dataset=manifest.name)
    for statement in (given, total):
        elsewhere = statement.model_copy(update={"cluster": "5" * 32})
        notebook.say(statement, only=[1 - index])
        with pytest.raises(MpcError, match="another cluster") as caught:
            notebook.cluster.consent(index, HOSPITAL).Say(word(elsewhere, hospital))
        assert caught.value.code == "integrity"
    with pytest.raises(PolicyError, match=rf"party-{index}: .*granted analyst nothing"):
        notebook.ask(noised_sum(), notebook.binding(manifest))
    notebook.say(given, only=[index])
    with pytest.raises(PolicyError, match=rf"party-{index}: .*set no budget"):
        notebook.ask(noised_sum(), notebook.binding(manifest))
    notebook.say(total, only=[index])
    notebook.ask(noised_sum(), notebook.binding(manifest))


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_a_budget_that_was_lowered_is_said_again(notebook: Notebook, index: int) -> None:
    """The owner's own old word, brought by somebody else or by its own client, raises nothing."""
    manifest = notebook.put(f"lowered-{index}")
    notebook.grant(dataset=manifest.name, question=dp(5))
    old = budget(5, 1, dataset=manifest.name)
    notebook.say(old)
    notebook.say(budget(Fraction(1, 4), 2, dataset=manifest.name), only=[index])
    for caller in (HOSPITAL, ANALYST):
        with pytest.raises(MpcError):
            notebook.cluster.consent(index, caller).Say(word(old, notebook.cluster.identity(HOSPITAL)))
    with pytest.raises(PolicyError, match=rf"party-{index}: .*0\.25 of its budget is left"):
        notebook.ask(noised_sum(), notebook.binding(manifest))


# ------------------------------------------------------------------ what was dealt before


@pytest.mark.parametrize("index", [0, 1])
def test_a_stock_of_data_at_rest_is_none(notebook: Notebook, index: int) -> None:
    """A stock could be put back with a party's disk, and used again where no client keeps a list: so none is dealt."""
    plan, manifest = noised_sum(), notebook.put(f"stocked-{index}")
    notebook.say(budget(5, dataset=manifest.name))
    notebook.grant(dataset=manifest.name, question=dp(5))
    parties = notebook.cluster.client(ANALYST)
    with pytest.raises(MpcError):
        stocks.order(parties, plan, [ROWS])
    for bindings in ((), notebook.binding(manifest)):
        terms = stocks.propose(parties, plan, ahead=False, bindings=bindings)
        agreed = party_pb2.StockTerms(
            plan_digest=terms.plan_digest,
            parties=terms.parties,
            nonces=terms.nonces,
            batches=[ROWS],
            bindings=write_bindings(bindings),
        )
        request = party_pb2.StoreRequest(session_id=terms.session_id, run=0, terms=agreed)
        with pytest.raises(MpcError) as caught:
            notebook.cluster.party(index, ANALYST).Store(request)
        assert caught.value.code in ("plan", "session"), caught.value
        assert not notebook.cluster.ledgers[index].stocked()


# ------------------------------------------------------------------ and elsewhere

ELSEWHERE = {
    "a restored ledger at n - 1 parties": ("consent", "security_41_ledgers_that_are_put_back_gain_nothing"),
    "a ledger from before a charge": ("consent", "security_41_a_database_from_before_a_charge_is_refused"),
    "more than a grant's one bit": ("single_bits", "security_42_more_than_a_bit_is_refused_by_each_party_alone"),
    "words that others signed": ("consent", "security_42_words_of_others"),
    "a new key under an old name": ("consent", "security_42_a_name_that_is_issued_again_inherits_nothing"),
    "two values under one seed": ("data_at_rest", "security_43_two_values_under_one_seed_are_impossible"),
    "parties restored together": ("restored", "security_32_all_parties_restored_with_a_stock_that_was_used"),
}


def test_what_is_elsewhere_is_there() -> None:
    for what, (file, name) in ELSEWHERE.items():
        tree = ast.parse((ROOT / "tests" / "attack" / f"test_{file}.py").read_text())
        assert f"test_{name}" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, what


def test_there_are_twenty_attempts_and_more() -> None:
    """Of plans here, of bindings and words here, and elsewhere."""
    here = [name for name in globals() if name.startswith("test_security_4")]
    assert len(PLANS) + len(here) - 1 + len(ELSEWHERE) >= 25
