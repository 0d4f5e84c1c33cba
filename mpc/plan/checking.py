"""What a checked run adds to a plan: the sizes of its check, and all tags that are dealt with an entry."""

from __future__ import annotations

from mpc.encoding import field_size
from mpc.entry import EntryId
from mpc.gates.base import NO_GATE, Correlation
from mpc.plan.plan import Plan
from mpc.plan.tagging import gate_tags, tagged_masks
from mpc.prg import SEED_BYTES
from mpc.transcript import DIGEST_BYTES

ZERO, ZERO_WORD = "zero", "zero word"
"""Shares of nothing, under which a check's sums are told."""
SUMS_BYTES = 2 * field_size((1,))
"""One sum of field elements, one of words."""
CHECK_SIZES = (2 * DIGEST_BYTES, SEED_BYTES, DIGEST_BYTES, SUMS_BYTES + SEED_BYTES + DIGEST_BYTES)
"""Bytes of one party to each peer in the exchanges that check a run, one after another."""
CLOSING = (Correlation(ZERO, (1,), dependent=True), Correlation(ZERO_WORD, (1,), width=64, dependent=True))


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
