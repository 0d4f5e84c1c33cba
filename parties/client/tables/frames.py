"""Data frames of pandas, polars and pyarrow, by one API: narwhals, which is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.text import shown
from parties.client.tables.sources import (
    Cells,
    Found,
    Source,
    cells_of,
    found_in,
    long_number,
    rows_at_once,
    uneven,
    unreadable,
)

if TYPE_CHECKING:
    import narwhals as nw

NEEDED = "pip install 'mpc[data]'"


class Frame(Source):
    """A data frame.

    Args:
        shapes: of one row of columns that have lists, as their owner says; else the first row's.
    """

    def __init__(
        self, frame: nw.DataFrame[Any], shapes: Mapping[str, tuple[int, ...]], where: str = "the table"
    ) -> None:
        self.where, self._frame, self._shapes = where, frame, shapes
        self.found = {name: self._found(name, dtype) for name, dtype in frame.schema.items()}

    def pieces(self, names: Sequence[str]) -> Iterator[dict[str, Cells]]:
        step = rows_at_once(self.found[name] for name in names)
        for start in range(0, len(self._frame), step):
            part = self._frame[start : start + step]
            yield {name: series_cells(part[name], self.found[name]) for name in names}

    def _found(self, name: str, dtype: Any) -> Found:
        import narwhals as nw

        if dtype == nw.Object:
            return found_in(self._frame[name].to_numpy())
        found = kind_of(dtype)
        if dtype == nw.Unknown and not self._frame[name].is_null().all():
            return Found("other")  # a type that narwhals does not know, and not one of nothing
        if found.kind != "array":
            return found
        first = self._frame[name].drop_nulls()[:1]
        shape = self._shapes.get(name) or (_stacked(name, first.to_arrow()).shape[1:] if len(first) else ())
        if not shape:
            raise InputError(
                f"the shape of column {shown(name)!r} is not known, since all of it is missing",
                remedy=f"shapes={{{shown(name)!r}: (28, 28)}}",
            )
        return Found("array", shape, found.whole)


def open_frame(table: Any, shapes: Mapping[str, tuple[int, ...]], spoken: Collection[str] = ()) -> Frame:
    """Take a data frame of any library that narwhals knows, or whatever gives an Arrow stream.

    Args:
        spoken: names that its owner speaks of: a level of a pandas index that has one of them is a column.

    Raises:
        UsageError: it is none, or narwhals is not installed.
        InputError: two columns have one name, or a column has none.
    """
    try:
        import narwhals as nw
    except ImportError:
        raise UsageError(
            f"a table of type {type(table).__name__} needs narwhals, which is not installed",
            remedy=f"{NEEDED}; or give a dict of numpy arrays, or a CSV file",
        ) from None
    table, aside = _with_index(table, spoken)
    try:
        frame = nw.from_native(table, allow_series=False)
        if isinstance(frame, nw.LazyFrame):
            frame = frame.collect()
        names = frame.columns
    except TypeError:
        if not hasattr(table, "__arrow_c_stream__"):
            raise UsageError(
                f"a table cannot be of type {type(table).__name__}",
                remedy="give a data frame of pandas, polars or pyarrow, a dict of numpy arrays, a list of dicts, or a "
                "file: .csv, .tsv, .parquet, .npy, .npz",
            ) from None
        frame = _from_stream(table)
        names = frame.columns
    except ValueError:  # two columns of one name
        raise InputError("the table has two columns of one name", remedy="rename one of them") from None
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            "the table has columns whose names are no texts", remedy="t.columns = ['age', 'bmi'] gives them names"
        )
    opened = Frame(frame, shapes)
    opened.aside = aside
    return opened


def _with_index(table: Any, spoken: Collection[str]) -> tuple[Any, tuple[str, ...]]:
    """Make columns of the levels of a pandas index that are spoken of; return also the names of the others."""
    import narwhals as nw

    if not nw.dependencies.is_pandas_like_dataframe(table):
        return table, ()
    names = [name for name in table.index.names if name is not None]
    wanted = [name for name in names if name in spoken]
    if both := [name for name in wanted if name in table.columns]:
        raise InputError(f"the table has a column and an index named {shown(both[0])!r}", remedy="rename one of them")
    aside = tuple(str(name) for name in names if name not in wanted)
    return table.reset_index(level=wanted) if wanted else table, aside


def _from_stream(table: Any) -> nw.DataFrame[Any]:
    import narwhals as nw

    pa = import_pyarrow("a table that is an Arrow stream")
    try:
        return nw.from_arrow(table, backend=pa)
    except pa.ArrowException:
        raise UsageError(
            f"a {type(table).__name__} is one column and no table", remedy="give it a name: {'age': column}"
        ) from None


def import_pyarrow(what: str) -> Any:
    """Import pyarrow.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module("pyarrow")
    except ImportError:
        raise UsageError(f"{what} needs pyarrow, which is not installed", remedy=NEEDED) from None


