"""Masks of stored objects, for one session: the provider is shown seeds of the blocks that are bound, and no others.

Every party shows its own seeds of these blocks when the session opens.  The owner's manifest commits to each, so a
party that shows another seed is named.  Masks are expanded when a run needs them, and seeds are forgotten with the
session: they are masks of data at rest, so with x^ from any party they would be the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce

import numpy as np

from mpc import field as fp
from mpc.errors import HandshakeError, IntegrityError, MpcError, PeerError
from mpc.plan.plan import Plan
from mpc.prg import Seed
from mpc.stored import BAND_ELEMENTS, expand_band, expand_rows, gather, join_columns, stretches
from parties.agreed.bindings import Binding, check_bindings, count_seeds, gather_parts, rows_of, run_rows, same_seeds
from parties.agreed.manifest import read_seed
from parties.agreed.objects import Manifest
from parties.agreed.signed import Signed
from parties.agreed.terms import Terms
from parties.trust.chains import Trust

Blocks = Mapping[int, Seed]
"""Block number -> seed."""


class RunMasks(Mapping[str, np.ndarray]):
    """Plain masks of what a run reads, by wire, each made when it is asked for."""

    def __init__(self, make: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._make = make

    def __repr__(self) -> str:
        return f"<RunMasks wires={len(self._make)}>"

    def __getitem__(self, wire: str) -> np.ndarray:
        return self._make[wire]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


class StoredMasks:
    """Masks of a session's stored wires; with its session's lock.

    Args:
        weights: the session's masks of weights, to which those of stored ones are added once all parties have shown
            their seeds.

    Raises:
        HandshakeError: the terms do not bind each stored wire of the plan.
    """

    def __init__(self, plan: Plan, terms: Terms, weights: dict[str, np.ndarray]) -> None:
        check_bindings(plan, terms.bindings)
        self._plan, self._terms, self._weights = plan, terms, weights
        self._rows = rows_of(plan, terms.bindings)
        self._manifests: dict[bytes, Manifest] = {}
        self._seeds: dict[str, list[list[Blocks]]] = {}
        self._done = 0

    def __repr__(self) -> str:
        return f"<StoredMasks shown={sorted(self._seeds)}>"

    @property
    def here(self) -> bool:
        """Has every party shown its seeds?"""
        return not self._terms.bindings or len(self._seeds) == len(self._terms.parties)

    def check(self) -> None:
        """Require that every party has shown its seeds; `PeerError` naming one that has not."""
        if not self.here:
            late = next(name for name in self._terms.parties if name not in self._seeds)
            raise PeerError(f"{late} has not shown its seeds of what is stored", peer=late)

    def show(self, party: str, objects: Sequence[Signed], seeds: Sequence[Sequence[bytes]], trust: Trust) -> None:
        """Take a party's seeds; `objects` are the manifests of what is bound, each once.

        Raises:
            IntegrityError: a manifest is not its owner's, or a seed not the one that it commits to; it names the party.
            HandshakeError: there are more or fewer than are bound.
        """
        if party in self._seeds or not self._terms.bindings:
            return
        if len(seeds) != len(self._terms.bindings):
            raise HandshakeError(
                f"{party} shows seeds of {len(seeds)} stored wires, not of {len(self._terms.bindings)}"
            )
        self._read(party, objects, trust)
        shown: list[list[Blocks]] = []
        for index, first in enumerate(same_seeds(self._plan, self._terms.bindings)):
            if first == index:
                shown.append(self._checked(party, self._terms.bindings[index], seeds[index]))
            elif seeds[index]:
                raise HandshakeError(f"{party} shows seeds of the same rows twice", peer=party)
            else:
                shown.append(shown[first])
        self._seeds[party] = shown
        if self.here:
            self._add_weights()

    def _read(self, party: str, objects: Sequence[Signed], trust: Trust) -> None:
        """Verify manifests that were not shown before."""
        wanted = {binding.object for binding in self._terms.bindings} - set(self._manifests)
        for signed in objects[: len(self._terms.bindings)] if wanted else ():
            try:
                found = Manifest.verify(trust, signed, None)
            except MpcError as error:
                raise IntegrityError(f"{party} shows a false manifest", cause=error.what, peer=party) from None
            if found.id in wanted:
                self._manifests[found.id] = found
        for binding in self._terms.bindings:
            self._require(party, binding)

    def _require(self, party: str, binding: Binding) -> None:
        """Require a manifest of what is bound, of the wire's owner, for these parties, with these columns and rows."""
        found = self._manifests.get(binding.object)
        if found is None:
            raise HandshakeError(f"{party} shows no manifest of an object that is bound", peer=party)
        owners = self._plan.wire[binding.wire].holders
        if found.owner not in owners or found.parties != self._terms.parties:
            raise IntegrityError(
                f"{found.name} is not {' or '.join(owners)}'s for the parties of this session", peer=party
            )
        if binding.first + binding.rows > found.rows:
            raise HandshakeError(f"{found.name} has {found.rows} rows, and more are bound")
        for column in binding.columns:
            found.column(column)

    def _checked(self, party: str, binding: Binding, given: Sequence[bytes]) -> list[Blocks]:
        """Blocks of each column, each seed held to the owner's commitment."""
        found = self._manifests[binding.object]
        count = count_seeds(binding, found.layout)
        if len(given) != count:
            raise HandshakeError(f"{party} shows {len(given)} seeds of {found.name}, not {count}", peer=party)
        following = iter(given)
        columns: list[Blocks] = []
        for column in binding.columns:
            blocks = {}
            for block in found.layout.blocks(binding.first, binding.rows):
                seed = read_seed(next(following), party)
                found.check_seed(column, block, party, seed)
                blocks[block] = seed
            columns.append(blocks)
        return columns

    def _add_weights(self) -> None:
        for index, binding in enumerate(self._terms.bindings):
            if self._plan.wire[binding.wire].name in {gate.out for gate in self._plan.weights}:
                sizes = self._plan.wire[binding.wire].sizes
                self._weights[binding.wire] = self._masks(index, np.arange(1)).reshape(sizes)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the plain masks of the stored weights, by wire, once all parties have shown their seeds."""
        stored = {gate.out for gate in self._plan.weights if gate.is_stored}
        return {wire: mask for wire, mask in self._weights.items() if wire in stored}

    def run(self, bound: Plan, batch: int, run: int) -> Mapping[str, np.ndarray]:
        """Return the plain masks of the rows that a run reads, by wire; runs follow one another.  Those of bands are
        made when they are asked for, and not held here.

        Raises:
            InputError: the run would go beyond the last row.
        """
        if self._rows is None:
            return {}
        rows = run_rows(self._plan, run, batch, self._done, self._rows)
        weights = {gate.out for gate in self._plan.weights}
        found: dict[str, Callable[[], np.ndarray]] = {}
        for wire in {each.wire for each in self._terms.bindings} - weights:
            if wire in bound.wire:
                places = [index for index, each in enumerate(self._terms.bindings) if each.wire == wire]
                parts = [self._terms.bindings[index] for index in places]
                sizes = bound.wire[wire].sizes
                if wire in bound.bands:
                    band = range(bound.bands[wire], bound.bands[wire] + sizes[-1])
                    found[wire] = partial(gather_parts, parts, rows, partial(self._of_band, places, band))
                else:
                    masks = gather_parts(parts, rows, partial(self._of_part, places)).reshape(sizes)
                    found[wire] = partial(np.asarray, masks)
        self._done += batch
        return RunMasks(found)

    def _of_part(self, places: Sequence[int], number: int, rows: np.ndarray) -> np.ndarray:
        return self._masks(places[number], rows)

    def _of_band(self, places: Sequence[int], band: range, number: int, rows: np.ndarray) -> np.ndarray:
        """Sum what all parties' seeds expand to on a band of some rows of one object."""
        index = places[number]
        binding = self._terms.bindings[index]
        found = self._manifests[binding.object]
        elements = found.column(binding.columns[0]).elements(1)

        out = np.empty((len(rows), len(band)), dtype=np.uint64)
        seeds = [shown[index][0] for shown in self._seeds.values()]
        for place, block, some in stretches(found.layout, rows, max(1, BAND_ELEMENTS // elements)):
            first, *others = (expand_band(each[block], elements, band, some) for each in seeds)
            out[place] = reduce(fp.add, others, first)
        return out

    def _masks(self, index: int, rows: np.ndarray) -> np.ndarray:
        """Sum what all parties' seeds expand to, column by column: some rows of one object."""
        binding = self._terms.bindings[index]
        found = self._manifests[binding.object]
        columns = []
        for number, name in enumerate(binding.columns):
            shape = found.column(name).shape
            shares = [
                gather(partial(expand_rows, shown[index][number].__getitem__, found.layout, shape), rows)
                for shown in self._seeds.values()
            ]
            total = shares[0]
            for share in shares[1:]:
                total = fp.add(total, share)
            columns.append(total)
        return join_columns(columns, (len(rows), sum(found.column(name).elements(1) for name in binding.columns)))

    def forget(self) -> None:
        """Forget every seed: the session is over."""
        self._seeds.clear()
