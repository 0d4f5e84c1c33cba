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
from dataclasses import dataclass, field

import grpc

import mpc
from mpc.compiler.plan import Plan
from mpc.correlations import BundleId
from mpc.errors import HandshakeError, PeerError, PlanError, PolicyError, SessionError
from mpc.interpret.dealer import Dealt, SessionMasks, deal
from mpc.prg import SEED_BYTES, Seed
from parties import entropy, manifest
from parties.certificates import Identity
from parties.config import ProviderConfig
from parties.limits import MemoryBudget, plan_memory, run_memory
from parties.pb import party_pb2, provider_pb2, provider_pb2_grpc
from parties.telemetry import Counters, logger
from parties.terms import Terms
from parties.transport import PROTOCOL, answers, caller, collect, ends_within, pieces, streams
from parties.weights import PublicWeights

_PATIENCE = 0.75
"""Part of a caller's own deadline that it waits for public weights: it is told by whom they are missing."""
_REMEMBERED = 4096
"""Ended sessions that are told from ones that never were."""


@dataclass
class _Bundle:
    """One dealt bundle, until every party has fetched its part."""

    batch: int
    dealt: Dealt = field(repr=False)
    seeds: list[Seed] = field(repr=False)
    signed: party_pb2.Manifest
    seconds: float
    waiting: set[str]
    held: int


@dataclass
class _Session:
    terms: Terms
    plan: Plan
    masks: SessionMasks = field(default_factory=SessionMasks)
    bundles: dict[int, _Bundle] = field(default_factory=dict)
    last_run: int = -1
    used_at: float = 0.0
    granted: int = 0
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(init=False)
    weights: PublicWeights = field(init=False)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.weights = PublicWeights(self.plan, self.terms.parties[0], self.masks.public)


