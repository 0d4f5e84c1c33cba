"""A stock's files: their format, and reads and writes that never follow a link, trust a size or leave half a file."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from mpc.entry import EntryId
from mpc.errors import ConfigError, EncodingError, IntegrityError, MpcError, PlanError, SessionError
from parties.agreed.terms import Terms
from parties.party.stock.orders import MOST_RUNS
from parties.telemetry import logger

FOLDER = "stock"
TERMS = "terms.json"
PLAN = "plan"
FORMAT = "mpc-stock-3"
"""Of its files, and of what the provider signed; what has another format is deleted at the next start."""
_MOST_TERMS = 1 << 20


def bundle_name(entry: EntryId) -> str:
    return f"{entry.number:06d}.bundle"


def shown_path(path: Path) -> str:
    """A file's name for people: below the data folder."""
    last = len(path.parts) - 1 - path.parts[::-1].index(FOLDER)
    return "/".join(path.parts[last:])


def dump_terms(terms: Terms, batches: Sequence[int]) -> bytes:
    content = {
        "batches": list(batches),
        "format": FORMAT,
        "nonces": [nonce.hex() for nonce in terms.nonces],
        "parties": list(terms.parties),
        "plan_digest": terms.plan_digest.hex(),
        "provider": terms.provider,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def read_content(folder: Path) -> dict[str, Any]:
    """Read the file of the terms, which names its format."""
    path = folder / TERMS
    with naming(path):
        content: dict[str, Any] = json.loads(read_file(path, _MOST_TERMS))
        if not isinstance(content["format"], str):
            raise IntegrityError("it has no format")
        return content


def read_terms(folder: Path) -> tuple[Terms, tuple[int, ...]]:
    """The terms, whose id is the folder's name, and the rows of each run."""
    content = read_content(folder)
    with naming(folder / TERMS):
        terms = Terms(
            bytes.fromhex(content["plan_digest"]),
            content["provider"],
            tuple(content["parties"]),
            tuple(bytes.fromhex(nonce) for nonce in content["nonces"]),
        )
        batches = tuple(content["batches"])
        if content["format"] != FORMAT or terms.session_id.hex() != folder.name:
            raise IntegrityError("it is another stock's")
        if not 1 <= len(batches) <= MOST_RUNS or not all(type(batch) is int and batch > 0 for batch in batches):
            raise IntegrityError("its runs are malformed")
        return terms, batches


def open_file(path: Path) -> BufferedReader:
    """Open a file to be read; raise IntegrityError if it is a link, or another thing than a file."""
    if path.is_symlink():
        raise IntegrityError("it is no file")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise IntegrityError("it is no file")
    return file


def read_file(path: Path, most: int) -> bytes:
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise IntegrityError("it is too large")
    return data


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """A new file that only its owner may read, on the disk when this returns; its bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        written = sum(file.write(part) for part in parts)
        file.flush()
        os.fsync(descriptor)
    return written


def sync(folder: Path) -> None:
    """The names in a folder survive a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def remove(folder: Path) -> None:
    """Delete a stock's folder; what cannot be deleted is said, and of no use to anybody."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        logger().error("a stock's files cannot be deleted", folder=shown_path(folder), why=error.strerror)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file of a stock is said about that file."""
    try:
        yield
    except FileNotFoundError:
        raise IntegrityError(f"the stock's file {shown_path(path)} is missing", remedy=_FRESH) from None
    except (MpcError, DecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = (
            error.what if isinstance(error, IntegrityError | EncodingError | PlanError | SessionError) else "malformed"
        )
        raise IntegrityError(
            f"the stock's file {shown_path(path)} is not what was dealt: {why}",
            cause="it was altered, cut short or exchanged, or the provider's certificate is no longer valid",
            remedy=_FRESH,
        ) from None
    except OSError as error:
        raise ConfigError(f"the stock's file {shown_path(path)} cannot be read: {error.strerror}") from None


_FRESH = "find out who wrote to this party's disk; start a new session, what is left of this stock is given up"


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the stock in {shown_path(folder / '')} cannot be written or read: {error.strerror}",
            cause="the disk is full or read-only",
            remedy="check the disk of this party",
        ) from None
