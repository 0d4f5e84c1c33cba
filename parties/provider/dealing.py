"""Dealing at the provider: every bundle from fresh seeds, once, and to each party its own part of it, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from mpc.correlations import BundleId, CorrectionsDigest
from mpc.entry import EntryId
from mpc.errors import HandshakeError, LocalProtocolError, MpcError, PlanError, SessionError
from mpc.interpret.active.dealer import TaggingDealer
from mpc.interpret.dealer import Dealer, DealerKind, committed, deal
from mpc.plan.checking import dealt_tags
from mpc.plan.plan import Plan
from mpc.plan.segments import segments
from mpc.prg import SEED_BYTES, Seed
from parties.agreed import manifest
from parties.agreed.memory import deal_memory
from parties.agreed.segments import sign_segment
from parties.agreed.terms import Terms
from parties.config.models import Limits
from parties.pb.provider_pb2 import DealEnd, DealPart, DealtSegment
from parties.process.budget import MemoryBudget
from parties.provider.bundles import DealtBundle
from parties.provider.sessions import ProviderSession, over
from parties.telemetry import Counters, coarse, logger
from parties.trust.identity import Identity

_OTHERS_FIRST = 0.001
"""Seconds before the log has a bundle's end: a line takes as long as what parties wait for, in one interpreter."""


class Dealing:
    """The dealing of all sessions' bundles.  Thread-safe.

    Args:
        identity: signs what was dealt.
        budget: what bundles are granted memory of.
        clock: monotonic seconds, for idle sessions.
        draw: fresh random bytes.
    """

    def __init__(
        self,
        limits: Limits,
        identity: Identity,
        counters: Counters,
        budget: MemoryBudget,
        clock: Callable[[], float],
        draw: Callable[[int], bytes],
    ) -> None:
        self._limits, self._identity, self._counters = limits, identity, counters
        self._budget, self._clock, self._draw = budget, clock, draw

    def fetch(
        self, session: ProviderSession, wanted: BundleId, party: str, weights: bytes, seconds: float
    ) -> DealtBundle:
        """The bundle of which this party is given its part now, once; the first that asks has it dealt.

        weights: digest of the public weights that the party holds, for a run.
        """
        entry = wanted.entry
        with session.lock:
            session.changed.wait_for(lambda: session.over or session.is_ready(entry), seconds)
            if session.over:
                raise over(session.ended_by)
            session.used_at = self._clock()
            if not entry.is_weights:
                session.weights.check(party, weights)
            if not entry.is_weights or session.plan.is_checked:
                session.stored.check()
            if entry.is_weights and session.plan.is_checked:
                session.require_whole()
            if entry not in session.bundles:
                self._begin(session, wanted)
            bundle = session.bundles[entry]
            if bundle.id.batch != wanted.batch:
                raise HandshakeError("the parties do not agree on this run's batch size")
            if party not in bundle.waiting:
                raise SessionError(f"{party} was dealt this bundle before; correlations are given once")
            bundle.waiting.discard(party)
            session.release(entry, self._budget)
            return bundle

    def _begin(self, session: ProviderSession, wanted: BundleId) -> None:
        """Have a bundle dealt, in a thread of its own; with the session's lock."""
        entry = wanted.entry
        if entry != session.due:
            raise SessionError(f"the bundle of {entry} was dealt before, or comes too early")
        if any(not bundle.over for bundle in session.bundles.values()):
            raise SessionError(f"the bundle of {entry} comes too early: the one before it is still being dealt")
        if entry.is_weights and wanted.batch != 1:
            raise PlanError("weights have no batch")
        plan, held = session.plan, 0
        if not entry.is_weights:
            held = deal_memory(session.plan.at(entry.number), wanted.batch, self._limits)
            plan = session.plan.at(entry.number).bind(wanted.batch)
        parts = segments(plan, entry)
        self._budget.take(held)
        session.dealing += 1
        try:
            seeds = [Seed(self._draw(SEED_BYTES)) for _ in session.terms.parties]
            window = self._limits.max_window_bytes
            bundle = DealtBundle(wanted, seeds, session.terms, parts, held, window)
            if entry.is_weights and session.plan.is_checked:
                session.make_key(seeds)
            threading.Thread(target=self._deal, args=(session, bundle), name="deal", daemon=True).start()
        except BaseException:
            session.dealing -= 1
            self._budget.give(held)
            raise
        session.due = entry.following
        session.bundles[entry] = bundle

    def _deal(self, session: ProviderSession, bundle: DealtBundle) -> None:
        seconds: float | None = None
        try:
            if session.over:
                raise over(session.ended_by)
            seconds = self._deal_parts(session, bundle)
            bundle.end()
        except MpcError as error:
            bundle.end(error)
        except Exception as error:
            logger().error("unexpected error while dealing", exc_info=error)
            bundle.end(MpcError("an internal error; the provider's own log has more"))
        with session.lock:
            session.dealing -= 1
            if session.over:
                session.give_back(self._budget)
            elif bundle.id.entry in session.bundles:
                session.release(bundle.id.entry, self._budget)
        if seconds is not None:
            time.sleep(_OTHERS_FIRST)
            self._tell(session, bundle, seconds)

    def _deal_parts(self, session: ProviderSession, bundle: DealtBundle) -> float:
        """Deal and sign all of a bundle; return the seconds that it took."""
        entry, batch = bundle.id.entry, bundle.id.batch
        plan = (session.plan if entry.is_weights else session.plan.at(entry.number)).bind(batch)
        gates = [gate for segment in bundle.segments for gate in segment.gates]
        signing = _Signing(self._identity, session.terms, bundle, committed(gates, plan.wire, bundle.id, bundle.seeds))
        stored = session.stored_masks(plan, entry, batch)
        states, kind = () if entry.is_weights else plan.states, _dealer(session, plan, entry)
        deal(gates, plan.wire, bundle.id, bundle.seeds, session.masks, signing.final, stored, states, kind)
        signing.finish()
        return signing.seconds

    def _tell(self, session: ProviderSession, bundle: DealtBundle, seconds: float) -> None:
        self._counters.runs.labels(state="dealt").inc()
        logger().info(
            "dealt",
            session=bundle.id.session.hex()[:16],
            run=bundle.id.entry.number,
            rows=bundle.id.batch,
            bytes=bundle.size,
            segments=len(bundle.segments),
            seconds=round(seconds, 3),
            corrected=session.terms.parties[bundle.corrected],
        )