class ProviderService(provider_pb2_grpc.ProviderServicer):
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
        self._sessions: dict[bytes, _Session] = {}
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._budget = MemoryBudget(config.limits)
        self._lock = threading.Lock()

    @answers
    def Describe(self, request: party_pb2.DescribeRequest, context: grpc.ServicerContext) -> party_pb2.DescribeReply:
        return party_pb2.DescribeReply(
            name=self._config.name,
            role="provider",
            version=mpc.__version__,
            protocol=PROTOCOL,
            open_sessions=len(self._sessions),
            clock=time.time(),
        )

    @streams
    def Deal(self, request: provider_pb2.DealRequest, context: grpc.ServicerContext) -> Iterator[provider_pb2.DealPart]:
        party = caller(context)
        if party not in self._config.parties:
            raise PolicyError(
                f"the provider deals to its own parties only, not to {party!r}",
                remedy="add it to 'parties' in the provider's config",
            )
        session = self._open(request, party) if request.run == 0 else self._session(request.session_id)
        if party not in session.terms.parties:
            raise PolicyError(f"{party!r} is not a party of this session")
        bundle, corrections = self._fetch(session, request, party)
        index = session.terms.parties.index(party)
        self._counters.dealt_bytes.inc(SEED_BYTES + len(corrections))
        header = provider_pb2.DealHeader(
            seed=bundle.seeds[index].secret,
            manifest=bundle.signed,
            deal_seconds=bundle.seconds,
            corrections=len(corrections),
        )
        yield provider_pb2.DealPart(header=header)
        for piece in pieces(corrections):
            yield provider_pb2.DealPart(chunk=piece)

    @answers
    def Weights(
        self, request: Iterator[provider_pb2.WeightsPart], context: grpc.ServicerContext
    ) -> provider_pb2.WeightsReply:
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

    @answers
    def Finish(self, request: provider_pb2.FinishRequest, context: grpc.ServicerContext) -> provider_pb2.FinishReply:
        with self._lock:
            session = self._sessions.get(request.session_id)
            ended = session is not None and caller(context) in session.terms.parties
            if ended:
                self._forget(request.session_id)
        if session is not None and ended:
            self._settle(session)
        return provider_pb2.FinishReply()

    # ------------------------------------------------------------------------ sessions

    def _open(self, request: provider_pb2.DealRequest, party: str) -> _Session:
        """The session of these terms: made by the first party that asks, found by the others."""
        if len(request.terms.plan) > self._config.limits.max_plan_bytes:
            raise PlanError("the plan is larger than this provider accepts", remedy="raise limits.max_plan_bytes")
        plan = Plan.from_bytes(request.terms.plan)
        granted = plan_memory(plan, self._config.limits)
        terms = Terms(plan.digest, self._config.name, tuple(request.terms.parties), tuple(request.terms.nonces))
        if terms.session_id != request.session_id:
            raise HandshakeError("the session id does not belong to these terms")
        if party not in terms.parties:
            raise PolicyError(f"{party!r} is not a party of this session")
        if not set(terms.parties) <= set(self._config.parties):
            raise PolicyError("the session has parties that this provider does not deal to")
        self.drop_idle()
        with self._lock:
            if request.session_id in self._ended:
                raise SessionError("this session is over; its correlations are gone", remedy="start a new session")
            if request.session_id not in self._sessions:
                if len(self._sessions) >= self._config.limits.max_sessions:
                    raise SessionError("the provider has too many open sessions", remedy="close some, or wait")
                self._budget.take(granted)
                self._sessions[request.session_id] = _Session(terms, plan, used_at=self._clock(), granted=granted)
                logger().info("session opened", session=request.session_id.hex()[:16], parties=list(terms.parties))
            return self._sessions[request.session_id]

    def _session(self, session_id: bytes) -> _Session:
        with self._lock:
            if session_id not in self._sessions:
                raise SessionError(
                    "the provider does not know this session",
                    cause="it was restarted, or the session ended or was idle too long",
                    remedy="start a new session",
                )
            return self._sessions[session_id]

    def _forget(self, session_id: bytes) -> None:
        """Nobody finds the session from now on; call with the lock held, and `_settle` without it."""
        del self._sessions[session_id]
        self._ended[session_id] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _settle(self, session: _Session) -> None:
        """Give back what a forgotten session held, once a deal that may be under way is done."""
        with session.lock:
            session.over = True
            session.changed.notify_all()
            self._budget.give(session.granted + sum(bundle.held for bundle in session.bundles.values()))
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
        self, session: _Session, request: provider_pb2.DealRequest, party: str
    ) -> tuple[_Bundle, bytes | memoryview]:
        """This party's part of a bundle, once."""
        with session.lock:
            if request.run:
                patience = _PATIENCE * self._config.deadlines.setup
                session.changed.wait_for(lambda: session.over or session.weights.here, patience)
            if session.over:
                raise SessionError("this session is over", remedy="start a new session")
            session.used_at = self._clock()
            if request.run:
                session.weights.check(party, request.weights)
            if request.run not in session.bundles:
                self._deal(session, request)
            bundle = session.bundles[request.run]
            if bundle.batch != request.batch:
                raise HandshakeError("the parties do not agree on this run's batch size")
            if party not in bundle.waiting:
                raise SessionError(f"{party} was dealt this bundle before; correlations are given once")
            bundle.waiting.discard(party)
            corrected = session.terms.parties[bundle.dealt.corrected]
            corrections: bytes | memoryview = bundle.dealt.corrections if party == corrected else b""
            if not bundle.waiting:
                del session.bundles[request.run]
                self._budget.give(bundle.held)
            return bundle, corrections

    def _deal(self, session: _Session, request: provider_pb2.DealRequest) -> None:
        if request.run != session.last_run + 1:
            raise SessionError(f"run {request.run} was dealt before, or comes too early")
        if request.run == 0 and request.batch != 1:
            raise PlanError("weights have no batch")
        held = run_memory(session.plan, request.batch, self._config.limits) if request.run else 0
        self._budget.take(held)
        try:
            self._deal_granted(session, request, held)
        except BaseException:
            self._budget.give(held)
            raise

    def _deal_granted(self, session: _Session, request: provider_pb2.DealRequest, held: int) -> None:
        started = time.perf_counter()
        bundle_id = BundleId(request.session_id, request.run, request.batch)
        seeds = [Seed(self._draw(SEED_BYTES)) for _ in session.terms.parties]
        plan = session.plan.bind(request.batch)
        gates = plan.weights if request.run == 0 else plan.online
        dealt = deal(gates, plan.wire, bundle_id, seeds, session.masks)
        signed = manifest.sign(self._identity, session.terms, bundle_id, dealt)
        session.last_run = request.run
        seconds = time.perf_counter() - started
        waiting = set(session.terms.parties)
        session.bundles[request.run] = _Bundle(request.batch, dealt, seeds, signed, seconds, waiting, held)
        self._counters.runs.labels(state="dealt").inc()
