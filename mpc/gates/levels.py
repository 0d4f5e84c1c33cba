"""Compare one value with several public levels, by a look-up for each in one dealt table, as several gates do."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from mpc import field as fp
from mpc import truncation
from mpc.comparison import Comparison
from mpc.gates.base import Gate
from mpc.gates.compare import Bits, Comparing, compare, deal_comparison
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import BitShare, Share
from mpc.wires import MAX_BITS, Wire


def compared_bits(x: Wire, levels: Sequence[int]) -> int:
    """Return the bound of x - level, in bits, with room for its rounding."""
    return x.bits + (2 if any(levels) else 1)


def looks_of(levels: Sequence[int]) -> tuple[str, ...]:
    """Name the look-ups, in the order of the levels."""
    return tuple(f"{place}:" for place in range(len(levels)))


def require_levels(gate: Gate, x: Wire, levels: Sequence[int], shift: int) -> None:
    """Require levels within the bound of x, and a shift that leaves bits to compare; PlanError if they are not."""
    bits = compared_bits(x, levels)
    if bits > MAX_BITS or max(map(abs, levels)) >= 1 << x.bits:
        raise gate.refuse("a level lies outside the input's bound, or that leaves no room")
    if shift >= bits:
        raise gate.refuse("the shift leaves no bits")


def above_in_the_clear(run: ClearReading, name: str, levels: Sequence[int], shift: int) -> list[np.ndarray]:
    """Return [x >= level] for each level, int64 of the shape of x, on values rounded by 2^shift."""
    x, coin, bits = run.value(name), run.coin(name), compared_bits(run.wires[name], levels)
    rounded = (truncation.reference(x - level, truncation.moved(coin, -level), bits, shift) for level in levels)
    return [(each >= 0).astype(np.int64) for each in rounded]


def deal_levels(run: DealReading, name: str, comparison: Comparison, levels: Sequence[int], shift: int) -> np.ndarray:
    """Deal for the comparisons of x; the plain bits under which they are opened, (levels, elements) uint8."""
    r1, _ = truncation.mask_parts(run.mask(name).reshape(1, -1), shift)
    return deal_comparison(run, comparison, r1, looks=looks_of(levels))


def above(
    run: PartyReading, name: str, comparison: Comparison, levels: Sequence[int], shift: int, kept: Comparing
) -> Generator[tuple[Share | BitShare, ...], tuple[np.ndarray, ...], list[Bits]]:
    """Open the leaf words of all levels in one round; return the bits [x >= level], level by level."""
    public, bits = run.public(name).reshape(-1), compared_bits(run.wires[name], levels)
    rounded = (truncation.offset(fp.add_int(public, -level), bits) >> np.uint64(shift) for level in levels)
    found = yield from compare(run.lane, comparison, kept, [each.reshape(1, -1) for each in rounded])
    return found
