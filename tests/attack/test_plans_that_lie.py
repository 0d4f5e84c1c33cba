"""Plans that ask for more than their noise pays for: `verify` finds each good, and no party proves anything of it.

The analyst who writes the plan is the adversary.  Every plan here parses, computes, and would tell somebody's row.
"""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

from mpc import tables
from mpc.errors import PlanError
from mpc.field import P
from mpc.gates import GATES
from mpc.gates.convolution import Convolution
from mpc.gates.draw import Draw
from mpc.gates.fourier import Fourier
from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate
from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from mpc.privacy import law
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee, sensitivities
from mpc.privacy.within import RULES
from mpc.windows import Windows
from mpc.wires import Masking
from tests.support.effort import patient
from tests.support.lies import Lies, into
from tests.support.plans import replace_wires, wire, with_parts
from tests.support.questions import EPSILON, FACTS, INHERITED, UNOPENED, WIDE, B, Question, by_category
from tests.support.worlds import make_world

DERIVED = {"masking": Masking.DERIVED}
LIES: Lies = {}
lie = into(LIES)


def sums(width: int = 4) -> Question:
    """x bounded and summed."""
    q = Question()
    q.bound(width=width)
    q.rows()
    return q


ROW = 4 * 15
"""What a row of four bounded elements can change."""


def good() -> Plan:
    q = sums()
    q.noised(sensitivity=ROW)
    return q.build()


def swapped(plan: Plan, **changes: object) -> Plan:
    """With other settings of its draw."""
    return with_parts(plan, gates=[g.model_copy(update=changes) if isinstance(g, Draw) else g for g in plan.gates])


# ------------------------------------------------------------------ noise that is not enough


@lie("not those of epsilon")
def a_threshold_off_by_one() -> Plan:
    levels = list(law.thresholds(EPSILON, ROW))
    levels[3] -= 1
    return swapped(good(), thresholds=tuple(levels))


@lie("not those of epsilon")
def a_threshold_too_few() -> Plan:
    return swapped(good(), thresholds=law.thresholds(EPSILON, ROW)[:-1])


@lie("not those of epsilon")
def no_noise_at_all() -> Plan:
    return swapped(good(), thresholds=(0,) * len(law.thresholds(EPSILON, ROW)))


@lie("not those of epsilon")
def noise_of_a_larger_epsilon() -> Plan:
    return swapped(good(), thresholds=law.thresholds(EPSILON * 2, ROW))


@lie("not those of epsilon")
def words_of_eight_bits() -> Plan:
    levels = tuple(level >> 40 for level in law.thresholds(EPSILON, ROW))
    return swapped(good(), thresholds=levels, width=8)


@lie("not those of epsilon")
def words_of_one_bit_less() -> Plan:
    """The very thresholds, of words half as long: each digit is one twice as often."""
    return swapped(good(), width=47)


@lie("an epsilon of")
def an_epsilon_above_five() -> Plan:
    return swapped(good(), epsilon=Fraction(6))


@lie("not those of epsilon")
def a_sum_weighed_behind_rows() -> Plan:
    q = sums()
    q.gate(Weigh(name="w", x="s", axis=0, factors=(1 << 20,) * 4, out="t"), wire("t", (4,), 59, **UNOPENED))
    q.noised("t", sensitivity=ROW)
    return q.build()


@lie("not those of epsilon")
def a_sum_repeated_behind_rows() -> Plan:
    """Each copy has noise of its own: their mean has less."""
    q = sums()
    q.gate(Take(name="t", x="s", axis=0, indices=(0, 1, 2, 3) * 8, out="t"), wire("t", (32,), WIDE, **UNOPENED))
    q.noised("t", sensitivity=ROW)
    return q.build()


@lie("not those of epsilon")
def a_sum_repeated_by_a_broadcast() -> Plan:
    q = sums()
    q.draw((8, 4), sensitivity=ROW)
    q.told(q.combine("s", "n", shape=(8, 4)))
    return q.build()


@lie("not those of epsilon")
def a_sum_added_to_itself() -> Plan:
    q = sums()
    q.draw((4,), sensitivity=ROW)
    q.told(q.combine("s", "n", "s"))
    return q.build()


@lie("2\\^52 or more")
def a_map_that_wraps_in_machine_words() -> Plan:
    """Two factors of 2^32: nothing in 64 bits, and 8 in the field."""
    q = sums()
    for name, x in (("t", "s"), ("u", "t")):
        q.gate(Weigh(name=name, x=x, axis=0, factors=(1 << 32,) * 4, out=name), wire(name, (4,), 59, **UNOPENED))
    q.noised("u", sensitivity=ROW)
    return q.build()


