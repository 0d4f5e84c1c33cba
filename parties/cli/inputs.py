"""Arrays from files, for the commands that take `--input` or `--calibrate`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpc.errors import InputError


def load_inputs(entries: tuple[str, ...], names: list[str], own: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays by input name, from `[NAME=]FILE` entries.

    Args:
        names: of all inputs of the model.
        own: of those that the caller enters, if not all: a file that does not say which input it is is one of them.

    Raises:
        InputError: a file is missing, not .npy or .npz, or does not say which input it is.
    """
    feeds: dict[str, np.ndarray] = {}
    for entry in entries:
        name, path = _split(entry, names)
        for key, value in _read(Path(path)).items():
            wanted = _input_name(name, key, names, path, names if own is None else own)
            if wanted in feeds:
                raise InputError(
                    f"two arrays are given for input {wanted!r}", remedy="give one --input NAME=FILE for each"
                )
            feeds[wanted] = value
    return feeds


def _split(entry: str, names: list[str]) -> tuple[str, str]:
    """(name or "", path); names of inputs and paths of files may have '=' in them."""
    if Path(entry).exists():
        return "", entry
    known = [name for name in names if entry.startswith(f"{name}=")]
    if known:
        name = max(known, key=len)
        return name, entry[len(name) + 1 :]
    name, separator, path = entry.partition("=")
    return (name, path) if separator else ("", entry)


def _input_name(given: str, key: str, names: list[str], path: str, own: Sequence[str]) -> str:
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
            remedy="save numbers with numpy.save or numpy.savez",
        ) from None
    except Exception as error:  # zipfile and zlib have errors of their own
        raise InputError(f"{path} is damaged ({type(error).__name__})", remedy="save it again") from None
    if not arrays:
        raise InputError(f"{path} holds no array", remedy="save one with numpy.save")
    return arrays
