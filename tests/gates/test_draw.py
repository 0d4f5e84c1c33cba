"""Draw: the law is the plan's, exactly, for whoever knows the dealt words and for whoever knows the common ones."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, PlanError, ReuseError
from mpc.gates.draw import WORD_BITS, Draw
from mpc.gates.open import Open
from mpc.interpret import reference
from mpc.interpret.dealer import Dealer
from mpc.interpret.party import PartyRun, SessionWires
from mpc.plan.cost import gate_cost
from mpc.plan.plan import Plan
from mpc.privacy import law
from mpc.shares import Lane
from mpc.wires import Masking
from tests.support.plans import Builder, wire
from tests.support.worlds import deal_by_hand, make_world, words_of

EPSILONS = [Fraction(5), Fraction(1), Fraction(1, 2), Fraction(1, 10), Fraction(1, 100)]
VIEWS = ["nobody's", "the provider's", "all but one party's"]


def plan(thresholds: tuple[int, ...], size: int, width: int = WORD_BITS) -> Plan:
    b, bits = Builder(), max(2, len(thresholds))
    gate = Draw(name="d", out="n", thresholds=thresholds, epsilon=Fraction(1), width=width)
    b.gate(gate, wire("n", (size,), bits, masking=Masking.UNOPENED))
    b.gate(Open(name="o", x="n", out="z"), wire("z", (size,), bits))
    b.output("z")
    return b.build()


def same_for_all(words: np.ndarray, size: int) -> np.ndarray:
    """The first element's words in place of all others': each digit of every element has one."""
    return np.repeat(words.reshape(-1, size)[:, 0], size).reshape(words.shape)


def hold(view: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix what that observer knows: one value for all elements, so that what varies is what it does not know."""
    uniform, common = Dealer.uniform, PartyRun.common

    def held_uniform(self: Dealer, name: str) -> np.ndarray:
        words = uniform(self, name)
        return same_for_all(words, size) if name == "r" else words

    def held_common(self: PartyRun, *what: object) -> np.ndarray:
        return same_for_all(common(self, *what), size)  # type: ignore[arg-type]

    if view == "the provider's":
        monkeypatch.setattr(Dealer, "uniform", held_uniform)
    elif view == "all but one party's":
        monkeypatch.setattr(PartyRun, "common", held_common)


def drawn(plan: Plan, parties: int = 2, number: int = 1) -> np.ndarray:
    return make_world(plan, {}, parties, number).run({}, 1).outputs["z"].reshape(-1)


