"""Evaluate each run of a session at this party, and check it before anything is told, if its plan says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mpc.correlations import Bundle
from mpc.encoding import digest
from mpc.errors import IntegrityError, LocalProtocolError
from mpc.interpret.active.audit import SessionTags
from mpc.interpret.active.run import CheckedRun
from mpc.interpret.party import PartyRun
from mpc.interpret.preparing import Arrivals
from mpc.interpret.session_wires import SessionWires
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES, Seed
from mpc.shares import Lane
from mpc.stored import AtRest
from mpc.tags import Key
from parties.agreed.terms import Terms, roster_digest

Evaluation = PartyRun | CheckedRun


class Evaluations:
    """Make the evaluation of each run.

    Args:
        index: of this party, in the roster.
        wires: what outlives a run.
        cluster: the cluster's id.
        draw: fresh random bytes.
    """

    def __init__(
        self, terms: Terms, index: int, wires: SessionWires, cluster: str | None, draw: Callable[[int], bytes]
    ) -> None:
        self._terms, self._index, self._wires, self._draw = terms, index, wires, draw
        self._roster = roster_digest(terms.provider, terms.parties, cluster)
        self.tags: SessionTags | None = None
        self._context = b""

    def __repr__(self) -> str:
        return f"<Evaluations checked={self.tags is not None}>"

    def open(self, plan: Plan, bundle: Bundle, seed: Seed, manifest: bytes) -> None:
        """Take this party's share of the session's keys, and the weights' tags, of a plan whose runs are checked.

        Args:
            bundle: of the weights; all of it is here and is what the provider signed.
            seed: that it was dealt with.
            manifest: what the provider signed of it.
        """
        if plan.is_checked:
            self.tags = SessionTags(plan, Key.expand(seed, self._terms.session_id), bundle)
            terms = (self._terms.plan_digest, self._terms.session_id, self._roster)
            self._context = digest("mpc/v1/check-context", *terms, manifest)

    def make(
        self,
        plan: Plan,
        bundle: Bundle,
        key: bytes,
        stored: Mapping[str, AtRest],
        arrivals: Arrivals | None = None,
        window: int | None = None,
    ) -> Evaluation:
        """Make the evaluation of a run of a bound plan.

        A run that is checked has a key that the weights' manifest is in: the provider signs that once all parties have
        heard all salts, so a party that waits with its own for the others' chooses nothing that is drawn in common.
        Of a stock it is signed before: `refuse_later_known` has what may not be dealt ahead therefore.

        Args:
            key: known to the parties alone.
            stored: this run's rows of what lies here.
            arrivals: what it was dealt, segment by segment.
            window: bytes of correlations that are prepared before inputs exist.
        """
        if not plan.is_checked:
            lane = Lane.passive(self._index)
            return PartyRun(plan, lane, bundle, self._wires, key, stored, arrivals=arrivals, window=window)
        if self.tags is None:
            raise LocalProtocolError("a run is to be checked before the session has its keys")
        return CheckedRun(
            plan,
            self._index,
            len(self._terms.parties),
            bundle,
            self._wires,
            self.tags,
            context=self._context,
            fresh=Seed(self._draw(SEED_BYTES)),
            transcript_key=digest("mpc/v1/checked-key", key, self._context),
            stored=stored,
            arrivals=arrivals,
            window=window,
        )


def require_checked(plan: Plan, evaluation: Evaluation) -> None:
    """Refuse to tell anything of a run that its plan wants checked, and that has not passed."""
    if plan.is_checked and not (isinstance(evaluation, CheckedRun) and evaluation.checked):
        raise LocalProtocolError("a run may not be told before its check has passed")


def failed_check() -> IntegrityError:
    """Make the error of every check that fails, which tells nothing of any data, and whoever hears of it makes too."""
    return IntegrityError(
        "a party deviates from the protocol: the check of a run failed, and nothing of that run was told",
        cause="one of the parties opened something else than the plan computes, or told others something else",
        remedy="this session, and what was dealt for it, is of no use any more; find out which party's software was "
        "changed, then start a new session",
    )