@lie("2\\^52 or more")
def a_map_that_wraps_before_the_sum() -> Plan:
    q = Question()
    q.bound()
    for name, x in (("t", "y"), ("u", "t")):
        q.gate(Weigh(name=name, x=x, axis=1, factors=(1 << 32,) * 4, out=name), wire(name, (B, 4), 30, **UNOPENED))
    q.rows("u")
    q.noised(sensitivity=ROW)
    return q.build()


@lie("not those of epsilon")
def bits_of_levels_that_do_not_rise() -> Plan:
    """A histogram's difference of neighbours is 2 only if bits fall."""
    q = Question()
    q.bound(drawn=True)
    q.step(9, 3, 7, x="y", out="b")
    q.rows("b")
    q.gate(Take(name="up", x="s", axis=1, indices=(-1, 0, 1, 2), out="up"), wire("up", (4, 4), WIDE, **INHERITED))
    q.gate(Take(name="on", x="s", axis=1, indices=(0, 1, 2, -1), out="on"), wire("on", (4, 4), WIDE, **INHERITED))
    q.noised(q.combine("up", "on", factors=(1, -1), out="h"), sensitivity=4 * 2)
    return q.build()


@lie("not those of epsilon")
def bits_of_a_value_beyond_its_declared_bound() -> Plan:
    """Comparisons of what is declared too small come out in any pattern."""
    q = Question()
    q.bound(width=4, drawn=True)
    q.gate(Weigh(name="w", x="y", axis=1, factors=(1 << 10,) * 4, out="w"), wire("w", (B, 4), 4, **INHERITED))
    q.step(3, 7, 9, x="w", out="b")
    q.rows("b")
    q.gate(Take(name="up", x="s", axis=1, indices=(-1, 0, 1, 2), out="up"), wire("up", (4, 4), WIDE, **INHERITED))
    q.gate(Take(name="on", x="s", axis=1, indices=(0, 1, 2, -1), out="on"), wire("on", (4, 4), WIDE, **INHERITED))
    q.noised(q.combine("up", "on", factors=(1, -1), out="h"), sensitivity=4 * 2)
    return q.build()


# ------------------------------------------------------------------ noise that is taken away again


@lie("is read more than once")
def a_draw_read_twice() -> Plan:
    q = sums()
    q.noised(sensitivity=ROW)
    q.told("n", "bare")
    return q.build()


@lie("is read more than once")
def a_draw_added_and_taken_off() -> Plan:
    q = sums()
    q.draw((4,), sensitivity=ROW)
    q.told(q.combine("s", "n", "n", factors=(1, 1, -1)))
    return q.build()


@lie("is read more than once")
def a_draw_for_two_sums() -> Plan:
    q = sums()
    q.bound(out="y2")
    q.rows("y2", "s2")
    q.draw((4,), sensitivity=ROW)
    q.told(q.combine("s", "n"))
    q.told(q.combine("s2", "n", out="v2"), "z2")
    return q.build()


@lie("is multiplied")
def noise_shifted_above_the_sum() -> Plan:
    """S + 2^31 N: the low half is bare."""
    q = sums()
    q.draw((4,), sensitivity=ROW)
    q.told(q.combine("s", "n", factors=(1, 1 << 31)))
    return q.build()


@lie("as it was drawn")
def noise_weighed_by_zero() -> Plan:
    q = sums()
    q.draw((4,), sensitivity=ROW)
    q.gate(Weigh(name="w", x="n", axis=0, factors=(0,) * 4, out="n0"), wire("n0", (4,), WIDE, **UNOPENED))
    q.told(q.combine("s", "n0"))
    return q.build()


@lie("as it was drawn")
def noise_taken_from_nowhere() -> Plan:
    q = sums()
    q.draw((4,), sensitivity=ROW)
    q.gate(Take(name="t", x="n", axis=0, indices=(-1,) * 4, out="n0"), wire("n0", (4,), WIDE, **UNOPENED))
    q.told(q.combine("s", "n0"))
    return q.build()


@lie("as it was drawn")
def noise_summed_to_one() -> Plan:
    q = sums()
    q.draw((4,), sensitivity=ROW)
    q.gate(Reshape(name="r", x="n", out="n0"), wire("n0", (2, 2), WIDE, **UNOPENED))
    q.gate(Reshape(name="r2", x="s", out="s0"), wire("s0", (2, 2), WIDE, **UNOPENED))
    q.told(q.combine("s0", "n0"))
    return q.build()


