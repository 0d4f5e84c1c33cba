"""Take from a session's stock, in the place of what would be dealt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpc.correlations import BundleId, corrected_party, sub_seed
from mpc.errors import PlanError, SessionError
from mpc.gates.base import mask_name
from mpc.plan.plan import Plan
from mpc.plan.segments import segments
from mpc.prg import Seed
from parties.agreed import manifest
from parties.agreed.manifest import Manifest
from parties.agreed.terms import Terms
from parties.party.delivery import Delivery, Signatures, given_up
from parties.party.stock.bundles import BundleFile, Stored
from parties.party.stock.files import bundle_name, naming
from parties.party.stock.orders import Stock
from parties.party.stored import StoredRows
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
        return self._read(terms, BundleId.of_weights(session_id), self.plan)

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
        return self._read(terms, bundle, self.plan.at(number).bind(bundle.batch))

    def hand_over(self, terms: Terms, weights: Mapping[str, np.ndarray]) -> None:
        """Refuse: nothing is dealt ahead for public weights, so a stock's plan has none."""
        raise PlanError("a stock has no public weights")

    def _read(self, terms: Terms, bundle: BundleId, plan: Plan) -> Delivery:
        """Read the first segment of a bundle of a bound plan: its file has no name any more when this returns."""
        path, parts = self._folder / bundle_name(bundle.entry), segments(plan, bundle.entry)
        mine = terms.parties[corrected_party(bundle, len(terms.parties))] == self._me
        with naming(path):
            file = BundleFile(path, parts[-1].stop if mine else 0, len(parts))
            seed = manifest.read_seed(file.end.seed, self._me)
            signatures = Signatures(self._trust, terms, bundle)
        with given_up(Stored(seed, parts, mine, signatures, bundle.digest_key(seed), file)) as delivery:
            delivery.check(0)
            with naming(path):
                self._check_seeds(delivery.receipt.manifest, bundle, seed, plan)
                path.unlink()
        return delivery

    def _check_seeds(self, checked: Manifest, bundle: BundleId, seed: Seed, plan: Plan) -> None:
        """The seed is the one that was dealt: every sub-seed that the manifest commits to follows from it."""
        draws = bundle.draws(seed)
        for gate in plan.dealt(bundle.entry):
            for correlation in gate.correlations(plan.wire):
                if correlation.holders:
                    wire = correlation.name.removeprefix(mask_name(""))
                    checked.check_seed(wire, self._me, sub_seed(draws, gate.name, correlation))
