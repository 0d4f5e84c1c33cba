"""Reals to integers and back: nearest, exact where it can be, refused where there is no such integer."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import fixedpoint
from mpc.errors import InputError
from tests.support.effort import examples

scales = st.integers(-8, 24).map(lambda e: Fraction(2) ** e)


@examples(80)
@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=9), scales)
def test_encoding_is_the_nearest_integer(values: list[float], scale: Fraction) -> None:
    integers = fixedpoint.encode(np.array(values), scale)
    assert integers.dtype == np.int64
    for value, integer in zip(values, integers.tolist(), strict=True):
        assert abs(Fraction(value) * scale - integer) <= Fraction(1, 2)
    assert np.abs(fixedpoint.decode(integers, scale) - values).max() <= 0.5 / float(scale)


@examples(40)
@given(st.lists(st.integers(-(1 << 40), 1 << 40), min_size=1, max_size=9), scales)
def test_integers_round_trip(values: list[int], scale: Fraction) -> None:
    assert fixedpoint.encode(fixedpoint.decode(np.array(values), scale), scale).tolist() == values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_refused(bad: float) -> None:
    for use in (
        lambda: fixedpoint.encode(np.array([0.0, bad]), Fraction(1)),
        lambda: fixedpoint.check_range(np.array([0.0, bad]), [Fraction(-1)], [Fraction(1)], "x"),
    ):
        with pytest.raises(InputError, match="NaN" if np.isnan(bad) else "infinity"):
            use()


@pytest.mark.parametrize("size", [2.0**59, -(2.0**59), 1e300])
def test_what_does_not_fit_is_refused(size: float) -> None:
    with pytest.raises(InputError, match="too large"):
        fixedpoint.encode(np.array([size]), Fraction(1))
    assert fixedpoint.encode(np.array([np.nextafter(2.0**59, 0)]), Fraction(1)).tolist() == [2**59 - 64]


def test_nothing_is_encoded_to_nothing() -> None:
    assert fixedpoint.encode(np.zeros((0, 3)), Fraction(1)).shape == (0, 3)


@pytest.mark.parametrize(
    ("values", "fits"),
    [([[0, 5]], True), ([[1, 7]], True), ([[-0.001, 5]], False), ([[1, 4.99]], False), ([[1.001, 6]], False),
     ([[0, 5], [2, 6]], False)],
)  # fmt: skip
def test_ranges_are_checked_column_by_column(values: list, fits: bool) -> None:
    low, high = (Fraction(0), Fraction(5)), (Fraction(1), Fraction(7))
    if fits:
        fixedpoint.check_range(np.array(values), low, high, "x")
        return
    with pytest.raises(InputError, match="input 'x'.*outside the plan's range") as caught:
        fixedpoint.check_range(np.array(values), low, high, "x")
    assert "--range x=" in (caught.value.remedy or "")


def test_one_range_serves_all_columns() -> None:
    fixedpoint.check_range(np.array([[0.0, 1.0, 0.5]]), [Fraction(0)], [Fraction(1)], "x")
    with pytest.raises(InputError, match="column 2"):
        fixedpoint.check_range(np.array([[0.0, 1.0, 1.5]]), [Fraction(0)], [Fraction(1)], "x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named_by_its_column(bad: float) -> None:
    x = np.array([[1.0, 2.0, 3.0], [1.0, bad, bad]])
    said = "NaN" if np.isnan(bad) else "infinity"
    with pytest.raises(
        InputError, match=rf"input 'x' holds {said}; cause: column 1 \(the first is column 0\): "
    ) as caught:
        fixedpoint.check_range(x, (Fraction(0),), (Fraction(4),), "x")
    remedy = str(caught.value.remedy)
    assert ("SimpleImputer" in remedy, "numpy.clip" in remedy) == (np.isnan(bad), not np.isnan(bad))


def test_a_missing_number_is_told_of_before_an_infinite_one() -> None:
    x = np.array([[np.inf, 2.0], [1.0, np.nan]])
    with pytest.raises(InputError, match=r"holds NaN; cause: column 1 \("):
        fixedpoint.check_range(x, (Fraction(0),), (Fraction(4),), "x")
    with pytest.raises(InputError, match=r"holds infinity; cause: column 0 \("):
        fixedpoint.check_range(x, (Fraction(0),), (Fraction(4),), "x", missing=(1,))


def test_whole_numbers_outside_their_range_may_be_places_of_a_table() -> None:
    """Of a table in the model there are no more rows, whatever is declared."""
    for x, told in ((np.array([[1, 9]]), True), (np.array([[1.0, 9.0]]), False)):
        with pytest.raises(InputError, match=r"has 9 in column 1 \(the first is column 0\), outside") as caught:
            fixedpoint.check_range(x, (Fraction(-5),), (Fraction(4),), "x")
        assert ("enter numbers from -5 to 4" in str(caught.value.remedy)) is told
    with pytest.raises(InputError, match="input 'x' has 9, outside"):
        fixedpoint.check_range(np.array(9), (Fraction(-5),), (Fraction(4),), "x")


def test_columns_have_units_and_offsets_of_their_own() -> None:
    x = np.array([[1.7e9 + 64, 0.125], [1.7e9 - 128, 0.25]], np.float32)
    offset, factor = (Fraction(1_700_000_000), Fraction(0)), (Fraction(1, 128), Fraction(4))
    exact = np.rint((x.astype(np.float64) - [1.7e9, 0]) * [1 / 128, 4] * 4)
    assert fixedpoint.encode_columns(x, Fraction(4), offset, factor).tolist() == exact.tolist()
    assert fixedpoint.encode_columns(np.float32(3.5), Fraction(2), (Fraction(1),), (Fraction(2),)).shape == ()
