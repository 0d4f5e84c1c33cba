"""What every gate that compares deals: one set of tables, and an AND node for each look-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpc import kernels
from mpc.comparison import Comparison
from mpc.gates.base import Correlation

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer


def comparison_correlations(comparison: Comparison, size: int, looks: tuple[str, ...] = ("",)) -> list[Correlation]:
    """The table, and for each look-up its mask bits and the node's products.

    Several look-ups at different public positions of one table are safe: each opened bit has
    a mask of its own.
    """
    specs = [Correlation("table", (comparison.chunks, size), width=64, dependent=True)]
    for look in looks:
        specs.append(Correlation(f"{look}leaf_mask", (size,), width=comparison.mask_width))
        specs.append(Correlation(f"{look}node", (size, comparison.node_bytes), width=8, dependent=True))
    return specs


def deal_comparison(run: Dealer, comparison: Comparison, r: np.ndarray, looks: tuple[str, ...] = ("",)) -> np.ndarray:
    """Deal for `r`, flat; returns the plain free bits, one row a look-up (flat for one)."""
    table = np.empty((comparison.chunks, r.size), dtype=np.uint64)
    kernels.thermometers(r, comparison.shifts, comparison.widths, table)
    run.dependent("table", table)
    free = []
    for look in looks:
        mask = run.uniform(f"{look}leaf_mask")
        run.dependent(f"{look}node", comparison.products(mask))
        free.append(comparison.free_bit(mask))
    return free[0] if len(looks) == 1 else np.stack(free)


def sign_bit(values: np.ndarray, comparison: Comparison) -> np.ndarray:
    """The bit just above those that are compared, uint8."""
    return ((values >> np.uint64(comparison.bits)) & np.uint64(1)).astype(np.uint8)
