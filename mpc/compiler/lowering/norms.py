"""Norms: what is proved of the elements along one axis together, where element by element much more would be possible.

A row that was divided by its deviation has a Euclidean norm of sqrt(n), whatever stands in it; the shares of a softmax
are one together.  A linear layer makes a row longer by its spectral norm at most, and an element of the result is the
product of two norms at most (Cauchy and Schwarz); a mean weighted by shares is no longer than what it is a mean of
(Hölder).  So what can be proved of a transformer does not grow from layer to layer, and its wires keep their digits.

All is in the model's units.  What would take long to find, a spectral norm, is found once something asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from mpc.compiler.lowering.intervals import Interval

Array = np.ndarray
_RELATIVE = 2.0**-14
"""By how much all that is computed here may be off, and a scale that is rounded, beside the norm."""
_SQUARINGS = 4
_LARGEST_GRAM = 2048
"""Rows or columns up to which a spectral norm is computed; for a larger weight its Euclidean norm is taken."""


@dataclass(frozen=True, eq=False)
class Image:
    """Vectors that are x weight + bias, times a factor.

    Args:
        of: norms of x.
        weight: (k, n); bias: (n,), or one number, or None.
        off: how far the weight that is used can be from this one, as a Euclidean norm.
        spectral: what has been computed: (k, n) in so many blocks of columns -> the spectral norm of each.
    """

    of: Norms
    weight: Array = field(repr=False)
    bias: Array | None = field(repr=False)
    off: float
    factor: float = 1.0
    spectral: dict[int, Array] = field(default_factory=dict, repr=False)

    def norms(self, blocks: int) -> Array:
        """Return the largest Euclidean norm of each of so many blocks of columns, on a last axis of that size."""
        if blocks not in self.spectral:
            parts = self.weight.reshape(len(self.weight), blocks, -1).transpose(1, 0, 2)
            self.spectral[blocks] = np.array([spectral_norm(part) for part in parts])
        shift = (
            np.zeros(self.weight.shape[1]) if self.bias is None else np.broadcast_to(self.bias, self.weight.shape[1])
        )
        shifts = np.linalg.norm(shift.reshape(blocks, -1), axis=-1)
        return abs(self.factor) * (self.of.euclidean * (self.spectral[blocks] + self.off) + shifts)


@dataclass(frozen=True, eq=False)
class Norms:
    """Bounds of the vectors along an axis, of the value's `static` shape but for that axis, which has size 1.

    Args:
        number: of elements of each.
        most: of their Euclidean norms, as far as it is found without effort.
        later: finds a bound of them that may be smaller.
        absolute: of the sums of their elements' sizes, if more is known of them than follows from other bounds.
        image: what the vectors are, if the axis is the last one: `later` asks it, and so do parts of them.
        off: by how much they are longer than the image.
        plain: all follows from the ends of intervals and from weights.
    """

    axis: int
    number: int
    most: Array
    later: Callable[[], Array] | None = None
    absolute: Array | None = None
    image: Image | None = None
    off: float = 0.0
    plain: bool = False

    @cached_property
    def euclidean(self) -> Array:
        """The least bound of the Euclidean norms that is known."""
        found = self.most
        if self.image is not None:
            found = np.minimum(found, self.image.norms(1) + self.off)
        return found if self.later is None else np.minimum(found, self.later())

    def rounded(self, unit: float) -> Norms:
        """Return bounds of the vectors if each element is off by a unit at most, and their scale by very little."""
        off = unit * math.sqrt(self.number)
        absolute = None if self.absolute is None else self.absolute * (1 + _RELATIVE) + unit * self.number
        moved = self.moved(lambda norms: norms * (1 + _RELATIVE) + off)
        image = self.image and replace(self.image, factor=self.image.factor * (1 + _RELATIVE))
        return replace(moved, absolute=absolute, image=image, off=self.off * (1 + _RELATIVE) + off)

    def times(self, factor: float) -> Norms:
        """Return bounds of the vectors times a number."""
        size = abs(factor)
        image = self.image and replace(self.image, factor=self.image.factor * factor)
        return replace(self.moved(lambda norms: norms * size), image=image, off=self.off * size)

    def plus(self, other: Norms) -> Norms:
        """Return bounds of sums of two vectors."""
        most, plain = self.most + other.most, self.plain and other.plain
        return Norms(self.axis, self.number, most, lambda: self.euclidean + other.euclidean, plain=plain)

    def longer(self, off: float) -> Norms:
        """Return bounds of the vectors plus others that are as long at most."""
        return self.plus(Norms(self.axis, self.number, np.full(self.most.shape, off), plain=True)) if off else self

    def moved(self, how: Callable[[Array], Array], axis: int | None = None, number: int | None = None) -> Norms:
        """Return these bounds as they are somewhere else, or of other vectors; their image is left behind."""
        absolute = None if self.absolute is None else how(self.absolute)
        return Norms(
            self.axis if axis is None else axis,
            self.number if number is None else number,
            how(self.most),
            lambda: how(self.euclidean),
            absolute,
            plain=self.plain,
        )

    def taken(self, axis: int, indices: tuple[int, ...]) -> Norms | None:
        """Return bounds of slices along an axis, -1 being zeros; None if elements of one vector may be repeated."""
        if axis != self.axis:
            return self.moved(lambda norms: norms.take(indices, axis=axis))
        once = [index for index in indices if index >= 0]
        return self.moved(lambda norms: norms, number=len(indices)) if len({*once}) == len(once) else None

    def parts(self, blocks: int) -> Norms:
        """Return bounds of so many parts of each vector, along an axis behind one for the parts."""
        image = self.image

        def split(norms: Array) -> Array:
            return np.repeat(norms[..., None], blocks, axis=-2)

        whole = self.moved(split, self.axis + 1, self.number // blocks)
        if image is None:
            return whole
        return replace(
            whole, later=lambda: np.minimum(split(self.euclidean), image.norms(blocks)[..., None] + self.off)
        )

    def joined(self) -> Norms:
        """Return bounds of the vectors of which these are the parts along the axis before."""
        blocks, absolute = self.most.shape[-2], self.absolute
        found = replace(self, absolute=None).moved(_joined, self.axis - 1, self.number * blocks)
        return found if absolute is None else replace(found, absolute=absolute[..., 0].sum(axis=-1, keepdims=True))


def reshaped(norms: Norms | None, before: tuple[int, ...], after: tuple[int, ...]) -> Norms | None:
    """Return bounds of a reshaped value, whose vectors stay, or come apart, or are joined with those beside them; None
    of other ones.
    """
    if norms is None or norms.axis != len(before) - 1 or not after:
        return None
    rest, size = before[:-1], before[-1]
    axis = len(after) - 1

    def placed(array: Array) -> Array:
        return array.reshape(*after[:-1], 1)

    if after[-1] == size:
        image = norms.image and replace(norms.image, of=norms.image.of.moved(placed, axis))
        return replace(norms.moved(placed, axis), image=image, off=norms.off)
    if axis and after[-2] * after[-1] == size:
        return norms.parts(after[-2]).moved(placed, axis)
    if rest and after[-1] == rest[-1] * size:
        return norms.joined().moved(placed, axis)
    return None


def _joined(norms: Array) -> Array:
    return np.sqrt(np.square(norms[..., 0]).sum(axis=-1, keepdims=True))


def by_elements(interval: Interval, scale: Fraction, axis: int) -> Norms:
    """Return what the sizes of elements say of the vectors along an axis."""
    sizes = interval.size / float(scale)
    most = np.linalg.norm(sizes, axis=axis, keepdims=True) * (1 + _RELATIVE)
    return Norms(axis, sizes.shape[axis], most, plain=True)


def spectral_norm(weight: Array) -> float:
    """Return how many times longer a vector can be behind a weight (k, n), a few percent more than that at most.

    The largest eigenvalue of a Gram matrix G is no larger than the root of order m of the Euclidean norm of G^m.
    """
    if min(weight.shape) > _LARGEST_GRAM:
        return float(np.linalg.norm(weight))
    largest = float(np.abs(weight).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    rows = weight / largest
    power = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    logarithm, order = 2 * math.log(largest), 1
    for squared in range(_SQUARINGS + 1):
        if squared:
            power, order = power @ power, 2 * order
        size = float(np.linalg.norm(power))
        power /= size
        logarithm += math.log(size) / order
    return math.exp(logarithm / 2) * (1 + _RELATIVE)
