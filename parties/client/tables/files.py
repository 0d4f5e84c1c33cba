"""Tables in files: text and Parquet piece by piece, so that memory does not grow with them; numpy's by mapping."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.text import shown
from parties.client.tables import fast_text, text
from parties.client.tables.frames import NEEDED, Frame, import_pyarrow
from parties.client.tables.sources import Arrays, Cells, Found, Source, from_numpy

_PARQUET = (".parquet", ".pq")
_NUMPY = (".npy", ".npz")
_LINES = 1 << 11
"""Lines of a text file at a time: what they become stays in a processor's cache."""
_PIECE = 1 << 14
"""Rows of a Parquet file at a time: of images they are many bytes."""


def open_file(path: Path, names: Sequence[str] | None, shapes: Mapping[str, tuple[int, ...]]) -> Source:
    """Open a table by its path.

    Args:
        names: of the columns, for files that have none.

    Raises:
        InputError: it is not there, or cannot be read.
        UsageError: it has no known ending.
    """
    suffix = path.suffix.lower()
    if suffix not in (*text.SUFFIXES, *_PARQUET, *_NUMPY):
        inside = suffix.partition(":")[0] == ".npz"
        raise UsageError(
            f"{path.name} is no table by its name",
            remedy="give the whole .npz file, and the arrays of it as columns (columns=['x'], --column x)"
            if inside
            else "give a .csv, .tsv, .parquet, .npy or .npz file",
        )
    if not path.is_file():
        raise InputError(f"input file {path} does not exist", remedy="check the path")
    if suffix in text.SUFFIXES:
        return TextFile(path, names)
    return ParquetFile(path, shapes) if suffix in _PARQUET else _open_numpy(path, names)


class TextFile(Source):
    """A .csv or .tsv file; its columns hold text that may be anything."""

    def __init__(self, path: Path, names: Sequence[str] | None) -> None:
        self.where, self._path = str(path), path
        header, lines = text.read_text(path)
        first = next(lines, None)
        if first is None:
            raise text.no_rows(path, bool(header))
        if not header and names is None:
            raise InputError(
                f"{path} has no line of names",
                remedy="put one above the rows, or columns=['age', ...]",
            )
        self._names, self._header = header or list(names or ()), bool(header)
        if len(self._names) != len(first[1]):
            raise UsageError(f"{path} has {len(first[1])} columns, and columns= names {len(self._names)}")
        self.found = dict.fromkeys(self._names, Found("cells"))
        if len(self.found) != len(self._names):
            twice = next(name for name in self._names if self._names.count(name) > 1)
            raise InputError(f"{path} has two columns named {shown(twice)!r}", remedy="rename one of them")

    def pieces(self, names: Sequence[str]) -> Iterator[dict[str, Cells]]:
        places = [self._names.index(name) for name in names]
        header, done = self._header, 0
        for columns in fast_text.read_columns(self._path, text.separator_of(self._path), len(self._names), header):
            if columns is None:  # something is left, which the other reader takes or refuses
                break
            done += len(columns[0])
            yield {name: Cells(columns[place]) for name, place in zip(names, places, strict=True)}
        else:
            return
        _, lines = text.read_text(self._path)
        lines = islice(lines, done, None)
        while part := [line for _, line in islice(lines, _LINES)]:
            cells = list(zip(*part, strict=True))
            yield {name: Cells(_texts(cells[place])) for name, place in zip(names, places, strict=True)}


def _texts(cells: Sequence[str]) -> np.ndarray:
    found = np.empty(len(cells), dtype=object)
    found[:] = cells
    return found


class ParquetFile(Source):
    """A Parquet file."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.where, self._path, self._shapes = str(path), path, shapes
        with self._open() as file:
            first = next(file.iter_batches(batch_size=1 << 10), None)
            if first is None:
                raise InputError(f"{path} has no rows", remedy="give at least one")
            self.found = self._frame(first).found

    def pieces(self, names: Sequence[str]) -> Iterator[dict[str, Cells]]:
        shapes = {name: found.shape for name, found in self.found.items() if found.kind == "array"}
        with self._open() as file:
            for batch in file.iter_batches(batch_size=_PIECE, columns=list(names)):
                yield from self._frame(batch, shapes).pieces(names)

    def _open(self) -> Any:
        pa = import_pyarrow("a Parquet file")
        parquet = import_module("pyarrow.parquet")

        try:
            return parquet.ParquetFile(self._path, buffer_size=1 << 20, pre_buffer=False)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{self._path} cannot be read as Parquet ({type(error).__name__})", remedy="write it again"
            ) from None

    def _frame(self, batch: Any, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Frame:
        try:
            import narwhals as nw
        except ImportError:
            raise UsageError("a Parquet file needs narwhals, which is not installed", remedy=NEEDED) from None
        table = import_pyarrow("a Parquet file").Table.from_batches([batch])
        return Frame(nw.from_native(table, eager_only=True), self._shapes if shapes is None else shapes, self.where)


def _open_numpy(path: Path, names: Sequence[str] | None) -> Arrays:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        columns = dict(found.items()) if isinstance(found, np.lib.npyio.NpzFile) else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as numpy's ({type(error).__name__})",
            cause="it is damaged, or has Python objects in it, which are not read",
            remedy="numpy.save of an array of numbers or texts makes one",
        ) from None
    return from_numpy(found, names, str(path)) if columns is None else Arrays(columns, str(path))
