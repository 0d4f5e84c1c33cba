"""The key that wraps all keys of data at rest, in a file of its own, and how it is exchanged.

Every object has a key; it stands in the ledger's file, wrapped by this one.  To remove an object is to delete its row
and to wrap the others with a fresh key: then no copy of the database, and no block's file, can be opened with what the
party still has.  The database says which key it is wrapped by.  The fresh key is on the disk before the database is, as
a second file, and takes the first one's place after it: a crash at any moment leaves one of the two that fits.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc.encoding import canonical, digest
from mpc.errors import ConfigError, IntegrityError
from mpc.prg import SEED_BYTES, Seed
from parties.disk import write_atomic
from parties.party.stock.files import sync

NONCE_BYTES = 12
_NEXT = ".next"


def seal(key: Seed, context: bytes, secret: bytes, draw: Callable[[int], bytes]) -> bytes:
    """Encrypt and authenticate a secret, for this context only; draw: fresh random bytes."""
    nonce = draw(SEED_BYTES)[:NONCE_BYTES]
    return nonce + AESGCM(key.secret).encrypt(nonce, secret, context)


def unseal(key: Seed, context: bytes, sealed: bytes) -> bytes:
    """Give the secret that was sealed; `IntegrityError` if it was altered or is another's."""
    try:
        return AESGCM(key.secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise IntegrityError(
            "a key of the data at this party cannot be unwrapped",
            cause="its ledger or the file of its key was altered, or put back from a backup",
            remedy="put the objects again, or ask the party's operator",
        ) from None


class WrappingKey:
    """The key in its file.  Its caller sees to it that one thread at a time exchanges it.

    Args:
        path: of the file, which only its owner may read.
        draw: fresh random bytes.
    """

    __secret__ = True

    def __init__(self, path: Path, draw: Callable[[int], bytes]) -> None:
        self._path, self._draw = path, draw
        self._next = path.with_name(path.name + _NEXT)
        self._key = Seed(bytes(SEED_BYTES))

    def start(self, wanted: str | None) -> str:
        """Read the key that the database says it is wrapped by, or make the first one; returns its id.

        Args:
            wanted: that key's id; None for a database that has none yet.

        Raises:
            ConfigError: no file has that key.
        """
        if wanted is None:
            self._key = Seed(self._draw(SEED_BYTES))
            write_atomic(self._path, self._key.secret)
            return key_id(self._key)
        for path in (self._path, self._next):
            key = read_key(path)
            if key is None or key_id(key) != wanted:
                continue
            self._key = key
            if path == self._next:
                self._replace()
            self._next.unlink(missing_ok=True)
            return wanted
        raise ConfigError(
            f"{self._path} does not hold the key that this party's data are wrapped by",
            cause="the file is gone, or it or the ledger was put back from a backup",
            remedy="restore that file; without it the data are lost, and the party needs a new, empty data_dir",
            local=True,
        )

    def wrap(self, put: bytes, secret: Seed) -> bytes:
        """Wrap an object's key."""
        return seal(self._key, _context(put), secret.secret, self._draw)

    def unwrap(self, put: bytes, wrapped: bytes) -> Seed:
        """Unwrap an object's key; `IntegrityError` if it was altered."""
        return Seed(unseal(self._key, _context(put), wrapped))

    def prepare(self) -> WrappingKey:
        """Draw the next key and write it beside this one, durably."""
        left = read_key(self._next)
        if left is not None and key_id(left) == self.id:
            self._replace()  # the last exchange was cut short: that file is the only one with this key
        fresh = WrappingKey(self._path, self._draw)
        fresh._key = Seed(self._draw(SEED_BYTES))
        write_atomic(self._next, fresh._key.secret)
        return fresh

    def copy(self) -> WrappingKey:
        """Copy the key as it is now."""
        same = WrappingKey(self._path, self._draw)
        same._key = self._key
        return same

    @property
    def id(self) -> str:
        """Which key this is; it does not tell the key."""
        return key_id(self._key)

    def adopt(self, fresh: WrappingKey) -> None:
        """Wrap with the next key from now on, in the same transaction that says so in the database."""
        self._key = fresh._key

    def settle(self) -> None:
        """Let the next key's file take the place of the old one, whose bytes are written over before."""
        self._replace()

    @property
    def has_left(self) -> bool:
        """Is a key of before left, which is to be deleted yet?  Of a file none is."""
        return False

    def _replace(self) -> None:
        if self._path.exists():
            overwrite(self._path)
        os.replace(self._next, self._path)
        sync(self._path.parent)


def overwrite(path: Path) -> None:
    """Write over the key in a file, durably."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(SEED_BYTES))
        file.flush()
        os.fsync(descriptor)


def _context(put: bytes) -> bytes:
    return canonical("mpc/v1/object key", put)


def key_id(key: Seed) -> str:
    """Name a key; the name does not tell the key."""
    return digest("mpc/v1/wrapping key", key.secret).hex()


def read_key(path: Path) -> Seed | None:
    """Read a key from its file; None if there is none."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        return None
    return Seed(secret) if len(secret) == SEED_BYTES else None
