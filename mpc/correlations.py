"""What the provider deals to one party for one run: a seed, and for one party also corrections.

Every correlation is a named value shared among the parties.  All shares but the corrected
party's are expanded from seeds; the corrected party's share of a *dependent* value is sent.
A `Bundle` belongs to one session and one run, hands out each value once, and is expanded
before inputs exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mpc.encoding import digest
from mpc.errors import IntegrityError, LocalProtocolError, ReuseError
from mpc.gates.base import Correlation, Gate, Wires, mask_name
from mpc.prg import Draws, Seed, expand_field, expand_words
from mpc.shares import BitShare, Share


@dataclass(frozen=True)
class BundleId:
    """What every draw of a bundle is bound to: session, run (0: the session's weights), batch."""

    session: bytes
    run: int
    batch: int

    def draws(self, seed: Seed) -> Draws:
        """The draws of one party's seed for this bundle."""
        return Draws(seed, "bundle", self.session, self.run, self.batch)


def corrected_party(bundle: BundleId, parties: int) -> int:
    """Who receives the corrections of this run; it rotates, so that links share the load."""
    return bundle.run % parties


def sub_seed(draws: Draws, gate: Gate, correlation: Correlation) -> Seed:
    """The sub-seed of one correlation; its context names gate, value and holders."""
    return draws.sub_seed(gate.name, correlation.name, *correlation.holders)


def expand(seed: Seed, correlation: Correlation, out: np.ndarray | None = None) -> np.ndarray:
    """A party's share of a uniform value, or an uncorrected party's of a dependent one; in `out` if it is given."""
    if correlation.width:
        return expand_words(seed, correlation.shape, correlation.width, out)
    return expand_field(seed, correlation.shape, out)


LEAF_BYTES = 1 << 20


def leaves(corrections: bytes | memoryview) -> Iterator[memoryview]:
    """What is hashed apart: pieces of 1 MiB, the last one shorter."""
    view = memoryview(corrections)
    return (view[start : start + LEAF_BYTES] for start in range(0, len(view), LEAF_BYTES))


def leaf_digest(leaf: bytes | memoryview) -> bytes:
    """Of one piece; several threads may compute several."""
    return digest("mpc/v1/corrections/leaf", leaf)


def joined_digest(size: int, digests: Iterable[bytes]) -> bytes:
    """How the provider's manifest names `size` bytes of corrections, from the digests of their leaves."""
    return digest("mpc/v1/corrections", size, *digests)


def corrections_digest(corrections: bytes | memoryview) -> bytes:
    """The same, in one."""
    return joined_digest(len(corrections), map(leaf_digest, leaves(corrections)))


class Bundle:
    """One party's correlations for one run, expanded; every value leaves it once.

    Args:
        corrections: this party's shares of all dependent values in plan order, or None if
            another party is corrected.

    Raises:
        IntegrityError: the corrections are longer or shorter than the plan says.
        EncodingError: one of them is not the canonical encoding of anything.
    """

    def __init__(
        self, bundle: BundleId, seed: Seed, gates: Iterable[Gate], wires: Wires, corrections: bytes | memoryview | None
    ) -> None:
        draws = bundle.draws(seed)
        self.id = bundle
        self._values: dict[tuple[str, str], np.ndarray] = {}
        self._widths: dict[tuple[str, str], int] = {}
        self._mask_seeds: dict[str, Seed] = {}
        view, position = memoryview(b"" if corrections is None else corrections), 0
        for gate in gates:
            for correlation in gate.correlations(wires):
                key = (gate.name, correlation.name)
                self._widths[key] = correlation.width
                if correlation.dependent and corrections is not None:
                    end = position + correlation.size
                    if end > len(view):
                        raise IntegrityError("the dealt corrections are shorter than the plan says")
                    self._values[key] = correlation.decode(view[position:end])
                    position = end
                    continue
                seed_of_value = sub_seed(draws, gate, correlation)
                self._values[key] = expand(seed_of_value, correlation)
                if correlation.holders:
                    self._mask_seeds[correlation.name] = seed_of_value
        if position != len(view):
            raise IntegrityError("the dealt corrections are longer than the plan says")

    def __repr__(self) -> str:
        return f"<Bundle run={self.id.run} values={len(self._values)}>"

    def _take(self, gate: str, name: str) -> np.ndarray:
        key = (gate, name)
        if key not in self._widths:
            raise LocalProtocolError(f"gate {gate} was dealt no {name!r}")
        if key not in self._values:
            raise ReuseError(f"correlation {gate}/{name} was taken before")
        return self._values.pop(key)

    def take(self, gate: str, name: str) -> Share:
        """This party's share of a dealt field value, once."""
        return Share(self._take(gate, name))

    def take_bits(self, gate: str, name: str) -> BitShare:
        """This party's share of dealt bits, once."""
        return BitShare(self._take(gate, name), self._widths[(gate, name)])

    def held_seeds(self) -> list[tuple[str, Seed]]:
        """(wire, sub-seed) of every held wire, to compare with the provider's manifest; gives nothing out."""
        return [(name.removeprefix(mask_name("")), seed) for name, seed in self._mask_seeds.items()]

    def mask_seed(self, wire: str) -> Seed:
        """The sub-seed of a held wire's mask, for its owner or recipient; once.

        Raises:
            ReuseError: it was given out before.
        """
        name = mask_name(wire)
        if name not in self._mask_seeds:
            raise ReuseError(f"the mask of wire {wire} is nobody's, or was given out before")
        return self._mask_seeds.pop(name)
