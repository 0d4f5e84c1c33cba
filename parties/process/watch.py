"""Look after a daemon while it serves: does its disk take what it has to write, and when does its certificate end.

A party whose disk is full, or whose ledger cannot be written, cannot open a session nor burn a correlation, and refuses
both.  So it says that it is not well - health checks, `Describe`, the log - before somebody counts on it, and that it
is well again when the disk is: nothing was used meanwhile, since whatever is used is on the disk first.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mpc.errors import MpcError
from parties.telemetry import Counters, logger
from parties.trust.identity import Identity

WARN_DAYS = 30
"""Days that a certificate has left from which on the log, doctor and everybody speak of it."""
_PROBE = ".disk-probe"
_PROBE_BYTES = 4096
_LEAST_FREE = 1 << 20
"""Bytes; with fewer free a ledger's next page may not fit."""
ROOM_EVERY, WRITE_EVERY, SPEAK_EVERY = 5.0, 60.0, 86400.0
"""Seconds between two looks at the free space, two writes as long as all is well, two lines about a certificate."""


class Watch:
    """A look at the disk and at the certificate, now and then.

    One thread calls `tick`, every second or so; `problem` says what is wrong, "" if nothing is.

    Args:
        folder: the daemon's data_dir.
        writable: raises if something else that it has to write, its ledger, cannot be written; None if nothing else.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        counters: Counters,
        writable: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._identity, self._writable = folder, identity, writable
        self._clock = clock
        self._room_at = self._write_at = self._speak_at = float("-inf")
        self.problem = ""
        counters.certificate_days.set_function(identity.days_left)
        counters.disk_ok.set(1)
        self._counters = counters

    def tick(self) -> None:
        """Look at whatever it is time to look at."""
        now = self._clock()
        if now - self._room_at >= ROOM_EVERY:
            self._room_at = now
            write = bool(self.problem) or now - self._write_at >= WRITE_EVERY
            if write:
                self._write_at = now
            self._change(self._look(write))
        if now - self._speak_at >= SPEAK_EVERY:
            self._speak_at = now
            self._speak()

    def _look(self, write: bool) -> str:
        """Look at the disk; say what is wrong in words that tell no path, or nothing."""
        try:
            if shutil.disk_usage(self._folder).free < _LEAST_FREE:
                return "its disk is full"
            if write:
                self._write()
                if self._writable is not None:
                    self._writable()
        except OSError as error:
            return f"its disk cannot be written: {error.strerror or type(error).__name__}"
        except MpcError as error:
            logger().error("the ledger cannot be written", why=str(error))
            return "its ledger cannot be written"
        return ""

    def _write(self) -> None:
        path = self._folder / _PROBE
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, bytes(_PROBE_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()

    def _change(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        self._counters.disk_ok.set(0 if problem else 1)
        if problem:
            logger().error("not serving", why=problem, folder=self._folder, fix="free space or mend the disk")
        else:
            logger().info("serving again", folder=self._folder)

    def _speak(self) -> None:
        left = self._identity.days_left()
        if left <= WARN_DAYS:
            logger().warning(
                "the certificate ends soon" if left > 0 else "the certificate has ended",
                days_left=round(left, 1),
                until=self._identity.not_after,
                fix="issue another one for the same name (mpc cert issue, or your CA), and restart",
            )
        revoked = self._identity.trust.revoked
        if revoked is not None and revoked.overdue is not None:
            logger().warning("a revocation list is past its end", end=revoked.overdue, fix="fetch the CA's current one")
