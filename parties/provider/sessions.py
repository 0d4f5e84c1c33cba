"""Keep what the provider has of a session, and give it back when that is over."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import numpy as np

from mpc.entry import WEIGHTS, EntryId
from mpc.errors import PeerError, SessionError
from mpc.interpret.dealer import SessionMasks
from mpc.plan.plan import Plan
from mpc.prg import Seed
from mpc.tags import Key
from parties.agreed.terms import Terms
from parties.process.budget import MemoryBudget
from parties.provider.bundles import DealtBundle
from parties.provider.public_weights import PublicWeights
from parties.provider.stored import StoredMasks


def over(by: str) -> SessionError:
    """The error that a session has ended here.  A party that ends one knows why: so this is heard from it.

    by: the party that ended it, if one did.
    """
    return SessionError(
        "this session is over; its correlations are gone",
        cause=f"it has ended at {by}, whose log says who ended it" if by else "it was idle too long",
        remedy="start a new session",
        peer=by or None,
        heard_from=by or None,
    )


@dataclass
class ProviderSession:
    """A session that a party has opened here.

    Args:
        opener: that party.
        joined: parties that have asked for it.
        due: the entry that is dealt next.
        dealing: deals of it that are under way.
        read: calls that are being sent what is dealt of it; while there are any, it is not idle.
        key: that tags are made with, if its runs are checked; there once the weights' bundle is begun.
        ended_by: the party that ended it, if one did.
    """

    terms: Terms
    plan: Plan
    opener: str = ""
    joined: set[str] = field(default_factory=set)
    masks: SessionMasks = field(default_factory=SessionMasks)
    bundles: dict[EntryId, DealtBundle] = field(default_factory=dict)
    due: EntryId = WEIGHTS
    used_at: float = 0.0
    granted: int = 0
    over: bool = False
    dealing: int = 0
    read: int = 0
    key: Key | None = field(default=None, repr=False)
    ended_by: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(init=False)
    weights: PublicWeights = field(init=False)
    stored: StoredMasks = field(init=False)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.weights = PublicWeights(self.plan, self.terms.parties[0], self.masks.public)
        self.stored = StoredMasks(self.plan, self.terms, self.masks.masks)

    @property
    def whole(self) -> bool:
        """Has every party asked for it?"""
        return len(self.joined) == len(self.terms.parties)

    def is_idle(self, limit: float) -> bool:
        """Has nobody used it since `limit` (monotonic seconds), and does nobody read what is dealt?"""
        return not self.read and self.used_at < limit

    def is_ready(self, entry: EntryId) -> bool:
        """Is all here that the dealing of an entry depends on?

        Where runs are checked, that is every party: unless it is a stock that is dealt, each has heard all others'
        greetings by then, and so nobody chooses its own behind what was signed; nor does one alone have a session dealt
        again that a restart made this forget.
        """
        if entry.is_weights:
            return (self.whole and self.stored.here) or not self.plan.is_checked
        return self.weights.here and self.stored.here

    def require_whole(self) -> None:
        """Require that every party has asked for the session; `PeerError` naming one that has not."""
        late = next((name for name in self.terms.parties if name not in self.joined), None)
        if late is not None:
            raise PeerError(f"{late} has not asked for the session", peer=late)

    def stored_masks(self, plan: Plan, entry: EntryId, batch: int) -> Mapping[str, np.ndarray]:
        """Return the plain masks of what lies at the parties and is dealt for with an entry, by wire."""
        if not entry.is_weights:
            return self.stored.run(plan, batch, entry.number)
        return self.stored.weights() if plan.is_checked else {}

    def make_key(self, seeds: Sequence[Seed]) -> None:
        """Make the session's plain keys, of all parties' seeds of its weights: no other session has these."""
        self.key = reduce(add, [Key.expand(seed, self.terms.session_id) for seed in seeds])

    def release(self, entry: EntryId, budget: MemoryBudget) -> None:
        """Give back what a bundle holds once it is dealt and everyone has asked for it; with the session's lock."""
        bundle = self.bundles[entry]
        if bundle.over and not bundle.waiting:
            del self.bundles[entry]
            budget.give(bundle.held)

    def give_back(self, budget: MemoryBudget) -> None:
        """Give back what a forgotten session held, unless a deal is under way; call with the session's lock."""
        if not self.dealing:
            budget.give(self.granted + sum(bundle.held for bundle in self.bundles.values()))
            self.granted = 0
            self.bundles.clear()
            self.stored.forget()
            self.masks.states.forget()
            self.key = None
