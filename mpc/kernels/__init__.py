"""The compiled loops: everything that numpy would do in more than one pass over memory.

The only package that imports numba, and not before one of the loops is used.  All functions take
and return plain arrays whose lengths the callers have checked.  None of them branches on a secret
value, reads memory at a place that depends on one, or divides by one;
tests/unit/test_constant_time.py holds every one to that, so a new kernel says there which of its
arguments are secret.  Field elements are canonical ``uint64`` in ``[0, p)``, p = 2^61 - 1; bits
are ``uint8`` 0 or 1.

Constants are typed `np.uint64` throughout: numba promotes `uint64 + 0` to float64.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpc.kernels.arrays import (
        add,
        add_constant,
        add_received,
        count_not_canonical,
        mask_61,
        mul,
        scale,
        sub,
        sum_rows,
    )
    from mpc.kernels.comparing import deal_nodes, deal_thermometers, look_up, resolve_node, resolve_short_node
    from mpc.kernels.conjunctions import and_nodes, deal_and_nodes
    from mpc.kernels.products import (
        dot_rows,
        join_digits,
        matmul_thin,
        multiply_patches,
        multiply_windows,
        recombine,
        recombine_images,
        split_digits,
        split_images,
        split_limbs,
    )
    from mpc.kernels.scalar import P
    from mpc.kernels.selecting import choose, deal_selected, offset_columns, select
    from mpc.kernels.series import add_series, deal_waves
    from mpc.kernels.tagging import (
        and_words,
        dot,
        find_signs,
        find_words,
        fold_leaves,
        fold_words,
        number_blocks,
        pick_words,
        read_words,
        resolve_words,
        select_words,
        tag_words,
    )
    from mpc.kernels.tiles import gather_tiles, multiply_points, points_to_tiles, scatter_tiles, tiles_to_points

__all__ = [
    "P",
    "add",
    "add_constant",
    "add_received",
    "add_series",
    "and_nodes",
    "and_words",
    "choose",
    "count_not_canonical",
    "deal_and_nodes",
    "deal_nodes",
    "deal_selected",
    "deal_thermometers",
    "deal_waves",
    "dot",
    "dot_rows",
    "find_signs",
    "find_words",
    "fold_leaves",
    "fold_words",
    "gather_tiles",
    "join_digits",
    "look_up",
    "mask_61",
    "matmul_thin",
    "mul",
    "multiply_patches",
    "multiply_points",
    "multiply_windows",
    "number_blocks",
    "offset_columns",
    "pick_words",
    "points_to_tiles",
    "read_words",
    "recombine",
    "recombine_images",
    "resolve_node",
    "resolve_short_node",
    "resolve_words",
    "scale",
    "scatter_tiles",
    "select",
    "select_words",
    "split_digits",
    "split_images",
    "split_limbs",
    "sub",
    "sum_rows",
    "tag_words",
    "tiles_to_points",
]

DEALING = frozenset({"deal_and_nodes", "deal_nodes", "deal_selected", "deal_thermometers", "deal_waves"})
"""Loops that a provider uses and a party does not."""
EVALUATING = frozenset(
    {
        "add_received",
        "add_series",
        "and_nodes",
        "look_up",
        "offset_columns",
        "resolve_node",
        "resolve_short_node",
        "select",
        "select_words",
    }
)
"""Loops that a party uses and a provider does not."""
CHECKING = frozenset(
    {
        "and_words",
        "choose",
        "dot",
        "find_signs",
        "find_words",
        "fold_leaves",
        "fold_words",
        "multiply_patches",
        "number_blocks",
        "pick_words",
        "read_words",
        "resolve_words",
        "select_words",
        "tag_words",
    }
)
"""Loops for runs that are checked; nobody loads them beforehand."""


def load(unused: Set[str] = frozenset()) -> bool:
    """Load what was compiled, for every array type, so that no run waits for it.

    Args:
        unused: loops to leave out, besides those that check; one that is used all the same is loaded then.

    Returns:
        False if some of it was not there, or could not be read.
    """
    from mpc.kernels import caching

    loops = [_get(name) for name in __all__ if name not in unused | CHECKING]
    return all(caching.load(loop) for loop in loops if callable(loop))


def __getattr__(name: str) -> Any:
    """Load numba and all loops when the first one is used: who only compiles a model, or asks, does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _get(name)


def _get(name: str) -> Any:
    if name in globals():
        return globals()[name]
    from mpc.kernels import arrays, comparing, conjunctions, products, scalar, selecting, series, tagging, tiles

    for module in (arrays, comparing, conjunctions, products, scalar, selecting, series, tagging, tiles):
        globals().update({known: value for known, value in vars(module).items() if known in __all__})
    return globals()[name]
