"""Deal what every gate that compares needs, and open what its comparisons find: in two rounds or, at once, in one."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mpc import kernels
from mpc.comparison import MAX_CHUNKS, Comparison
from mpc.gates.base import Correlation, Opening
from mpc.gates.readings import DealReading, PartyReading
from mpc.shares import WHOLE, BitShare, Lane, Pairs, Share

Chunks = Annotated[int, Field(ge=1, le=MAX_CHUNKS)]
"""Into how many chunks a gate cuts its comparison; None: as suits runs that are not checked, see `Comparison`."""
Coarse = Annotated[int, Field(ge=0, le=57)]
"""Lowest bits of rounded values, of which a gate takes no notice when it compares them."""
Bits = Any
"""Bits under masks: shares of them (`BitShare`), or what all parties have opened (`np.ndarray`); both have an xor."""
TABLE = "table"
"""Ends the names of dealt tables, of which a look-up reads a few bits."""


@dataclass(frozen=True, repr=False)
class Look:
    """One party's shares for one look-up in a dealt table: the mask of the leaf words, and the AND node's products.

    Args:
        node: None where there is none, since the bit is opened at once.
    """

    table: BitShare
    mask: BitShare
    node: BitShare | None

    __secret__ = True


@dataclass(frozen=True, repr=False)
class Comparing:
    """One party's shares of what look-ups need, in their order; opened at once, each has a table of its own."""

    looks: tuple[Look, ...]

    __secret__ = True


def comparison_correlations(comparison: Comparison, size: int, looks: tuple[str, ...] = ("",)) -> list[Correlation]:
    """Return the table, and for each look-up its mask bits and the node's products; at once a table for each look-up.

    Several look-ups at different public positions of one table are safe: each opened bit has
    a mask of its own.
    """
    planes = comparison.table_planes(size)
    table = Correlation(TABLE, (comparison.table_bytes * size,), width=8, dependent=True, planes=planes)
    if comparison.at_once:
        masks = [Correlation(f"{look}leaf_mask", (size,), width=comparison.mask_width) for look in looks]
        return [*masks, *(_renamed(table, look) for look in looks)]
    specs, node = [table], comparison.node_planes(size)
    for look in looks:
        specs.append(Correlation(f"{look}leaf_mask", (size,), width=comparison.mask_width))
        products = (size, comparison.node_bytes)
        specs.append(Correlation(f"{look}node", products, width=8, dependent=True, planes=node))
    return specs


def _renamed(table: Correlation, look: str) -> Correlation:
    return Correlation(f"{look}{TABLE}", table.shape, width=8, dependent=True, planes=table.planes)


def compared(
    comparison: Comparison, leaves: tuple[Opening, ...], bits: tuple[Opening, ...]
) -> tuple[tuple[Opening, ...], ...]:
    """Return the rounds in which these are opened: the leaf words of a comparison at once say what the bits are."""
    return (leaves,) if comparison.at_once else (leaves, bits)


def deal_comparison(
    run: DealReading, comparison: Comparison, values: np.ndarray, pairs: Pairs = WHOLE, looks: tuple[str, ...] = ("",)
) -> np.ndarray:
    """Deal for the differences of pairs of rows of plain values (n, rows).

    Returns:
        the plain bits under which the results are opened, (looks, pairs * rows) uint8: each the free bit xor the
        difference's bit above those that are compared.
    """
    first, second = pairs
    size = first.size * values.shape[1]
    free, sign = np.empty((len(looks), size), dtype=np.uint8), np.empty(size, dtype=np.uint8)
    c = comparison
    if not c.at_once:
        kernels.deal_thermometers(values, first, second, c.bits, c.shifts, c.widths, run.others(TABLE), sign)
    for look, found in zip(looks, free, strict=True):
        mask = run.uniform(f"{look}leaf_mask")
        if c.at_once:
            table = run.others(f"{look}{TABLE}").reshape(size, c.table_bytes)
            kernels.deal_at_once(values, first, second, c.bits, c.shifts, c.widths, mask, table, sign, found)
        else:
            kernels.deal_nodes(mask, c.product_factors, c.leaf_width, run.others(f"{look}node"), found)
        found ^= sign
    return free


def take_comparison(run: PartyReading, comparison: Comparison, looks: tuple[str, ...] = ("",)) -> Comparing:
    """Return this party's shares, once."""
    if comparison.at_once:
        return Comparing(
            tuple(Look(run.take_bits(f"{look}{TABLE}"), run.take_bits(f"{look}leaf_mask"), None) for look in looks)
        )
    table = run.take_bits(TABLE)
    return Comparing(
        tuple(Look(table, run.take_bits(f"{look}leaf_mask"), run.take_bits(f"{look}node")) for look in looks)
    )


def resolved(lane: Lane, comparison: Comparison, opened: np.ndarray, look: Look, public: np.ndarray) -> Bits:
    """Return a comparison's bit under its mask, xor a public one, from the opened leaf words.

    It is this party's share of it, or the bit itself where the words tell it.
    """
    if look.node is not None:
        return lane.resolve(comparison, opened, look.mask, look.node, public)
    found = np.empty(opened.shape, dtype=np.uint8)
    kernels.settle(opened, comparison.chunks, public, found)
    return found


def compare(
    lane: Lane,
    comparison: Comparison,
    kept: Comparing,
    values: Sequence[np.ndarray],
    pairs: Pairs = WHOLE,
    flips: Sequence[int] = (),
) -> Generator[tuple[Share | BitShare, ...], tuple[np.ndarray, ...], list[Bits]]:
    """Open the leaf words of all look-ups, each at public values (n, rows), in one round; return their bits.

    Args:
        flips: public bits, of which each is added to all that its look-up finds.
    """
    found = [
        lane.look_up(comparison, look.table, places, look.mask, pairs)
        for look, places in zip(kept.looks, values, strict=True)
    ]
    leaves = yield tuple(leaf for leaf, _ in found)
    return [
        resolved(lane, comparison, leaf, look, sign ^ np.uint8(flip))
        for leaf, look, (_, sign), flip in zip(leaves, kept.looks, found, flips or [0] * len(found), strict=True)
    ]


def tell(bits: tuple[Bits, ...]) -> Generator[tuple[Share | BitShare, ...], tuple[np.ndarray, ...], tuple[Bits, ...]]:
    """Open bits, in a round of their own, unless they were opened at once."""
    if all(isinstance(bit, np.ndarray) for bit in bits):
        return bits
    return (yield bits)
