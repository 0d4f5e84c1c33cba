"""Deal what every gate that compares needs: one set of tables, and an AND node for each look-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from mpc import kernels
from mpc.comparison import MAX_CHUNKS, Comparison
from mpc.gates.base import Correlation
from mpc.gates.readings import DealReading, PartyReading
from mpc.shares import WHOLE, BitShare, Pairs

Chunks = Annotated[int, Field(ge=1, le=MAX_CHUNKS)]
"""Into how many chunks a gate cuts its comparison; None: as suits runs that are not checked, see `Comparison`."""
Coarse = Annotated[int, Field(ge=0, le=57)]
"""Lowest bits of rounded values, of which a gate takes no notice when it compares them."""


TABLE = "table"
"""Names the dealt thermometers, of which a look-up reads a few bits."""


@dataclass(frozen=True, repr=False)
class Look:
    """One party's shares for one look-up in a dealt table: the mask of the leaf words, and the AND node's products."""

    mask: BitShare
    node: BitShare

    __secret__ = True


@dataclass(frozen=True, repr=False)
class Comparing:
    """One party's shares of a dealt table, and of what its look-ups need, in their order."""

    table: BitShare
    looks: tuple[Look, ...]

    __secret__ = True


def comparison_correlations(comparison: Comparison, size: int, looks: tuple[str, ...] = ("",)) -> list[Correlation]:
    """Return the table, and for each look-up its mask bits and the node's products.

    Several look-ups at different public positions of one table are safe: each opened bit has
    a mask of its own.
    """
    table, node = comparison.table_planes(size), comparison.node_planes(size)
    specs = [Correlation(TABLE, (comparison.table_bytes * size,), width=8, dependent=True, planes=table)]
    for look in looks:
        specs.append(Correlation(f"{look}leaf_mask", (size,), width=comparison.mask_width))
        products = (size, comparison.node_bytes)
        specs.append(Correlation(f"{look}node", products, width=8, dependent=True, planes=node))
    return specs


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
    kernels.deal_thermometers(values, first, second, c.bits, c.shifts, c.widths, run.others(TABLE), sign)
    for look, found in zip(looks, free, strict=True):
        mask = run.uniform(f"{look}leaf_mask")
        kernels.deal_nodes(mask, c.product_factors, c.leaf_width, run.others(f"{look}node"), found)
        found ^= sign
    return free


def take_comparison(run: PartyReading, looks: tuple[str, ...] = ("",)) -> Comparing:
    """Return this party's shares, once."""
    table = run.take_bits(TABLE)
    return Comparing(
        table, tuple(Look(run.take_bits(f"{look}leaf_mask"), run.take_bits(f"{look}node")) for look in looks)
    )
