"""Enter what somebody who takes part owns: mask it, and submit it to every party."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from mpc import field as fp
from mpc.correlations import BundleId
from mpc.encoding import view_field
from mpc.entry import EntryId
from mpc.errors import MpcError
from mpc.plan.plan import Plan
from mpc.prg import Seed, expand_field
from mpc.wires import Masking, Wire
from parties.client.channels import Awaited, Parties, PartyClient, Reply, gather
from parties.client.running.conversing import Conversing
from parties.client.running.handed import HandedOver
from parties.client.together import Together
from parties.pb import party_pb2
from parties.wire.pieces import pieces, time_for
from parties.wire.transport import FRAME_BYTES

_UNDERWAY = 2
"""Inputs that are on their way to each party at once, while the next one is masked: a party answers three calls of a
session at a time."""
_LISTED_AT_ONCE = 32
"""Runs that one write lists as entered at most, as many as have been entered before."""


class Submitter:
    """One client's side of inputs: it masks and submits what that client owns.

    Args:
        plan: not bound.
        session: the session's id.
        me: the client's name, as the plan has it.
        handed: checks what the parties hand over.
        alone: no other process of this client enters anything in this session.
        conversing: the open calls in which runs' inputs are entered, if there are any.
    """

    def __init__(
        self,
        parties: Parties,
        plan: Plan,
        session: bytes,
        me: str,
        handed: HandedOver,
        alone: bool = False,
        conversing: Conversing | None = None,
        together: Callable[[int], Together] | None = None,
    ) -> None:
        self.parties, self.plan, self.id, self.me = parties, plan, session, me
        self.deadlines = parties.config.deadlines
        self._handed, self._alone, self._conversing = handed, alone, conversing
        self._together = together or (lambda run: parties.together())

    def enter_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Mask and submit every weight that this client owns, public ones as they are: int64 integers by wire."""
        self._enter(BundleId.of_weights(self.id), self.plan, values)

    def masks(self, run: int) -> bool:
        """Has this client an input of a run to mask?"""
        plan = self.plan.at(run)
        wires = [plan.wire[gate.out] for gate in plan.entered]
        return any(wire.holders == (self.me,) and wire.masking is not Masking.PUBLIC for wire in wires)

    def see(self, run: int, batch: int, masks: party_pb2.MasksReply) -> None:
        """Verify what a party says of the masks of a run's inputs, as it comes; what is wrong is raised by `enter`."""
        with suppress(MpcError):
            self._handed.manifest("", BundleId.of_run(self.id, run, batch), masks.manifest)

    def enter(
        self,
        run: int,
        batch: int,
        values: Mapping[str, np.ndarray],
        handed: Sequence[party_pb2.MasksReply] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Mask and submit every input of a run that this client owns: int64 integers by wire.

        Args:
            handed: what each party said of the masks already; they are asked for otherwise.
            meanwhile: called once all of it is on its way, while the parties take it.
        """
        self._enter(BundleId.of_run(self.id, run, batch), self.plan.at(run).bind(batch), values, handed, meanwhile)

    def _enter(
        self,
        bundle: BundleId,
        plan: Plan,
        values: Mapping[str, np.ndarray],
        handed: Sequence[party_pb2.MasksReply] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        entered = [plan.wire[gate.out] for gate in plan.entered_in(bundle.entry)]
        wires = [wire for wire in entered if wire.holders == (self.me,)]
        if not wires:
            meanwhile()
            return
        seeds = self._seeds(bundle, [wire.name for wire in wires if wire.masking is not Masking.PUBLIC], handed)
        conversing = None if bundle.entry.is_weights else self._conversing
        apart = conversing.together if conversing is not None else None
        together = apart or self._together(bundle.entry.number)
        underway: deque[Sequence[Awaited[object]]] = deque()
        for wire in wires:
            data = _mask(wire, values[wire.name], [] if wire.masking is Masking.PUBLIC else seeds[wire.name])
            if len(underway) == _UNDERWAY:
                gather(underway.popleft())
            header = party_pb2.SubmitHeader(session_id=self.id, run=bundle.entry.number, wire=wire.name)
            if conversing is not None and conversing.fits(len(data)):
                underway.append(conversing.enter(header, bytes(data), self.deadlines.submit))
            else:
                seconds = self.deadlines.submit
                underway.append([_submit(party, header, data, seconds, together) for party in self.parties.clients])
        meanwhile()
        for replies in underway:
            gather(replies)

    def _seeds(
        self, bundle: BundleId, wires: list[str], handed: Sequence[party_pb2.MasksReply] | None
    ) -> dict[str, list[Seed]]:
        """Return every party's seed of the mask of each of these inputs, and ask for them if need be; list it all as
        entered.

        Raises:
            IntegrityError: it was before.
        """
        if not wires:
            return {}
        asked: Sequence[Awaited[party_pb2.MasksReply]] = ()
        if handed is None and self._conversing is not None and not bundle.entry.is_weights:
            asked = self._conversing.masks(bundle.entry.number, self.deadlines.setup)
        elif handed is None:
            request = party_pb2.MasksRequest(session_id=self.id, run=bundle.entry.number)
            together = self.parties.together()
            asked = self.parties.start(lambda stub: stub.Masks, request, self.deadlines.setup, together)
        refusal = self._claim(bundle.entry)  # on the disk while masks are on their way, and before x^ leaves
        try:
            replies = gather(asked) if handed is None else handed
            checked = [
                self._handed.manifest(name, bundle, reply.manifest) for name, reply in self._handed.named(replies)
            ]
            seeds = self._handed.collect(wires, checked, [reply.seeds for reply in replies])
        except BaseException:
            if refusal is None:  # nothing has left, so asking again is fine
                with suppress(MpcError):
                    self.parties.entered.withdraw(self.id, bundle.entry)
            raise
        if refusal is not None:
            raise refusal.again()
        return seeds

    def _claim(self, entry: EntryId) -> MpcError | None:
        """List it as entered, and some that follow with it; return why that cannot be, to be raised if the parties do
        not object themselves."""
        window = min(entry.number, _LISTED_AT_ONCE) if self._alone else 1
        try:
            self.parties.entered.claim(self.id, entry, max(0, window - 1))
            return None
        except MpcError as error:
            return error


def _mask(wire: Wire, values: np.ndarray, seeds: list[Seed]) -> memoryview:
    """Return x^ = x + the sum of the parties' mask shares, as canonical bytes; x itself for a wire that is public."""
    total = fp.from_signed(values)
    for seed in seeds:
        total = fp.add(total, expand_field(seed, wire.sizes))
    return view_field(total)


def _submit(
    party: PartyClient, header: party_pb2.SubmitHeader, data: memoryview, seconds: float, together: Together
) -> Reply[party_pb2.SubmitReply]:
    if len(data) <= FRAME_BYTES:
        whole = party_pb2.WholeInput(header=header, data=bytes(data))
        return party.begin(lambda stub: stub.SubmitWhole, whole, seconds, together)
    return party.begin(lambda stub: stub.Submit, _parts(header, data), time_for(seconds, len(data)), together)


def _parts(header: party_pb2.SubmitHeader, data: memoryview) -> Iterator[party_pb2.SubmitPart]:
    yield party_pb2.SubmitPart(header=header)
    for piece in pieces(data):
        yield party_pb2.SubmitPart(chunk=piece)
