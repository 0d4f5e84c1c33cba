"""Objects that lie at the parties of an in-process cluster, put there by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpc import field as fp
from mpc.prg import Seed, expand_field
from parties.agreed.objects import Manifest, Schema
from parties.agreed.signed import Signed, key_of
from parties.trust.identity import Identity
from tests.support.objects import blocks


@dataclass
class Shelf:
    """What one party keeps: the same x^ as the others, and seeds of its own."""

    manifests: dict[bytes, Manifest] = field(default_factory=dict)
    statements: dict[bytes, Signed] = field(default_factory=dict)
    seeds: dict[tuple[bytes, str, int], Seed] = field(default_factory=dict)
    public: dict[tuple[bytes, str, int], np.ndarray] = field(default_factory=dict)

    def manifest(self, object_id: bytes) -> Manifest:
        return self.manifests[object_id]

    def signed(self, object_id: bytes) -> Signed:
        return self.statements[object_id]

    def owner_key(self, object_id: bytes) -> bytes:
        return key_of(self.statements[object_id].certificate)

    def seed(self, object_id: bytes, column: str, block: int) -> Seed:
        return self.seeds[object_id, column, block]

    def rows(self, object_id: bytes, column: str, block: int, start: int, stop: int) -> np.ndarray:
        return self.public[object_id, column, block][start:stop]


def put(shelves: Sequence[Shelf], owner: Identity, plain: Schema, values: Mapping[str, np.ndarray]) -> Manifest:
    """Mask a table of integers, and lay it on every shelf."""
    rng = np.random.default_rng(plain.rows)
    seeds: dict[tuple[str, int], list[Seed]] = {}
    public: dict[tuple[str, int], np.ndarray] = {}
    for block, part in enumerate(blocks(values)):
        for name, integers in part.items():
            seeds[name, block] = [Seed(rng.bytes(32)) for _ in shelves]
            total = fp.from_signed(integers)
            for seed in seeds[name, block]:
                total = fp.add(total, expand_field(seed, integers.shape))
            public[name, block] = total
    commitments = {
        column.name: [[s.commitment() for s in seeds[column.name, b]] for b in range(plain.block_count)]
        for column in plain.columns
    }
    made = Manifest.of(plain, commitments, rng.bytes(32))
    for index, shelf in enumerate(shelves):
        shelf.manifests[made.id] = made
        shelf.statements[made.id] = made.sign(owner)
        for key, values_of in public.items():
            shelf.public[made.id, *key] = values_of
            shelf.seeds[made.id, *key] = seeds[key][index]
    return made
