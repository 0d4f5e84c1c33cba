"""Take part in a session: mask and submit what one owns, receive and unmask what one may.

A participant is whoever holds a certificate that the plan names: the model's owner, a data
owner, a recipient.  It sees shares of nothing: what it sends is masked with seeds from every
party, what it receives it unmasks with seeds from every party, each checked against the
manifest that the provider signed.  The coordinator has a participant too, for the parts that
bear its own name (`parties/client/running/coordinated.py`); who only joins is a `Guest` (`parties/client/guest.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from mpc.errors import DeadlineError, SessionError
from mpc.plan.plan import Plan
from parties.agreed.terms import Terms
from parties.client.channels import Parties
from parties.client.running.conversing import Conversing
from parties.client.running.handed import HandedOver
from parties.client.running.receiving import Progress, Received, Receiver
from parties.client.running.submitting import Submitter
from parties.client.together import GivenUpError, Together
from parties.pb import party_pb2

__all__ = ["Participant", "Progress", "Received", "poll"]

Found = TypeVar("Found")
_SOONEST, _LATEST = 0.02, 0.5
"""Seconds between two questions whether something has happened: few at first, then more."""


class _Calls:
    """Calls of each run: whoever misses a party's step knows why another call waits."""

    def __init__(self, parties: Parties) -> None:
        self._parties, self._together = parties, dict[int, Together]()

    def of(self, run: int) -> Together:
        """Return what all calls of a run are part of."""
        found = self._together.get(run)
        if found is None or found.is_over:
            found = self._together[run] = self._parties.together()
        return found

    def forget(self, run: int) -> None:
        """Forget a run that is over."""
        self._together.pop(run, None)

    def clear(self) -> None:
        """Forget all runs."""
        self._together.clear()


class Participant:
    """One client's part in a session: it masks, submits, receives and unmasks.

    Args:
        plan: not bound.
        terms: of a session that these parties have opened, for this plan.
        alone: no other process of this client enters anything in it, as none does beside its coordinator.
        conversing: the coordinator's open calls, if it alone enters and receives something.
    """

    def __init__(
        self, parties: Parties, plan: Plan, terms: Terms, alone: bool = False, conversing: Conversing | None = None
    ) -> None:
        self.parties, self.plan, self.terms = parties, plan, terms
        self.me = parties.identity.name
        self.deadlines = parties.config.deadlines
        self.id = terms.session_id
        handed = HandedOver(parties, terms)
        self._calls = _Calls(parties)
        self.submitter = Submitter(parties, plan, self.id, self.me, handed, alone, conversing, self._calls.of)
        self.receiver = Receiver(parties, plan, self.id, self.me, handed, conversing, self._calls.of)

    def enter_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Mask and submit every weight that this client owns: see `Submitter.enter_weights`."""
        self.submitter.enter_weights(values)

    def masks(self, run: int) -> bool:
        """Has this client an input of a run to mask?"""
        return self.submitter.masks(run)

    def see(self, run: int, batch: int, masks: party_pb2.MasksReply) -> None:
        """Look at what a party says of the masks of a run's inputs, before `enter`: see `Submitter.see`."""
        self.submitter.see(run, batch, masks)

    def enter(
        self,
        run: int,
        batch: int,
        values: Mapping[str, np.ndarray],
        handed: Sequence[party_pb2.MasksReply] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Mask and submit every input of a run that this client owns: see `Submitter.enter`.

        Where the run's end is asked for meanwhile, what ends it is told as soon as a party has said it, though another
        one takes no input.
        """
        try:
            self.submitter.enter(run, batch, values, handed, meanwhile)
        except GivenUpError:
            if self.receiver.is_asked(run):
                self.receiver.receive(run, batch)  # another party has said why, which is raised
            raise

    def ask(self, run: int, batch: int | None = None, on_progress: Progress | None = None) -> None:
        """Begin to wait for a run that is prepared: see `Receiver.ask`."""
        self.receiver.ask(run, batch, on_progress)

    def receive(self, run: int, batch: int | None = None, on_progress: Progress | None = None) -> Received:
        """Wait for a run's end, and unmask what this client is a recipient of: see `Receiver.receive`."""
        try:
            return self.receiver.receive(run, batch, on_progress)
        finally:
            self._calls.forget(run)

    def forget(self) -> None:
        """Hang up on results that nobody waits for any more: the session is over here."""
        self.receiver.forget()
        self._calls.clear()
        self.parties.entered.forget(self.id)

    # -- waiting for others

    def status(self, run: int = 0) -> list[party_pb2.StatusReply]:
        """Ask each party how far a run is (0: the latest), to be polite: nothing may rely on the answers."""
        request = party_pb2.StatusRequest(session_id=self.id, run=run)
        return self.parties.each(lambda stub: stub.Status, request, self.deadlines.connect)

    def await_run(self, run: int) -> party_pb2.StatusReply:
        """Wait until every party has a run prepared.

        Raises:
            DeadlineError: the coordinator did not, within `deadlines.submit`; asking again is fine.
            SessionError: the run, or the session, is over.
        """

        def prepared() -> party_pb2.StatusReply | None:
            replies = self.status(run)
            if any(not reply.batch and reply.latest >= run for reply in replies):
                raise SessionError(f"run {run} is over, and its outputs are no longer kept")
            return replies[0] if all(reply.batch for reply in replies) else None

        found = poll(prepared, self.deadlines.submit)
        if found is None:
            raise DeadlineError(
                f"run {run} was not prepared within {self.deadlines.submit:g} s",
                cause="the coordinator starts runs, and has not started this one",
                remedy="ask the coordinator, then try again; deadlines.submit in the cluster file is how long to wait",
            )
        return found

    def await_heard(self, run: int, seconds: float, of: Collection[str]) -> set[str]:
        """Wait until every party has told all of `of` a run's result; return the names of those who were not told."""
        waiting: set[str] = set(of)

        def heard() -> bool | None:
            nonlocal waiting
            waiting = {name for reply in self.status(run) for name in reply.unheard} & set(of)
            return None if waiting else True

        if waiting:
            poll(heard, seconds)
        return waiting


def poll(ask: Callable[[], Found | None], seconds: float) -> Found | None:
    """Call `ask` until it gives something; return that, or None if it does not within so many seconds."""
    end, pause = time.monotonic() + seconds, _SOONEST
    while (found := ask()) is None and (left := end - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LATEST)
    return found
