"""The crypto-provider's calls: it deals correlations for sessions that all their parties have agreed on.

Per session it keeps the plain masks of the weights - of public ones the weights, which the first
party hands over - and nothing else; every bundle is dealt from fresh seeds, once, and each party
is given its own part of it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from weakref import WeakKeyDictionary

import grpc
from google.protobuf.message import DecodeError

import mpc
from mpc.correlations import BundleId
from mpc.entry import EntryId
from mpc.errors import PeerError, PolicyError
from mpc.prg import SEED_BYTES
from parties import entropy
from parties.agreed.endorsements import read_endorsements
from parties.agreed.signed import Signed
from parties.agreed.terms import PROTOCOL
from parties.alarms import ends_behind, ends_within
from parties.config.models import ProviderConfig
from parties.pb import party_pb2, provider_pb2
from parties.pb.provider_pb2 import DealPart
from parties.process.budget import MemoryBudget
from parties.provider.dealing import Dealing
from parties.provider.sessions import ProviderSession
from parties.provider.table import SessionTable
from parties.telemetry import Counters
from parties.trust.identity import Identity
from parties.wire import frames
from parties.wire.desk import Desk
from parties.wire.frames import Chunk
from parties.wire.handlers import register
from parties.wire.pieces import collect, slices, time_for
from parties.wire.transport import caller, patience

_PATIENCE = 0.75
"""Fraction of the caller's deadline to wait for public weights, so that the error can still name who is late."""
_SPARE = 8
MOST_SHOWN = 1 << 25
"""Bytes of manifests and seeds that one party shows for one session: two of the largest manifests."""
_PER_SHOWN_BYTE = 8
"""Bytes of memory for each of them: as they came, parsed, and read."""


class _Reading:
    """Counts one call among those that a session is read by, until it ends."""

    def __init__(self, session: ProviderSession, clock: Callable[[], float]) -> None:
        self._counted, self._clock = [session], clock
        with session.lock:
            session.read += 1

    def end(self) -> None:
        """Count it no more; safe to call twice, from two threads."""
        with suppress(IndexError):  # it is counted no more
            session = self._counted.pop()
            with session.lock:
                session.read -= 1
                session.used_at = self._clock()


def _end_all(underway: list[_Reading]) -> None:
    for reading in underway:
        reading.end()


