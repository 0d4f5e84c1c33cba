"""Find of which wires somebody needs a share of the mask: everybody computes it, from the gates alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mpc.gates.base import Gate
from mpc.wires import Masking, Wires


def shared_masks(gates: Sequence[Gate], wires: Wires, carried: Collection[str] = ()) -> frozenset[str]:
    """Return the wires that are multiplied, or added to what is not opened, that have holders or are kept, that
    the next run reads, or that such ones are mapped from.  What is read late has holders, and counts for its use alone.

    Args:
        carried: wires that the next run reads.
    """
    late = {name for gate in gates if gate.awaits for name in gate.writes}
    held = {name for name, wire in wires.items() if wire.held}
    return used_masks(gates, wires, {*carried, *(held - late)})


def used_masks(gates: Sequence[Gate], wires: Wires, wanted: Collection[str]) -> frozenset[str]:
    """Return the wires of whose masks gates compute with shares, those that are wanted, and what either is mapped
    from."""
    needed = set(wanted)
    for gate in reversed(gates):
        joins = any(wires[name].masking is Masking.UNOPENED for name in gate.reads)
        if gate.needs_masks(wires) or joins or (gate.is_linear(wires) and needed.intersection(gate.writes)):
            needed.update(gate.reads)
    return frozenset(needed)
