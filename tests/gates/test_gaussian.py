"""Gaussian: either half by itself has the discrete Gaussian law exactly, and the table follows from sigma alone."""

from __future__ import annotations

import hashlib
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from mpc import gaussian
from mpc.errors import LocalProtocolError, PlanError
from mpc.field import to_signed
from mpc.gates.gaussian import Gaussian
from mpc.gates.open import Open
from mpc.interpret import reference
from mpc.interpret.party import PartyRun, SessionWires
from mpc.plan.cost import gate_cost, plan_cost
from mpc.plan.plan import Plan
from mpc.shares import Lane
from mpc.wires import Masking
from tests.support.plans import Builder, wire
from tests.support.worlds import deal_by_hand, make_world, words_of

SIGMAS = [Fraction(1, 2), Fraction(3), Fraction(100), Fraction(1024)]


def plan(sigma: Fraction, size: int) -> Plan:
    b = Builder()
    b.gate(Gaussian(name="g", out="n", sigma=sigma, epsilon=Fraction(1)), wire("n", (size,), 20, masking="unopened"))
    b.gate(Open(name="o", x="n", out="z"), wire("z", (size,), 20))
    b.output("z")
    return b.build()


def chances(sigma: Fraction) -> np.ndarray:
    """The law's probabilities of -K .. K, by floating point."""
    k = np.arange(-gaussian.reach(sigma), gaussian.reach(sigma) + 1)
    found = np.exp(-(k**2) / (2 * float(sigma) ** 2))
    return np.asarray(found / found.sum())