class ProviderService:
    """The RPCs.

    Args:
        clock: monotonic seconds, for idle sessions.
        draw: fresh random bytes.
    """

    def __init__(
        self,
        config: ProviderConfig,
        identity: Identity,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[int], bytes] = entropy.token,
    ) -> None:
        self._config, self._identity, self._counters = config, identity, counters
        self._clock = clock
        self.problem = ""
        self.budget = MemoryBudget(config.limits)
        self.table = SessionTable(config, self.budget, clock)
        self.dealing = Dealing(config.limits, identity, counters, self.budget, clock, draw)

        parties, sessions = len(config.parties), config.limits.max_sessions
        self._reading: WeakKeyDictionary[grpc.ServicerContext, list[_Reading]] = WeakKeyDictionary()
        self._deals = Desk("deals", 3 * sessions + _SPARE, parties)
        self._calls = Desk("calls", sessions + _SPARE, parties)
        self._control = Desk("control", _SPARE)
        self.desks = self._deals, self._calls, self._control

    def register(self, server: grpc.Server) -> None:
        """Answer the parties' calls at this server."""
        kinds = {"Deals": self._deals, "Describe": self._control}
        service = provider_pb2.DESCRIPTOR.services_by_name["Provider"]
        seconds, codecs = self._config.deadlines.connect, {"Deals": frames.DEAL}
        register(server, service, self, lambda name: kinds.get(name, self._calls), self._admit, seconds, codecs)

    def _admit(self, method: str, party: str) -> None:
        if method != "Describe" and party not in self._config.parties:
            raise PolicyError(
                f"the provider deals to its own parties only, not to {party!r}",
                remedy="add it to 'parties' in the provider's config",
            )

    def Describe(self, request: party_pb2.DescribeRequest, context: grpc.ServicerContext) -> party_pb2.DescribeReply:
        """Say who this is and how it is."""
        return party_pb2.DescribeReply(
            name=self._config.name,
            role="provider",
            version=mpc.__version__,
            protocol=PROTOCOL,
            open_sessions=len(self.sessions()),
            clock=time.time(),
            certificate_days=self._identity.days_left(),
            problem=self.problem,
            deals_to=self._config.parties,
        )

    def Deals(
        self, request: Iterator[provider_pb2.DealRequest], context: grpc.ServicerContext
    ) -> Iterator[DealPart | Chunk]:
        """Deal a party its parts of one bundle of a session after another, as it asks for them."""
        party = caller(context)
        with ends_within(context, self._config.deadlines.connect):
            asked = next(request, provider_pb2.DealRequest())
        session_id = asked.session_id
        yield from self.deal(asked, context)
        asked.Clear()  # nothing of a session is held while nobody asks
        with ends_behind(lambda: session_id not in self.table.open, context, self._config.deadlines.connect):
            for following in request:
                if following.session_id != session_id:
                    raise PeerError("all requests of a call are of one session", peer=party)
                yield from self.deal(following, context)
                following.Clear()

    def deal(self, request: provider_pb2.DealRequest, context: grpc.ServicerContext) -> Iterator[DealPart | Chunk]:
        """Deal a party its part of a bundle, once; what is signed comes behind each segment. The weights' opens it."""
        party, entry = caller(context), EntryId(request.run)
        session = self.table.enter(request, party) if entry.is_weights else self.table.find(request.session_id)
        if party not in session.terms.parties:
            raise PolicyError(f"{party!r} is not a party of this session")
        reading = self._read(session, context)
        if entry.is_weights:
            self._take(session, request.terms, party)
        handed = session.weights.size if entry.number == 1 else 0
        seconds = _PATIENCE * patience(time_for(self._config.deadlines.setup, handed), context)
        bundle_id = BundleId(request.session_id, entry, request.batch)
        bundle = self.dealing.fetch(session, bundle_id, party, request.weights, seconds)
        index = session.terms.parties.index(party)
        mine = index == bundle.corrected
        size = bundle.size if mine else 0
        self._counters.dealt_bytes.inc(SEED_BYTES + size)
        yield DealPart(header=provider_pb2.DealHeader(seed=bundle.seeds[index].secret, corrections=size))
        for number, segment in enumerate(bundle.segments):
            if mine:
                for corrections in bundle.corrections(segment):
                    yield from map(Chunk, slices(corrections))
            yield bundle.statement(number)
        reading.end()

    def _read(self, session: ProviderSession, context: grpc.ServicerContext) -> _Reading:
        """Count a call as one that reads, until it says that it has read or ends, also where it waits for what is never
        dealt."""
        known = self._reading.get(context)
        underway: list[_Reading] = [] if known is None else known
        reading = _Reading(session, self._clock)
        _end_all(underway)
        underway[:] = [reading]
        if known is None:
            self._reading[context] = underway
            goes_on = context.add_callback(partial(_end_all, underway))
        else:
            goes_on = context.is_active()
        if not goes_on:
            reading.end()
        return reading

    def _take(
        self, session: ProviderSession, given: provider_pb2.SessionTerms | provider_pb2.Shown, party: str
    ) -> None:
        """Take the party's seeds of the stored objects that the session reads."""
        objects = [
            Signed(each.manifest, each.signature, each.certificate, read_endorsements(each.endorsements))
            for each in given.objects
        ]
        with session.lock:
            session.stored.show(party, objects, [each.seeds for each in given.seeds], self._identity.trust)
            session.changed.notify_all()

    def Show(self, request: Iterator[provider_pb2.ShowPart], context: grpc.ServicerContext) -> provider_pb2.ShowReply:
        """Take a party's seeds of the stored objects that a session reads, in pieces; it opens the session."""
        party, deadlines = caller(context), self._config.deadlines
        with ends_within(context, deadlines.connect):
            first = next(request, provider_pb2.ShowPart())
        if first.WhichOneof("part") != "header":
            raise PeerError("the first message of what is shown is its header", peer=party)
        header = first.header
        if header.size > MOST_SHOWN:
            raise PolicyError(
                f"{header.size:,} bytes of manifests and seeds, where {MOST_SHOWN:,} are read for one session",
                remedy="bind objects of fewer blocks, or fewer of them",
            )
        session = self.table.enter(provider_pb2.DealRequest(session_id=header.session_id, terms=header.terms), party)
        self._read(session, context)
        with self.budget.growing() as take:  # what a header says alone takes nothing

            def counted(chunk: bytes) -> bytes:
                take(_PER_SHOWN_BYTE * len(chunk))
                return chunk

            with ends_within(context, time_for(deadlines.setup, header.size)):
                data = collect((counted(part.chunk) for part in request), header.size, "what is stored", party)
            self._take(session, _parsed(data, party), party)
        return provider_pb2.ShowReply()

    def Weights(
        self, request: Iterator[provider_pb2.WeightsPart], context: grpc.ServicerContext
    ) -> provider_pb2.WeightsReply:
        """Take a session's public weights from the first party of its roster, once."""
        party, deadlines = caller(context), self._config.deadlines
        with ends_within(context, deadlines.connect):
            first = next(request, provider_pb2.WeightsPart())
        if first.WhichOneof("part") != "header":
            raise PeerError("the first message of public weights is their header", peer=party)
        session = self.table.find(first.header.session_id)
        with session.lock:
            session.weights.begin(party)
            session.used_at = self._clock()
        try:
            with ends_within(context, time_for(deadlines.setup, session.weights.size)):
                data = collect((part.chunk for part in request), session.weights.size, "the public weights", party)
            with session.lock:
                session.weights.take(data)
        finally:
            with session.lock:
                session.weights.receiving = False
                session.changed.notify_all()
        return provider_pb2.WeightsReply()

    def Finish(self, request: provider_pb2.FinishRequest, context: grpc.ServicerContext) -> provider_pb2.FinishReply:
        """Forget a session that a party of it says is over."""
        self.table.finish(request.session_id, caller(context))
        return provider_pb2.FinishReply()

    def sessions(self) -> list[ProviderSession]:
        """Return the open sessions, in the order in which they were opened."""
        return self.table.sessions()

    def drop_idle(self) -> None:
        """End the sessions that nobody has used for the idle deadline."""
        self.table.drop_idle()


def _parsed(data: memoryview, party: str) -> provider_pb2.Shown:
    try:
        return provider_pb2.Shown.FromString(bytes(data))
    except DecodeError:
        raise PeerError(f"{party} shows what is no manifest and no seed", peer=party) from None
