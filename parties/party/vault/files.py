"""The files of x^: encrypted in frames of 1 MiB, each with its place, under a key of the file's own.

A file's name is random and says nothing.  Its key follows from that name and the key of the object that it was written
for, and it is written once, so the number of a frame can be its nonce.  x^ is uniform and looks like what it is
encrypted to; who reads the disk later, and knows the mask, is kept out by it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import blake3
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc.encoding import FIELD_BYTES, canonical, decode_field
from mpc.errors import ConfigError, IntegrityError, PeerError
from mpc.prg import Seed
from parties.telemetry import logger
from parties.wire.pieces import room

FRAME = 1 << 20
TAG = 16
SUFFIX = ".block"


def size_on_disk(size: int) -> int:
    """Return the bytes of the file of so many bytes of x^."""
    return size + TAG * -(-size // FRAME)


class BlockWriter:
    """Writes one block's x^ as it arrives: checked, hashed, encrypted.  A context manager; what is not done is deleted.

    Args:
        name: of the file, fresh and random.
        key: of this file, see `file_key`.
        size: bytes of x^.
        sender: who is named if more or fewer come.
    """

    def __init__(self, folder: Path, name: str, key: Seed, size: int, sender: str) -> None:
        self.name = name
        self._path, self._size, self._sender = folder / (name + SUFFIX), size, sender
        self._cipher, self._name = AESGCM(key.secret), name
        self._hash, self._frame, self._filled, self._frames = blake3.blake3(), bytearray(min(size, FRAME)), 0, 0
        self._done = False

    def __enter__(self) -> Self:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with _writing(self._path):
            self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._done:
            self._file.close()
            return
        with suppress(OSError):  # the disk has failed already, and is told of
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, pieces: Iterable[bytes | memoryview]) -> bytes:
        """Take all of x^, and write it durably; its BLAKE3, 32 bytes.

        Raises:
            PeerError: more or fewer bytes come.
            EncodingError: one of its elements is not below p.
            ConfigError: the disk does not take them.
        """
        for piece in pieces:
            view = memoryview(piece)
            while view.nbytes:
                if self._frames * FRAME + self._filled >= self._size:
                    raise PeerError(f"a block has more than its {self._size} bytes", peer=self._sender)
                part = view[: self._length - self._filled]
                self._frame[self._filled : self._filled + len(part)] = part
                self._filled += len(part)
                view = view[len(part) :]
                if self._filled == self._length:
                    self._flush()
        if self._frames * FRAME + self._filled < self._size:
            raise PeerError(f"a block has fewer than its {self._size} bytes", peer=self._sender)
        with _writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._hash.digest()

    @property
    def _length(self) -> int:
        """Bytes of the frame that is being filled."""
        return min(FRAME, self._size - self._frames * FRAME)

    def _flush(self) -> None:
        frame = memoryview(self._frame)[: self._filled]
        decode_field(frame, (self._filled // FIELD_BYTES,))
        self._hash.update(frame)
        sealed = self._cipher.encrypt(*_frame(self._name, self._frames, self._size, frame))
        with _writing(self._path):
            self._file.write(sealed)
        self._frames, self._filled = self._frames + 1, 0

    def keep(self) -> None:
        """Let the file stay: somebody has listed it."""
        self._done = True


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the disk: clients are told them, and so learn no path; the log has the folder."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        logger().error("data cannot be written", folder=path.parent, why=why)
        raise ConfigError(
            f"the party cannot write data: {why}",
            cause="its disk is full or read-only, or its folder is somebody else's",
            remedy="check the disk of that party; then try again",
        ) from error


def read_block(folder: Path, name: str, key: Seed, shape: tuple[int, ...], expected: bytes) -> np.ndarray:
    """Read a block's x^, uint64 field elements of that shape.

    Args:
        expected: BLAKE3 of x^.

    Raises:
        IntegrityError: the file is missing, or is not what was written.
    """
    size = FIELD_BYTES * int(np.prod(shape, dtype=object))
    out, cipher, state = room(size), AESGCM(key.secret), blake3.blake3()
    try:
        with os.fdopen(os.open(folder / (name + SUFFIX), os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            for number, start in enumerate(range(0, size, FRAME)):
                length = min(FRAME, size - start)
                frame = cipher.decrypt(*_frame(name, number, size, file.read(length + TAG)))
                if len(frame) != length:
                    raise InvalidTag
                out[start : start + length] = frame
                state.update(frame)
            whole = not file.read(1) and state.digest() == expected
    except (InvalidTag, OSError):
        whole = False
    if not whole:
        raise _altered()
    return decode_field(out.toreadonly(), shape)


def read_part(folder: Path, name: str, key: Seed, size: int, start: int, stop: int) -> memoryview:
    """Read bytes `start` to `stop` of the `size` of a block's x^: no other frame than those that they lie in.

    Raises:
        IntegrityError: the file is missing, or one of these frames is not what was written.
    """
    first, last = start // FRAME, -(-stop // FRAME)
    out, cipher = room(min(last * FRAME, size) - first * FRAME), AESGCM(key.secret)
    try:
        with os.fdopen(os.open(folder / (name + SUFFIX), os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            file.seek(first * (FRAME + TAG))
            for number in range(first, last):
                length = min(FRAME, size - number * FRAME)
                frame = cipher.decrypt(*_frame(name, number, size, file.read(length + TAG)))
                place = (number - first) * FRAME
                out[place : place + length] = frame
    except (InvalidTag, OSError, ValueError):
        raise _altered() from None
    return out[start - first * FRAME : stop - first * FRAME].toreadonly()


def _altered() -> IntegrityError:
    return IntegrityError(
        "a file of the data at this party is missing or was altered",
        cause="somebody wrote to its disk, or the disk is failing",
        remedy="put the object again; ask the party's operator to look at the disk",
    )


def remove(folder: Path, names: Iterable[str]) -> None:
    """Delete files that nothing lists any more."""
    for name in names:
        (folder / (name + SUFFIX)).unlink(missing_ok=True)


def orphans(folder: Path, known: set[str]) -> list[str]:
    """Find the files that nothing lists: what a crash has left."""
    return [path.stem for path in folder.glob("*" + SUFFIX) if path.stem not in known]


def file_key(key: Seed, name: str) -> Seed:
    """Derive a file's key from the key of the object that it was written for, and its name."""
    return key.derive("file", name)


def _frame(name: str, number: int, size: int, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview, bytes]:
    """(nonce, data, what the tag covers besides)."""
    return number.to_bytes(12, "big"), data, canonical("mpc/v1/frame", name, number, size)