@lie("is shared by several elements")
def one_draw_broadcast_over_four_sums() -> Plan:
    q = sums()
    q.draw((1,), sensitivity=ROW)
    q.told(q.combine("s", "n"))
    return q.build()


@lie("tells the noise")
def noise_told() -> Plan:
    q = sums()
    q.draw((4,), sensitivity=ROW)
    q.gates.append(Combine(name="c", xs=("s", "n"), factors=(1, 1), out="v"))
    q.wires.append(wire("v", (4,), WIDE, **UNOPENED))
    q.told("v")
    q.draw((4,), "m", sensitivity=ROW)
    q.wires[-1] = q.wires[-1].model_copy(update={"holders": ("recipient",)})
    q.outputs.append(q.outputs[-1].model_copy(update={"name": "m", "wire": "m"}))
    return q.unchecked()


@lie("as it was drawn")
def noise_opened() -> Plan:
    q = sums()
    q.noised(sensitivity=ROW)
    q.draw((4,), "m", sensitivity=ROW)
    q.told("m", "bare")
    return q.build()


@lie("as it was drawn")
def two_draws_at_once() -> Plan:
    q = sums()
    q.draw((4,), "n", sensitivity=ROW)
    q.draw((4,), "m", sensitivity=ROW)
    q.told(q.combine("s", "n", "m", factors=(1, 1, -1)))
    return q.build()


@lie("read by another gate too")
def the_sum_told_beside_its_noise() -> Plan:
    q = sums()
    q.noised(sensitivity=ROW)
    q.gate(Take(name="t", x="s", axis=0, indices=(0,), out="t"), wire("t", (1,), WIDE, **UNOPENED))
    q.told("t", "bare")
    return q.build()


@lie("tells a sum without noise")
def the_sum_opened() -> Plan:
    q = sums()
    q.told("s", "bare")
    return q.build()


# ------------------------------------------------------------------ Gaussian noise


def gaussian_sums(sigma: Fraction = Fraction(400), shift: int = 0) -> Question:
    """Four sums, perhaps rounded, and their noise, which is not added yet."""
    q = sums()
    if shift:
        q.rounded(shift=shift)
    q.gaussian((4,), sigma=sigma)
    return q


def added(q: Question, *names: str, shift: int = 0, **more: object) -> Plan:
    """The plan that tells what these come to."""
    q.told(q.combine(*names, **more))  # type: ignore[arg-type]
    scale = {"scale": Fraction(1, 1 << shift)}
    return replace_wires(q.unchecked(), {"v": scale, "z": scale, "n": scale})


def test_gaussian_noise_that_is_enough_is_taken() -> None:
    for shift in (0, 2):
        plan = added(gaussian_sums(shift=shift), "t" if shift else "s", "n", shift=shift)
        [vector] = guarantee(plan, FACTS).vectors
        assert vector.mechanism == "gaussian" and vector.euclidean <= 30


@lie("a noised vector with a delta of")
def a_sigma_too_small() -> Plan:
    return added(gaussian_sums(Fraction(60)), "s", "n")


@lie("a noised vector with a delta of")
def a_sum_weighed_before_gaussian_noise() -> Plan:
    q = gaussian_sums()
    q.gate(Weigh(name="w", x="s", axis=0, factors=(1 << 20,) * 4, out="t"), wire("t", (4,), 59, **UNOPENED))
    return added(q, "t", "n")


@lie("an epsilon of")
def gaussian_noise_for_nothing_at_all() -> Plan:
    plan = added(gaussian_sums(), "s", "n")
    return with_parts(
        plan,
        gates=[g.model_copy(update={"epsilon": Fraction(6)}) if g.kind == "gaussian" else g for g in plan.gates],
    )


@lie("is multiplied")
def gaussian_noise_on_a_coarser_lattice() -> Plan:
    return added(gaussian_sums(), "s", "n", factors=(1, 64))


@lie("is read more than once")
def gaussian_noise_taken_off_again() -> Plan:
    q = gaussian_sums()
    q.combine("s", "n", out="w")
    return added(q, "w", "n", factors=(1, -1))


@lie("is shared by several")
def gaussian_noise_shared() -> Plan:
    q = sums()
    q.gaussian((1,))
    return added(q, "s", "n", shape=(4,))


@lie("one noise at a time")
def two_kinds_of_noise_at_once() -> Plan:
    q = gaussian_sums()
    q.draw((4,), "m", sensitivity=ROW)
    return added(q, "s", "n", "m")


