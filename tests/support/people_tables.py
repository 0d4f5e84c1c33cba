"""Tables of people in every form that owners have, with what they say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet

from parties.client.tables.stated import Stated

Rows = Sequence[Mapping[str, Any]]
SEXES = ("f", "m", "x")
STATED = Stated.of(
    ranges={"age": (0, 120), "bmi": (-10.5, 60)},
    categories={"sex": SEXES},
    types={"age": "integer", "bmi": "number", "smoker": "boolean"},
)
"""Types are said since text and pandas' columns with holes do not say them."""


def by_column(rows: Rows) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in ("age", "bmi", "sex", "smoker")}


def _structured(rows: Rows, folder: Path) -> Any:
    kinds = {"age": np.float64, "bmi": np.float64, "sex": object, "smoker": object}
    table = np.empty(len(rows), dtype=[*kinds.items()])
    for name, values in by_column(rows).items():
        table[name] = values
    return table


def _csv(rows: Rows, folder: Path) -> Path:
    pandas.DataFrame(by_column(rows), dtype=object).to_csv(folder / "people.csv", index=False)
    return folder / "people.csv"


def _tsv(rows: Rows, folder: Path) -> Path:
    polars.DataFrame(rows, schema=SCHEMA).write_csv(folder / "people.tsv", separator="\t", null_value="NA")
    return folder / "people.tsv"


def _parquet(rows: Rows, folder: Path) -> Path:
    pyarrow.parquet.write_table(
        polars.DataFrame(rows, schema=SCHEMA).to_arrow(), folder / "p.parquet", row_group_size=3
    )
    return folder / "p.parquet"


SCHEMA = {"age": polars.Int64, "bmi": polars.Float64, "sex": polars.String, "smoker": polars.Boolean}
FORMS: dict[str, Callable[[Rows, Path], Any]] = {
    "rows": lambda rows, folder: list(rows),
    "lists": lambda rows, folder: by_column(rows),
    "structured": _structured,
    "pandas": lambda rows, folder: pandas.DataFrame(by_column(rows)),
    "pandas with its own missing values": lambda rows, folder: pandas.DataFrame(by_column(rows)).convert_dtypes(),
    "pandas categories": lambda rows, folder: pandas.DataFrame(by_column(rows)).astype({"sex": "category"}),
    "polars": lambda rows, folder: polars.DataFrame(rows, schema=SCHEMA),
    "polars, lazy": lambda rows, folder: polars.LazyFrame(rows, schema=SCHEMA),
    "arrow": lambda rows, folder: polars.DataFrame(rows, schema=SCHEMA).to_arrow(),
    "arrow dictionary": lambda rows, folder: _dictionary(polars.DataFrame(rows, schema=SCHEMA).to_arrow()),
    "arrow stream": lambda rows, folder: _Stream(polars.DataFrame(rows, schema=SCHEMA).to_arrow()),
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
}


def _dictionary(table: pyarrow.Table) -> pyarrow.Table:
    return table.set_column(2, "sex", table["sex"].dictionary_encode())


class _Stream:
    """Whatever gives an Arrow stream, as duckdb's relations."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested: object = None) -> object:
        return self._table.__arrow_c_stream__(requested)
