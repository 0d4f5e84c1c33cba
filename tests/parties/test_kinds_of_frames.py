"""Columns of every type that numpy, pyarrow, polars and pandas have: stored as they are, or refused, and never lost."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpc.errors import InputError, MpcWarning
from parties.client.tables.stated import Stated
from parties.client.tables.table import read_table

ONE = 1 << 28
SEXES: dict[str, Any] = {"categories": {"x": ["f", "m"]}}
NUMBERS: dict[str, Any] = {"ranges": (0, 100)}
TENSOR = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8, dtype=np.int32).reshape(2, 2, 2))


def read(given: Any, **said: Any) -> dict[str, Any]:
    table = read_table(given, Stated.of(rows_per_person=1, **said))
    blocks = [*table.blocks()]
    return {name: np.concatenate([block[name] for block in blocks]).tolist() for name in blocks[0]}


def x(values: list[Any], missing: list[int] | None = None) -> dict[str, Any]:
    return {"x": values} if missing is None else {"x": values, "x.missing": missing}


STORED: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (np.array([(1,), (3,)], [("x", ">i8")]), NUMBERS, x([1, 3])),
    (np.array([(b"f",), (b"m",)], [("x", "S1")]), SEXES, x([0, 1])),
    (np.array([("f",), ("m",)], [("x", "U1")]), SEXES, x([0, 1])),
    (np.array([([[1, 2], [3, 4]],)], [("x", "u1", (2, 2))]), NUMBERS, x([[[1, 2], [3, 4]]])),
    (np.rec.array([(1.5,)], [("x", "f4")]), NUMBERS, x([3 << 27])),
    (np.ma.array([(1,), (2,)], mask=[(0,), (1,)], dtype=[("x", "i4")]), NUMBERS, x([1, 0], [0, 1])),
    ({"x": np.array([1.5], np.float16)}, NUMBERS, x([3 << 27])),
    ({"x": np.array([1.5], np.longdouble)}, NUMBERS, x([3 << 27])),
    ({"x": np.array([7], np.uint64)}, {"ranges": (0, 1 << 58)}, x([7])),
    ({"x": np.ones((2, 2, 2), np.uint8)}, NUMBERS, x([[[1, 1], [1, 1]]] * 2)),
    ({"x": pd.Series([1, None], dtype="Int64")}, NUMBERS, x([ONE, 0], [0, 1])),
    (pa.table({"x": pa.chunked_array([[1, 2], [], [3]])}), NUMBERS, x([1, 2, 3])),
    (pa.table({"x": pa.chunked_array([pa.array([v]).dictionary_encode() for v in "fm"])}), SEXES, x([0, 1])),
    (pa.table({"x": pa.array(["f", None]).dictionary_encode()}), SEXES, x([0, 0], [0, 1])),
    (pa.table({"x": pa.array([5, 7]).dictionary_encode()}), {"categories": {"x": [5, 7]}}, x([0, 1])),
    (pa.table({"x": pa.array([5, 7]).dictionary_encode()}), {"ranges": {"x": (0, 9)}}, x([5 * ONE, 7 * ONE])),
    (pa.table({"x": pa.array([decimal.Decimal("1.25"), None])}), NUMBERS, x([5 << 26, 0], [0, 1])),
    (pa.table({"x": pa.array([True, None, False])}), {}, x([1, 0, 0], [0, 1, 0])),
    (pa.table({"x": pa.array([1, None, 3], pa.uint8())}), NUMBERS, x([1, 0, 3], [0, 1, 0])),
    (pa.table({"x": pa.array(["f", "m"], pa.large_string())}), SEXES, x([0, 1])),
    (pa.table({"x": pa.array(["f", "m"], pa.string_view())}), SEXES, x([0, 1])),
    (pa.table({"x": pa.array(np.array([1, 2], np.float16))}), NUMBERS, x([ONE, 2 * ONE])),
    (pa.table({"x": pa.nulls(2)}), NUMBERS, x([0, 0], [1, 1])),
    (pa.table({"x": pa.array([[1, 2], [3, 4]], pa.list_(pa.int16(), 2))}), NUMBERS, x([[1, 2], [3, 4]])),
    (
        pa.table({"x": pa.array([[1.0, 2], None], pa.large_list(pa.float32()))}),
        NUMBERS,
        x([[ONE, 2 * ONE], [0, 0]], [0, 1]),
    ),
    (pa.record_batch({"x": [1, 2]}), NUMBERS, x([1, 2])),
    (pl.DataFrame({"x": pl.Series(["f", None], dtype=pl.Categorical)}), SEXES, x([0, 0], [0, 1])),
    (pl.DataFrame({"x": pl.Series(["f", "m"], dtype=pl.Enum(["m", "f"]))}), SEXES, x([0, 1])),
    (pl.LazyFrame({"x": [1, 2]}), NUMBERS, x([1, 2])),
    (pl.DataFrame({"x": pl.Series(["1.25"]).cast(pl.Decimal(10, 2))}), NUMBERS, x([5 << 26])),
    (pl.DataFrame({"x": pl.Series([[1, 2]], dtype=pl.Array(pl.Int8, 2))}), NUMBERS, x([[1, 2]])),
    (pl.DataFrame({"x": pl.Series([1, 2], dtype=pl.Int128)}), NUMBERS, x([1, 2])),
    (pl.DataFrame({"x": [1.0, None, float("nan")]}), NUMBERS, x([ONE, 0, 0], [0, 1, 1])),
    (pd.DataFrame({"x": pd.array([1.5, None], dtype="Float32")}), NUMBERS, x([3 << 27, 0], [0, 1])),
    (pd.DataFrame({"x": pd.array([True, None], dtype="boolean")}), {}, x([1, 0], [0, 1])),
    (pd.DataFrame({"x": pd.array(["f", None], dtype="string")}), SEXES, x([0, 0], [0, 1])),
    (pd.DataFrame({"x": pd.array([1, None], dtype="int32[pyarrow]")}), NUMBERS, x([1, 0], [0, 1])),
    (pd.DataFrame({"x": pd.Series([[1, 2]], dtype=pd.ArrowDtype(pa.list_(pa.int64())))}), NUMBERS, x([[1, 2]])),
    (pd.DataFrame({"x": pd.Categorical([3, 1, 3])}), {"categories": {"x": [1, 3]}}, x([1, 0, 1])),
    (pd.DataFrame({"x": [np.zeros((1, 2)), np.ones((1, 2))]}), NUMBERS, x([[[0, 0]], [[ONE, ONE]]])),
]


@pytest.mark.parametrize("number", range(len(STORED)))
def test_what_is_stored_is_what_the_column_holds(number: int) -> None:
    given, said, expected = STORED[number]
    assert read(given, **said) == expected


REFUSED: list[tuple[Any, str]] = [
    (np.array([((1, 2),)], [("x", [("a", "i4"), ("b", "i4")])]), "neither numbers nor texts"),
    ({"x": np.array([1j])}, "neither numbers nor texts"),
    ({"x": np.array(["é".encode()])}, "no ASCII text"),
    (pa.table({"x": pa.array([decimal.Decimal("1.25")], pa.decimal256(40, 2))}), "neither numbers nor texts"),
    (pa.table({"x": TENSOR}), "neither numbers nor texts"),
    (pa.table({"x": pa.RunEndEncodedArray.from_arrays([2, 3], [1, 5])}), "neither numbers nor texts"),
    (pa.table({"x": pa.array([b"f"])}), "neither numbers nor texts"),
    (pa.table({"x": pa.array([{"a": 1}])}), "neither numbers nor texts"),
    (pa.table({"x": pa.array([[1], [3, 4]])}), "an array of one shape"),
    (pa.table({"x": pa.array([datetime.date(2020, 1, 1)])}), "dates or times"),
    (pa.table({"x": pa.array([datetime.datetime(2020, 1, 1)], pa.timestamp("us", "UTC"))}), "dates or times"),
    (pa.table({"x": pa.array([datetime.timedelta(1)])}), "dates or times"),
    (pl.DataFrame({"x": pl.Series([1 << 100], dtype=pl.Int128)}), "more than 64 bits"),
    (pl.DataFrame({"x": [datetime.date(2020, 1, 1)]}), "dates or times"),
    (pd.DataFrame({"x": pd.period_range("2020-01", periods=2, freq="M")}), "neither numbers nor texts"),
    (pd.DataFrame({"x": pd.interval_range(0, 2)}), "neither numbers nor texts"),
    (pd.DataFrame({"x": pd.arrays.SparseArray([0.0, 1.0])}), "neither numbers nor texts"),
    (pd.DataFrame({"x": [1j]}), "neither numbers nor texts"),
    (pd.DataFrame(np.zeros((1, 2)), columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])), "names are no texts"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_no_object_holds_is_refused_and_not_taken_for_missing(number: int) -> None:
    given, words = REFUSED[number]
    with pytest.raises(InputError, match=words):
        read(given, **({"categories": {"x": ["é"]}} if "ASCII" in words else NUMBERS))


def test_parquet_of_many_row_groups(tmp_path: Path) -> None:
    columns = {
        "x": pa.array(range(10)),
        "sex": pa.array(["f", "m"] * 5).dictionary_encode(),
        "price": pa.array([decimal.Decimal("1.25")] * 10),
        "pair": pa.array([[1, 2]] * 10),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=3)
    found = read(tmp_path / "t.parquet", ranges=(0, 9), categories={"sex": ["f", "m"]})
    assert found == {"x": [*range(10)], "sex": [0, 1] * 5, "price": [5 << 26] * 10, "pair": [[1, 2]] * 10}


def test_a_column_of_an_unknown_type_that_begins_with_nothing_is_not_taken_for_missing(tmp_path: Path) -> None:
    late = pa.array([None] * 2000 + [decimal.Decimal("1.25")], pa.decimal256(40, 2))
    pq.write_table(pa.table({"x": late}), tmp_path / "late.parquet")
    with pytest.raises(InputError, match="neither numbers nor texts"):
        read(tmp_path / "late.parquet", **NUMBERS)


# --- what lies beside the columns of a pandas frame ------------------------------------------------

NAMED = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["ann", "ann"], name="who"))


def test_a_named_index_is_put_if_it_is_spoken_of_and_else_a_note_says_so() -> None:
    with pytest.warns(MpcWarning, match="the index 'who' is not put: t.reset_index"):
        assert read(NAMED, **NUMBERS) == {"x": [1, 2]}
    said = {"ranges": {"x": (0, 9)}, "categories": {"who": ["ann", "bob"]}}
    assert read(NAMED, **said) == {"who": [0, 0], "x": [1, 2]}
    with pytest.raises(InputError, match="more than rows_per_person=1"):
        read(NAMED, **NUMBERS, person="who")
    two = pd.DataFrame({"x": [1]}, index=pd.MultiIndex.from_tuples([(7, "ann")], names=["visit", "who"]))
    with pytest.warns(MpcWarning, match="the index 'who' is not put"):
        assert read(two, ranges={"x": (0, 9), "visit": (0, 9)}) == {"visit": [7], "x": [1]}
    both = pd.DataFrame({"who": [1]}, index=pd.Index(["ann"], name="who"))
    with pytest.raises(InputError, match="a column and an index named 'who'"):
        read(both, ranges={"who": (0, 9)})
    assert read(pd.DataFrame({"x": [1]}, index=["ann"]), **NUMBERS) == {"x": [1]}