@lie("by a combine and nothing else")
def gaussian_noise_rounded_off() -> Plan:
    q = gaussian_sums()
    q.rounded("n", shift=12, out="t")
    q.told("t")
    return q.unchecked()


@lie("may leave the bound")
def a_sum_rounded_beyond_its_bound() -> Plan:
    """A rounding is one within the declared bound only: beyond it the sum may jump by 2^60."""
    plan = added(gaussian_sums(shift=2), "t", "n", shift=2)
    return replace_wires(plan, {"s^": {"bits": 8}})


@lie("is repeated, multiplied or added")
def a_rounded_sum_weighed() -> Plan:
    return added(gaussian_sums(shift=2), "t", "n", shift=2, factors=(2, 1))


@lie("is repeated, multiplied or added")
def a_rounded_sum_beside_another() -> Plan:
    q = gaussian_sums(shift=2)
    q.rows("y", "s2")
    return added(q, "t", "n", "s2", shift=2)


@lie("is repeated, multiplied or added")
def a_rounded_sum_laid_out_often() -> Plan:
    q = sums()
    q.rounded()
    q.gaussian((9, 4))
    return added(q, "t", "n", shift=2, shape=(9, 4))


@lie("what was rounded is no linear map")
def a_rounded_sum_mapped() -> Plan:
    q = gaussian_sums(shift=2)
    q.gate(Take(name="take", x="t", axis=0, indices=(0,) * 4, out="u"), wire("u", (4,), WIDE, **UNOPENED))
    return added(q, "u", "n", shift=2)


@lie("what was rounded is no linear map")
def a_sum_rounded_twice() -> Plan:
    q = gaussian_sums(shift=2)
    q.rounded("t", shift=2, out="u")
    return added(q, "u", "n", shift=4)


@lie("tells a sum without noise")
def a_rounded_sum_told() -> Plan:
    q = sums()
    q.told(q.rounded())
    return q.unchecked()


@lie("between a sum over rows and its noise")
def a_sum_compared() -> Plan:
    q = sums()
    q.told("s", "open")
    q.outputs.clear()
    q.gate(Relu(name="relu", x="open", out="r", shift=0), wire("r", (4,), WIDE))
    q.output("r")
    return q.unchecked()


# ------------------------------------------------------------------ products of patterns


def noised_by_category(**how: object) -> Plan:
    q = by_category(5, **how)  # type: ignore[arg-type]
    q.noised("p_sum", sensitivity=30)
    return q.unchecked()


def test_a_sum_by_category_is_taken_at_twice_its_width() -> None:
    assert guarantee(noised_by_category(), FACTS).vectors[0].sensitivity == 30


@lie("nothing is proved of what a row contributes")
def bits_that_are_shifted_times_a_value() -> Plan:
    """1 + bit: all elements are the value and more."""
    return noised_by_category(constant=1)


@lie("nothing is proved of what a row contributes")
def bits_of_raw_data_times_a_value() -> Plan:
    """Data beyond its bound gives any pattern of bits, so a row might be in all categories."""
    return noised_by_category(raw=True)


@lie("nothing is proved of what a row contributes")
def bits_times_raw_data() -> Plan:
    return noised_by_category(hard=False)


@lie("not those of epsilon")
def a_sum_by_category_weighed_behind() -> Plan:
    q = by_category(5)
    q.gate(Weigh(name="w", x="p_sum", axis=0, factors=(1, 1, 1, 1, 2), out="t"), wire("t", (5,), 59, **INHERITED))
    q.noised("t", sensitivity=30)
    return q.unchecked()


@lie("nothing reads the noise")
def noise_for_nothing() -> Plan:
    q = sums()
    q.noised(sensitivity=ROW)
    q.draw((4,), "m")
    return q.build()


@lie("adds noise to nothing")
def noise_on_what_nobody_protects() -> Plan:
    q = sums()
    q.noised(sensitivity=ROW)
    q.enter("mine", (4,), 9)
    q.draw((4,), "m")
    q.told(q.combine("mine", "m", out="u"), "z2")
    return q.build()


@lie("has rows")
def noise_on_a_row() -> Plan:
    q = Question()
    q.bound()
    q.draw((B, 4), sensitivity=ROW)
    q.told(q.combine("y", "n"))
    return q.build()


@lie("shared by several")
def one_draw_for_all_rows() -> Plan:
    q = Question()
    q.bound()
    q.draw((4,), sensitivity=ROW)
    q.told(q.combine("y", "n"))
    return q.build()


