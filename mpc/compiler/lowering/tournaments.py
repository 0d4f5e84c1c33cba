"""Find a maximum of many in groups, whose largest go on: as small as what that saves is worth their rounds.

All pairs of a group are compared at once, so a group of n takes n (n - 1) / 2 comparisons for n - 1 that leave; a
tournament of groups of two takes as few as there can be, and the most rounds.  Which groups are cheapest follows from
what each gate says that it opens and deals, whether runs are checked or not.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np

from mpc.compiler.graph.graph import static
from mpc.compiler.lowering.checked import is_direct, with_fewest_tags
from mpc.compiler.lowering.emitted import Value
from mpc.gates.base import Gate
from mpc.gates.maximum import Maximum
from mpc.plan.cost import gate_cost
from mpc.plan.tagging import gate_tags
from mpc.wires import Wire

ROUND_BYTES = 3 << 19
"""Weigh a round less as so many bytes more that are dealt for one inference."""
_SENT_BYTES = 4
"""Weigh a byte that is sent, while somebody waits for an answer, as so many that are dealt beforehand."""
MOST_CANDIDATES = 16
"""One gate compares no more of them, unless it looks for their place."""
_Priced = tuple[int, tuple[int, ...]]


def levels(x: Value, shift: int, dropped: int, rectify: bool, tagged: bool) -> tuple[int, ...]:
    """Return into how many groups a tournament puts what is left, level by level; the largest of the last are compared
    at once.

    Args:
        tagged: runs are checked.
    """
    windows = int(np.prod(static(x.shape[:-1]), dtype=np.int64))
    return _cheapest(int(x.shape[-1]), rectify, windows, x.wire.bits - shift, dropped, tagged)[1]


@cache
def _cheapest(
    n: int, rectify: bool, windows: int, bits: int, dropped: int, tagged: bool
) -> tuple[int, tuple[int, ...]]:
    """(what it is worth in bytes, the numbers of groups)."""
    found: list[tuple[int, tuple[int, ...]]] = []
    if n <= MOST_CANDIDATES:
        found.append((_worth(n, rectify, windows, bits, dropped, tagged), ()))
    for size in range(2, min(n - 1, MOST_CANDIDATES) + 1):
        groups = -(-n // size)
        if -(-n // groups) == size:  # else smaller groups are as many
            rest, more = _cheapest(groups, rectify, windows, bits, dropped, tagged)
            found.append((_worth(size, False, groups * windows, bits, dropped, tagged) + rest, (groups, *more)))
    return min(found)


def of_rows(
    lengths: tuple[int, ...], x: Value, windows: int, shift: int, dropped: int, tagged: bool
) -> tuple[int, ...]:
    """Return how large groups are, level by level, of a tournament in rows of such lengths; one of each row is left.

    Args:
        windows: how often there are these rows.
        tagged: runs are checked.
    """
    counted = tuple(sorted(Counter(lengths).items()))
    return _cheapest_of_rows(counted, windows, x.wire.bits - shift, dropped, tagged)[1]


@cache
def _cheapest_of_rows(
    counted: tuple[tuple[int, int], ...], windows: int, bits: int, dropped: int, tagged: bool
) -> tuple[int, tuple[int, ...]]:
    """(what it is worth in bytes, the sizes of groups), for so many rows of each length."""
    longest = counted[-1][0]
    if longest == 1:
        return 0, ()
    found: list[tuple[int, tuple[int, ...]]] = []
    for size in range(2, min(longest, MOST_CANDIDATES) + 1):
        left: Counter[int] = Counter()
        for length, rows in counted:
            left[-(-length // size)] += rows
        groups = sum(length * rows for length, rows in left.items())
        rest, more = _cheapest_of_rows(tuple(sorted(left.items())), windows, bits, dropped, tagged)
        found.append((_worth(size, False, groups * windows, bits, dropped, tagged) + rest, (size, *more)))
    return min(found)


@cache
def _worth(n: int, rectify: bool, windows: int, bits: int, dropped: int, tagged: bool) -> int:
    """Bytes for so many maxima of n, and what their rounds are worth."""
    gate = Maximum(
        name="m", x="x", value="v", shift=0, rectify=rectify, coarse=dropped, direct=tagged and is_direct(n, rectify)
    )
    wires = {
        "x": Wire(name="x", shape=(1, n), scale=1, bits=bits),
        "v": Wire(name="v", shape=(1, 1), scale=1, bits=bits),
    }
    if not tagged:
        cost = gate_cost(gate, wires)
        return windows * (cost.dealt + _SENT_BYTES * cost.sent) + ROUND_BYTES * cost.rounds
    [cut] = with_fewest_tags([gate], wires)
    return windows * _dealt(cut, wires) + ROUND_BYTES * gate_cost(cut, wires).rounds


def _dealt(gate: Gate, wires: dict[str, Wire]) -> int:
    tags = sum(spec.size for spec in gate_tags(gate, wires, frozenset()))
    return gate_cost(gate, wires).dealt + tags
