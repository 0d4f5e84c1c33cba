"""Coordinator's side of a session: propose, open, prepare, close.

It decides what runs and when, and sees nothing for it: masking, submitting and unmasking is
done by its `Participant`, for the parts of the plan that bear its own name.  What others enter
and receive is theirs; they join with the session's ticket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mpc.entry import WEIGHTS, EntryId
from mpc.errors import MpcError, PeerError
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding, write_bindings
from parties.agreed.keeps import Keep, write_keeps
from parties.agreed.ticket import Ticket
from parties.client.channels import Awaited, Parties, Reply
from parties.client.running.conversing import Conversing
from parties.client.running.participant import Participant, Progress
from parties.client.running.patience import until_dealt
from parties.client.running.pipeline import Pipeline
from parties.client.running.roles import require_security
from parties.client.running.room import is_room_beside
from parties.client.running.stocks import Stock, propose
from parties.client.running.versions import another_session
from parties.pb import party_pb2

__all__ = ["CoordinatedSession", "Parties", "Progress", "RunReport", "sum_reports"]


@dataclass(frozen=True)
class RunReport:
    """Price of a run, counted.

    Args:
        rounds: openings one after another.
        sent_bytes: the largest party's payload, all peers together.
        dealt_bytes: correlations from the provider, all parties together.
        online_s: the slowest party's own time from inputs masked to outputs released.
        offline_s: dealing, sending and preparing, as seen from here.
        provider_s: of that, the provider's own time, as the power of two at or below it: no more of it is told.
        online_cpu_s: CPU seconds of the largest party while online.
        recipients: who could unmask the outputs.
        stocked: its correlations were dealt ahead.
    """

    batch: int
    parties: int
    rounds: int
    sent_bytes: int
    dealt_bytes: int
    online_s: float
    offline_s: float
    provider_s: float
    online_cpu_s: float
    recipients: tuple[str, ...]
    stocked: bool = False


_ADDED = ("batch", "rounds", "sent_bytes", "dealt_bytes", "online_s", "offline_s", "provider_s", "online_cpu_s")

_FAREWELL_SECONDS = 2.0
"""In which parties answer that they have closed a session of which a run has failed: most of them know of it."""


def sum_reports(reports: list[RunReport]) -> RunReport:
    """Return the price of several runs, one after another: their rows, rounds, bytes and seconds added up."""
    return replace(reports[0], **{name: sum(getattr(report, name) for report in reports) for name in _ADDED})


def prepare(
    parties: Parties,
    plan: Plan,
    session: bytes,
    number: int,
    batch: int,
    following: int,
    masked: Callable[[int], bool] = lambda _: False,
    conversing: Conversing | None = None,
) -> Sequence[Awaited[party_pb2.PrepareReply]]:
    """Have every party begin to prepare a run, without waiting.

    Args:
        plan: the session's; `session`: its id.
        batch: rows of the run.
        following: rows of all runs that the same batch goes on with.
        masked: tells of a run's number whether the masks of this client's inputs are to come with the answers, since it
            enters them at once.  Of a run that is prepared ahead they are asked for when it is its turn: parties wait
            for the inputs from then on.
        conversing: the open calls to ask in; without them each party is called.
    """
    request = party_pb2.PrepareRequest(
        session_id=session, run=number, batch=batch, following=following, masks=masked(number)
    )
    seconds = until_dealt(parties.config.deadlines.setup, plan, EntryId(number), batch)
    if conversing is not None:
        return conversing.prepare(request, seconds)
    return parties.start(lambda stub: stub.Prepare, request, seconds, parties.together())


@dataclass(frozen=True)
class _Seen:
    """One party's answer to that, of which masks are looked at while other parties are still preparing."""

    answer: Awaited[party_pb2.PrepareReply]
    see: Callable[[party_pb2.MasksReply], None]

    def result(self) -> party_pb2.PrepareReply:
        found = self.answer.result()
        if found.HasField("masks"):
            self.see(found.masks)
        return found


def _prepare_at_once(
    part: Participant, conversing: Conversing | None, number: int, batch: int, following: int
) -> list[_Seen]:
    """Have every party begin to prepare a run of which this client enters its inputs as soon as it is prepared."""
    answers = prepare(part.parties, part.plan, part.id, number, batch, following, part.masks, conversing)
    return [_Seen(answer, partial(part.see, number, batch)) for answer in answers]


