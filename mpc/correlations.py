"""Hold what the provider deals to one party for one run: a seed, and for one party also corrections.

Every correlation is a named value shared among the parties.  All shares but the corrected
party's are expanded from seeds; the corrected party's share of a *dependent* value is sent.
A `Bundle` belongs to one session and one run, hands out each value once, and is expanded
before inputs exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Protocol, Self

import numpy as np
from blake3 import blake3

from mpc import kernels
from mpc.encoding import canonical, view_words
from mpc.entry import WEIGHTS, EntryId
from mpc.errors import IntegrityError, LocalProtocolError, ReuseError
from mpc.gates.base import NO_GATE, Correlation, Gate, mask_name
from mpc.prg import Draws, Seed, WordStream, expand_field, expand_words
from mpc.shares import BitShare, Share
from mpc.wires import PlanWires, Wires


@dataclass(frozen=True)
class BundleId:
    """The names that every draw of a bundle is bound to: session, entry, batch (1 for weights, which have none)."""

    session: bytes
    entry: EntryId
    batch: int

    @classmethod
    def of_weights(cls, session: bytes) -> Self:
        """Name the bundle of a session's weights."""
        return cls(session, WEIGHTS, 1)

    @classmethod
    def of_run(cls, session: bytes, run: int, batch: int) -> Self:
        """Name the bundle of one run: 1, 2, 3, ..."""
        return cls(session, EntryId(run), batch)

    def draws(self, seed: Seed) -> Draws:
        """Return the draws of one party's seed for this bundle."""
        return Draws(seed, "bundle", self.session, self.entry.number, self.batch)

    def digest_key(self, seed: Seed) -> Seed:
        """Derive the key of `CorrectionsDigest` from the corrected party's seed: only it and the provider have that."""
        return seed.derive("corrections-digest", self.session, self.entry.number, self.batch)


Tags = Mapping[str, Sequence[Correlation]]
"""Gate's name -> what is dealt behind its own correlations, so that a run can be checked.

`NO_GATE`, before all gates, is no gate's name.
"""
NO_TAGS: Tags = {}


_FEW_WIRES = 1 << 10
"""Wires of a plan of which this is kept: a larger one takes long for other things, and has much to keep."""


def dealt_for(gate: Gate, wires: Wires) -> tuple[Correlation, ...]:
    """Return what is dealt for a gate, in the order of its bytes; over a small plan's own wires it is computed once."""
    if not isinstance(wires, PlanWires) or len(wires) > _FEW_WIRES:
        return gate.correlations(wires)
    known = wires.declared.get(id(gate))
    if known is None or known[0] is not gate:
        wires.declared[id(gate)] = known = (gate, gate.correlations(wires))  # the gate itself: its id stays its own
    found: tuple[Correlation, ...] = known[1]
    return found


def dealt_values(gates: Iterable[Gate], wires: Wires, tags: Tags = NO_TAGS) -> Iterator[tuple[str, Correlation]]:
    """Yield (name of the gate, correlation) of all that is dealt, in the order of its bytes."""
    for correlation in tags.get(NO_GATE, ()):
        yield NO_GATE, correlation
    for gate in gates:
        for correlation in (*dealt_for(gate, wires), *tags.get(gate.name, ())):
            yield gate.name, correlation


def corrected_party(bundle: BundleId, parties: int) -> int:
    """Return the party that receives the corrections of this bundle; it rotates, so that links share the load."""
    return bundle.entry.number % parties


def sub_seed(draws: Draws, gate: str, correlation: Correlation) -> Seed:
    """Return the sub-seed of one correlation; its context names gate, value and holders."""
    return draws.sub_seed(gate, correlation.name, *correlation.holders)


def expand(seed: Seed, correlation: Correlation, out: np.ndarray | None = None) -> np.ndarray:
    """Return a party's share of a uniform value, or an uncorrected party's of a dependent one; in `out` if it is
    given.
    """
    if correlation.width:
        return expand_words(seed, correlation.shape, correlation.width, out)
    return expand_field(seed, correlation.shape, out)


class CorrectionsDigest:
    """How the provider names a segment's corrections: keyed BLAKE3, fed with their bytes as they are dealt or arrive.

    The manifest is shown to all parties and to clients, and corrections are a function of plain values and of the other
    parties' shares.  Without the key whoever holds those shares could compute the digest that belongs to a guess of the
    data, and compare.

    Args:
        key: the bundle's `digest_key` of the corrected party.
        size: bytes of all of them.
        segment: of the bundle, whose corrections they are; the first is 0.
    """

    def __init__(self, key: Seed, size: int, segment: int = 0) -> None:
        self._hash = blake3(canonical("mpc/v3/corrections", segment, size), key=key.secret)

    def update(self, part: bytes | memoryview) -> None:
        """Append the bytes that follow."""
        self._hash.update(part)

    @property
    def value(self) -> bytes:
        """Return the digest of all so far, 32 bytes."""
        return self._hash.digest()


class Corrections(Protocol):
    """Corrections that are here, or on their way."""

    @property
    def size(self) -> int:
        """Bytes of all of them."""

    def read(self, start: int, stop: int) -> memoryview:
        """Return some of the bytes, of one segment; wait until they are here."""


@dataclass(frozen=True)
class Whole:
    """Corrections that are all here."""

    data: bytes | memoryview

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int) -> memoryview:
        return memoryview(self.data)[start:stop]


@dataclass(frozen=True, repr=False)
class Words:
    """One party's share of many words in a row, of which a few are enough at a time; they may lie at odd addresses.

    Args:
        at: returns those at some places; any, at a place below 0.
        part: returns those from a place on, up to another one.
        size: how many there are.
    """

    at: Callable[[np.ndarray], np.ndarray]
    part: Callable[[int, int], np.ndarray]
    size: int

    __secret__ = True