# ------------------------------------------------------------------ sums of what is not bounded


@lie("nothing is proved of what a row contributes")
def raw_data() -> Plan:
    q = Question(bits=4)
    q.rows("x")
    q.noised(sensitivity=ROW)
    return q.build()


@lie("nothing is proved of what a row contributes")
def data_declared_small() -> Plan:
    """`bits` say 4, a truncation agrees, and the data do what they like."""
    q = Question(bits=4)
    q.gate(Truncate(name="t", x="x", out="t", shift=0), wire("t", (B, 4), 5))
    q.rows("t")
    q.noised(sensitivity=ROW)
    return q.build()


@lie("nothing is proved of what a row contributes")
def a_product_of_bounded_values() -> Plan:
    q = Question()
    q.bound(drawn=True)
    q.gate(Multiply(name="m", x="y", y="y", out="yy"), wire("yy", (B, 4), 8, **DERIVED))
    q.gate(Truncate(name="t", x="yy", out="t", shift=0), wire("t", (B, 4), 9))
    q.rows("t")
    q.noised(sensitivity=ROW)
    return q.build()


@lie("nothing is proved of what a row contributes")
def one_unbounded_addend() -> Plan:
    q = Question()
    q.bound(drawn=True)
    q.combine("y", "x", out="u")
    q.wires[-1] = wire("u", (B, 4), 21, **INHERITED)
    q.rows("u")
    q.noised(sensitivity=ROW)
    return q.build()


@lie("nothing is proved of what a row contributes")
def a_series_of_the_data() -> Plan:
    q = Question()
    wave = {"window": 24, "constant": 0, "cosines": (1,), "sines": (1,), "dealt_bits": 8}
    q.gate(Fourier(name="f", x="x", out="f", table=tables.sincos_digest(), **wave), wire("f", (B, 4), 4))
    q.rows("f")
    q.noised(sensitivity=ROW)
    return q.build()


# ------------------------------------------------------------------ functions that are no sums over rows


@lie("between a sum over rows and its noise")
def a_product_of_sums() -> Plan:
    q = Question()
    q.step(3, x="x", out="y")
    q.rows()
    q.gate(Multiply(name="m", x="s", y="s", out="p"), wire("p", (4, 1), 30))
    q.noised("p", sensitivity=ROW)
    return q.build()


@lie("between a sum over rows and its noise")
def a_comparison_of_sums() -> Plan:
    q = Question()
    q.step(3, x="x", out="y")
    q.rows()
    q.step(50, x="s", out="b")
    q.noised("b", sensitivity=4)
    return q.build()


@lie("between a sum over rows and its noise")
def the_largest_sum() -> Plan:
    q = Question()
    q.step(3, x="x", out="y")
    q.rows()
    q.gate(Reshape(name="r", x="s", out="t"), wire("t", (4,), WIDE, **INHERITED))
    q.gate(Maximum(name="m", x="t", value="m", shift=0), wire("m", (1,), WIDE + 1))
    q.noised("m", sensitivity=4)
    return q.build()


@lie("tells a single|tells single rows")
def a_row() -> Plan:
    q = Question()
    q.bound(drawn=True)
    q.told("y")
    return q.build()


@lie("state 'before' tells a sum without noise")
def a_sum_that_the_next_run_reads() -> Plan:
    q = Question()
    q.bound(drawn=True)
    q.rows()
    return read_later(q, "s")


def read_later(q: Question, carried: str) -> Plan:
    """A wire that the next run reads and tells."""
    q.state("before", (4,), next(w.bits for w in q.wires if w.name == carried))
    q.carry("before", carried)
    q.gate(Truncate(name="late", x="before", out="late", shift=0), wire("late", (4,), WIDE + 2))
    q.told("late")
    return q.build()


def test_a_noised_sum_may_go_on_to_the_next_run() -> None:
    q = Question()
    q.bound(drawn=True)
    q.rows()
    q.noised(sensitivity=ROW)
    q.wires[-1], q.outputs = q.wires[-1].model_copy(update={"holders": ()}), []
    assert guarantee(read_later(q, q.wires[-1].name), FACTS).losses["x"].epsilon == EPSILON


@lie("brings a sum over rows back")
def a_sum_given_back_to_rows() -> Plan:
    q = Question()
    q.bound()
    q.rows()
    q.told(q.combine("y", "s", shape=(B, 4)))
    return q.build()