def deviation(noise: np.ndarray, epsilon: Fraction, sensitivity: int) -> float:
    """Chi-square of noise against the discrete Laplace law, in standard deviations of the statistic."""
    a = np.exp(-float(epsilon) / sensitivity)
    most = int(max(1, np.abs(noise).max() + 1))
    places = np.arange(-most, most + 1)
    expected = (1 - a) / (1 + a) * a ** np.abs(places) * noise.size
    counts = np.bincount(noise + most, minlength=places.size).astype(float)
    cells = np.maximum.accumulate((np.cumsum(expected) // 25).astype(int))  # about 25 expected in each
    expected, counts = (np.bincount(cells, weights=v) for v in (expected, counts))
    kept = expected > 0
    expected, counts = expected[kept], counts[kept]
    if expected[-1] < 10 and expected.size > 2:
        expected, counts = (np.append(v[:-2], v[-2:].sum()) for v in (expected, counts))
    freedom = expected.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def check_law(epsilon: Fraction, sensitivity: int, view: str, size: int, patch: pytest.MonkeyPatch) -> None:
    hold(view, size, patch)
    noise = drawn(plan(law.thresholds(epsilon, sensitivity), size), number=epsilon.denominator + sensitivity)
    assert deviation(noise, epsilon, sensitivity) < 5
    spread = float(law.variance(law.thresholds(epsilon, sensitivity)))
    assert abs(noise.mean()) < 5 * np.sqrt(spread / size)
    assert 0.8 < noise.var() / spread < 1.25 or size < 20_000 and 0.6 < noise.var() / spread < 1.6


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("epsilon", EPSILONS, ids=str)
def test_the_law_is_discrete_laplace(epsilon: Fraction, view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_law(epsilon, 1, view, 3000, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("epsilon", EPSILONS, ids=str)
@pytest.mark.parametrize("sensitivity", [1, 10])
def test_the_law_of_many(epsilon: Fraction, sensitivity: int, view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_law(epsilon, sensitivity, view, 30_000, monkeypatch)


def test_another_law_is_noticed() -> None:
    """The control: noise for half the epsilon, and noise shifted by one, fail."""
    noise = drawn(plan(law.thresholds(Fraction(1, 2), 1), 3000))
    assert deviation(noise, Fraction(1, 4), 1) > 20 and deviation(noise + 1, Fraction(1, 2), 1) > 20


@pytest.mark.parametrize("threshold", [0, 1, 3, 8, 15])
def test_every_pair_of_words_gives_the_bit_that_it_should(threshold: int) -> None:
    """Words of four bits, all 256 pairs: for each r as many c give a one as the threshold says, and for each c as
    many r; so neither alone says anything, and the probability is the threshold's exactly."""
    size, bound = 20_000, plan((threshold,), 20_000, width=4).bind(1)
    world = make_world(bound, {}, 3, number=7)
    noise = world.run({}, 1).outputs["z"]
    words = words_of(world, bound, 1, 1, 7)
    r, c = (words("d", name, (2 * size,), 4).astype(np.int64).reshape(2, size) for name in ("r", "c"))
    seen = np.zeros((2, 16, 16), dtype=bool)  # [bit, r, c]: where the other sign's bit leaves no doubt
    for sign in (0, 1):
        other = ((c[1 - sign] - r[1 - sign]) % 16 < threshold).astype(np.int64)
        bit = noise * (1 - 2 * sign) + other
        assert np.isin(bit, (0, 1)).all()
        for value in (0, 1):
            seen[value, r[sign][bit == value], c[sign][bit == value]] = True
    assert (seen[0] ^ seen[1]).all()  # every pair was met, and always gave one bit
    assert (seen[1].sum(axis=0) == threshold).all() and (seen[1].sum(axis=1) == threshold).all()


def test_small_laws_are_exact_by_enumeration() -> None:
    """All words of two digits of three bits, in the clear: N has exactly the probabilities that the thresholds say."""
    thresholds, width = (5, 2), 3
    u = np.stack(np.meshgrid(*[np.arange(8)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)  # b0 b1 b'0 b'1
    flat = plan(thresholds, len(u), width).bind(1)
    words = {"r": np.full(4 * len(u), 3, dtype=np.uint64), "c": ((u.T.reshape(-1) + 3) % 8).astype(np.uint64)}
    noise = reference.evaluate(flat, {}, lambda *_: np.zeros(0), lambda gate, name, shape, bits: words[name])["n"]
    one, two = 5 / 8, 2 / 8
    digit = {0: (1 - one) * (1 - two), 1: one * (1 - two), 2: (1 - one) * two, 3: one * two}
    for k in range(-3, 4):
        exact = sum(digit[g] * digit[g - k] for g in digit if g - k in digit)
        assert (noise == k).mean() == pytest.approx(exact, abs=1e-12)


def test_runs_and_gates_draw_anew() -> None:
    world = make_world(plan((1 << 46,) * 6, 200), {}, 2)
    runs = [world.run({}, 1).outputs["z"] for _ in range(2)]
    assert (runs[0] != runs[1]).mean() > 0.8


def test_security_40_common_words_need_the_parties_key_and_are_given_once() -> None:
    bound = plan((1 << 46,), 4).bind(1)
    [first, _] = deal_by_hand(plan((1 << 46,), 4), 2).bundles
    for key in (b"", bytes(31)):
        run = PartyRun(bound, Lane.passive(0), first, SessionWires(), key)
        with pytest.raises(LocalProtocolError, match="no key"):
            run.prepare()
        [first, _] = deal_by_hand(plan((1 << 46,), 4), 2).bundles
    run = PartyRun(bound, Lane.passive(0), first, SessionWires(), bytes(32))
    words = run.common("d", "c", (8,), 48)
    assert len(np.unique(words)) == 8
    with pytest.raises(ReuseError):
        run.common("d", "c", (8,), 48)
    another = PartyRun(bound, Lane.passive(0), first, SessionWires(), bytes(31) + b"\1")
    assert not np.intersect1d(another.common("d", "c", (8,), 48), words).size


def test_what_the_provider_deals_does_not_depend_on_the_parties_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider never asks for what is common: it deals before any party has greeted."""
    monkeypatch.setattr(PartyRun, "common", lambda *_: pytest.fail("common words were asked for"))
    deal_by_hand(plan((1 << 46, 5), 9), 3)


def test_a_plan_with_noise_has_no_value_without_its_words() -> None:
    with pytest.raises(PlanError, match="draws noise"):
        reference.evaluate(plan((5,), 3).bind(1), {}, lambda *_: np.zeros(0))


def test_what_it_costs() -> None:
    """A digit: a table of 64 bytes, two nodes of 46, beta; two leaf words of two bytes and a bit."""
    bound = plan((1,) * 10, 80).bind(1)
    cost = gate_cost(bound.gates[0], bound.wire)
    assert (cost.rounds, cost.dealt, cost.sent) == (2, 20 * 80 * 164, 20 * 80 * 33 // 8)


# ------------------------------------------------------------------ the law's numbers


def test_thresholds_are_the_digits_of_the_law() -> None:
    """Against the law itself: the digits' product is the probability of each number, to 2^-44."""
    epsilon, sensitivity = Fraction(1, 2), 3
    levels = law.thresholds(epsilon, sensitivity)
    a, unit = np.exp(-0.5 / 3), float(1 << WORD_BITS)
    for k in (0, 1, 2, 5, 100, (1 << len(levels)) - 1):
        product = np.prod([level / unit if k >> j & 1 else 1 - level / unit for j, level in enumerate(levels)])
        assert product == pytest.approx((1 - a) * a**k, rel=1e-9, abs=2.0**-44)


@pytest.mark.parametrize("epsilon", EPSILONS, ids=str)
@pytest.mark.parametrize("sensitivity", [1, 2, 4095, 1 << 20])
def test_there_are_as_many_digits_as_the_tail_needs(epsilon: Fraction, sensitivity: int) -> None:
    count = law.digits(epsilon, sensitivity)
    tail = partial(lambda b: float(epsilon) * 2.0**b / sensitivity)
    assert tail(count) >= 45 * np.log(2) * (1 - 1e-12) and (count == 1 or tail(count - 1) < 45 * np.log(2))
    assert law.thresholds(epsilon, sensitivity) == tuple(sorted(law.thresholds(epsilon, sensitivity), reverse=True))


def test_golden_thresholds() -> None:
    """Every process has to find these; another number is another law."""
    assert law.thresholds(Fraction(1), 1) == (75700280316650, 33552639700018, 5062668030193, 94392670163, 31675832)
    assert law.thresholds(Fraction(1, 10), 4095)[0] == 140735769948877


def test_delta_is_what_the_documents_say() -> None:
    for epsilon, bound in ((Fraction(5), 2.0**-36), (Fraction(1), 2.0**-41)):
        short = float(law.delta(epsilon, law.digits(epsilon, 1), 1))
        assert bound / 8 < short < bound
    assert law.delta(Fraction(1), 5, 7) >= 7 * law.delta(Fraction(1), 5, 1) * Fraction(99999, 100000)


@pytest.mark.parametrize("epsilon", [Fraction(0), Fraction(-1), Fraction(5) + Fraction(1, 10**9), Fraction(100)])
def test_an_epsilon_outside_is_refused(epsilon: Fraction) -> None:
    with pytest.raises(PlanError, match="epsilon"):
        law.thresholds(epsilon, 1)


def test_noise_beyond_the_field_is_refused() -> None:
    with pytest.raises(PlanError, match="larger than the field"):
        law.thresholds(Fraction(1, 100), 1 << 50)
