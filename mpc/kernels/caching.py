"""`@compiled`: a loop that numba compiles, kept in this user's own cache (mpc/kernel_cache.py)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import FunctionCache

from mpc import kernel_cache

Loop = TypeVar("Loop", bound=Callable[..., Any])


class _Locator:
    """Where the code of a loop is kept, as numba asks for it, and what it depends on."""

    def __init__(self, folder: Path, line: int) -> None:
        self._folder, self._line = folder, line

    def ensure_cache_path(self) -> None:
        """Do nothing: the folder was made when it was chosen, and is not made again if somebody deletes it."""

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return kernel_cache.fingerprint()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Files(FunctionCache._impl_class):
    """numba's files for one loop, in our folder and in no other: its environment variables do not count."""

    def __init__(self, loop: Callable[..., Any], folder: Path) -> None:
        self._lineno = loop.__code__.co_firstlineno
        self._locator = _Locator(folder, self._lineno)
        self._filename_base = self.get_filename_base(f"{loop.__module__}.{loop.__qualname__}", sys.abiflags)


class _Cache(FunctionCache):
    """A cache that can be lost: what cannot be read or written is compiled."""

    def __init__(self, loop: Callable[..., Any], folder: Path) -> None:
        self._folder = folder
        self._impl_class = lambda function: _Files(function, folder)
        super().__init__(loop)

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return super().load_overload(signature, target)
        except Exception:  # a file that a crash cut short raises anything
            with suppress(OSError), kernel_cache.indexing(self._folder):
                self.flush()
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        # One at a time: of two that add to an index at once, one would name the other's file.
        with suppress(OSError), kernel_cache.indexing(self._folder):
            super().save_overload(signature, data)


def compiled(loop: Loop) -> Loop:
    """Compile a loop when it first meets an array type; without Python's lock while it runs."""
    dispatcher = njit(nogil=True, error_model="numpy")(loop)
    folder = kernel_cache.place().folder
    if folder is not None:
        dispatcher._cache = _Cache(loop, folder)
    return dispatcher
