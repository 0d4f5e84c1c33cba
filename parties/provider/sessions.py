"""What the provider keeps of a session."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from mpc.entry import WEIGHTS, EntryId
from mpc.interpret.dealer import SessionMasks
from mpc.plan.plan import Plan
from parties.agreed.terms import Terms
from parties.provider.bundles import DealtBundle
from parties.provider.public_weights import PublicWeights


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

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.weights = PublicWeights(self.plan, self.terms.parties[0], self.masks.public)

    @property
    def whole(self) -> bool:
        """Has every party asked for it?"""
        return len(self.joined) == len(self.terms.parties)
