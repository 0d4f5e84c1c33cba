"""What everyone who has a part in a session does: mask and submit what it owns, receive and unmask what it may.

A participant is whoever holds a certificate that the plan names: the model's owner, a data
owner, a recipient.  It sees shares of nothing: what it sends is masked with seeds from every
party, what it receives it unmasks with seeds from every party, each checked against the
manifest that the provider signed.  The coordinator has a participant too, for the parts that
bear its own name (`parties/client/coordinated.py`); who only joins is a `Guest` (`parties/client/guest.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from mpc import field as fp
from mpc.correlations import BundleId
from mpc.encoding import decode_field, digest, encode_field, field_size
from mpc.errors import DeadlineError, IntegrityError, MpcError, PeerError, SessionError
from mpc.plan.plan import Plan
from mpc.plan.schedule import schedule
from mpc.prg import Seed, expand_field
from mpc.wires import Masking, Wire
from parties.agreed import manifest
from parties.agreed.manifest import Manifest
from parties.agreed.terms import Terms
from parties.client.channels import Awaited, Parties, PartyClient, Reply, gather
from parties.pb import party_pb2
from parties.wire.pieces import pieces
from parties.wire.transport import FRAME_BYTES

Answer = TypeVar("Answer")
Found = TypeVar("Found")
Progress = Callable[[int, int, int], None]
"""(rounds done, rounds in all, payload bytes sent by one party so far), a few times a second."""
_SOONEST, _LATEST = 0.02, 0.5
"""Seconds between two questions whether something has happened: few at first, then more."""


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


@dataclass(frozen=True)
class _Asked:
    """A result that parties were asked for: z^ by wire, as it comes, and what each will answer."""

    public: dict[str, bytearray] = field(repr=False)
    answers: Sequence[Awaited[tuple[party_pb2.ResultHeader, Manifest, int]]]


@dataclass(frozen=True)
class _Waiting:
    """One party's answer to that: nobody reads it before somebody waits for it."""

    read: Callable[[], tuple[party_pb2.ResultHeader, Manifest, int]]

    def result(self) -> tuple[party_pb2.ResultHeader, Manifest, int]:
        return self.read()


