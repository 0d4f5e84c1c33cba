"""Rows to develop with: mock rows come from the schema alone, and code that runs on them needs numpy only."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import InputError
from parties.agreed.columns import Column
from parties.client.tables.samples import Sample, mock_rows
from tests.support.effort import examples

ID = bytes(range(32))
COLUMNS = (
    Column(name="age", type="integer", low=18, high=90, unit="years"),
    Column(name="bmi", type="number", scale=Fraction(1 << 28), low=-1, high=Fraction(60.5)),
    Column(name="bmi.missing", type="missing", low=0, high=1, missing_of="bmi"),
    Column(name="sex", type="category", low=0, high=1, categories=("f", "<m>")),
    Column(name="scan", type="array", low=0, high=255, shape=(2, 3)),
)


def test_mock_rows_are_the_same_for_one_object_and_others_for_another() -> None:
    one, again, other = (mock_rows("a/b", key, COLUMNS, 50) for key in (ID, ID, ID[::-1]))
    assert all((one[name] == again[name]).all() for name in one)
    assert all((one[name] != other[name]).any() for name in one)
    assert (mock_rows("c/d", ID, COLUMNS[:1], 50)["age"] == one["age"]).all()  # of the schema of a column, no more
    assert one["age"][:4].tolist() == [29, 81, 87, 80]  # as anybody computes them, with any version


def test_mock_rows_are_in_range_and_fill_it_and_miss_some_values() -> None:
    rows = mock_rows("hospital/diabetes", ID, COLUMNS, 4000)
    assert rows.mock and rows.rows == 4000 and list(rows) == [column.name for column in COLUMNS]
    assert set(rows["age"].tolist()) == set(range(18, 91)) and rows["age"].dtype == np.int64
    assert rows["bmi"].dtype == np.float64 and -1 <= rows["bmi"].min() < -0.5 and 60 < rows["bmi"].max() <= 60.5
    assert set(rows["sex"].tolist()) == {0, 1} and rows["scan"].shape == (4000, 2, 3) and rows["scan"].max() == 255
    assert 300 < rows["bmi.missing"].sum() < 700 and not rows["bmi"][rows["bmi.missing"] == 1].any()


@examples(20)
@given(st.integers(-(1 << 58), 1 << 58), st.integers(0, 1 << 58), st.binary(min_size=32, max_size=32))
def test_mock_rows_of_any_range_are_inside(low: int, width: int, key: bytes) -> None:
    column = Column(name="x", type="integer", low=low, high=low + width)
    values = mock_rows("a/b", key, [column], 20)["x"]
    assert all(low <= value <= low + width for value in values.tolist())


def test_one_code_runs_on_samples_and_on_what_they_stand_for() -> None:
    rows = mock_rows("hospital/diabetes", ID, COLUMNS, 64)
    women = np.where(rows["sex"] == rows.code("sex", "f"), rows["bmi"], 0).mean()
    assert isinstance(women, np.floating) and rows.labels("sex") == ("f", "<m>")
    assert rows[["age", "bmi"]].shape == (64, 2) and rows[["age", "bmi"]].dtype == np.float64


def test_samples_say_what_they_are_and_show_no_markup() -> None:
    mock = mock_rows("hospital/diabetes", ID, COLUMNS, 20)
    assert repr(mock).startswith("hospital/diabetes: 20 mock rows, made from the schema alone\nage=")
    assert "mock rows" in mock._repr_html_() and "&lt;m&gt;" in mock._repr_html_() and "<m>" not in mock._repr_html_()
    assert "missing" in repr(mock) and repr(mock).endswith("...")
    integers = {"age": np.array([40]), "bmi": np.array([3 << 27]), "bmi.missing": np.array([0]), "sex": np.array([1])}
    real = Sample("hospital/diabetes", COLUMNS[:4], integers, mock=False)
    assert repr(real) == "hospital/diabetes: 1 rows that the owner published\nage=40, bmi=1.5, sex=<m>"
    assert real.records() == [{"age": 40, "bmi": 1.5, "sex": "<m>"}]


def test_columns_and_categories_that_are_not_there() -> None:
    rows = mock_rows("hospital/diabetes", ID, COLUMNS, 2)
    for ask, words in (
        (lambda: rows["height"], "no column 'height'"),
        (lambda: rows.labels("age"), "'age' of hospital/diabetes has no categories"),
        (lambda: rows.code("sex", "m"), "no category 'm'"),
    ):
        with pytest.raises(InputError, match=words):
            ask()
    assert "height" not in rows and "age" in rows and len(rows) == 5