# ------------------------------------------------------------------ rows that meet


@lie("first axis of .* alone")
def every_row_times_every_row() -> Plan:
    """x x': verify multiplies (batch, 4) with (4, batch)."""
    q = Question()
    q.gate(Reshape(name="r", x="x", out="t", axes=(1, 0)), wire("t", (4, B), 20, **INHERITED))
    q.gate(Matmul(name="m", x="x", y="t", out="g"), wire("g", (B, B), 59))
    q.told("g")
    return q.build()


@lie("first axis of .* alone")
def a_reshape_that_moves_the_rows() -> Plan:
    q = Question()
    q.bound()
    q.gate(Reshape(name="r", x="y", out="t", axes=(1, 0)), wire("t", (4, B), 4, **UNOPENED))
    q.gate(Reshape(name="r2", x="t", out="u"), wire("u", (B, 4), 4, **UNOPENED))
    q.rows("u")
    q.noised(sensitivity=ROW)
    return q.build()


@lie("it moves rows")
def a_reshape_that_mixes_rows_at_once() -> Plan:
    """(batch, 4) turned over and read as (batch, 4) again: element j of a row is another row's."""
    q = Question()
    q.bound()
    q.gate(Reshape(name="r", x="y", out="t", axes=(1, 0)), wire("t", (B, 4), 4, **UNOPENED))
    q.rows("t")
    q.noised(sensitivity=ROW)
    return q.build()


@lie("first axis of .* alone|rows beside another axis")
def every_pair_of_rows_by_a_broadcast() -> Plan:
    """(batch,) against (batch, 1) is (batch, batch)."""
    q = Question((B, 1))
    q.bound()
    q.gate(Reshape(name="r", x="y", out="t"), wire("t", (B,), 4, **UNOPENED))
    q.told(q.combine("y", "t", out="pairs", shape=(B, B)))
    return q.build()


@lie("rows beside another axis|first axis of .* alone")
def rows_beside_anothers_rows() -> Plan:
    """The asker's own (batch,) input against protected (batch, 1)."""
    q = Question((B, 1))
    q.enter("mine", (B,), 9)
    q.combine("x", "mine", shape=(B, B))
    q.gate(Truncate(name="t", x="v", out="t", shift=0), wire("t", (B, B), WIDE + 3))
    q.told("t")
    return q.build()


@lie("it compares the rows|first axis of .* alone")
def a_maximum_over_rows() -> Plan:
    q = Question((B, 4))
    q.bound(drawn=True)
    q.gate(Reshape(name="r", x="y", out="t", axes=(1, 0)), wire("t", (4, B), 4, **INHERITED))
    q.gate(Maximum(name="m", x="t", value="m", shift=0), wire("m", (4, 1), 5))
    q.told("m")
    return q.unchecked()


@lie("its filters are rows|first axis")
def filters_that_are_rows() -> Plan:
    q = Question((B, 1, 2))
    q.enter("mine", (1, 1, 6), 9)
    windows = Windows(kernel=(2,), strides=(1,), dilations=(1,), pads=((0, 0),), groups=1)
    q.gate(Convolution(name="c", x="mine", y="x", windows=windows, out="c"), wire("c", (1, B, 5), 40))
    q.told("c")
    return q.unchecked()


@lie("first axis of .* alone")
def weights_that_lay_rows_aside() -> Plan:
    q = Question((B, 4))
    q.enter("w", (3, 4, 4), 9, session=True)
    q.gate(Matmul(name="m", x="x", weight="w", out="m"), wire("m", (3, B, 4), 40))
    q.told("m")
    return q.build()


@lie("lays rows beside another axis|first axis of .* alone")
def a_stack_of_matrices_against_rows() -> Plan:
    """(batch, 4) is read as one matrix by a (batch, 4, 2) stack: every row with every row."""
    q = Question((B, 4))
    q.gate(Reshape(name="r", x="x", out="t"), wire("t", (B, 4, 1), 20, **INHERITED))
    q.gate(Matmul(name="m", x="x", y="t", out="m"), wire("m", (B, B, 1), 59))
    q.told("m")
    return q.unchecked()


# ------------------------------------------------------------------ data that are not where they seem


@lie("no input of the plan with rows")
def stored_data_without_rows() -> Plan:
    q = Question((4,))
    q.gate(Truncate(name="t", x="x", out="t", shift=0), wire("t", (4,), 21))
    q.output("t")
    return q.build()


