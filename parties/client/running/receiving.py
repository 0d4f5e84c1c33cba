"""Wait for a run's end, and unmask what somebody who takes part is a recipient of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mpc import field as fp
from mpc.correlations import BundleId
from mpc.encoding import decode_field, digest, field_size
from mpc.entry import EntryId
from mpc.errors import IntegrityError, PeerError
from mpc.plan.checking import CHECK_SIZES
from mpc.plan.cost import plan_schedule
from mpc.plan.plan import Plan
from mpc.prg import Seed, expand_field
from mpc.wires import Wire
from parties.agreed import manifest
from parties.agreed.manifest import Manifest
from parties.client.channels import Awaited, Parties, gather
from parties.client.running.conversing import Conversing
from parties.client.running.handed import HandedOver
from parties.client.running.patience import until_dealt
from parties.client.together import Together
from parties.pb import party_pb2

Progress = Callable[[int, int, int], None]
"""(rounds done, rounds in all, payload bytes sent by one party so far), a few times a second."""


@dataclass(frozen=True)
class Received:
    """A participant's part of a run that is over.

    Args:
        outputs: int64 integers of every output wire that it receives.
        headers: every party's account of the run, in the roster's order.
    """

    batch: int
    outputs: dict[str, np.ndarray] = field(repr=False)
    headers: list[party_pb2.ResultHeader] = field(repr=False)


class _Collected:
    """z^ by wire, as one party sends it: canonical bytes, never more than there is."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytearray] = {}
        self._sizes: Mapping[str, int] = {}

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Take so many bytes of each of these wires from now on."""
        self._sizes, self.bytes = sizes, {wire: bytearray() for wire in sizes}

    def add(self, name: str, chunk: party_pb2.OutputChunk) -> None:
        """Append a piece of one wire, which `name` has sent.

        Raises:
            PeerError: it is of a wire that is not expected, or more than there is.
        """
        if len(self.bytes.get(chunk.wire, b"")) + len(chunk.data) > self._sizes.get(chunk.wire, -1):
            raise _too_much(name)
        self.bytes[chunk.wire] += chunk.data


_Ending = tuple[party_pb2.ResultHeader, Manifest, int]
"""(a party's header, its manifest, rows of the run)."""


@dataclass(frozen=True)
class _Asked:
    """A result that parties were asked for: z^, as the first of them sends it, and what each will answer."""

    public: _Collected = field(repr=False)
    answers: Sequence[Awaited[_Ending]]


@dataclass(frozen=True)
class _Waiting:
    """One party's answer to that: nobody reads it before somebody waits for it."""

    read: Callable[[], _Ending]

    def result(self) -> _Ending:
        return self.read()


class Receiver:
    """One client's side of results: it receives and unmasks what that client is a recipient of.

    Args:
        plan: not bound.
        session: the session's id.
        me: the client's name, as the plan has it.
        handed: checks what the parties hand over.
        conversing: the open calls in which results are waited for, if there are any.
    """

    def __init__(
        self,
        parties: Parties,
        plan: Plan,
        session: bytes,
        me: str,
        handed: HandedOver,
        conversing: Conversing | None = None,
        together: Callable[[int], Together] | None = None,
    ) -> None:
        self.parties, self.plan, self.id, self.me = parties, plan, session, me
        self.deadlines = parties.config.deadlines
        self._handed, self._conversing = handed, conversing
        self._together = together or (lambda run: parties.together())
        checks = len(CHECK_SIZES) if plan.is_checked else 0
        steps = len(plan_schedule(plan.bind(1)).steps)
        self._rounds = steps * (1 + checks)  # at most: no step has two checks behind it
        self._asked: dict[int, _Asked] = {}

    def received(self, run: int) -> list[str]:
        """Return the output wires of a run that this client is a recipient of."""
        plan = self.plan.at(run)
        wires = dict.fromkeys(out.wire for out in plan.outputs)
        return [wire for wire in wires if self.me in plan.wire[wire].holders]

    def ask(self, run: int, batch: int | None = None, on_progress: Progress | None = None) -> None:
        """Begin to wait for a run that is prepared, or, at its coordinator, is being prepared: parties idle then."""
        public = _Collected()
        dealt = until_dealt(self.deadlines.setup, self.plan, EntryId(run), batch or 1)
        patience = self.deadlines.submit + dealt + self._rounds * self.deadlines.step
        answers: list[_Waiting] = []
        for party, replies in zip(self.parties.clients, self._replies(run, patience), strict=True):
            progress, into = (None, None) if answers else (on_progress, public)
            answers.append(_Waiting(partial(self._result, party.name, replies, run, batch, into, progress)))
        self._asked[run] = _Asked(public, answers)

    def _replies(self, run: int, seconds: float) -> Sequence[Iterable[party_pb2.ResultPart]]:
        """Ask every party for a run's result, and the first one for z^."""
        if self._conversing is not None:
            return self._conversing.results(run, seconds)
        together = self._together(run)
        return [
            party.stream(
                lambda stub: stub.Result,
                party_pb2.ResultRequest(session_id=self.id, run=run, values=not number),
                seconds,
                together,
            )
            for number, party in enumerate(self.parties.clients)
        ]

    def receive(self, run: int, batch: int | None = None, on_progress: Progress | None = None) -> Received:
        """Wait for a run's end, if it was not asked for before; unmask what this client is a recipient of.

        Args:
            batch: None takes what the provider signed: it deals one batch for a run, so this is what ran.

        Raises:
            IntegrityError: seeds, outputs or openings are not what they should be, or not the same everywhere.
        """
        if run not in self._asked:
            self.ask(run, batch, on_progress)
        asked = self._asked.pop(run)
        answers, public = gather(asked.answers), asked.public.bytes
        headers = [header for header, _, _ in answers]
        heads = {name: each.head for name, each in zip(self.parties.names, headers, strict=True)}
        self.parties.heads.keep({name: head for name, head in heads.items() if head})  # none of what tells nothing
        if len({found for _, _, found in answers}) != 1:
            raise IntegrityError(
                "the parties did not all run the same batch", remedy="do not use this session's results"
            )
        if len({header.transcript for header in headers}) != 1:
            raise IntegrityError(
                "the parties did not all see the same openings",
                cause="one of them deviated from the protocol",
                remedy="do not use this session's results",
            )
        seeds = self._handed.collect(
            self.received(run), [checked for _, checked, _ in answers], [h.outputs for h in headers]
        )
        plan = self.plan.at(run).bind(answers[0][2])
        outputs = {wire: self._unmask(plan.wire[wire], headers, public, seeds[wire]) for wire in seeds}
        return Received(answers[0][2], outputs, headers)

    def is_asked(self, run: int) -> bool:
        """Say whether a run's end is being waited for."""
        return run in self._asked

    def forget(self) -> None:
        """Hang up on results that nobody waits for any more."""
        self._asked.clear()

    def _result(
        self,
        name: str,
        replies: Iterable[party_pb2.ResultPart],
        run: int,
        batch: int | None,
        public: _Collected | None,
        on_progress: Progress | None,
    ) -> _Ending:
        """Read one party's answer to its end; z^ goes into `public`, if that party was asked for z^."""
        ending: _Ending | None = None
        for reply in replies:
            kind = reply.WhichOneof("part")
            if kind == "header" and ending is None:
                ending = self._ending(name, reply.header, run, batch)
                if public is not None:
                    bound = self.plan.at(run).bind(ending[2])
                    public.expect({wire: field_size(bound.wire[wire].sizes) for wire in self.received(run)})
            elif kind == "progress" and on_progress is not None:
                on_progress(reply.progress.rounds, reply.progress.of, reply.progress.sent_bytes)
            elif kind == "chunk":
                if public is None:
                    raise _too_much(name)
                public.add(name, reply.chunk)
        if ending is None:
            raise PeerError(f"{name} did not say how the run ended", peer=name)
        return ending

    def _ending(self, name: str, header: party_pb2.ResultHeader, run: int, batch: int | None) -> _Ending:
        """Check one party's account of how a run ended; without `batch`, believe the rows that the provider signed."""
        found = manifest.batch_of(header.manifest) if batch is None else batch
        return header, self._handed.manifest(name, BundleId.of_run(self.id, run, found), header.manifest), found

    def _unmask(
        self, wire: Wire, headers: list[party_pb2.ResultHeader], public: Mapping[str, bytearray], seeds: list[Seed]
    ) -> np.ndarray:
        data = bytes(public[wire.name])
        listed = {part.digest for header in headers for part in header.outputs if part.wire == wire.name}
        if listed != {digest("mpc/v1/output", data)}:
            raise IntegrityError("the parties hold different outputs", remedy="do not use this session's results")
        total = decode_field(data, wire.sizes)
        for seed in seeds:
            total = fp.sub(total, expand_field(seed, wire.sizes))
        return fp.to_signed(total)


def _too_much(name: str) -> PeerError:
    return PeerError(f"{name} sent more output than there is", peer=name)