def kind_of(dtype: Any) -> Found:
    """Say what a column of a data frame holds; an array's shape is not known by its type alone."""
    import narwhals as nw

    if dtype.is_integer():
        return Found("integer")
    if dtype.is_float() or dtype.is_decimal():
        return Found("number")
    if dtype.is_temporal():
        return Found("time")
    if dtype == nw.Boolean:
        return Found("boolean")
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return Found("text")
    if dtype in (nw.List, nw.Array):
        inner = dtype.inner
        while inner in (nw.List, nw.Array):
            inner = inner.inner
        return Found("array" if inner.is_numeric() else "other", whole=inner.is_integer())
    return Found("number" if dtype == nw.Unknown else "other")


def series_cells(series: nw.Series[Any], found: Found) -> Cells:
    """Give the values of a column, which may be a part of it.

    Raises:
        InputError: rows are arrays of different shapes.
    """
    import narwhals as nw

    if series.dtype == nw.Object:
        return cells_of(series.name, series.to_numpy(), found)
    gone = series.is_null().to_numpy()
    if found.kind == "array":
        return Cells(_stacked(series.name, series.to_arrow(), found.shape).reshape(-1, *found.shape))
    if series.dtype == nw.Unknown:
        if not gone.all():
            raise unreadable(series.name)
        return Cells(np.zeros(len(series)), gone)
    if found.kind == "text":
        return Cells(np.array([*series.to_list(), None], dtype=object)[:-1], gone)
    if series.dtype.is_decimal():
        series = series.cast(nw.Float64)
    if series.dtype in (nw.Int128, nw.UInt128):
        series = _shorter(series)
    if gone.any() and found.kind != "number":
        series = series.fill_null(False if found.kind == "boolean" else 0)
    elif gone.any():
        series = series.fill_null(0.0)
    return Cells(np.asarray(series.to_numpy()), gone)


def _shorter(series: nw.Series[Any]) -> nw.Series[Any]:
    import narwhals as nw

    try:
        return series.cast(nw.Int64)
    except Exception:  # whatever its library raises
        raise long_number(series.name) from None


def _stacked(name: str, column: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """Stack an Arrow column of nested lists of one length, (rows, *shape); NaN where something is missing."""
    pa = import_pyarrow("a column of lists")
    pc = import_module("pyarrow.compute")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_nested(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    there = ~np.asarray(column.is_null())
    sizes = {each for each in pc.unique(pc.list_value_length(column)).to_pylist() if each is not None}
    if len(sizes) > 1:
        raise uneven(name, tuple(shape or ()))
    inner = _stacked(name, column.drop_null().flatten())
    rest = (*sizes, *inner.shape[1:]) if sizes else tuple(shape or ())
    if shape is not None and prod(rest) != prod(shape):
        raise uneven(name, tuple(shape))
    if there.all():
        return inner.reshape(len(there), *rest)
    whole = np.full((len(there), *rest), np.nan)
    whole[there] = inner.reshape(-1, *rest)
    return whole