@lie("marks of missing")
def marks_of_missing_numbers_left_out() -> Plan:
    q = Question()
    q.enter("marks", (B, 4), 1)
    q.inputs.pop()
    q.inputs[0] = PlanInput(
        name="x", wire="x", dtype="float32", low=(Fraction(-1),), high=(Fraction(1),),
        missing={"wire": "marks", "columns": (0, 1)},
    )  # fmt: skip
    q.told(q.combine("x", "marks", out="v") and _truncated(q))
    return q.build()


def _truncated(q: Question) -> str:
    q.gate(Truncate(name="end", x="v", out="end", shift=0), wire("end", (B, 4), WIDE + 3))
    return "end"


@pytest.mark.parametrize("name", sorted(LIES))
def test_security_40_a_plan_that_lies_is_refused(name: str) -> None:
    build, reason = LIES[name]
    with pytest.raises(PlanError, match=reason) as caught:
        guarantee(build(), FACTS)
    assert caught.value.remedy


def test_the_honest_plan_is_proved() -> None:
    """The control for all of the above."""
    [vector] = guarantee(good(), FACTS).vectors
    assert (vector.sensitivity, vector.elements, vector.loss.epsilon) == (ROW, 4, EPSILON)


def test_security_40_lying_bits_change_no_proof() -> None:
    """Declared bounds are nobody's word: with any others the proof is the same, or there is none."""
    plan = good()
    honest = guarantee(plan, FACTS)
    for bits in (1, 5, 59):
        assert guarantee(replace_wires(plan, {"x": {"bits": bits}}), FACTS) == honest