class _Signing:
    """Digests what is dealt of one bundle, and signs each segment as soon as it is whole.

    Args:
        commitments: to the seeds of the bundle's masks that are used behind the run.
    """

    def __init__(
        self, identity: Identity, terms: Terms, bundle: DealtBundle, commitments: Mapping[str, list[bytes]]
    ) -> None:
        self._identity, self._terms, self._bundle, self._commitments = identity, terms, bundle, commitments
        self._key = bundle.id.digest_key(bundle.seeds[bundle.corrected])
        self._started = time.perf_counter()
        self._held_back = 0.0
        self._number = self._filled = 0
        self._before = b""
        self._digest = self._fresh()

    @property
    def seconds(self) -> float:
        """Return what dealing has taken so far, coarsely, since a party tells it on; waiting to be read is none."""
        return coarse(time.perf_counter() - self._started - self._held_back)

    def _fresh(self) -> CorrectionsDigest:
        return CorrectionsDigest(self._key, self._bundle.segments[self._number].dealt, self._number)

    def final(self, part: memoryview) -> None:
        """Take corrections that will not change any more."""
        self._sign_whole()
        self._digest.update(part)
        waited = time.perf_counter()
        self._bundle.add(part)
        self._held_back += time.perf_counter() - waited
        self._filled += len(part)
        self._sign_whole()

    def _sign_whole(self) -> None:
        """Sign segments of which there is nothing more; the last one once all is dealt."""
        while not self._is_last and self._filled == self._bundle.segments[self._number].stop:
            self._sign()

    @property
    def _is_last(self) -> bool:
        return self._number == len(self._bundle.segments) - 1

    def finish(self) -> None:
        """Sign what is left, when all is dealt."""
        while not self._is_last:
            self._sign()
        self._sign()

    def _sign(self) -> None:
        digest = self._digest.value
        if self._number:
            content, signature = sign_segment(self._identity, self._before, self._number, digest)
            said = DealtSegment(content=content, signature=signature, deal_seconds=self.seconds)
            statement = DealPart(segment=said)
        else:
            signed = manifest.sign(self._identity, self._terms, self._bundle.id, self._commitments, digest)
            content, statement = signed.content, DealPart(end=DealEnd(manifest=signed, deal_seconds=self.seconds))
        self._before = content
        if not self._is_last:
            self._number += 1
            self._digest = self._fresh()
        self._bundle.seal(statement)


def _dealer(session: ProviderSession, plan: Plan, entry: EntryId) -> DealerKind:
    """Return what deals an entry: with a tag behind each value, if the plan's runs are checked."""
    if not plan.is_checked:
        return Dealer
    if session.key is None:
        raise LocalProtocolError("tags are to be dealt before the session has its keys")
    return partial(TaggingDealer, key=session.key, tags=dealt_tags(plan, entry))
