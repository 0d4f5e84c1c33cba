"""Units and offsets of inputs, from their declared ranges; and views, values of the model in units of their columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpc.compiler.graph.graph import Graph, GraphInput, Shape

_APART = 3
"""Columns whose sizes differ by less than this power of two share one unit."""
_FAR = 16.0
"""A range whose middle is so many times further from zero than from its ends gets an offset."""
_FINE = 3
"""Bits of half a range to which its middle is rounded, so that offsets are short numbers."""
_SMALL = -16
"""Columns that are all smaller than this power of two have units, too: a wire's fractional bits are limited."""
_LEAST_EXPONENT, _MOST_EXPONENT = -40, 60


@dataclass(frozen=True)
class View:
    """Describes a value of the model: read * weight + bias, arrays of its rank that vary along one axis at most.

    Args:
        unit: 2^unit is about the size of each column of `read`: 0 unless that holds whole numbers.
        secret: the bias holds constants of the model, not public offsets alone.
        kept: the weight or the bias holds constants of the model that are not told, where others are.
        product: a product of views; it has lost the one scale that an input was given for being read as it is.
    """

    read: str
    weight: np.ndarray
    bias: np.ndarray
    unit: np.ndarray
    secret: bool = False
    product: bool = False
    kept: bool = False

    def __post_init__(self) -> None:
        for name in ("weight", "bias", "unit"):  # of a number alone numpy makes a scalar, which is no array
            object.__setattr__(self, name, np.asarray(getattr(self, name)))

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.weight, self.bias, self.unit

    def map(self, read: str, move: Callable[[np.ndarray], np.ndarray]) -> View:
        return replace(self, read=read, weight=move(self.weight), bias=move(self.bias), unit=move(self.unit))


def encoded(given: GraphInput, beside: list[GraphInput]) -> GraphInput:
    """Give an input units, if the sizes of its columns, or of those of inputs that it is joined to, differ enough."""
    if given.stored is not None or given.state is not None:
        return given  # it is there in units of its own
    offset, exponent = _offset(given), _exponent(given)
    sizes = np.concatenate([np.atleast_1d(_exponent(other)) for other in beside])
    differ = np.ptp(sizes) >= _APART
    if not (differ or np.any(offset) or sizes.max() < _SMALL):
        return given
    unit = exponent if differ or exponent.ndim == 0 else np.full_like(exponent, exponent.max())
    return replace(given, offset=_plain(offset), exponent=_plain(unit))


def _plain(values: np.ndarray) -> Any:
    return tuple(values.tolist()) if values.ndim else values.item()


def _ends(given: GraphInput) -> tuple[np.ndarray, np.ndarray]:
    """The range's, rounded outwards as a narrow type may round what is entered."""
    low, high = (np.asarray(end, dtype=np.float64) for end in given.span)
    if given.whole:
        return low, high
    typed = [end.astype(given.dtype).astype(np.float64) for end in (low, high)]
    return np.minimum(low, typed[0]), np.maximum(high, typed[1])


def _offset(given: GraphInput) -> np.ndarray:
    """The middle of a range that is far from zero, to few bits; whole for whole numbers."""
    low, high = _ends(given)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 2.0**_LEAST_EXPONENT)
    grid = np.exp2(np.floor(np.log2(half)) - _FINE)
    if given.whole:
        grid = np.maximum(grid, 1.0)
    far = (high > low) & (np.abs(middle) > _FAR * half)  # a constant is taken as it is
    return np.where(far, np.rint(middle / grid) * grid, 0.0)


def _exponent(given: GraphInput) -> np.ndarray:
    """The power of two above the sizes of each column; a constant, which its offset is, takes the largest of others."""
    low, high = _ends(given)
    offset = _offset(given)
    size = np.maximum(np.abs(low - offset), np.abs(high - offset))
    size = np.where((low == high) & (size < 2.0**_LEAST_EXPONENT), size.max() or 1.0, size)
    exponent = np.ceil(np.log2(np.maximum(size, 2.0**_LEAST_EXPONENT)))
    return np.asarray(np.clip(exponent, _LEAST_EXPONENT, _MOST_EXPONENT))


def meeting(graph: Graph) -> dict[str, list[GraphInput]]:
    """Find inputs that are joined, side by side, before anything is computed with them; each with all of these."""
    inside: dict[str, set[str]] = {given.name: {given.name} for given in graph.inputs}
    groups: list[set[str]] = []
    for node in graph.nodes:
        if node.op in ("reshape", "transpose", "take", "concat"):
            inside[node.writes] = set[str]().union(*(inside.get(name, ()) for name in node.reads))
            if node.op == "concat":
                groups.append(inside[node.writes])
    together: dict[str, set[str]] = {}
    for group in groups:
        whole = group.union(*(together.get(name, ()) for name in group))
        together.update(dict.fromkeys(whole, whole))
    named = {given.name: given for given in graph.inputs}
    return {name: [named[other] for other in sorted(group)] for name, group in together.items()}


def entering(given: GraphInput) -> View:
    """View an input: reals enter in units of their columns, whole numbers in units of 1, stored ones as they are."""
    rank = len(given.shape)
    ends = (np.asarray(each, dtype=np.float64) for each in (given.exponent, given.offset))
    exponent, bias = (each.reshape((1,) * (rank - each.ndim) + each.shape) for each in ends)
    if given.whole:
        return View(given.name, np.ones_like(exponent), fewest(bias), fewest(exponent))
    if given.stored is not None:
        size = _exponent(given)
        sizes = size.reshape((1,) * (rank - size.ndim) + size.shape)
        return View(given.name, fewest(np.exp2(exponent)), fewest(bias), fewest(sizes - exponent))
    return View(given.name, fewest(np.exp2(exponent)), fewest(bias), zero(exponent))


def plainly(name: str, shape: Shape) -> View:
    ones = np.ones((1,) * len(shape))
    return View(name, ones, 0 * ones, 0 * ones)


def fewest(array: np.ndarray) -> np.ndarray:
    """Return the array with size 1 along every axis on which it does not vary."""
    for axis in range(array.ndim):
        first = array.take([0], axis=axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array


def zero(like: np.ndarray) -> np.ndarray:
    return np.zeros((1,) * like.ndim)


def along_one(view: View) -> bool:
    """Do weight, bias and units all vary along one axis, one and the same?"""
    axes = {axis for array in view.arrays for axis, size in enumerate(array.shape) if size > 1}
    return len(axes) <= 1
