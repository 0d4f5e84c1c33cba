"""Arrays from files, for the commands that take `--input` or `--calibrate`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mpc.compiler.arguments import in_type
from mpc.errors import InputError
from parties.cli.tables import read_table
from parties.client.at_rest.matching import Columns


def load_inputs(
    entries: tuple[str, ...],
    names: Sequence[str],
    own: Sequence[str] | None = None,
    types: Mapping[str, str] = MappingProxyType({}),
    columns: Columns = MappingProxyType({}),
    told: list[str] | None = None,
) -> dict[str, np.ndarray]:
    """Load arrays by input name, from `[NAME=]FILE` entries; of a .npz file with several arrays also `FILE.npz:ARRAY`.

    Args:
        names: of all inputs of the model.
        own: of those that the caller enters, if not all: a file that does not say which input it is is one of them.
        types: numpy types of the inputs, which numbers that are read from text take.
        columns: as the model names them, in whose order columns of tables are read.
        told: to which is added in which order else.

    Raises:
        InputError: a file is missing, no .npy, .npz, .csv or .tsv, or does not say which input it is.
    """
    feeds: dict[str, np.ndarray] = {}
    mine = names if own is None else own
    for entry in entries:
        name, path = _split(entry, names)
        for wanted, value in _wanted(name, path, names, mine, types, columns, told).items():
            if wanted in feeds:
                raise InputError(
                    f"two arrays are given for input {wanted!r}", remedy="give one --input NAME=FILE for each"
                )
            feeds[wanted] = value
    return feeds


def _wanted(
    name: str,
    path: str,
    names: Sequence[str],
    own: Sequence[str],
    types: Mapping[str, str],
    columns: Columns,
    told: list[str] | None,
) -> dict[str, np.ndarray]:
    """Read an `--input` entry: arrays by input."""
    file, key = _member(path)
    if file.suffix.lower() in (".csv", ".tsv"):
        return read_table(file, [name] if name else own, names, types, columns, told)
    arrays = _read(file)
    if key:
        if key not in arrays and "" in arrays:
            raise InputError(
                f"{file} has no array {key!r}",
                cause="a .npy file holds one array, which has no name",
                remedy=f"leave out ':{key}': --input {file}",
            )
        if key not in arrays:
            raise InputError(f"{file} has no array {key!r}", remedy=f"it has {', '.join(arrays)}")
        arrays = {key: arrays[key]}
    elif len(arrays) > 1:
        chosen = {name} if name else {known for known in arrays if known in names}
        if not chosen & arrays.keys():
            raise InputError(
                f"{file} has several arrays, and none by the name of an input",
                cause=f"it has {', '.join(arrays)}",
                remedy=f"say which: --input {name or (own[0] if own else 'NAME')}={file}:{next(iter(arrays))}",
            )
        arrays = {known: value for known, value in arrays.items() if known in chosen}
    found = {_input_name(name, known, names, path, own): value for known, value in arrays.items()}
    return {wanted: _in_type(value, types.get(wanted)) for wanted, value in found.items()}


def _in_type(values: np.ndarray, kind: str | None) -> np.ndarray:
    """Return the numbers of a file in their input's type, as numbers of a table and of lists are."""
    return in_type(values, kind) if kind in np.sctypeDict and values.dtype.kind in "fiu" else values


def _member(path: str) -> tuple[Path, str]:
    """Split a name into a file and an array in it, "" for none; a file's own name may have a ':' in it."""
    file, separator, key = path.rpartition(":")
    if separator and not Path(path).exists() and Path(file).is_file():
        return Path(file), key
    return Path(path), ""


def _split(entry: str, names: Sequence[str]) -> tuple[str, str]:
    """Split an entry into a name, "" for none, and a path; names of inputs and paths of files may have '=' in them."""
    if Path(entry).exists():
        return "", entry
    known = [name for name in names if entry.startswith(f"{name}=")]
    if known:
        name = max(known, key=len)
        return name, entry[len(name) + 1 :]
    name, separator, path = entry.partition("=")
    return (name, path) if separator else ("", entry)


def _input_name(given: str, key: str, names: Sequence[str], path: str, own: Sequence[str]) -> str:
    if given and given not in names:
        raise InputError(f"the model has no input {given!r}", remedy=f"its inputs are {', '.join(names)}")
    if given:
        return given
    if key in names:
        return key
    if len(own) == 1:
        return own[0]
    if not own:
        raise InputError(f"{key or path!r} is for no input: none is yours to give", remedy="leave --input out")
    raise InputError(f"which input is {key or path!r}?", remedy=f"--input NAME={path}, NAME one of {', '.join(own)}")


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"input file {path} {what}", remedy="check the path")
    try:
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        arrays = {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, KeyError):
        raise InputError(
            f"{path} is not a .npy or .npz file of numbers",
            cause="it holds Python objects, is cut short, or is in another format",
            remedy="save numbers with numpy.save or numpy.savez, or as a table with the suffix .csv",
        ) from None
    except Exception as error:  # zipfile and zlib have errors of their own
        raise InputError(f"{path} is damaged ({type(error).__name__})", remedy="save it again") from None
    if not arrays:
        raise InputError(f"{path} holds no array", remedy="save one with numpy.save")
    return arrays