class Participant:
    """One client's part in a session: it masks, submits, receives and unmasks.

    Args:
        plan: not bound.
        terms: of a session that these parties have opened, for this plan.
    """

    def __init__(self, parties: Parties, plan: Plan, terms: Terms) -> None:
        self.parties, self.plan, self.terms = parties, plan, terms
        self.id = terms.session_id
        self.me = parties.identity.name
        self.deadlines = parties.config.deadlines
        self._rounds = len(schedule(plan.online, plan.bind(1).wire).steps)
        self._asked: dict[int, _Asked] = {}
        self._verified: tuple[tuple[object, ...], Manifest | None] = ((), None)

    # -- inputs

    def enter_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Mask and submit every weight that this client owns, public ones as they are: int64 integers by wire."""
        self._enter(BundleId(self.id, 0, 1), self.plan, [gate.out for gate in self.plan.weights], values)

    def enter(self, run: int, batch: int, values: Mapping[str, np.ndarray]) -> None:
        """Mask and submit every input of a run that this client owns: int64 integers by wire."""
        inputs = [wire for given in self.plan.inputs for wire in given.wires]
        self._enter(BundleId(self.id, run, batch), self.plan.bind(batch), inputs, values)

    def _enter(self, bundle: BundleId, plan: Plan, names: list[str], values: Mapping[str, np.ndarray]) -> None:
        wires = [plan.wire[name] for name in names if plan.wire[name].holders == (self.me,)]
        if not wires:
            return
        seeds = self._seeds(bundle, [wire.name for wire in wires if wire.masking is not Masking.PUBLIC])
        sent = {
            wire.name: _mask(wire, values[wire.name], [] if wire.masking is Masking.PUBLIC else seeds[wire.name])
            for wire in wires
        }

        for name, data in sent.items():
            header = party_pb2.SubmitHeader(session_id=self.id, run=bundle.run, wire=name)
            gather([_submit(party, header, data, self.deadlines.submit) for party in self.parties.clients])

    def _seeds(self, bundle: BundleId, wires: list[str]) -> dict[str, list[Seed]]:
        """Every party's seed of the mask of each of these inputs; from here on the run is listed as entered.

        Raises:
            IntegrityError: it was before.
        """
        if not wires:
            return {}
        request = party_pb2.MasksRequest(session_id=self.id, run=bundle.run)
        asked = self.parties.start("Masks", request, self.deadlines.setup)
        refusal = self._claim(bundle.run)  # on the disk while masks are on their way, and before x^ leaves
        try:
            replies = gather(asked)
            checked = [self._manifest(name, bundle, reply.manifest) for name, reply in self._named(replies)]
            seeds = self._collect(wires, checked, [reply.seeds for reply in replies])
        except BaseException:
            if refusal is None:  # nothing has left, so asking again is fine
                with suppress(MpcError):
                    self.parties.entered.withdraw(self.id, bundle.run)
            raise
        if refusal is not None:
            raise refusal.again()
        return seeds

    def _claim(self, run: int) -> MpcError | None:
        """List the run as entered; why that cannot be, to be raised if the parties do not object themselves."""
        try:
            self.parties.entered.claim(self.id, run)
            return None
        except MpcError as error:
            return error

    def _named(self, answers: Sequence[Answer]) -> Iterator[tuple[str, Answer]]:
        return zip(self.parties.names, answers, strict=True)

    def _manifest(self, sender: str, bundle: BundleId, signed: party_pb2.Manifest) -> Manifest:
        """Return the manifest that a party handed over, if the session's provider signed it for exactly this bundle.

        All parties hand over the same one, with masks and with results: it is verified once.
        """
        found = (bundle, signed.content, signed.signature, signed.certificate)
        known, checked = self._verified
        if found == known and checked is not None:
            return checked
        try:
            checked = manifest.verify(self.parties.identity.trust, self.terms, bundle, signed)
            self._verified = (found, checked)
            return checked
        except IntegrityError as error:
            raise IntegrityError(f"{sender} handed over a false manifest", cause=error.what, peer=sender) from None

    def _collect(
        self,
        wires: list[str],
        manifests: list[Manifest],
        answers: Sequence[Sequence[party_pb2.WireSeed | party_pb2.OutputSeed]],
    ) -> dict[str, list[Seed]]:
        """Exactly one seed of each wire from each party: with one missing, a value is less masked than it looks."""
        collected: dict[str, list[Seed]] = {wire: [] for wire in wires}
        for checked, (name, parts) in zip(manifests, self._named(answers), strict=True):
            if sorted(part.wire for part in parts) != sorted(wires):
                raise IntegrityError(f"{name} did not hand over one mask seed for each wire", peer=name)
            for part in parts:
                seed = manifest.read_seed(part.seed, name)
                checked.check_seed(part.wire, name, seed)
                collected[part.wire].append(seed)
        return collected

    # -- outputs

    @property
    def received(self) -> list[str]:
        """The output wires that this client is a recipient of."""
        wires = dict.fromkeys(out.wire for out in self.plan.outputs)
        return [wire for wire in wires if self.me in self.plan.wire[wire].holders]

    def ask(self, run: int, batch: int | None = None, on_progress: Progress | None = None) -> None:
        """Begin to wait for a run that is prepared: before its inputs are entered, parties have nothing else to do."""
        public: dict[str, bytearray] = {}
        patience = self.deadlines.submit + self.deadlines.setup + self._rounds * self.deadlines.step
        answers = []
        for party in self.parties.clients:
            first = party is self.parties.clients[0]
            request = party_pb2.ResultRequest(session_id=self.id, run=run, values=first)
            replies = party.stream("Result", request, patience)
            progress, into = (on_progress, public) if first else (None, None)
            answers.append(_Waiting(partial(self._result, party.name, replies, run, batch, into, progress)))
        self._asked[run] = _Asked(public, answers)

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
        answers, public = gather(asked.answers), asked.public
        headers = [header for header, _, _ in answers]
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
        seeds = self._collect(self.received, [checked for _, checked, _ in answers], [h.outputs for h in headers])
        plan = self.plan.bind(answers[0][2])
        outputs = {wire: self._unmask(plan.wire[wire], headers, public, seeds[wire]) for wire in seeds}
        return Received(answers[0][2], outputs, headers)

    def forget(self) -> None:
        """Hang up on results that nobody waits for any more."""
        self._asked.clear()

    def _result(
        self,
        name: str,
        replies: Iterable[party_pb2.ResultPart],
        run: int,
        batch: int | None,
        public: dict[str, bytearray] | None,
        on_progress: Progress | None,
    ) -> tuple[party_pb2.ResultHeader, Manifest, int]:
        """One party's header, its manifest and the batch in it; z^ too, into `public`, if it was asked for that."""
        header, limits = party_pb2.ResultHeader(), {}
        checked, found = None, batch
        for reply in replies:
            kind = reply.WhichOneof("part")
            if kind == "header" and checked is None:
                header = reply.header
                found = manifest.batch_of(header.manifest) if batch is None else batch
                checked = self._manifest(name, BundleId(self.id, run, found), header.manifest)
                bound = self.plan.bind(found)
                if public is not None:
                    limits = {wire: field_size(bound.wire[wire].sizes) for wire in self.received}
                    public.update({wire: bytearray() for wire in limits})
            elif kind == "progress" and on_progress is not None:
                on_progress(reply.progress.rounds, reply.progress.of, reply.progress.sent_bytes)
            if kind != "chunk":
                continue
            wire, data = reply.chunk.wire, reply.chunk.data
            if public is None or len(public.get(wire, b"")) + len(data) > limits.get(wire, -1):
                raise PeerError(f"{name} sent more output than there is", peer=name)
            public[wire] += data
        if checked is None or found is None:
            raise PeerError(f"{name} did not say how the run ended", peer=name)
        return header, checked, found

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

    # -- waiting for others

    def status(self, run: int = 0) -> list[party_pb2.StatusReply]:
        """How far a run is (0: the latest), as each party sees it; to be polite, never to be relied on."""
        request = party_pb2.StatusRequest(session_id=self.id, run=run)
        return self.parties.each("Status", request, self.deadlines.connect)

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
        """Wait until all of `of` were told a run's result by every party; who was not."""
        waiting: set[str] = set(of)

        def heard() -> bool | None:
            nonlocal waiting
            waiting = {name for reply in self.status(run) for name in reply.unheard} & set(of)
            return None if waiting else True

        if waiting:
            poll(heard, seconds)
        return waiting


def poll(ask: Callable[[], Found | None], seconds: float) -> Found | None:
    """Call `ask` until it gives something; None if it does not within so many seconds."""
    end, pause = time.monotonic() + seconds, _SOONEST
    while (found := ask()) is None and (left := end - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LATEST)
    return found


def _mask(wire: Wire, values: np.ndarray, seeds: list[Seed]) -> bytes:
    """x^ = x + sum of the parties' mask shares, canonical bytes; x itself of a wire that is public."""
    total = fp.from_signed(values)
    for seed in seeds:
        total = fp.add(total, expand_field(seed, wire.sizes))
    return encode_field(total)


def _submit(
    party: PartyClient, header: party_pb2.SubmitHeader, data: bytes, seconds: float
) -> Reply[party_pb2.SubmitReply]:
    if len(data) <= FRAME_BYTES:
        return party.begin("SubmitWhole", party_pb2.WholeInput(header=header, data=data), seconds)
    return party.begin("Submit", _parts(header, data), seconds)


def _parts(header: party_pb2.SubmitHeader, data: bytes) -> Iterator[party_pb2.SubmitPart]:
    yield party_pb2.SubmitPart(header=header)
    for piece in pieces(data):
        yield party_pb2.SubmitPart(chunk=piece)
