"""Find which gates act within a row: what they write of row i follows from row i of what they read, and no other.

A list of its own, by kinds of gates and their axes.  `verify` asks whether shapes fit, and by that alone x x' and a
reshape that mixes rows are good plans.  The batch is the first axis of every wire that has one and occurs once; no
gate but the sum over rows touches it.  A kind that is not listed is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.gates.bilinear import Bilinear
from mpc.gates.linear import Total, Weigh
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.scatter import Scatter
from mpc.wires import BATCH, Wire, Wires


def check_within(gate: Gate, wires: Wires) -> None:
    """Refuse a gate that reads single rows and may let them meet.

    Raises:
        PlanError: naming the gate, and how it mixes rows.
    """
    for name in (*gate.reads, *gate.writes):
        shape = wires[name].shape
        if BATCH in shape[1:]:
            raise refuse(gate, f"the rows are not the first axis of {name!r} alone")
    for name in gate.writes:
        if not has_rows(wires[name]):
            raise refuse(gate, f"{name!r} has no rows any more, without a sum over rows")
    rule = RULES.get(gate.kind)
    if rule is None:
        raise refuse(gate, "nothing is known of what it does to rows")
    problem = rule(gate, wires)
    if problem:
        raise refuse(gate, problem)


def has_rows(wire: Wire) -> bool:
    """Return whether a wire's first axis is the batch."""
    return wire.shape[:1] == (BATCH,)


def refuse(gate: Gate, problem: str) -> PlanError:
    """Return the error for a gate before noise."""
    return PlanError(
        f"gate {gate.name!r} ({gate.kind}) lets rows of different people meet before noise is added: {problem}",
        cause="an answer is noised for what one person's rows can change; of rows that meet nothing is proved",
        remedy="compute within each row, sum over the rows, and do everything else after the noise",
    )


def _alone(gate: Gate, wires: Wires) -> str | None:
    """Element by element, or along axes that are not the rows' in any case."""
    return None


def _broadcast(gate: Gate, wires: Wires) -> str | None:
    """Operands are laid beside each other from their last axis on: only equal ranks lay rows beside rows."""
    rank = len(wires[gate.writes[0]].shape)
    if any(has_rows(wires[name]) and len(wires[name].shape) != rank for name in gate.reads):
        return "it lays rows beside another axis"
    return None


def _last_axis(gate: Gate, wires: Wires) -> str | None:
    return "it compares the rows with each other" if len(wires[gate.reads[0]].shape) < 2 else None


def _weigh(gate: Weigh, wires: Wires) -> str | None:
    return "it tells rows apart" if gate.axis == 0 else None


def _take(gate: Take | Concat | Scatter, wires: Wires) -> str | None:
    return "it moves rows" if gate.axis == 0 else None


def _total(gate: Total, wires: Wires) -> str | None:
    return "it sums rows" if 0 in gate.axes else None


def _reshape(gate: Reshape, wires: Wires) -> str | None:
    return "it moves rows" if gate.axes is not None and gate.axes[0] != 0 else None


def _matmul(gate: Bilinear, wires: Wires) -> str | None:
    x, y = wires[gate.x], wires[gate.second]
    if has_rows(x) and len(x.shape) < 2 or has_rows(y) and len(y.shape) < 3:
        return "it multiplies rows with each other and sums"
    if has_rows(x) and has_rows(y) and len(x.shape) != len(y.shape):
        return "it lays rows beside another axis"
    return None


def _convolution(gate: Bilinear, wires: Wires) -> str | None:
    return "its filters are rows" if has_rows(wires[gate.second]) else None


RULES: dict[str, Callable[..., str | None]] = {
    "between": _alone,
    "bound": _alone,
    "combine": _broadcast,
    "concat": _take,
    "convolution": _convolution,
    "fourier": _alone,
    "matmul": _matmul,
    "maximum": _last_axis,
    "multiply": _broadcast,
    "onehot": _alone,
    "open": _alone,
    "pieces": _alone,
    "relu": _alone,
    "reshape": _reshape,
    "scatter": _take,
    "select": _alone,
    "step": _alone,
    "take": _take,
    "total": _total,
    "truncate": _alone,
    "weigh": _weigh,
}
