"""Keep what the provider has of a session, and give it back when that is over."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from mpc.entry import WEIGHTS, EntryId
from mpc.errors import SessionError
from mpc.interpret.dealer import SessionMasks
from mpc.plan.plan import Plan
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
        cause=f"{by} ended it, and its log says why" if by else "it was idle too long",
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
