"""Finds the entries of one session, by who enters what: the weights, and the inputs of each run.

Correlations are burnt in the ledger, durably, before the first mask seed leaves this process; that write also says
which runs may be told, where that costs nobody anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mpc.entry import EntryId
from mpc.errors import InputError, SessionError
from mpc.interpret.party import Buffer
from mpc.prg import Seed
from parties.party.consent.session import SessionConsent
from parties.party.entry import Entry
from parties.party.life import SessionFacts, SessionLife
from parties.party.online import Online
from parties.party.run import Run
from parties.party.runs import Runs
from parties.pb.party_pb2 import Manifest as SignedManifest
from parties.wire.transport import patience

BURNT_AT_ONCE = 32
"""Runs that one write burns at most, since those of a session come one after another: the others do not wait for the
disk.  What a crash burns in vain is as many as have been burnt before, at most."""


class Entries:
    """All entries of one session.  Thread-safe.

    Args:
        online: starts a run when its last input is here.
        consent: says what is written as runs are burnt.
    """

    def __init__(
        self, facts: SessionFacts, life: SessionLife, runs: Runs, online: Online, consent: SessionConsent
    ) -> None:
        self._facts, self._life, self._runs, self._online, self._consent = facts, life, runs, online, consent
        self.weights: Entry | None = None

    def find(self, id: EntryId) -> Entry:
        """Return an entry whose masks are here; `SessionError` if they are not, or it is long over."""
        entry = self.weights if id.is_weights else self._runs.get(id.number).entry
        if entry is None:
            raise SessionError("the weights' masks are not here yet")
        return entry

    def masks(self, id: EntryId, owner: str) -> tuple[list[tuple[str, Seed]], SignedManifest]:
        """The sub-seeds of the caller's own inputs; burns the correlations first."""
        self._life.require_open()
        with self._life.lock:
            entry = self.find(id)
            entry.owned(owner)
        self._burn(entry)
        with self._life.lock:
            self._life.require_open()
            return entry.hand_out(owner), entry.signed

    def _burn(self, entry: Entry) -> None:
        """Enter the run as burnt, once; the disk is waited for without the session's lock."""
        with entry.burning:
            if not entry.burnt:
                run = entry.id.number
                window = BURNT_AT_ONCE if self._facts.plan.states else min(run, BURNT_AT_ONCE)
                self._consent.burn(self._facts.ledger, run, window - 1)
                entry.burnt = True

    @contextmanager
    def receiving(self, id: EntryId, wire: str, owner: str) -> Iterator[int]:
        """While one input of the caller's arrives: bytes that it has.  Nobody makes this party hold it twice."""
        self._life.require_open()
        with self._life.lock:
            entry = self.find(id)
            size = entry.size(wire, owner)
            if wire in entry.arriving:
                raise InputError(f"the input wire {wire} is being submitted", remedy="wait for it, or hang up")
            entry.arriving.add(wire)
        try:
            yield size
        finally:
            with self._life.lock:
                entry.arriving.discard(wire)

    def submit(self, id: EntryId, wire: str, owner: str, data: Buffer) -> None:
        """x^ of one input; starts the run when it was the last one."""
        self._life.require_open()
        with self._life.changed:
            entry = self.find(id)
            entry.size(wire, owner)
            entry.take(wire, data)
            complete = entry.complete
            self._life.changed.notify_all()
        if complete:
            self._burn(entry)
            self._online.start_complete()

    def begin(self, run: Run) -> None:
        """Start a run that nobody enters anything into: all it reads lies at the parties, and somebody waits for it."""
        if not run.started and not run.entry.gates:
            self._burn(run.entry)
            self._online.start_complete()

    def await_weights(self) -> None:
        """Wait until all weights are here; `SessionError` if their owner does not submit them in time."""
        deadline = time.monotonic() + patience(self._facts.config.deadlines.submit)
        with self._life.changed:
            while self.weights is None or not self.weights.complete:
                self._life.require_open()
                left = deadline - time.monotonic()
                if not self._life.changed.wait(min(1.0, left)) and time.monotonic() >= deadline:
                    raise SessionError("the model's owner has not submitted all weights")
