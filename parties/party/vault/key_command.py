"""The wrapping key in a store of the operator's, a KMS say, which a command of the operator's reaches.

    COMMAND get ID       prints the key, 64 hex digits; nothing if there is none of that id
    COMMAND put ID       keeps the key that it reads on its standard input
    COMMAND delete ID    forgets the key for good; there may be none

An id is a digest of a random key, and tells nothing of it.  No shell runs the command, no key is among its words, and
nothing that it prints is written down.  At a removal a fresh key takes the old one's place, which is deleted; ids of
keys that have yet to be deleted stand in a file, and are tried again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from mpc.errors import ConfigError
from mpc.prg import SEED_BYTES, Seed
from parties.disk import write_atomic
from parties.party.vault.keys import WrappingKey, key_id, overwrite, read_key
from parties.telemetry import logger

LEFT = "keys.left"
_KEY = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{64}")


class KeyCommand(WrappingKey):
    """The key that a command keeps.

    Args:
        command: program and its first words.
        seconds: that it may take.
        path: of the file that had the key before there was a command; it is taken over from there.
        left: of the file with ids of keys that have yet to be deleted.
    """

    __secret__ = True

    def __init__(
        self, command: Sequence[str], seconds: float, path: Path, left: Path, draw: Callable[[int], bytes]
    ) -> None:
        super().__init__(path, draw)
        self._command, self._seconds, self._left = tuple(command), seconds, left

    def start(self, wanted: str | None) -> str:
        """Get the key that the database says it is wrapped by, or make the first one; returns its id.

        Raises:
            ConfigError: the command fails, or nobody has that key.
        """
        if wanted is None:
            self._key = Seed(self._draw(SEED_BYTES))
            self._note(*self._noted(), self.id)  # should the database never name it, it is deleted later
            self._put(self._key)
            return self.id
        self._key = self._get(wanted) or self._take_over(wanted)
        try:
            self.settle()
        except ConfigError as error:
            logger().error("old wrapping keys are not deleted yet", why=str(error))
        return wanted

    def prepare(self) -> WrappingKey:
        """Draw the next key and have it kept, beside this one.

        Raises:
            ConfigError: the command fails; nothing has changed.
        """
        fresh = self._same()
        fresh._key = Seed(self._draw(SEED_BYTES))
        self._note(*self._noted(), self.id, fresh.id)  # whichever of them the database does not name is deleted
        fresh._put(fresh._key)
        return fresh

    def copy(self) -> WrappingKey:
        """Copy the key as it is now."""
        same = self._same()
        same._key = self._key
        return same

    def settle(self) -> None:
        """Delete all keys but this one.

        Raises:
            ConfigError: the command fails; those keys are tried again.
        """
        for each in sorted({*self._noted()} - {self.id}):
            self._run("delete", each)
            self._note(*({*self._noted()} - {each}))
        self._note()

    @property
    def has_left(self) -> bool:
        """Is a key of before left, which is to be deleted yet?"""
        return bool({*self._noted()} - {self.id})

    def _same(self) -> KeyCommand:
        return KeyCommand(self._command, self._seconds, self._path, self._left, self._draw)

    def _take_over(self, wanted: str) -> Seed:
        """Move the key from the file that had it before."""
        found = read_key(self._path)
        if found is None or key_id(found) != wanted:
            raise ConfigError(
                f"neither data_key_command nor {self._path} has the key that this party's data are wrapped by",
                cause="it was deleted, or the ledger was put back from a backup",
                remedy="have the store give it again; without it the data are lost, and the party needs a new, empty "
                "data_dir",
                local=True,
            )
        self._put(found)
        overwrite(self._path)
        self._path.unlink()
        logger().info("the wrapping key is kept by data_key_command now", file=self._path)
        return found

    # -- the command

    def _get(self, wanted: str) -> Seed | None:
        printed = self._run("get", wanted).strip().lower()
        if not printed:
            return None
        if not _KEY.fullmatch(printed) or key_id(Seed(bytes.fromhex(printed))) != wanted:
            raise self._failed("get", "printed something else than the key of that id")
        return Seed(bytes.fromhex(printed))

    def _put(self, key: Seed) -> None:
        self._run("put", key_id(key), key.secret.hex())
        if self._get(key_id(key)) is None:
            raise self._failed("put", "did not keep the key")

    def _run(self, verb: str, which: str, given: str = "") -> str:
        try:
            process = subprocess.Popen(
                [*self._command, verb, which],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a careless one might print a key there, and this process's goes to the log
                start_new_session=True,
                text=True,
            )
        except (OSError, ValueError) as error:
            raise self._failed(verb, getattr(error, "strerror", None) or "cannot be started") from None
        try:
            printed, _ = process.communicate(given, self._seconds)
        except subprocess.TimeoutExpired:
            raise self._failed(verb, f"took longer than {self._seconds:g} seconds") from None
        except UnicodeDecodeError:
            raise self._failed(verb, "printed no text") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            raise self._failed(verb, f"ended with status {process.returncode}")
        return printed

    def _failed(self, verb: str, how: str) -> ConfigError:
        return ConfigError(
            f"data_key_command {how}",
            cause=f"it was asked to {verb} the key that wraps all keys of data at rest",
            remedy=f"try it by hand: {self._command[0]} ... {verb} ID; raise data_key_seconds if it is slow",
            local=True,
        )

    # -- keys that have yet to be deleted

    def _noted(self) -> list[str]:
        try:
            return [line for line in self._left.read_text("ascii").split() if _ID.fullmatch(line)]
        except FileNotFoundError:
            return []

    def _note(self, *ids: str) -> None:
        if ids:
            write_atomic(self._left, "".join(f"{each}\n" for each in sorted({*ids})).encode())
        else:
            self._left.unlink(missing_ok=True)
