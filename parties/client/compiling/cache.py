"""The user's folder of compiled models: each file encrypted under a key that only who has the model can derive.

Weights are in these files, as they are in the model's.  So a file tells nothing to who finds it without the model, and
what somebody else wrote, or a disk damaged, does not decrypt: it is as if it were not there.  The files used last stay.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc.kernel_cache import usual_folder
from mpc.prg import SEED_BYTES, Seed
from parties.entropy import token
from parties.wire.pieces import room

VARIABLE = "MPC_PLAN_CACHE"
"""Names the folder instead of the user's own; "off": nothing is kept and nothing is looked up."""
OFF = "off"
MOST_BYTES = 4 << 30
"""Bytes of all files; a disk with less room than that is left alone."""
_SUFFIX, _TEMPORARY = ".compiled", ".tmp"
_ABANDONED_SECONDS = 86400
"""After this time nobody is writing a temporary file any more."""
_FRAME, _TAG, _NONCE = 4 << 20, 16, 12


def usual_cache() -> PlanCache | None:
    """Return the cache that the environment names, or the user's own; None if it is off, or cannot be trusted."""
    named = os.environ.get(VARIABLE)
    if named == OFF:
        return None
    root = usual_folder(os.environ)
    folder = Path(named) if named else None if root is None else root / "plans"
    if folder is None or not folder.is_absolute():
        return None
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(folder):
            return PlanCache(folder)
    return None


def _is_private(folder: Path) -> bool:
    """Is it this user's, and may nobody else enter it?"""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


class PlanCache:
    """A folder of compiled models.  What the disk refuses is not kept, and nobody is told.

    Args:
        folder: nobody but this user may enter it.
        most: bytes of all files together.
    """

    def __init__(self, folder: Path, most: int = MOST_BYTES) -> None:
        self.folder, self._most = folder, most

    def has(self, name: str) -> bool:
        """Is there a file of that name?"""
        return self._path(name).is_file()

    def read(self, name: str, key: Seed) -> memoryview | None:
        """Return what was written under a name; None if it cannot be read, or was not written with this key."""
        try:
            with open(os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                found = _decrypt(file, key)
                os.utime(file.fileno())  # it was used now
                return found
        except (OSError, InvalidTag, ValueError):
            return None

    def write(self, name: str, key: Seed, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file, whole or not at all; the files that were used least lately make room."""
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{token(16).hex()}{_TEMPORARY}")
        try:
            if shutil.disk_usage(self.folder).free < self._most:
                return
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                for frame in _encrypt(pieces, key):
                    file.write(frame)
                    if file.tell() > self._most:
                        raise OSError("more than the cache may have")
            os.replace(temporary, path)
            self._make_room()
        except OSError:
            return
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / (name + _SUFFIX)

    def _make_room(self) -> None:
        """Delete the files that were used least lately until the others fit, and what a crash has left."""
        for path in self.folder.glob(f".*{_TEMPORARY}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = 0
        for _, size, path in sorted(found, reverse=True):
            total += size
            if total > self._most:
                with suppress(OSError):
                    path.unlink()


def _encrypt(pieces: Iterable[bytes | memoryview], key: Seed) -> Iterator[bytes]:
    """Yield a salt, then frames: each is bound to its place, the last one to being the last."""
    salt = token(SEED_BYTES)  # a file that is written again never repeats a key
    cipher, number, waiting = _cipher(key, salt), 0, bytearray()
    yield salt
    for piece in pieces:
        view = memoryview(piece)
        while view.nbytes:
            if len(waiting) == _FRAME:  # more follows: it is not the last one
                yield cipher.encrypt(_nonce(number, last=False), bytes(waiting), None)
                number, waiting = number + 1, bytearray()
            part = view[: _FRAME - len(waiting)]
            waiting += part
            view = view[len(part) :]
    yield cipher.encrypt(_nonce(number, last=True), bytes(waiting), None)


def _decrypt(file: IO[bytes], key: Seed) -> memoryview:
    """Return what a file has.

    Raises:
        InvalidTag, ValueError: it was not written so, with this key.
    """
    cipher = _cipher(key, file.read(SEED_BYTES))
    left = os.fstat(file.fileno()).st_size - SEED_BYTES
    frames = -(-left // (_FRAME + _TAG))
    if frames < 1:
        raise ValueError("no frame")
    out, filled = room(left - frames * _TAG), 0
    for number in range(frames):
        frame = cipher.decrypt(_nonce(number, last=number == frames - 1), file.read(_FRAME + _TAG), None)
        out[filled : filled + len(frame)] = frame
        filled += len(frame)
    return out[:filled].toreadonly()


def _cipher(key: Seed, salt: bytes) -> AESGCM:
    return AESGCM(key.derive("file", salt).secret)


def _nonce(number: int, *, last: bool) -> bytes:
    return (2 * number + last).to_bytes(_NONCE, "big")
