"""The compiled loops: everything that numpy would do in more than one pass over memory.

The only package that imports numba, and not before one of the loops is used.  All functions take
and return plain arrays whose lengths the callers have checked.  None of them branches on a secret
value, reads memory at a place that depends on one, or divides by one;
tests/unit/test_constant_time.py holds every one to that, so a new kernel says there which of its
arguments are secret.  Field elements are canonical ``uint64`` in ``[0, p)``, p = 2^61 - 1; bits
are ``uint8`` 0 or 1.

Each of them is one loop, on one thread; what has this name here cuts its arrays into blocks, for as many threads as may
compute (`cores`, `cutting`).

Constants are typed `np.uint64` throughout: numba promotes `uint64 + 0` to float64.
"""

from __future__ import annotations

from collections.abc import Callable, Set
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
    )
    from mpc.kernels.at_once import settle
    from mpc.kernels.nodes import deal_nodes, resolve_node, resolve_short_node
    from mpc.kernels.products import dot_rows, multiply_patches, recombine_images, split_images
    from mpc.kernels.scalar import P
    from mpc.kernels.tagging import (
        and_words,
        dot,
        find_signs,
        find_words,
        fold_leaves,
        fold_words,
        number_blocks,
        pick_words,
        resolve_words,
        select_words,
        tag_words,
    )

    Spanned = Callable[..., None]
    add_series: Spanned
    and_nodes: Spanned
    choose: Spanned
    deal_and_nodes: Spanned
    deal_at_once: Spanned
    deal_selected: Spanned
    deal_thermometers: Spanned
    deal_waves: Spanned
    gather_tiles: Spanned
    join_digits: Spanned
    look_up: Spanned
    look_up_at_once: Spanned
    matmul_thin: Spanned
    multiply_points: Spanned
    multiply_windows: Spanned
    offset_columns: Spanned
    points_to_tiles: Spanned
    read_words: Spanned
    recombine: Spanned
    scatter_tiles: Spanned
    select: Spanned
    split_digits: Spanned
    split_limbs: Spanned
    sum_rows: Spanned
    tiles_to_points: Spanned

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
    "deal_at_once",
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
    "look_up_at_once",
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
    "settle",
    "split_digits",
    "split_images",
    "split_limbs",
    "sub",
    "sum_rows",
    "tag_words",
    "tiles_to_points",
]

DEALING = frozenset(
    {"deal_and_nodes", "deal_at_once", "deal_nodes", "deal_selected", "deal_thermometers", "deal_waves"}
)
"""Loops that a provider uses and a party does not."""
EVALUATING = frozenset(
    {
        "add_received",
        "add_series",
        "and_nodes",
        "look_up",
        "look_up_at_once",
        "offset_columns",
        "resolve_node",
        "resolve_short_node",
        "select",
        "settle",
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

    loops = [loop(name) for name in __all__ if name not in unused | CHECKING]
    return all(caching.load(each) for each in loops if callable(each))


def __getattr__(name: str) -> Any:
    """Load numba and all loops when the first one is used: who only compiles a model, or asks, does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _get(name)


def loop(name: str) -> Any:
    """Return what was compiled of this name, which computes all in one thread; or the constant."""
    from mpc.kernels import (
        arrays,
        at_once,
        comparing,
        conjunctions,
        nodes,
        products,
        scalar,
        selecting,
        series,
        tagging,
        tiles,
    )

    modules = (arrays, at_once, comparing, conjunctions, nodes, products, scalar, selecting, series, tagging, tiles)
    return next(vars(module)[name] for module in modules if name in vars(module))


def _get(name: str) -> Any:
    if name in globals():
        return globals()[name]
    from mpc.kernels import cutting

    globals().update({known: cutting.cut(known, loop(known)) for known in __all__})
    return globals()[name]
