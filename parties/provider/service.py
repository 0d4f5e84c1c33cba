"""The crypto-provider: deals correlations for sessions that all their parties have agreed on.

Per session it keeps the plain masks of the weights - of public ones the weights, which the first
party hands over - and nothing else; every bundle is dealt from fresh seeds, once, and each party
is given its own part of it once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

import grpc

import mpc
from mpc.correlations import BundleId, CorrectionsDigest
from mpc.entry import EntryId
from mpc.errors import HandshakeError, MpcError, PeerError, PlanError, PolicyError, SessionError
from mpc.interpret.dealer import deal
from mpc.plan.cost import plan_cost
from mpc.plan.parse import parse_plan
from mpc.plan.plan import digest_of
from mpc.prg import SEED_BYTES, Seed
from parties import entropy
from parties.agreed import manifest
from parties.agreed.memory import plan_memory, run_memory
from parties.agreed.terms import PROTOCOL, Terms
from parties.alarms import ends_within
from parties.config.models import ProviderConfig
from parties.pb import party_pb2, provider_pb2
from parties.pb.provider_pb2 import DealPart
from parties.process.budget import MemoryBudget
from parties.provider.bundles import DealtBundle
from parties.provider.sessions import ProviderSession
from parties.telemetry import Counters, coarse, logger
from parties.trust.identity import Identity
from parties.wire import frames
from parties.wire.frames import Chunk
from parties.wire.pieces import collect, slices
from parties.wire.server import Desk, register
from parties.wire.transport import caller, patience

_PATIENCE = 0.75
"""Fraction of the caller's deadline to wait for public weights, so that the error can still name who is late."""
_SPARE = 8
_REMEMBERED = 4096
"""Ended sessions that are told from ones that never were, with the party that ended each."""