def test_security_40_what_rows_contribute_is_bounded_where_data_and_bits_lie() -> None:
    """The proof's ground, in a run: field elements of any size move the sum by no more than was proved."""
    q = Question(bits=3)
    q.bound()
    q.rows()
    q.told("s")
    plan, rng = q.build(), np.random.default_rng(5)
    for number in range(5):
        x = rng.integers(-(P // 2), P // 2, (20, 4))
        other = x.copy()
        other[7] = rng.integers(-(P // 2), P // 2, 4)
        first, second = (make_world(plan, {}, 2, number + 1).run({"x": each}, 20).outputs["z"] for each in (x, other))
        assert 0 < np.abs(first - second).sum() <= ROW and first.max() <= 20 * 15 and first.min() >= 0


def test_a_hostile_plan_keeps_nobody_busy() -> None:
    """Sums of sums of many elements: refused soon, whatever their number."""
    q = Question((B, 1 << 20))
    q.bound()
    x = "y"
    for number in range(60):
        q.gate(Take(name=f"t{number}", x=x, axis=1, indices=(0,) * 4096, out=f"t{number}"),
               wire(f"t{number}", (B, 4096), 4, **UNOPENED))  # fmt: skip
        q.gate(Total(name=f"s{number}", x=x, axes=(1,), out=f"s{number}"), wire(f"s{number}", (B, 1), 30, **UNOPENED))
        q.combine(f"t{number}", f"s{number}", out=f"c{number}", shape=(B, 4096))
        x = f"c{number}"
    q.rows(x)
    q.noised(sensitivity=ROW)
    started = time.process_time()
    with pytest.raises(PlanError, match="coefficients|too large"):
        guarantee(q.unchecked(), FACTS)
    assert time.process_time() - started < patient(20)


def test_a_large_plan_is_proved_soon() -> None:
    """A thousand gates over ten thousand elements a row."""
    q = Question((B, 100, 100))
    q.bound()
    wires, gates, x = list(q.wires), list(q.gates), "y"
    for number in range(500):
        w, r = f"w{number}", f"r{number}"
        gates.append(Weigh(name=w, x=x, axis=1, factors=(1, -1) * 50, out=w))
        gates.append(Reshape(name=r, x=w, out=r, axes=(0, 2, 1)))
        wires += [wire(name, (B, 100, 100), 4, **UNOPENED) for name in (w, r)]
        x = r
    q.wires, q.gates = wires, gates
    q.rows(x)
    q.noised(sensitivity=15 * 10_000)
    plan, started = q.unchecked(), time.process_time()
    [vector] = guarantee(plan, FACTS).vectors
    assert vector.sensitivity == 150_000 and time.process_time() - started < patient(20)


def test_rows_of_several_origins_add_up() -> None:
    """A person in two datasets changes both; two columns of one dataset change together."""
    q = Question((B, 1))
    q.enter("other", (B, 1), 20)
    q.bound()
    q.bound("other", "y2")
    for x, out in (("y", "s"), ("y2", "s2")):
        q.rows(x, out)
    q.noised(q.combine("s", "s2", out="t"), sensitivity=1)
    plan = q.build()

    def total(first: StoredFacts, second: StoredFacts) -> int:
        return sensitivities(plan, {"x": first, "other": second})["draw:n"]

    one = StoredFacts(100, 1, "one")
    assert total(one, one) == 30
    assert total(one, StoredFacts(100, 1, "two")) == 30  # each moves its own sum
    assert total(StoredFacts(100, 3, "one"), StoredFacts(100, 2, "two")) == 15 * 5
    q = Question((B, 1))
    q.enter("other", (B, 1), 20)
    q.bound(q.combine("x", "other", out="both") and _refreshed(q))
    q.rows()
    q.noised()
    plan = q.build()
    assert total(one, one) == 15  # one row of one table
    assert total(one, StoredFacts(100, 2, "two")) == 45  # a person's rows in either move it


def _refreshed(q: Question) -> str:
    q.gate(Truncate(name="fresh", x="both", out="fresh", shift=0), wire("fresh", (B, 1), WIDE + 3))
    return "fresh"


def test_epsilons_add_over_vectors() -> None:
    q = sums()
    q.noised(sensitivity=ROW)
    q.bound(out="y2")
    q.rows("y2", "s2")
    q.noised("s2", epsilon=Fraction(1, 10), sensitivity=ROW, tag="2")
    found = guarantee(q.build(), FACTS)
    assert found.of(["x"]).epsilon == Fraction(6, 10) and found.of(["x"]).charge == 600_000_000
    assert found.losses["x"] == found.of(["x", "x"]) and found.of(["another"]).epsilon == 0
    third = found.of(["x"]).__class__(Fraction(1, 3))
    assert third.charge == 333_333_334  # up


def test_what_was_noised_may_be_used_for_anything() -> None:
    """After the noise: products, comparisons, and what is noised later."""
    q = sums()
    q.noised(sensitivity=ROW)
    q.gate(Multiply(name="m", x="z", y="z", out="m"), wire("m", (4,), 59))
    q.gate(Relu(name="relu", x="z", out="r", shift=0), wire("r", (4,), WIDE + 2))
    q.output("m", "r")
    q.bound(out="y2", drawn=True)
    q.combine("y2", "r", factors=(1, -1), out="u")
    q.rows("u", "s2")
    q.noised("s2", sensitivity=ROW, tag="2")
    assert len(guarantee(q.unchecked(), FACTS).vectors) == 2


def test_every_kind_of_gate_is_judged() -> None:
    """Each acts within a row in a way that is known, or ends rows, or is noise or an input; another is refused."""
    assert set(RULES) | {"rows", "draw", "gaussian", "input"} == set(GATES)


def test_many_operands_keep_nobody_busy() -> None:
    """A thousand operands beside each other are gone through once each."""
    q = Question((B, 1000))
    q.bound()
    names = []
    for number in range(1000):
        names.append(f"t{number}")
        q.gates.append(Take(name=f"t{number}", x="y", axis=1, indices=(0,) * 1000, out=f"t{number}"))
        q.wires.append(wire(f"t{number}", (B, 1000), 4, **UNOPENED))
    q.gates.append(Concat(name="c", xs=tuple(names), axis=1, out="c"))
    q.wires.append(wire("c", (B, 1_000_000), 4, **UNOPENED))
    q.rows("c")
    q.noised(sensitivity=15)
    started = time.process_time()
    with pytest.raises(PlanError, match="not those of epsilon"):
        guarantee(q.unchecked(), FACTS)
    assert time.process_time() - started < patient(20)


@pytest.mark.parametrize("many", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_groups_of_levels_keep_nobody_busy(many: int) -> None:
    """A million small histograms at once: each is gone through by itself, so each counts for more than its numbers."""
    q = Question((B, 1 << 20))
    q.step(0, 1, x=q.bound(width=3, drawn=True), out="bits")
    q.rows("bits")
    q.noised()
    started = time.process_time()
    with pytest.raises(PlanError, match="too large"):
        sensitivities(q.unchecked(), FACTS)
    assert time.process_time() - started < patient(20)
    q, started = Question((B, many)), time.process_time()  # while so many histograms are asked for in earnest
    q.step(*range(64), x=q.bound(width=7, drawn=True), out="bits")
    q.rows("bits")
    q.noised()
    assert sensitivities(q.unchecked(), FACTS) == {"draw:n": 64 * many}
    assert time.process_time() - started < many * patient(0.04)
