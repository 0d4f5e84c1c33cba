"""Tags that are dealt in a session whose runs are checked: everybody computes which, from the plan alone.

Every share that a gate computes with has one, so that whatever it opens, or leaves unopened, has one too: each field
value that is dealt is followed by a share of alpha times it, each bit by a word (`mpc.tags`).  The exceptions:

* the mask of what an owner enters, unless a gate computes with its shares: x^ itself is agreed on;
* what no party takes a share of, as the dealt half of noise;
* state, whose tags the run before has left.

What lies at the parties was masked before there was a key: tags of its masks are dealt with the entry that reads it.
"""

from __future__ import annotations

from mpc.encoding import field_size
from mpc.entry import EntryId
from mpc.gates.base import NO_GATE, Correlation, Gate, drawn_mask
from mpc.gates.input import Input
from mpc.plan.masking import used_masks
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES
from mpc.transcript import DIGEST_BYTES
from mpc.wires import Wires

ZERO, ZERO_WORD = "zero", "zero word"
"""Shares of nothing, under which a check's sums are told."""
SUMS_BYTES = 2 * field_size((1,))
"""One sum of field elements, one of words."""
CHECK_SIZES = (2 * DIGEST_BYTES, SEED_BYTES, DIGEST_BYTES, SUMS_BYTES + SEED_BYTES + DIGEST_BYTES)
"""Bytes of one party to each peer in the exchanges that check a run, one after another."""
CLOSING = (Correlation(ZERO, (1,), dependent=True), Correlation(ZERO_WORD, (1,), width=64, dependent=True))


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


def entry_tags(plan: Plan, entry: EntryId) -> dict[str, tuple[Correlation, ...]]:
    """Return all tags that the bundle of an entry has: of the weights, or of a run of a bound plan.

    A run's end with what closes its check.
    """
    needed = tagged_masks(plan)
    gates = plan.weights if entry.is_weights else plan.online
    found = {gate.name: gate_tags(gate, plan.wire, needed) for gate in gates}
    return found if entry.is_weights else found | {NO_GATE: CLOSING}


def dealt_tags(plan: Plan, entry: EntryId) -> dict[str, tuple[Correlation, ...]]:
    """Return the tags that are dealt with an entry of a plan: none, unless its runs are checked; see `entry_tags`."""
    return entry_tags(plan, entry) if plan.is_checked else {}


def word_bytes(plan: Plan, entry: EntryId) -> int:
    """Count the bytes of tags of bits among them: they stay as they are dealt, and are read in windows."""
    return sum(spec.size for specs in dealt_tags(plan, entry).values() for spec in specs if spec.width)


def tag_bytes(plan: Plan, entry: EntryId) -> int:
    """Count the bytes of tags that are dealt with an entry of a bound plan whose runs are checked."""
    return sum(spec.size for specs in entry_tags(plan, entry).values() for spec in specs)
