"""`@compiled`: a loop that numba compiles, kept in this user's own cache (mpc/kernel_cache.py).

numba's own way to load kept code first gets ready to compile: it imports the types and functions of every library that
it knows, scipy's linear algebra among them, and reads the code's LLVM form, which only another compilation would use.
That takes ten times as long as loading the machine code.  So loading is done here, and numba gets ready when there is
something to compile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from llvmlite import binding
from numba import njit
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult, compile_result
from numba.core.runtime import rtsys

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

    def reduce(self, result: CompileResult) -> tuple[Any, ...]:
        """Return what is kept of compiled code: in place of a listing of types the names that its library defines."""
        library, described, environment, signature, objectmode, lifted, _, init, others = result._reduce()
        module = result.library._get_module_for_linking()
        defined = {each.name for each in (*module.functions, *module.global_variables) if not each.is_declaration}
        return library, described, environment, signature, objectmode, lifted, sorted(defined), init, others

    def rebuild(self, target: Any, kept: tuple[Any, ...]) -> CompileResult:
        """Return compiled code that can be called; its LLVM form is read if another loop is compiled that calls it."""
        (name, _, (code, bitcode)), described, environment, signature, objectmode, lifted, defined, init, others = kept
        for prepare in init:
            prepare()
        library = target.codegen().create_library(name)
        library.enable_object_caching()
        library._set_compiled_object(code)
        library._finalize_final_module()
        library._codegen._engine._defined_symbols.update(defined)
        library._get_module_for_linking = cache(lambda: binding.parse_bitcode(bitcode))
        result = compile_result(
            target_context=target,
            typing_context=target.typing_context,
            library=library,
            environment=environment,
            entry_point=target.get_executable(library, described, environment),
            fndesc=described,
            type_annotation="",
            signature=signature,
            objectmode=objectmode,
            lifted=lifted,
            reload_init=init,
            referenced_envs=others,
        )
        for other in others:
            library.codegen.set_env(other.env_name, other)
        return result


class _Cache(FunctionCache):
    """A cache that can be lost: what cannot be read or written is compiled."""

    def __init__(self, loop: Callable[..., Any], folder: Path) -> None:
        self._folder = folder
        self._impl_class = lambda function: _Files(function, folder)
        super().__init__(loop)

    def load_overload(self, signature: Any, target: Any) -> Any:
        rtsys.initialize(target)
        try:
            return self._load_overload(signature, target)
        except Exception:  # a file that a crash cut short raises anything
            self._lost()
            return None

    def kept(self, target: Any) -> list[Any]:
        """List the argument types for which code is kept that this process can run."""
        try:
            known = list(self._cache_file._load_index())
        except Exception:
            self._lost()
            return []
        return [key[0] for key in known if key == self._index_key(key[0], target.codegen())]

    def _lost(self) -> None:
        """Let what cannot be read be compiled again: here when it is used, elsewhere before anybody waits for it."""
        with suppress(OSError), kernel_cache.indexing(self._folder):
            kernel_cache.reopen(self._folder)
            self.flush()

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


def load(loop: Any) -> bool:
    """Load a loop for every type that it was ever compiled for, instead of when it first meets one.

    Returns:
        False if nothing was kept of it, or not all of it can be read.
    """
    known = loop._cache.kept(loop.targetctx) if isinstance(loop._cache, _Cache) else []
    for types in known:
        loop.compile(types)
    return bool(known) and not loop.stats.cache_misses