class CoordinatedSession:
    """A session that this client opened.

    Args:
        plan: not bound.
        weights: int64 integers of the weight wires that this client owns.
        stock: the session that was dealt ahead, to open it; it is used up by that, whatever comes of it.
        bindings: of the plan's stored wires, in its order.
        keeps: objects that its kept outputs become.
        wait: seconds to wait for words that are missing.
    """

    def __init__(
        self,
        parties: Parties,
        plan: Plan,
        weights: Mapping[str, np.ndarray],
        stock: Stock | None = None,
        bindings: Sequence[Binding] = (),
        keeps: Sequence[Keep] = (),
        wait: float = 0.0,
    ) -> None:
        require_security(plan, parties.config.security)
        self._parties, self.plan, self.stock = parties, plan, stock
        self._deadlines = parties.config.deadlines
        self.on_progress: Progress | None = None
        self.open = False
        self._patience = self._deadlines.connect
        self.setup_dealt = 0
        self._called_off: list[Reply[party_pb2.EndReply]] = []
        self.terms = stock.terms if stock else propose(parties, plan, bindings=bindings, keeps=keeps, wait=wait)
        self.id = self.terms.session_id
        alone = not (plan.owners | plan.recipients) - {parties.identity.name}
        self.conversing = Conversing(parties, self.id) if alone else None
        self.part = Participant(parties, plan, self.terms, alone=True, conversing=self.conversing)
        ahead = partial(prepare, parties, plan, self.id)
        at_once = partial(_prepare_at_once, self.part, self.conversing)
        self._pipeline = Pipeline(ahead, alone, stock.batches if stock else None, at_once)
        try:
            self._open()
            self.part.enter_weights(weights)
            self._pipeline.opened()
        except BaseException:
            self.close()
            raise

    @property
    def ticket(self) -> Ticket:
        """Ticket that others need to take part."""
        return Ticket(self.plan, self.terms)

    def _open(self) -> None:
        terms = self.terms
        opening = party_pb2.OpenRequest(
            plan_digest=terms.plan_digest,
            parties=terms.parties,
            nonces=terms.nonces,
            stocked=self.stock is not None,
            bindings=write_bindings(terms.bindings),
            keeps=write_keeps(terms.keeps),
        )
        wait = self._deadlines.connect + until_dealt(self._deadlines.setup, self.plan, WEIGHTS)
        self.open = True
        replies = self._parties.each_or_none(lambda stub: stub.Open, opening, wait, self._call_off, self._opened)
        for party, reply in zip(self._parties.clients, replies, strict=True):
            if reply.session_id != self.id:
                raise another_session(party, self._deadlines.connect)
        self.setup_dealt = sum(reply.dealt_bytes for reply in replies)

    def _opened(self, reply: party_pb2.OpenReply) -> None:
        """Give signs of life from now on: a party that has opened waits for them, however long another one takes."""
        self._parties.keeper.keep(self, reply.grace_seconds)

    def _call_off(self) -> None:
        """Tell all parties that one of them does not open the session: else they would wait for it until a deadline."""
        request = party_pb2.EndRequest(session_id=self.id)
        self._called_off = self._parties.start(lambda stub: stub.End, request, self._deadlines.connect)

    # -- runs

    def run(
        self,
        values: Mapping[str, np.ndarray],
        batch: int,
        clock: Callable[[], float],
        following: Sequence[int] = (),
        expected: Sequence[int] = (),
    ) -> tuple[dict[str, np.ndarray], RunReport]:
        """Run the plan once; wait for what others enter.

        Args:
            values: int64 integers of every input wire that this client owns.
            clock: seconds, for the report.
            following: rows of each of the runs that the same batch goes on with.  The next one is prepared while this
                one is online, if nobody else takes part and this one is dealt whole; those who do are told how many
                rows there are.
            expected: rows of runs that are sure to follow those, if any do.

        Returns:
            (int64 integers of every output wire that this client receives, the report)
        """
        self._patience = min(self._deadlines.connect, _FAREWELL_SECONDS)  # if this fails, somebody may be silent
        started = clock()
        ask = partial(self.part.ask, batch=batch, on_progress=self.on_progress)
        waits = bool(self.plan.at(self._pipeline.begun + 1).entered)  # another begins at a party that is asked for it
        early = waits and self.conversing is None
        prepared = self._pipeline.next(batch, following, *([ask] if early else []))
        offline, number = clock() - started, self._pipeline.begun
        handed = [reply.masks for reply in prepared if reply.HasField("masks")]
        given = handed if len(handed) == len(prepared) else None
        self.part.enter(number, batch, values, given, *([] if early else [partial(ask, number)]))
        if not any(reply.streams for reply in prepared) and self._is_room_beside(batch, (*following, *expected)):
            self._pipeline.entered(following, expected)
        received = self.part.receive(number)
        self._pipeline.received()
        self._patience = self._deadlines.connect
        report = RunReport(
            batch=batch,
            parties=len(self._parties.names),
            rounds=received.headers[0].rounds,
            sent_bytes=max(header.sent_bytes for header in received.headers),
            dealt_bytes=sum(reply.dealt_bytes for reply in prepared),
            online_s=max(header.online_seconds for header in received.headers),
            offline_s=offline,
            provider_s=max(reply.deal_seconds for reply in prepared),
            online_cpu_s=max(header.online_cpu_seconds for header in received.headers),
            recipients=tuple(sorted(self.plan.recipients)),
            stocked=self.stock is not None,
        )
        return received.outputs, report

    def _is_room_beside(self, batch: int, later: Sequence[int]) -> bool:
        """May the first of later runs be prepared while the latest is online?"""
        return not later or is_room_beside(self._parties, self.plan, batch, later[0])

    @property
    def left(self) -> tuple[int, ...]:
        """Rows of the runs that are left of a stock."""
        return self._pipeline.left

    @property
    def ahead(self) -> int | None:
        """Number of the run that is prepared before it is its turn; None if there is none."""
        return self._pipeline.ahead

    @property
    def _runs(self) -> int:
        """Number of runs that have begun."""
        return self._pipeline.begun

    @property
    def following(self) -> int:
        """Number of the run that begins next."""
        return self._runs + 1

    @property
    def _others(self) -> frozenset[str]:
        """Other recipients than this client."""
        return self.plan.recipients - {self.part.me}

    def settle(self) -> None:
        """Wait until everyone else who receives outputs of the last run has them.

        Raises:
            PeerError: somebody did not take them within `deadlines.submit`.
        """
        if not (self._runs and self.open):
            return
        waiting = self.part.await_heard(self._runs, self._deadlines.submit, self._others)
        if waiting:
            raise PeerError(
                f"{' and '.join(sorted(waiting))} did not take the outputs of run {self._runs} "
                f"within {self._deadlines.submit:g} s",
                cause="they did not join, and the session does not wait for ever",
                remedy="start a new session; recipients join it with its ticket: mpc join",
                peer=min(waiting),
            )

    # -- ending

    def finish(self) -> None:
        """Close the session once everyone has what is theirs.

        Who only enters something is told how its run ended too, if it asks soon.

        Raises:
            PeerError: a recipient did not take its outputs in time; the session is closed all the same.
        """
        owners = {self.plan.wire[given.wire].holders[0] for given in self.plan.entered_inputs}
        try:
            self.settle()
            if self._runs and self.open:
                self.part.await_heard(self._runs, self._deadlines.connect, owners - {self.part.me})
        except PeerError as error:
            if error.peer in self._others:
                raise
        finally:
            self.close()

    def drop(self) -> None:
        """Close the session, which nobody here uses any more, unless others have yet to take their outputs."""
        waiting: set[str] = set()
        try:
            if self._runs and self.open:
                waiting = self.part.await_heard(self._runs, 0, self._others)
        except (MpcError, RuntimeError):
            pass
        if not waiting:
            self.close()

    def close(self) -> None:
        """Tell every party that the session is over; a party that is gone is no error here."""
        if not self.open:
            return
        self.open = False
        self.part.forget()
        self._pipeline.forget()
        if self.conversing is not None:
            self.conversing.finish()
        request = party_pb2.CloseRequest(session_id=self.id)
        try:
            self._parties.each(lambda stub: stub.Close, request, self._patience)
        except (MpcError, RuntimeError):  # a party is gone, or this client's own threads are
            return
        finally:
            if self.conversing is not None:
                self.conversing.forget()
