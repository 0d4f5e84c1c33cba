"""How much memory a plan may take, asked before any of it is taken."""

from __future__ import annotations

from mpc.compiler.plan import Plan
from mpc.cost import plan_cost, stored_bytes
from mpc.errors import PlanError
from parties.config import Limits

_PER_STORED_BYTE = 18
"""A weight is held masked, as a share, and in both layouts for products: 8 + 8 + 16 + 2 * 48 bytes for 8."""
_PER_HELD_BYTE = 3
"""Correlations are expanded, folded, and used beside temporary arrays of the same size."""


def check_plan(plan: Plan, limits: Limits) -> None:
    """`PlanError` if the plan's weights alone need more memory than is allowed."""
    if stored_bytes(plan) * _PER_STORED_BYTE > limits.max_memory_bytes:
        raise PlanError("the plan's weights need more memory than the limit", remedy="raise limits.max_memory_bytes")


def run_memory(plan: Plan, batch: int, limits: Limits) -> int:
    """Bytes that one run is granted; `PlanError` if the batch or its memory is over the limit."""
    if not 1 <= batch <= limits.max_batch:
        raise PlanError(
            f"a batch of {batch}; 1 to {limits.max_batch} are accepted",
            remedy="split the data, or raise limits.max_batch",
        )
    needed = plan_cost(plan, batch).held * _PER_HELD_BYTE
    if needed > limits.max_memory_bytes:
        raise PlanError(
            "this run needs more memory than the limit",
            remedy="use a smaller batch, or raise limits.max_memory_bytes",
        )
    return needed
