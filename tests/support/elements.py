"""Elements of F_p that find mistakes: edges, and limbs that push sums as far as they go."""

from __future__ import annotations

import numpy as np

from mpc.field import P

EDGES = sorted(
    {0, 1, 2, 3, P - 1, P - 2, P >> 1, (P >> 1) + 1, (1 << 60) - 1, 1 << 60, (1 << 60) + 1}
    | {(1 << k) + d for k in (19, 20, 31, 32, 39, 40, 52, 53, 59) for d in (-1, 0, 1)}
)


def from_limbs(l0: int, l1: int, l2: int) -> int:
    return (l0 + (l1 << 20) + (l2 << 40)) % P


# the representatives furthest from zero in every limb, and combinations with the largest sums
LIMB_EXTREMES = [
    from_limbs(l0, l1, l2)
    for l0 in (-(1 << 19), 1 - (1 << 19), 0, (1 << 19) - 1)
    for l1 in (-(1 << 19), 1 - (1 << 19), 0, (1 << 19) - 1)
    for l2 in (1 - (1 << 20), 2 - (1 << 20), 0, (1 << 20) - 1)
]


def adversarial(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Elements that push an accumulator as far as possible in one direction."""
    if kind == "random":
        return rng.integers(0, P, size=shape, dtype=np.uint64)
    pools = {
        "p-1": [P - 1],
        "half": [1 << 60, (1 << 60) - 1, P >> 1],  # most positive representatives
        "just over half": [(1 << 60) + 1, (1 << 60)],  # most negative, most positive
        "edges": EDGES,
        # odd limbs of one sign near their largest sum: inexact as soon as 2^53 is passed
        "negative limbs": [
            from_limbs(1 - (1 << 19), 1 - (1 << 19), 1 - (1 << 20)),
            from_limbs(3 - (1 << 19), 2 - (1 << 19), 5 - (1 << 20)),
        ],
        "extremes": LIMB_EXTREMES,
    }
    return np.array(pools[kind], dtype=np.uint64)[rng.integers(0, len(pools[kind]), size=shape)]


KINDS = ["random", "p-1", "half", "just over half", "edges", "negative limbs", "extremes"]