def _over(by: str) -> SessionError:
    """The error that a session has ended here.  A party that ends one knows why: so this is heard from it.

    by: the party that ended it, if one did.
    """
    return SessionError(
        "this session is over; its correlations are gone",
        cause=f"{by} ended it, and its log says why" if by else "it was idle too long",
        remedy="start a new session",
        peer=by or None,
        heard_from=by or None,
    )


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
        self._clock, self._draw = clock, draw
        self._sessions: dict[bytes, ProviderSession] = {}
        self._ended: OrderedDict[bytes, str] = OrderedDict()
        self._budget = MemoryBudget(config.limits)
        self._lock = threading.Lock()
        self.problem = ""
        self._parsing = threading.Lock()
        self._opening = {party: threading.Lock() for party in config.parties}

        parties, sessions = len(config.parties), config.limits.max_sessions
        self._deals = Desk("deals", 3 * sessions + _SPARE, parties)
        self._calls = Desk("calls", sessions + _SPARE, parties)
        self._control = Desk("control", _SPARE)
        self.desks = self._deals, self._calls, self._control

    def register(self, server: grpc.Server) -> None:
        """Answer the parties' calls at this server."""
        kinds = {"Deal": self._deals, "Describe": self._control}
        service = provider_pb2.DESCRIPTOR.services_by_name["Provider"]
        seconds, codecs = self._config.deadlines.connect, {"Deal": frames.DEAL}
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
            open_sessions=len(self._sessions),
            clock=time.time(),
            certificate_days=self._identity.days_left(),
            problem=self.problem,
            deals_to=self._config.parties,
        )

    def Deal(self, request: provider_pb2.DealRequest, context: grpc.ServicerContext) -> Iterator[DealPart | Chunk]:
        """Deal a party its part of a bundle, once; the weights' opens the session. The signed manifest comes last."""
        party, entry = caller(context), EntryId(request.run)
        session = self._open(request, party) if entry.is_weights else self._session(request.session_id)
        if party not in session.terms.parties:
            raise PolicyError(f"{party!r} is not a party of this session")
        seconds = _PATIENCE * patience(self._config.deadlines.setup, context)
        bundle_id = BundleId(request.session_id, entry, request.batch)
        bundle = self._fetch(session, bundle_id, party, request.weights, seconds)
        index = session.terms.parties.index(party)
        mine = index == bundle.corrected
        size = bundle.size if mine else 0
        self._counters.dealt_bytes.inc(SEED_BYTES + size)
        yield DealPart(header=provider_pb2.DealHeader(seed=bundle.seeds[index].secret, corrections=size))
        for corrections in bundle.corrections():
            if mine:
                yield from map(Chunk, slices(corrections))
        yield DealPart(end=provider_pb2.DealEnd(manifest=bundle.signed, deal_seconds=bundle.seconds))

    def Weights(
        self, request: Iterator[provider_pb2.WeightsPart], context: grpc.ServicerContext
    ) -> provider_pb2.WeightsReply:
        """Take a session's public weights from the first party of its roster, once."""
        party, deadlines = caller(context), self._config.deadlines
        with ends_within(context, deadlines.connect):
            first = next(request, provider_pb2.WeightsPart())
        if first.WhichOneof("part") != "header":
            raise PeerError("the first message of public weights is their header", peer=party)
        session = self._session(first.header.session_id)
        with session.lock:
            session.weights.begin(party)
            session.used_at = self._clock()
        try:
            with ends_within(context, deadlines.setup):
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
        party = caller(context)
        with self._lock:
            session = self._sessions.get(request.session_id)
            ended = session is not None and party in session.terms.parties
            if ended:
                self._forget(request.session_id, party)
        if session is not None and ended:
            self._settle(session)
        return provider_pb2.FinishReply()

    # ------------------------------------------------------------------------ sessions

    def _open(self, request: provider_pb2.DealRequest, party: str) -> ProviderSession:
        """The session of these terms: made by the first party that asks, found by the others.

        What costs nothing is asked first, and a plan is parsed once a session.
        """
        given = request.terms
        if len(given.plan) > self._config.limits.max_plan_bytes:
            raise PlanError(
                f"a plan of {len(given.plan):,} bytes; this provider accepts {self._config.limits.max_plan_bytes:,}",
                remedy="raise limits.max_plan_bytes",
            )
        terms = Terms(digest_of(given.plan), self._config.name, tuple(given.parties), tuple(given.nonces))
        if terms.session_id != request.session_id:
            raise HandshakeError("the session id does not belong to these terms")
        if party not in terms.parties:
            raise PolicyError(f"{party!r} is not a party of this session")
        if not set(terms.parties) <= set(self._config.parties):
            raise PolicyError("the session has parties that this provider does not deal to")
        with self._opening[party]:
            return self._join(request.session_id, party) or self._make(terms, given.plan, party)

    def _join(self, session_id: bytes, party: str) -> ProviderSession | None:
        """The session, if another party has opened it."""
        with self._lock:
            if session_id in self._ended:
                raise _over(self._ended[session_id])
            session = self._sessions.get(session_id)
            if session is not None:
                session.joined.add(party)
            return session

    def _make(self, terms: Terms, plan_bytes: bytes, party: str) -> ProviderSession:
        with self._lock:
            self._require_room(party)
        with self._parsing:
            plan = parse_plan(plan_bytes)
        granted = plan_memory(plan, self._config.limits)
        with self._lock:
            if terms.session_id not in self._sessions:  # another party may have come meanwhile
                self._require_room(party)
                self._budget.take(granted)
                made = ProviderSession(terms, plan, opener=party, used_at=self._clock(), granted=granted)
                self._sessions[terms.session_id] = made
                logger().info("session opened", session=terms.session_id.hex()[:16], parties=list(terms.parties))
        found = self._join(terms.session_id, party)
        if found is None:
            raise _over("")
        return found

    def _require_room(self, party: str) -> None:
        """Require a place for a session that this party opens.  With the lock.

        Sessions that not all their parties have joined count for who opened them, and take nobody else's places.  There
        are twice as many places as a party has: of those that end there, this process hears a moment later.
        """
        whole = [session for session in self._sessions.values() if session.whole]
        mine = sum(session.opener == party for session in self._sessions.values() if not session.whole)
        most = self._config.limits.max_sessions
        if mine >= self._config.limits.sessions_of_one or len(whole) + mine >= 2 * most:
            raise SessionError(
                f"{self._config.name} has {len(whole)} open sessions, and {mine} that only {party} has joined",
                cause="as many as it allows; idle ones end by themselves",
                remedy="close some (session.close()), wait, or raise limits.max_sessions of the provider",
            )

    def _session(self, session_id: bytes) -> ProviderSession:
        with self._lock:
            if session_id in self._ended:
                raise _over(self._ended[session_id])
            if session_id not in self._sessions:
                raise SessionError(
                    "the provider does not know this session",
                    cause="it was restarted, or the session ended long ago",
                    remedy="start a new session",
                )
            return self._sessions[session_id]

    def _forget(self, session_id: bytes, by: str = "") -> None:
        """Nobody finds the session from now on; call with the lock held, and `_settle` without it.

        by: the party that ended it, if one did.
        """
        self._sessions.pop(session_id).ended_by = by
        self._ended[session_id] = by
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _settle(self, session: ProviderSession) -> None:
        """Give back what a forgotten session held: now, or when a deal that is under way is done."""
        with session.lock:
            session.over = True
            session.changed.notify_all()
            self._give_back(session)

    def _give_back(self, session: ProviderSession) -> None:
        """Give back what a forgotten session held, unless a deal is under way; call with the session's lock."""
        if not session.dealing:
            self._budget.give(session.granted + sum(bundle.held for bundle in session.bundles.values()))
            session.granted = 0
            session.bundles.clear()

    def drop_idle(self) -> None:
        """End the sessions that nobody has used for the idle deadline."""
        limit = self._clock() - self._config.deadlines.idle
        with self._lock:
            idle = {sid: session for sid, session in self._sessions.items() if session.used_at < limit}
            for session_id in idle:
                self._forget(session_id)
        for session in idle.values():
            self._settle(session)

    # ------------------------------------------------------------------------- bundles

    def _fetch(
        self, session: ProviderSession, wanted: BundleId, party: str, weights: bytes, seconds: float
    ) -> DealtBundle:
        """The bundle of which this party is given its part now, once; the first that asks has it dealt.

        weights: digest of the public weights that the party holds, for a run.
        """
        entry = wanted.entry
        with session.lock:
            if not entry.is_weights:
                session.changed.wait_for(lambda: session.over or session.weights.here, seconds)
            if session.over:
                raise _over(session.ended_by)
            session.used_at = self._clock()
            if not entry.is_weights:
                session.weights.check(party, weights)
            if entry not in session.bundles:
                self._begin(session, wanted)
            bundle = session.bundles[entry]
            if bundle.id.batch != wanted.batch:
                raise HandshakeError("the parties do not agree on this run's batch size")
            if party not in bundle.waiting:
                raise SessionError(f"{party} was dealt this bundle before; correlations are given once")
            bundle.waiting.discard(party)
            self._release(session, entry)
            return bundle

    def _release(self, session: ProviderSession, entry: EntryId) -> None:
        """Give back what a bundle holds once it is dealt and everyone has asked for it; with the session's lock."""
        bundle = session.bundles[entry]
        if bundle.over and not bundle.waiting:
            del session.bundles[entry]
            self._budget.give(bundle.held)

    def _begin(self, session: ProviderSession, wanted: BundleId) -> None:
        """Have a bundle dealt, in a thread of its own; with the session's lock."""
        entry = wanted.entry
        if entry != session.due:
            raise SessionError(f"the bundle of {entry} was dealt before, or comes too early")
        if any(not bundle.over for bundle in session.bundles.values()):
            raise SessionError(f"the bundle of {entry} comes too early: the one before it is still being dealt")
        if entry.is_weights and wanted.batch != 1:
            raise PlanError("weights have no batch")
        held = size = 0
        if not entry.is_weights:
            held = run_memory(session.plan, wanted.batch, self._config.limits)
            size = plan_cost(session.plan, wanted.batch).dealt
        self._budget.take(held)
        session.dealing += 1
        try:
            seeds = [Seed(self._draw(SEED_BYTES)) for _ in session.terms.parties]
            bundle = DealtBundle(wanted, seeds, session.terms, size, held)
            threading.Thread(target=self._deal, args=(session, bundle), name="deal", daemon=True).start()
        except BaseException:
            session.dealing -= 1
            self._budget.give(held)
            raise
        session.due = entry.following
        session.bundles[entry] = bundle

    def _deal(self, session: ProviderSession, bundle: DealtBundle) -> None:
        try:
            if session.over:
                raise _over(session.ended_by)
            self._deal_parts(session, bundle)
            bundle.end()
        except MpcError as error:
            bundle.end(error)
        except Exception as error:
            logger().error("unexpected error while dealing", exc_info=error)
            bundle.end(MpcError("an internal error; the provider's own log has more"))
        with session.lock:
            session.dealing -= 1
            if session.over:
                self._give_back(session)
            elif bundle.id.entry in session.bundles:
                self._release(session, bundle.id.entry)

    def _deal_parts(self, session: ProviderSession, bundle: DealtBundle) -> None:
        started = time.perf_counter()
        plan = session.plan.bind(bundle.id.batch)
        digest = CorrectionsDigest(bundle.id.digest_key(bundle.seeds[bundle.corrected]), bundle.size)

        def final(part: memoryview) -> None:
            bundle.add(part)
            digest.update(part)

        dealt = deal(plan.dealt(bundle.id.entry), plan.wire, bundle.id, bundle.seeds, session.masks, final)
        bundle.signed = manifest.sign(self._identity, session.terms, bundle.id, dealt, digest.value)
        bundle.seconds = coarse(time.perf_counter() - started)
        self._counters.runs.labels(state="dealt").inc()
        logger().info(
            "dealt",
            session=bundle.id.session.hex()[:16],
            run=bundle.id.entry.number,
            rows=bundle.id.batch,
            bytes=bundle.size,
            seconds=round(bundle.seconds, 3),
            corrected=session.terms.parties[bundle.corrected],
        )
