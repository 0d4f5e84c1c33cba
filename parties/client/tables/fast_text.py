"""Tables as text, read by pyarrow where its cells are the ones that `text` reads.

Nothing is decided here: cells are texts.  Files with quotes, and what pyarrow does not take, are the other reader's.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 1 << 20
"""Bytes that are parsed at a time, and looked at before."""


def read_columns(path: Path, separator: str, width: int, header: bool) -> Iterator[list[np.ndarray] | None]:
    """Give the rows of a table piece by piece: an array of texts a column; None as the last if rows are left.

    Args:
        width: columns that every line has.
        header: the first line that is not empty is no row.
    """
    csv = pyarrow_csv()
    if csv is None or not _is_plain(path):
        yield None
        return
    pa, names = import_module("pyarrow"), [str(place) for place in range(width)]
    try:
        reader = csv.open_csv(
            path,
            csv.ReadOptions(column_names=names, block_size=_BLOCK, use_threads=False),
            csv.ParseOptions(delimiter=separator, quote_char=False, double_quote=False, ignore_empty_lines=True),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
        first = header
        for batch in reader:
            part = batch.slice(1) if first else batch
            first = first and not len(batch)
            if len(part):
                yield [column.to_numpy(zero_copy_only=False) for column in part.columns]
    except (pa.ArrowException, OSError):
        yield None


def pyarrow_csv() -> Any:
    """Return pyarrow's reader of text, or None where it is not installed."""
    try:
        return import_module("pyarrow.csv")
    except ImportError:
        return None


def _is_plain(path: Path) -> bool:
    """Has the file no quotes, and no line that ends as none does today?"""
    try:
        with path.open("rb") as file:
            while part := file.read(_BLOCK):
                if b'"' in part or b"\0" in part or part.count(b"\r") != part.count(b"\r\n"):
                    return False
    except OSError:
        return False
    return True
