"""Stored wires of a session, at this party: rows of objects that lie here, and seeds of their masks.

The terms say which objects, columns and rows.  Whether they may be read is asked elsewhere (`policy`, the owners'
grants); here they are held to the plan: owner, scale and range are what the plan says.  Nothing is exchanged for them:
x^ is on the disk, and of its mask each party expands its own share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from blake3 import blake3

from mpc.encoding import view_field
from mpc.errors import HandshakeError, InputError, IntegrityError
from mpc.plan.plan import Plan
from mpc.prg import Seed
from mpc.shares import Masked, Share
from mpc.stored import BAND_ELEMENTS, AtRest, expand_band, expand_rows, gather, join_columns, read_rows, stretches
from parties.agreed.bindings import (
    Binding,
    check_bindings,
    check_columns,
    gather_parts,
    parts_of,
    rows_of,
    run_rows,
    same_seeds,
    spread,
)
from parties.agreed.objects import Manifest
from parties.agreed.refreshing import refreshed
from parties.agreed.signed import Signed
from parties.agreed.succession import require_succession
from parties.agreed.terms import Terms
from parties.party.vault.vault import Vault


class Bands:
    """Bands of the rows that a run reads, each read when somebody asks for it, and not held.

    Args:
        parts: what all of them are bound to.
        rows: of the run, counted over all parts.
        places: of each wire's elements in a row.
    """

    def __init__(self, vault: Vault, parts: Sequence[Binding], rows: np.ndarray, places: Mapping[str, range]) -> None:
        self._vault, self._parts, self._rows, self.places = vault, parts, rows, places
        self._manifests = {each.object: vault.manifest(each.object) for each in parts}

    def __repr__(self) -> str:
        return f"<Bands wires={len(self.places)}>"

    @cached_property
    def digests(self) -> dict[str, bytes]:
        """BLAKE3 of x^ of each wire; all of it is read once."""
        states = {wire: blake3() for wire in self.places}
        for _, binding, block, rows in self._stretches():
            found = self._read(binding, block, rows)
            for wire, places in self.places.items():
                states[wire].update(view_field(np.ascontiguousarray(found[:, places.start : places.stop])))
        return {wire: state.digest() for wire, state in states.items()}

    def public(self, wire: str) -> np.ndarray:
        """Return x^ of a wire; `IntegrityError` if it is not what it was when all of it was read."""
        places = self.places[wire]
        out = np.empty((len(self._rows), len(places)), dtype=np.uint64)
        for place, binding, block, rows in self._stretches():
            out[place] = self._read(binding, block, rows)[:, places.start : places.stop]
        if blake3(view_field(out)).digest() != self.digests[wire]:
            raise IntegrityError("what lies at this party was altered while a run was reading it")
        return out

    def mask(self, wire: str) -> Share:
        """Return this party's share of the mask of a wire."""
        places = self.places[wire]
        out = np.empty((len(self._rows), len(places)), dtype=np.uint64)
        for place, binding, block, rows in self._stretches():
            seed = self._vault.seed(binding.object, binding.columns[0], block)
            out[place] = expand_band(seed, self._elements(binding), places, rows)
        return Share(out)

    def _elements(self, binding: Binding) -> int:
        return self._manifests[binding.object].column(binding.columns[0]).elements(1)

    def _read(self, binding: Binding, block: int, rows: range) -> np.ndarray:
        found = self._vault.rows(binding.object, binding.columns[0], block, rows.start, rows.stop)
        return found.reshape(len(rows), -1)

    def _stretches(self) -> Iterator[tuple[slice, Binding, int, range]]:
        """Yield (places among the run's rows, whose they are, a block, its rows)."""
        for number, some, where in spread(self._parts, self._rows):
            binding, first = self._parts[number], int(where[0])
            most = max(1, BAND_ELEMENTS // self._elements(binding))
            for place, block, rows in stretches(self._manifests[binding.object].layout, some, most):
                yield slice(first + place.start, first + place.stop), binding, block, rows


@dataclass(frozen=True)
class Band:
    """One of them, as a run asks for it."""

    wire: str
    bands: Bands

    @property
    def public(self) -> np.ndarray:
        """x^, read now."""
        return self.bands.public(self.wire)

    @property
    def mask(self) -> Share:
        """This party's share of the mask, expanded now."""
        return self.bands.mask(self.wire)

    @property
    def agreed(self) -> bytes:
        """Digest of x^."""
        return self.bands.digests[self.wire]


class StoredRows:
    """Stored wires of one session, at this party.

    Raises:
        HandshakeError: the terms do not bind each stored wire of the plan.
        InputError: an object is not there, or not what the plan reads, or not what its program goes on from.
    """

    def __init__(self, plan: Plan, terms: Terms, vault: Vault) -> None:
        check_bindings(plan, terms.bindings)
        self._plan, self._terms, self._vault = plan, terms, vault
        self._weights = {gate.out for gate in plan.stored if gate.is_weight}
        self._rows = rows_of(plan, terms.bindings)
        self._manifests = {binding.object: vault.manifest(binding.object) for binding in terms.bindings}
        require_succession(plan, terms.bindings, self._manifests)
        self._done = 0
        for binding in terms.bindings:
            self._require(binding, self._manifests[binding.object])
        for gate in plan.stored:
            whose = {self._manifests[each.object].owner for each in parts_of(terms.bindings, gate.out)}
            if whose != {*plan.wire[gate.out].holders}:
                raise InputError("the plan reads rows of owners of whom nothing is bound", remedy="bind rows of each")

    def __repr__(self) -> str:
        return f"<StoredRows wires={len(self._terms.bindings)}>"

    # -- what the provider is shown

    def objects(self) -> list[Signed]:
        """List the manifests of what is bound, each once, as their owners signed them."""
        return [self._vault.signed(object_id) for object_id in self._manifests]

    def seeds(self) -> list[list[Seed]]:
        """List this party's seeds of the blocks that are bound, by binding, and of no other block; of bands of the same
        rows once."""
        shown = same_seeds(self._plan, self._terms.bindings)
        return [
            [
                self._vault.seed(binding.object, column, block)
                for column in binding.columns
                for block in self._manifests[binding.object].layout.blocks(binding.first, binding.rows)
                if shown[index] == index
            ]
            for index, binding in enumerate(self._terms.bindings)
        ]

    # -- what is computed on

    def weights(self) -> dict[str, Masked]:
        """Return the stored weights, by wire."""
        return {
            binding.wire: self._masked(binding.wire, np.arange(1), self._plan.wire[binding.wire].sizes)
            for binding in self._terms.bindings
            if binding.wire in self._weights
        }

    def run(self, bound: Plan, batch: int, run: int) -> dict[str, AtRest]:
        """Return the rows that a run reads, by wire; runs follow one another.  Bands of them are read when they are
        asked for.

        Raises:
            InputError: the run would go beyond the last row.
        """
        if self._rows is None:
            return {}
        rows = run_rows(self._plan, run, batch, self._done, self._rows)
        wires = {each.wire for each in self._terms.bindings} - self._weights
        found: dict[str, AtRest] = {}
        apart: dict[tuple[Binding, ...], dict[str, range]] = {}
        for wire in wires.intersection(bound.wire):
            sizes = bound.wire[wire].sizes
            if wire not in bound.bands:
                found[wire] = self._masked(wire, rows, sizes)
                continue
            parts = tuple(replace(each, wire="") for each in parts_of(self._terms.bindings, wire))
            apart.setdefault(parts, {})[wire] = range(bound.bands[wire], bound.bands[wire] + sizes[-1])
        for parts, places in apart.items():
            bands = Bands(self._vault, parts, rows, places)
            found |= {wire: Band(wire, bands) for wire in places}
        self._done += batch
        return found

    def _masked(self, wire: str, rows: np.ndarray, sizes: tuple[int, ...]) -> Masked:
        """Return rows of a wire, counted over all that it is bound to."""
        parts = parts_of(self._terms.bindings, wire)
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def read(which: int) -> Callable[[int, np.ndarray], np.ndarray]:
            def part(number: int, some: np.ndarray) -> np.ndarray:
                if number not in found:
                    found[number] = self._part(parts[number], some)
                return found[number][which]

            return part

        public, masks = (gather_parts(parts, rows, read(which)) for which in (0, 1))
        return Masked(public.reshape(sizes), Share(masks.reshape(sizes)))

    def _part(self, binding: Binding, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x^ and this party's share of the mask of some rows of an object, its columns side by side."""
        found, vault, object_id = self._manifests[binding.object], self._vault, binding.object
        public, masks = [], []
        for name in binding.columns:

            def seed(block: int, name: str = name) -> Seed:
                return vault.seed(object_id, name, block)

            def read(block: int, start: int, stop: int, name: str = name) -> np.ndarray:
                return vault.rows(object_id, name, block, start, stop)

            public.append(gather(partial(read_rows, read, found.layout), rows))
            masks.append(gather(partial(expand_rows, seed, found.layout, found.column(name).shape), rows))
        sizes = (len(rows), sum(found.column(name).elements(1) for name in binding.columns))
        return join_columns(public, sizes), join_columns(masks, sizes)

    # -- is it what the plan reads?

    def _refreshes(self) -> bool:
        """Does the session mask all of one object anew, and nothing else?"""
        keeps = self._terms.keeps
        return bool(keeps) and refreshed(keeps[0], self._plan, self._terms, self._manifests) is not None

    def _require(self, binding: Binding, found: Manifest) -> None:
        wire = self._plan.wire[binding.wire]
        if found.owner not in wire.holders:
            raise InputError(f"{found.name} is not {' or '.join(wire.holders)}'s, whose data the plan reads")
        if found.parties != self._terms.parties:
            raise HandshakeError(f"{found.name} lies at other parties than this session's")
        if binding.first + binding.rows > found.rows:
            raise InputError(
                f"{found.name} has {found.rows} rows, and rows {binding.first} to "
                f"{binding.first + binding.rows - 1} are asked for",
                remedy="bind rows that there are, counted from 0",
            )
        columns = [found.column(name) for name in binding.columns]
        if found.plan is not None and binding.wire not in self._weights and not self._refreshes():
            raise InputError(f"{found.name} is a model, and its weights are no data", remedy="bind a dataset")
        if binding.wire in self._weights:
            if [column.shape for column in columns] != [wire.sizes] or columns[0].scale != wire.scale:
                raise InputError(f"{found.name}: {columns[0].name!r} is not the weight that the plan reads")
            if max(-columns[0].low, columns[0].high) * wire.scale >= 1 << wire.bits:
                raise InputError(f"{found.name}: {columns[0].name!r} may be larger than the plan's bounds allow")
            return
        given = next(given for given in self._plan.inputs if binding.wire in given.wires)
        check_columns(given, wire.shape[1:], wire.scale, columns, found.name)
