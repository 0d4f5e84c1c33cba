"""Tags that are dealt in a session whose runs are checked: everybody computes which, from the plan alone.

Every share that a gate computes with has one, so that whatever it opens, or leaves unopened, has one too: each field
value that is dealt is followed by a share of alpha times it, each bit by a word (`mpc.tags`).  The exceptions:

* the mask of what an owner enters, unless a gate computes with its shares: x^ itself is agreed on;
* what no party takes a share of, as the dealt half of noise;
* state, whose tags the run before has left.

What lies at the parties was masked before there was a key: tags of its masks are dealt with the entry that reads it.
"""

from __future__ import annotations

from mpc.gates.base import Correlation, Gate, drawn_mask
from mpc.gates.input import Input
from mpc.plan.masking import used_masks
from mpc.plan.plan import Plan
from mpc.wires import Wires


def tag_of(value: Correlation) -> Correlation:
    """Return the declaration of a dealt value's tag: a field element each, or a word for each bit that can be 0 or 1.

    Words of words with constant bits are in a row: plane by plane, word by word, from the lowest bit on.
    """
    shape = (*value.shape, value.width) if value.width else value.shape
    if value.planes:
        shape = (sum(plane.bits for plane in value.planes),)
    return Correlation(tag_name(value.name), shape, width=64 if value.width else 0, dependent=True)


def tag_name(name: str) -> str:
    """Return the name of the tag of a value."""
    return f"tag:{name}"


def tagged_masks(plan: Plan) -> frozenset[str]:
    """Return the wires of whose masks gates compute with shares, or that hand them to such ones or to the next run."""
    first = {state.init for state in plan.states if state.init is not None}
    return used_masks(plan.online, plan.wire, plan.carried | first)


def gate_tags(gate: Gate, wires: Wires, needed: frozenset[str]) -> tuple[Correlation, ...]:
    """Return the tags that are dealt behind a gate's own correlations.

    Args:
        needed: as `tagged_masks` says of the plan.
    """
    if not isinstance(gate, Input):
        return tuple(tag_of(value) for value in gate.correlations(wires) if not value.hidden)
    if gate.out not in needed or gate.is_public(wires) or gate.is_state:
        return ()
    return (tag_of(drawn_mask(wires[gate.out])),)
