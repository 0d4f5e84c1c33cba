"""Say where compiled kernels are kept: a folder that this user alone can write to.

Compiling all kernels takes about a minute, so numba keeps what it made in files - and reads code
from them.  Whoever can write to the folder therefore is this process.  A folder is used only if
it is this user's, nobody else may write to it, and nobody else can put another one in its place.
Its name follows from everything that the code in it depends on: the kernels' sources (numba itself
looks at a loop's own file only, not at what is inlined into it), the compiler, the processor.

The one module of `mpc` that knows files, beside numba's own.  It imports no numba, so that who
only wants to know whether there is something to compile finds out at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

VARIABLE = "MPC_KERNEL_CACHE"
"""Names the folder that has the caches of all versions, instead of the user's own."""
KERNELS = Path(__file__).parent / "kernels"
_COMPLETE, _COMPILING, _INDEX = "complete", ".compiling", ".index"
_KEPT_SECONDS = 90 * 86400
"""What older versions compiled is deleted after this time."""
_NO_CODE = ("NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES")
"""Settings of numba that do not change what it compiles."""


@dataclass(frozen=True)
class Place:
    """A cache.

    Args:
        folder: where compiled code is; None if none can be kept.
        note: why it is not where it usually is; empty if it is.
    """

    folder: Path | None
    note: str = ""

    @property
    def complete(self) -> bool:
        """Has everything been compiled?"""
        return self.folder is not None and (self.folder / _COMPLETE).exists()


@cache
def place() -> Place:
    """Find or make this process's cache; the choice stays as long as the process lives."""
    return choose(os.environ)


@cache
def fingerprint() -> str:
    """Digest (hex) of all that compiled kernels depend on."""
    found = hashlib.sha256()
    for path in sorted(KERNELS.glob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}\n".encode() + content)
    versions = [f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    settings = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_") and k not in _NO_CODE]
    found.update("\n".join([sys.version, sys.platform, processor(), *versions, *settings]).encode())
    return found.hexdigest()


def processor() -> str:
    """Name the processor's model and features: code for one with more of them fails on another."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
        return "\n".join(sorted({*told, platform.machine()}))
    return f"{platform.machine()} {platform.processor()}"


# ----------------------------------------------------------------------- choosing a folder


def choose(environ: Mapping[str, str]) -> Place:
    """Return the first folder that can be trusted and used; made if it is not there."""
    refused: list[str] = []
    for root, usual in _roots(environ):
        folder, problem = _claim(root / f"kernels-{fingerprint()[:16]}", named=root == Path(environ.get(VARIABLE, "")))
        if not problem:
            return Place(folder, "" if usual else _note(refused, f"{root} is used"))
        refused.append(problem)
    with suppress(OSError):
        folder = Path(tempfile.mkdtemp(prefix="mpc-kernels-")).resolve() / f"kernels-{fingerprint()[:16]}"
        folder.mkdir(mode=0o700)
        return Place(folder, _note(refused, f"{folder.parent} is used, until somebody deletes it"))
    return Place(None, _note(refused, "every process compiles its own, which takes a minute"))


def _roots(environ: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Folders that may hold caches, best first; and whether it is where one expects it."""
    given = environ.get(VARIABLE)
    if given:
        yield Path(given), True
    usual = usual_folder(environ)
    if usual is not None:
        yield usual, not given
    with suppress(OSError):  # there is none, or none that can be written to
        yield Path(tempfile.gettempdir()).resolve() / f"mpc-{os.geteuid()}", False


def usual_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder in which this user's caches of all kinds are expected; None without a home."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # as the specification of XDG_CACHE_HOME has it
        base = Path(environ.get("HOME") or os.path.expanduser("~")) / ".cache"
    return base / "mpc" if base.is_absolute() else None


def _note(refused: list[str], instead: str) -> str:
    why = "; ".join(refused) or "there is no home folder"
    return f"compiled kernels cannot be kept in the usual place ({why}): {instead} ({VARIABLE} names another)"


def _claim(folder: Path, named: bool) -> tuple[Path, str]:
    """Make a folder if it is not there; where it really is, and why it must not or cannot be used, empty if it can.

    What is judged is what is used from then on: a link on the way could lead elsewhere later.
    """
    try:
        if not folder.is_absolute():
            return folder, f"{folder.parent} is no absolute path"
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.parent.resolve(strict=True) / folder.name
        for ancestor in folder.parents:
            if problem := _exposed(ancestor, sticky=True, root=True):
                return folder, problem
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if problem := _exposed(folder, sticky=False, root=named):
            return folder, problem
        if not os.access(folder, os.W_OK | os.X_OK) and not (folder / _COMPLETE).exists():
            return folder, f"{folder} cannot be written to"
    except OSError as error:
        return folder, f"{error.filename or folder}: {error.strerror}"
    return folder, ""


def _exposed(folder: Path, sticky: bool, root: bool) -> str:
    """Why somebody else decides what is in a folder; empty if nobody does.

    Args:
        sticky: it is a folder above the one that counts: this process's own group may write (a user's own, often),
            and so may everybody if they cannot replace what is not theirs.
        root: it may be root's, as a folder that an image or an installation brings.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is no folder"
    if status.st_uid != os.geteuid() and not (root and status.st_uid == 0):
        return f"{folder} belongs to another user"
    own_group = sticky and status.st_gid == os.getegid()
    writers = stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP
    if status.st_mode & writers and not (sticky and status.st_mode & stat.S_ISVTX):
        return f"others may write to {folder}"
    return ""


# ------------------------------------------------------------------------------- compiling


@contextmanager
def compiling(found: Place) -> Iterator[None]:
    """Let one process at a time compile everything, if it was not done before; it is done at the end of the block."""
    if found.folder is None or found.complete:
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that can no longer be written to: then each compiles for itself
            stack.enter_context(_locked(found.folder / _COMPILING))
        yield
        with suppress(OSError):
            _prune(found.folder)
            (found.folder / _COMPLETE).touch(mode=0o600)


def reopen(folder: Path) -> None:
    """Note that something is to be compiled again."""
    (folder / _COMPLETE).unlink(missing_ok=True)


def _prune(folder: Path) -> None:
    """Delete what older versions, or this one on another processor, have not compiled again for a long time."""
    old = (folder / _COMPILING).stat().st_mtime - _KEPT_SECONDS
    for other in folder.parent.glob("kernels-*"):
        with suppress(OSError):
            if other != folder and other.is_dir() and other.stat().st_mtime < old:
                for file in other.iterdir():
                    file.unlink()
                other.rmdir()


@contextmanager
def indexing(folder: Path) -> Iterator[None]:
    """Let one process at a time change the files of compiled kernels."""
    with _locked(folder / _INDEX):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.stdout.write(f"{place().folder or ''}\n")
