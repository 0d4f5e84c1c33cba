"""Along which axis each compiled loop is cut into blocks, which `cores` has done at one time.

A loop whose arrays all begin with the same axis is given slices of them.  One whose long axis lies behind another
takes the whole arrays, and where to start and stop: slices would be arrays of another kind, for which it would have to
be compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc.kernels import cores
from mpc.kernels.tiles import STRIP

Loop = Callable[..., Any]
Cost = float | Callable[..., float]
"""Nanoseconds that an element takes, about: a number, or a function of the loop's arguments, of their shapes alone."""


@dataclass(frozen=True)
class Sliced:
    """A loop that is given slices.

    Args:
        loop: returns nothing, or a number that is added up.
        cut: of each argument, whether it is cut along its first axis.
    """

    loop: Loop
    cut: tuple[bool, ...]
    cost: Cost

    def __call__(self, *arguments: Any) -> Any:
        if cores.threads() == 1:
            return self.loop(*arguments)

        def work(start: int, stop: int) -> Any:
            parts = (each[start:stop] if cut else each for each, cut in zip(arguments, self.cut, strict=True))
            return self.loop(*parts)

        found = cores.in_blocks(work, len(arguments[self.cut.index(True)]), _cost(self.cost, arguments))
        return None if found[0] is None else sum(found)


@dataclass(frozen=True)
class Spanned:
    """A loop that is told where to start and stop.

    Args:
        loop: takes that behind its other arguments; returns nothing.
        argument, axis: which length is cut.
        grain: blocks begin at multiples of it.
    """

    loop: Loop
    argument: int
    axis: int
    cost: Cost
    grain: int = cores.GRAIN

    def __call__(self, *arguments: Any) -> None:
        size = arguments[self.argument].shape[self.axis]
        if cores.threads() == 1:
            self.loop(*arguments, 0, size)
            return
        cost = _cost(self.cost, arguments)
        cores.in_blocks(lambda start, stop: self.loop(*arguments, start, stop), size, cost, self.grain)


def _cost(cost: Cost, arguments: tuple[Any, ...]) -> float:
    return cost(*arguments) if callable(cost) else cost


def _chunks(per_chunk: float, pairs: int, chunks: int) -> Callable[..., float]:
    """Return the cost of a row of a loop over the pairs and chunks of comparisons, by the places of its arguments."""
    return lambda *arguments: per_chunk * arguments[pairs].size * (1 + arguments[chunks].size)


def _tiles(images: int, *factors: int) -> Callable[..., float]:
    """Return the cost of a channel of tiles: of each image 64 places of as many tiles as the factors say."""
    return lambda *arguments: float(
        100 * arguments[images].shape[0] * int(np.prod([arguments[place] for place in factors]))
    )


_SLICED: dict[str, tuple[str, Cost]] = {
    "add": ("a b out", 1.0),
    "add_constant": ("a - out", 1.0),
    "add_received": ("a b out", 1.2),
    "count_not_canonical": ("words", 0.8),
    "deal_nodes": ("mask - - node free", 6.0),
    "dot_rows": ("a b out", lambda a, *_: a.shape[1]),
    "mask_61": ("words", 0.8),
    "mul": ("a b out", 1.5),
    "multiply_patches": (
        "- patches sums",
        lambda filters, patches, _: 2.0 * filters.size * patches.shape[2],
    ),
    "pick_words": ("blocks places out", 1.0),
    "number_blocks": ("places blocks", 1.0),
    "resolve_node": ("opened mask node - - - public - out", 5.0),
    "resolve_short_node": ("opened mask node - public - out", 2.5),
    "resolve_words": ("opened masks node - - public - out", lambda opened, masks, node, *_: 1.0 + node.shape[1]),
    "scale": ("a - out", 1.5),
    "select_words": ("words opened - out", lambda words, *_: 1.0 * words.shape[1]),
    "settle": ("opened - public out", 4.0),
    "sub": ("a b out", 1.0),
    "tag_words": ("bits - share", lambda bits, *_: 1.0 * bits.shape[1]),
}
"""Of each loop its arguments, "-" for what is not cut, and its cost."""
_SPANNED: dict[str, tuple[int, int, Cost]] = {
    "add_series": (0, 0, lambda c, window, cosines, *_: 12.0 * cosines.size),
    "and_nodes": (0, 1, lambda bits, places, *_: 4.0 * places.shape[0]),
    "choose": (2, 0, 2.0),
    "deal_and_nodes": (0, 1, lambda bits, places, *_: 4.0 * places.shape[0]),
    "deal_selected": (0, 0, lambda r, *_: 8.0 * r.shape[1]),
    "deal_at_once": (
        0,
        1,
        lambda values, first, second, bits, shifts, widths, *_: 4.0 * first.size * (2**widths).sum(),
    ),
    "deal_thermometers": (0, 1, _chunks(1.0, 1, 5)),
    "deal_waves": (0, 0, lambda r, window, terms, *_: 12.0 * terms),
    "join_digits": (3, 0, 5.0),
    "look_up": (1, 1, _chunks(1.5, 2, 6)),
    "look_up_at_once": (1, 1, _chunks(4.0, 2, 6)),
    "matmul_thin": (1, 0, lambda a, *_: 1.0 * a.size),
    "multiply_points": (1, 2, lambda points, *_: 2.0 * points.size),
    "multiply_windows": (3, 0, lambda filters, x, *_: 1.0 * filters.size * x.shape[0]),
    "offset_columns": (0, 0, lambda public, *_: 4.0 * public.shape[1]),
    "read_words": (1, 1, lambda words, places, out: 2.0 * places.shape[0]),
    "recombine": (2, 0, 5.0),
    "select": (10, 0, lambda c, *_: 6.0 * c.shape[0]),
    "split_digits": (0, 0, 4.0),
    "split_limbs": (0, 0, 4.0),
    "sum_rows": (1, 0, lambda rows, out: 1.0 * rows.shape[0]),
}
"""Of each loop the argument and axis whose length is cut, and its cost."""
_TILES: dict[str, tuple[int, int, Cost, int]] = {
    "gather_tiles": (0, 1, _tiles(0, 5, 6), 1),
    "tiles_to_points": (0, 2, 100.0, STRIP),
    "points_to_tiles": (0, 2, 100.0, STRIP),
    "scatter_tiles": (6, 1, _tiles(6, 3, 4), 1),
}


def cut(name: str, loop: Loop) -> Loop:
    """Return what calls a loop block by block; the loop itself if it is one that only others call, or adds up."""
    if name in _SLICED:
        words, cost = _SLICED[name]
        return Sliced(loop, tuple(word != "-" for word in words.split()), cost)
    if name in _SPANNED:
        return Spanned(loop, *_SPANNED[name])
    return Spanned(loop, *_TILES[name]) if name in _TILES else loop