def deviation(noise: np.ndarray, sigma: Fraction) -> float:
    """Chi-square against the law, in standard deviations of the statistic."""
    most, expected = gaussian.reach(sigma), chances(sigma) * noise.size
    counts = np.bincount(noise + most, minlength=expected.size).astype(float)
    cells = np.maximum.accumulate((np.cumsum(expected) // 25).astype(int))  # about 25 expected in each
    expected, counts = (np.bincount(cells, weights=v) for v in (expected, counts))
    kept = expected > 0
    expected, counts = expected[kept], counts[kept]
    if expected[-1] < 10 and expected.size > 2:
        expected, counts = (np.append(v[:-2], v[-2:].sum()) for v in (expected, counts))
    freedom = expected.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def halves(sigma: Fraction, size: int, parties: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A run's noise without the half that the parties know, and without the half that the provider knows."""
    bound = plan(sigma, size).bind(1)
    world = make_world(plan(sigma, size), {}, parties, number)
    noise = world.run({}, 1).outputs["z"]
    words = words_of(world, bound, 1, 1, number)
    dealt, common = (gaussian.drawn(words("g", name, (size,), 63), sigma) for name in ("r", "c"))
    return noise + common, dealt - noise


def check_views(sigma: Fraction, size: int, parties: int, number: int) -> None:
    """What is left to whoever knows one half has the law, and one half says nothing of the other."""
    dealt, common = halves(sigma, size, parties, number)
    for half in (dealt, common):
        assert deviation(half, sigma) < 5
        assert abs(half.mean()) < 5 * float(sigma) / size**0.5
    apart = abs(np.corrcoef(dealt, common)[0, 1])
    assert apart < 5 / size**0.5


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
def test_either_half_has_the_whole_law(sigma: Fraction, parties: int) -> None:
    check_views(sigma, 4000, parties, 3 + parties)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [*SIGMAS, Fraction(40, 64), Fraction(777, 64)], ids=str)
@pytest.mark.parametrize("parties", [2, 3])
def test_the_law_of_many(sigma: Fraction, parties: int) -> None:
    check_views(sigma, 200_000, parties, 11)


def test_another_law_is_noticed() -> None:
    """The control: noise of another sigma, and noise shifted by one, fail."""
    noise, _ = halves(Fraction(3), 4000, 2, 1)
    assert deviation(noise, Fraction(3)) < 5
    assert deviation(noise, Fraction(13, 4)) > 10 and deviation(noise + 1, Fraction(3)) > 20


def test_a_run_adds_both_halves_exactly() -> None:
    bound = plan(Fraction(100), 500).bind(1)
    world = make_world(plan(Fraction(100), 500), {}, 3, 2)
    noise = world.run({}, 1).outputs["z"]
    words = words_of(world, bound, 1, 1, 2)
    clear = reference.evaluate(bound, {}, lambda *_: np.zeros(500, np.uint64), words)["n"]
    assert np.array_equal(noise, clear)
    assert noise.var() == pytest.approx(2 * 100**2, rel=0.3)
    again = world.run({}, 1).outputs["z"]
    assert (again != noise).mean() > 0.9


def test_security_40_the_provider_does_not_know_the_common_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """It deals before any party has greeted, and a party without the parties' key has no noise."""
    built = plan(Fraction(3), 50)
    [first, _] = deal_by_hand(built, 2).bundles
    with pytest.raises(LocalProtocolError, match="no key"):
        PartyRun(built.bind(1), Lane.passive(0), first, SessionWires(), b"").prepare()
    keys = [PartyRun(built.bind(1), Lane.passive(0), first, SessionWires(), bytes(31) + bytes([n])) for n in (1, 2)]
    one, two = (run.common("g", "c", (50,), 63) for run in keys)
    assert not np.intersect1d(one, two).size and one.max() < 1 << 63
    monkeypatch.setattr(PartyRun, "common", lambda *_: pytest.fail("common words were asked for"))
    deal_by_hand(built, 3)


def test_the_dealt_half_is_shared_uniformly() -> None:
    """The shares add up to what the provider drew, and none of them is small: alone it is any field element."""
    dealt = deal_by_hand(plan(Fraction(3), 4000), 3)
    shares, r = dealt.shares("g", "noise"), dealt.plain("g", "r")
    assert np.array_equal(to_signed(dealt.combine(shares, 0)), gaussian.drawn(r, Fraction(3)))
    assert all(np.abs(to_signed(share)).min() > 2**40 for share in shares)


def test_what_it_costs() -> None:
    """Eight bytes an element, and the opening of the sum that has it."""
    bound = plan(Fraction(1024), 1000).bind(1)
    cost = gate_cost(bound.gates[0], bound.wire)
    assert (cost.rounds, cost.dealt, cost.sent) == (0, 8000, 0)
    assert plan_cost(plan(Fraction(1024), 1000), 1).rounds == 1


@pytest.mark.parametrize("sigma", [Fraction(1025), Fraction(0), Fraction(-1), Fraction(1, 3), Fraction(65537, 64)])
def test_a_sigma_without_a_table_is_refused(sigma: Fraction) -> None:
    with pytest.raises(PlanError, match="sigma is a multiple"):
        plan(sigma, 3)


def fits(sigma: Fraction, bits: int) -> bool:
    """Is noise of that sigma taken on a wire of so many bits?"""
    b = Builder()
    gate = Gaussian(name="g", out="n", sigma=sigma, epsilon=Fraction(1))
    b.gate(gate, wire("n", (3,), bits, masking=Masking.UNOPENED))
    b.gate(Open(name="o", x="n", out="z"), wire("z", (3,), bits))
    b.output("z")
    try:
        b.build()
    except PlanError as error:
        assert "the noise does not fit the output's bound" in str(error)
        return False
    return True


def test_noise_that_does_not_fit_is_refused() -> None:
    """Its two halves reach 901 each at sigma 100, so that their difference needs eleven bits; and exactly 2^10 is none
    that ten bits hold."""
    assert gaussian.reach(Fraction(100)) == 901 and gaussian.reach(Fraction(227, 4)) == 512
    assert [fits(Fraction(100), bits) for bits in (8, 9, 10, 11)] == [False, False, False, True]
    assert not fits(Fraction(227, 4), 10) and fits(Fraction(227, 4), 11)


# ------------------------------------------------------------------ the table


@pytest.mark.parametrize("sigma", [*SIGMAS, Fraction(1, 64), Fraction(777, 64)], ids=str)
def test_the_table_is_the_law(sigma: Fraction) -> None:
    """Symmetric exactly, rising, and no farther from the law than is said; the law is computed another way."""
    table = [0, *map(int, gaussian.thresholds(sigma)), 1 << 63]
    cells = [b - a for a, b in zip(table, table[1:], strict=False)]
    assert min(cells) >= 0 and cells == cells[::-1] and len(cells) == 2 * gaussian.reach(sigma) + 1
    with localcontext() as context:
        context.prec = 60
        twice = 2 * Decimal(sigma.numerator) ** 2 / Decimal(sigma.denominator) ** 2
        places = range(-gaussian.reach(sigma), gaussian.reach(sigma) + 1)
        weights = [(-(Decimal(k) ** 2) / twice).exp() for k in places]
        far, k = Decimal(0), gaussian.reach(sigma) + 1
        while (more := 2 * (-(Decimal(k) ** 2) / twice).exp()) > Decimal(10) ** -40:
            far, k = far + more, k + 1
        whole = sum(weights) + far
        off = sum(abs(Decimal(cell) / (1 << 63) - weight / whole) for cell, weight in zip(cells, weights, strict=True))
        said = gaussian.distance(sigma)
        assert (off + far / whole) / 2 <= Decimal(said.numerator) / said.denominator


def test_golden_tables() -> None:
    """Every process has to find these; another number is another law."""
    assert gaussian.thresholds(Fraction(1, 2)).tolist()[5:7] == GOLDEN
    found = hashlib.sha256(gaussian.thresholds(Fraction(1024)).astype("<u8").tobytes()).hexdigest()
    assert found[:32] == DIGEST


GOLDEN = [984268886257491830, 8239103150597283978]
DIGEST = "8db2e100f970592933184ebccec99aa7"
