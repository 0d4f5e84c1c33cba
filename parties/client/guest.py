"""Take part in a session that somebody else coordinates, as an owner of an input, a recipient, or both.

A guest trusts its own cluster file for who the parties are, its own certificate for who it is,
and the plan for the rest.  The coordinator decides when a run starts and how large it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mpc.errors import InputError, PeerError, PlanError, ReuseError, SessionError, UsageError
from mpc.plan.ends import PlanInput, PlanOutput
from mpc.plan.plan import Plan
from parties.agreed.ticket import Ticket
from parties.client.channels import Parties
from parties.client.running.feeds import (
    NodeArg,
    block,
    check_own,
    describe_inputs,
    describe_outputs,
    is_whole,
    most_rows,
    note_coarse_columns,
    owned,
    read_count,
    read_feeds,
    read_outputs,
    received,
    to_integers,
)
from parties.client.running.participant import Participant, Progress
from parties.client.running.roles import require_security
from parties.pb import party_pb2


class Guest:
    """A client that takes part in a session by its ticket, made by `Cluster.join`.  Nothing has to be closed: the
    session is the coordinator's.

    Args:
        plan: public: what is computed, in which bounds, who enters and who receives what.
        inputs: names of the inputs that this client enters.
        outputs: names of the outputs that it receives.
        notes: what its user should know of data that their ranges hardly resolve; each is an `MpcWarning` too.
    """

    def __init__(self, parties: Parties, ticket: Ticket, digest: str | None = None) -> None:
        self.plan = ticket.plan
        self._me = parties.identity.name
        ticket.require_roster(parties.config.provider.name, parties.names)
        if digest is not None and digest.lower() != self.plan.digest.hex():
            raise PlanError(
                "the ticket is for another plan than the one that you accept",
                cause=f"its digest is {self.plan.digest.hex()}",
                remedy="mpc inspect TICKET shows what it computes and who learns what; agree with the coordinator",
            )
        require_security(self.plan, parties.config.security)
        self.inputs, self.outputs = owned(self.plan, self._me), received(self.plan, self._me)
        self._require_part()
        self.notes: list[str] = []
        self.on_progress: Progress | None = None
        self._part = Participant(parties, self.plan, ticket.terms)
        self._next: int | None = None
        self._running = threading.Lock()
        self._entered: dict[int, int] = {}

    def _require_part(self) -> None:
        if any(self.plan.wire[gate.out].holders == (self._me,) for gate in self.plan.entered_once):
            raise UsageError(
                f"{self._me} entered the model of this session and takes part with it, not with a ticket",
                remedy="session.run(None, feeds); others join with certificates of their own",
            )
        if not (self.inputs or self.outputs):
            ends: tuple[PlanInput | PlanOutput, ...] = (*self.plan.entered_inputs, *self.plan.outputs)
            named = sorted({name for end in ends for name in self.plan.wire[end.wire].holders})
            raise UsageError(
                f"the plan has no part for {self._me}: it names {', '.join(named)}",
                cause="this cluster file's certificate is another's, or the coordinator meant somebody else",
                remedy="use the cluster file of one of them, or ask the coordinator: --owner INPUT=NAME, --recipient",
            )

    def get_inputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of all inputs of the model, also those of others."""
        return describe_inputs(self.plan)

    def get_outputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of all outputs of the model, also those of others."""
        return describe_outputs(self.plan)

    # -- one run

    def submit(self, run: int, feeds: Mapping[str, np.ndarray]) -> None:
        """Enter this client's inputs of one run, once; waits until the coordinator has prepared it.

        Raises:
            InputError: a name, shape, type, value or number of rows is wrong; nothing has been sent.
            DeadlineError: the run was not prepared in time; asking again is fine.
            SessionError: the run or the session is over.
        """
        plan = self.plan.at(read_count(run, "the number of a run"))
        feeds = read_feeds(plan, self._me, feeds)
        batch = check_own(plan, self._me, feeds)
        if not owned(plan, self._me):
            raise UsageError(f"the plan has no input that {self._me} enters", remedy="receive(run), or run()")
        note_coarse_columns(plan, feeds, self.notes)
        status = self._await(run)
        if batch not in (None, status.batch):
            raise _other_batch(status.batch, batch)
        self._enter(run, status, to_integers(plan, feeds, owned(plan, self._me)))

    def receive(self, run: int) -> list[Any]:
        """Wait for the end of a run, and return its outputs that this client receives, in the model's order.

        Who receives none is still told that the run has ended well, or what has ended it.

        Raises:
            PeerError, IntegrityError: the run was aborted, or cannot be trusted.
        """
        self._await(run)
        result = self._part.receive(run, self._entered.get(run), self.on_progress)
        plan = self.plan.at(run)
        return read_outputs(plan, result.batch, [result.outputs], received(plan, self._me))

    # -- the next one

    def run(self, feeds: Mapping[str, np.ndarray] | None = None) -> list[Any]:
        """Take part in the next run: enter what is this client's, wait for the end, return what it receives.

        A batch that the coordinator splits is taken as a whole, as `Session.run` gives it.  Threads that share a guest
        take part in one run after another.

        Args:
            feeds: one array for every name of `inputs`; of a program, for those that the run reads.
        """
        if self.plan.program is None:
            return self._run(self.plan, feeds, None)
        with self._running:
            number = self._next or self._upcoming()
        return self._run(self.plan.at(number), feeds, number)

    def _run(self, plan: Plan, feeds: Mapping[str, np.ndarray] | None, number: int | None) -> list[Any]:
        feeds = read_feeds(plan, self._me, feeds)
        batch = check_own(plan, self._me, feeds)
        note_coarse_columns(plan, feeds, self.notes)
        with self._running:
            return self._take_part(plan, feeds, batch, number)

    def _take_part(
        self, plan: Plan, feeds: Mapping[str, np.ndarray], batch: int | None, number: int | None
    ) -> list[Any]:
        number = number or self._next or self._upcoming()
        inputs, outputs = owned(plan, self._me), received(plan, self._me)
        status = self._await(number)
        rows = status.batch + status.following
        if batch not in (None, rows):
            raise _other_batch(rows, batch)
        integers = to_integers(plan, feeds, inputs)
        opened, start = [], 0
        while start < rows:
            status = self._await(number)
            size, left = status.batch, rows - start
            if size + status.following != left or size > (left if is_whole(self.plan) else most_rows(self.plan)):
                raise PeerError(
                    f"run {number} has {size} rows, and {status.following} follow, where {left} were expected",
                    cause="the coordinator splits batches in another way, or this client joined in the middle of one",
                    remedy="start a new session",
                )
            if inputs:
                meanwhile = partial(self._part.ask, number, size, self.on_progress)  # whoever is missed is told then
                self._enter(number, status, block(plan, integers, start, size), meanwhile)
            opened.append(self._part.receive(number, size, self.on_progress).outputs)
            number, start = number + 1, start + size
            self._next = number
        return read_outputs(plan, rows, opened, outputs)

    def _upcoming(self) -> int:
        """Return the number of the first run in which this client still has something to do."""
        replies = self._part.status()
        status = min(replies, key=lambda reply: reply.latest)
        waits = self._me in (*status.entering, *status.unheard)
        return status.latest + (0 if waits else 1)

    def _await(self, run: int) -> party_pb2.StatusReply:
        return self._part.await_run(read_count(run, "the number of a run"))

    def _enter(
        self,
        run: int,
        status: party_pb2.StatusReply,
        integers: Mapping[str, np.ndarray],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        if run in self._entered or self._me not in status.entering:
            raise InputError(
                f"the inputs of {self._me} for run {run} were submitted before",
                cause="each run takes an input once",
                remedy=f"receive({run}) waits for its outputs; the next run takes new inputs",
            )
        try:
            self._part.enter(run, status.batch, integers, meanwhile=meanwhile)
        except ReuseError:
            raise SessionError(
                f"the masks of run {run} were given to {self._me} before, and its inputs never came",
                cause="an earlier try was interrupted; masks are given once",
                remedy="the parties will end this session; ask the coordinator for a new one",
            ) from None
        self._entered[run] = status.batch


def _other_batch(expected: int, found: int | None) -> InputError:
    return InputError(
        f"the run has {expected} rows, and the inputs given have {found}",
        cause="all who take part in a run enter as many rows, and its coordinator says how many",
        remedy="agree on the rows, and on their order",
    )
