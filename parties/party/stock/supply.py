"""Take from a session's stock, in the place of what would be dealt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpc.correlations import BundleId, Whole, corrected_party, sub_seed
from mpc.errors import PlanError, SessionError
from mpc.gates.base import mask_name
from mpc.plan.cost import plan_cost, session_dealt
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES, Seed
from parties.agreed import manifest
from parties.agreed.manifest import Manifest
from parties.agreed.terms import Terms
from parties.party.stock.files import (
    bundle_name,
    keyed_digest,
    naming,
    read_bundle,
)
from parties.party.stock.orders import Stock
from parties.party.stored import StoredRows
from parties.party.supply import Delivery, Receipt
from parties.trust.chains import Trust


class StoredSupply:
    """The bundles of one stock: stands where `LiveSupply` does in the session that takes it.

    Args:
        stock: of this plan; in the ledger.
        me: this party.
    """

    stored = True

    def __init__(self, folder: Path, stock: Stock, plan: Plan, me: str, trust: Trust) -> None:
        self.plan, self._folder, self._stock, self._me, self._trust = plan, folder, stock, me, trust

    def fetch_weights(self, session_id: bytes, terms: Terms, plan: Plan, stored: StoredRows | None = None) -> Delivery:
        """The weights' masks; a stock's plan reads nothing that is stored."""
        return self._read(terms, BundleId.of_weights(session_id), self.plan, session_dealt(self.plan))

    def fetch(self, terms: Terms, bundle: BundleId, weights: bytes) -> Delivery:
        """The bundle of one run; a stock's plan has no public weights.

        Raises:
            PlanError: it was dealt for another number of rows.
            SessionError: there are no more.
        """
        batches, number = self._stock.batches, bundle.entry.number
        if number > len(batches):
            raise SessionError(
                f"the {len(batches)} runs that were dealt ahead for this session are used up",
                cause="its weights' masks are no longer with the provider, so no more can be dealt for it",
                remedy="start a new session",
            )
        if batches[number - 1] != bundle.batch:
            raise PlanError(
                f"{bundle.entry} was dealt ahead for {batches[number - 1]} rows, not {bundle.batch}",
                remedy="give as many rows as the stock was dealt for, or start a session without it",
            )
        plan = self.plan.at(number)
        return self._read(terms, bundle, plan.bind(bundle.batch), plan_cost(plan, bundle.batch).dealt)

    def hand_over(self, terms: Terms, weights: Mapping[str, np.ndarray]) -> None:
        """Refuse: nothing is dealt ahead for public weights, so a stock's plan has none."""
        raise PlanError("a stock has no public weights")

    def _read(self, terms: Terms, bundle: BundleId, plan: Plan, most: int) -> Delivery:
        path = self._folder / bundle_name(bundle.entry)
        mine = terms.parties[corrected_party(bundle, len(terms.parties))] == self._me
        with naming(path):
            header, corrections = read_bundle(path, most if mine else 0)
            checked = manifest.verify(self._trust, terms, bundle, header.manifest)
            seed = manifest.read_seed(header.seed, self._me)
            self._check_seeds(checked, bundle, seed, plan)
            if mine:
                checked.check_corrections(keyed_digest(bundle.digest_key(seed), corrections))
            path.unlink()
        receipt = Receipt(checked, header.manifest, 0.0, SEED_BYTES + len(corrections))
        return Delivery(seed, Whole(corrections) if mine else None, lambda: receipt)

    def _check_seeds(self, checked: Manifest, bundle: BundleId, seed: Seed, plan: Plan) -> None:
        """The seed is the one that was dealt: every sub-seed that the manifest commits to follows from it."""
        draws = bundle.draws(seed)
        for gate in plan.dealt(bundle.entry):
            for correlation in gate.correlations(plan.wire):
                if correlation.holders:
                    wire = correlation.name.removeprefix(mask_name(""))
                    checked.check_seed(wire, self._me, sub_seed(draws, gate.name, correlation))
