"""All parties and the provider in one process, in a session whose runs are checked; see `mpc.interpret.world`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from operator import add

import numpy as np

from mpc.correlations import Bundle, Tags
from mpc.entry import EntryId
from mpc.gates.base import Gate
from mpc.interpret.active.audit import SessionTags
from mpc.interpret.active.dealer import TaggingDealer
from mpc.interpret.active.run import CheckedRun
from mpc.interpret.dealer import DealerKind, Dealt
from mpc.interpret.run_wires import RunWires
from mpc.interpret.world import World
from mpc.plan.checking import entry_tags
from mpc.plan.plan import Plan
from mpc.prg import Seed
from mpc.shares import Masked
from mpc.tags import Key


class CheckedWorld(World):
    """A session among `parties` parties that checks each run.

    Args:
        keys: each party's share of the keys.
        tags: each party's tags of what lives for the session.
    """

    keys: list[Key]
    tags: list[SessionTags]

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, np.ndarray],
        parties: int,
        master: Seed,
        stored: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        session = master.derive("session").secret
        self.keys = [Key.expand(master.derive("party", index, 0), session) for index in range(parties)]
        super().__init__(plan, weights, parties, master, stored)

    def deal(
        self, plan: Plan, gates: Sequence[Gate], run: int, batch: int, stored: Mapping[str, np.ndarray] | None = None
    ) -> tuple[Dealt, list[Bundle]]:
        dealt, bundles = super().deal(plan, gates, run, batch, stored)
        if EntryId(run).is_weights:
            self.tags = [SessionTags(plan, key, bundle) for key, bundle in zip(self.keys, bundles, strict=True)]
        return dealt, bundles

    def dealing(self, plan: Plan, entry: EntryId) -> tuple[DealerKind, Tags]:
        """Return what deals an entry, and the tags that it deals."""
        tags = entry_tags(plan, entry)
        return partial(TaggingDealer, key=reduce(add, self.keys), tags=tags), tags

    def make_party(self, plan: Plan, index: int, bundle: Bundle, stored: Mapping[str, Masked]) -> CheckedRun:
        """Make one party's checked reading of a run."""
        return CheckedRun(
            plan,
            index,
            self.parties,
            bundle,
            self.sessions[index],
            self.tags[index],
            context=self.plan.digest,
            fresh=self._master.derive("fresh", index, self.runs),
            transcript_key=self.transcript_key,
            stored=stored,
            wires=RunWires(plan, self._wanted(plan), replayed=True),
            window=self.window,
        )
