"""Dealing at the provider: every bundle from fresh seeds, once, and to each party its own part of it, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from mpc.correlations import BundleId, CorrectionsDigest
from mpc.entry import EntryId
from mpc.errors import HandshakeError, LocalProtocolError, MpcError, PlanError, SessionError
from mpc.interpret.active.dealer import TaggingDealer
from mpc.interpret.dealer import Dealer, DealerKind, deal
from mpc.plan.cost import plan_cost, session_dealt
from mpc.plan.plan import Plan
from mpc.plan.tagging import dealt_tags
from mpc.prg import SEED_BYTES, Seed
from parties.agreed import manifest
from parties.agreed.memory import run_memory
from parties.config.models import Limits
from parties.process.budget import MemoryBudget
from parties.provider.bundles import DealtBundle
from parties.provider.sessions import ProviderSession, over
from parties.telemetry import Counters, coarse, logger
from parties.trust.identity import Identity


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
        held, size = 0, session_dealt(session.plan)
        if not entry.is_weights:
            plan = session.plan.at(entry.number)
            held = run_memory(plan, wanted.batch, self._limits)
            size = plan_cost(plan, wanted.batch).dealt
        self._budget.take(held)
        session.dealing += 1
        try:
            seeds = [Seed(self._draw(SEED_BYTES)) for _ in session.terms.parties]
            bundle = DealtBundle(wanted, seeds, session.terms, size, held)
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
        try:
            if session.over:
                raise over(session.ended_by)
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
                session.give_back(self._budget)
            elif bundle.id.entry in session.bundles:
                session.release(bundle.id.entry, self._budget)

    def _deal_parts(self, session: ProviderSession, bundle: DealtBundle) -> None:
        started = time.perf_counter()
        number = bundle.id.entry.number
        whole = session.plan if bundle.id.entry.is_weights else session.plan.at(number)
        plan = whole.bind(bundle.id.batch)
        digest = CorrectionsDigest(bundle.id.digest_key(bundle.seeds[bundle.corrected]), bundle.size)

        def final(part: memoryview) -> None:
            bundle.add(part)
            digest.update(part)

        entry = bundle.id.entry
        stored = session.stored_masks(plan, entry, bundle.id.batch)
        states, kind = () if entry.is_weights else plan.states, _dealer(session, plan, entry)
        dealt = deal(plan.dealt(entry), plan.wire, bundle.id, bundle.seeds, session.masks, final, stored, states, kind)
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


def _dealer(session: ProviderSession, plan: Plan, entry: EntryId) -> DealerKind:
    """Return what deals an entry: with a tag behind each value, if the plan's runs are checked."""
    if not plan.is_checked:
        return Dealer
    if session.key is None:
        raise LocalProtocolError("tags are to be dealt before the session has its keys")
    return partial(TaggingDealer, key=session.key, tags=dealt_tags(plan, entry))