class Bundle:
    """One party's correlations for one run; every value leaves it once, and is expanded or read when it does.

    Args:
        corrections: this party's shares of all dependent values in plan order, or None if
            another party is corrected.
        tags: what is dealt besides, if runs are checked.

    Raises:
        IntegrityError: the corrections are longer or shorter than the plan says.
    """

    def __init__(
        self,
        bundle: BundleId,
        seed: Seed,
        gates: Iterable[Gate],
        wires: Wires,
        corrections: Corrections | bytes | memoryview | None,
        tags: Tags = NO_TAGS,
    ) -> None:
        draws = bundle.draws(seed)
        self.id = bundle
        self._specs: dict[tuple[str, str], Correlation] = {}
        self._seeds: dict[tuple[str, str], Seed] = {}
        self._starts: dict[tuple[str, str], int] = {}
        self._mask_seeds: dict[str, Seed] = {}
        self._kept_seeds: dict[str, Seed] = {}
        self._corrections = Whole(corrections) if isinstance(corrections, bytes | memoryview) else corrections
        position = 0
        for name, correlation in dealt_values(gates, wires, tags):
            key = (name, correlation.name)
            self._specs[key] = correlation
            if correlation.dependent and self._corrections is not None:
                self._starts[key] = position
                position += correlation.size
                continue
            self._seeds[key] = sub_seed(draws, name, correlation)
            if correlation.kept:
                self._kept_seeds[correlation.name] = self._seeds[key]
            if correlation.holders:
                self._mask_seeds[correlation.name] = self._seeds[key]
        found = position if self._corrections is None else self._corrections.size
        if found != position:
            longer = "longer" if found > position else "shorter"
            raise IntegrityError(f"the dealt corrections are {longer} than the plan says")

    def __repr__(self) -> str:
        return f"<Bundle of {self.id.entry} values={len(self._seeds) + len(self._starts)}>"

    def has(self, gate: str, name: str) -> bool:
        """Was this dealt, taken already or not?"""
        return (gate, name) in self._specs

    def spec(self, gate: str, name: str) -> Correlation:
        """Return the declaration of what was dealt."""
        return self._specs[gate, name]

    def _take(self, gate: str, name: str) -> tuple[Correlation, np.ndarray]:
        key = (gate, name)
        spec = self._specs.get(key)
        if spec is None:
            raise LocalProtocolError(f"gate {gate} was dealt no {name!r}")
        if key in self._seeds:
            return spec, expand(self._seeds.pop(key), spec)
        if key not in self._starts or self._corrections is None:
            raise ReuseError(f"correlation {gate}/{name} was taken before")
        start = self._starts.pop(key)
        sent = self._corrections.read(start, start + spec.size) if spec.size else b""  # none lies in no segment
        return spec, spec.decode(sent)

    def take(self, gate: str, name: str) -> Share:
        """Return this party's share of a dealt field value, once.

        Raises:
            EncodingError: what was dealt is not the canonical encoding of anything.
        """
        return Share(self._take(gate, name)[1])

    def take_bits(self, gate: str, name: str) -> BitShare:
        """Return this party's share of dealt bits, once; raises as `take`."""
        spec, values = self._take(gate, name)
        return BitShare(values, spec.width)

    def take_words(self, gate: str, name: str) -> Words:
        """Return this party's share of dealt words of 64 bits, some of them or all, once; raises as `take`."""
        key = (gate, name)
        spec, seed = self._specs.get(key), self._seeds.get(key)
        if spec is not None and seed is not None:
            del self._seeds[key]
            stream = WordStream(seed)
            return Words(stream.at, stream.part, prod(spec.shape))
        if spec is None or key not in self._starts or self._corrections is None:
            self._take(gate, name)  # says why it cannot
            raise LocalProtocolError(f"what gate {gate} was dealt as {name!r} are no words")
        start = self._starts.pop(key)
        whole = view_words(np.frombuffer(self._corrections.read(start, start + spec.size), dtype="<u8"))
        return Words(partial(_read_words, whole), lambda i, j: whole[i:j], whole.size)

    def held_seeds(self) -> list[tuple[str, Seed]]:
        """Return (wire, sub-seed) of every held wire, to compare with the provider's manifest; gives nothing out."""
        held = {**self._mask_seeds, **self._kept_seeds}
        return [(name.removeprefix(mask_name("")), seed) for name, seed in held.items()]

    def kept_seed(self, wire: str) -> Seed:
        """Return this party's own sub-seed of the mask of an output that stays at the parties; once.

        Raises:
            ReuseError: it is not to be kept, or was given before.
        """
        name = mask_name(wire)
        if name not in self._kept_seeds:
            raise ReuseError(f"the mask of wire {wire} is not to be kept, or is kept already")
        return self._kept_seeds.pop(name)

    def mask_seed(self, wire: str) -> Seed:
        """Return the sub-seed of a held wire's mask, for its owner or recipient; once.

        Raises:
            ReuseError: it was given out before.
        """
        name = mask_name(wire)
        if name not in self._mask_seeds:
            raise ReuseError(f"the mask of wire {wire} is nobody's, or was given out before")
        return self._mask_seeds.pop(name)


def _read_words(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the words at some places, of any shape; any, at a place below 0."""
    out = np.empty(places.shape, dtype=np.uint64)
    rows = max(1, len(places)) if places.ndim > 1 else 1
    kernels.read_words(words, np.ascontiguousarray(places).reshape(rows, -1), out.reshape(rows, -1))
    return out
