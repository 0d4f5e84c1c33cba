"""Convolution: filters that are weights, or secrets of the run; see bilinear.py."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.convolution import Filters, convolve
from mpc.encoding import view_words
from mpc.gates.bilinear import Columned
from mpc.windows import Windows
from mpc.wires import Wires

_MOST_PADDED = 1 << 28


class Convolution(Columned):
    """z = x * second (+ bias): a convolution as neural networks mean it, which is a correlation.

    Shapes:   x (n, c, *sizes), second (o, c / groups, *kernel), out (n, o, *positions); bias broadcasts to out
    Scale:    out = x second = bias
    Deals:    derived mask: nothing; drawn mask: ax ay, shape of out
    Rounds:   1               Opens: out
    Error:    exact; needs |z| < 2^59
    """

    kind: ClassVar[str] = "convolution"
    windows: Windows

    def check_shapes(self, wires: Wires) -> None:
        x, y, out = (wires[name].shape for name in (self.x, self.second, self.out))
        axes, groups = len(self.windows.kernel), self.windows.groups
        channels, filters = x[1:2], y[:1]
        numbers = [d for d in (*x[1:], *y) if isinstance(d, int)]
        if not self.windows.fits or len(x) != axes + 2 or len(y) != axes + 2 or len(numbers) != 2 * axes + 3:
            raise self.refuse(f"{x} and {y} do not fit a kernel of {axes} axes")
        if y[2:] != self.windows.kernel or channels != (y[1] * groups,) or numbers[axes + 1] % groups:
            raise self.refuse(f"filters {y} in {groups} groups do not fit the input {x}")
        positions = self.windows.positions(tuple(numbers[1 : axes + 1]))
        if min(positions) < 1 or out != (x[0], *filters, *positions):
            raise self.refuse(f"the output has shape {out}, there are {positions} windows")
        padded = prod(n + sum(p) for n, p in zip(numbers[1 : axes + 1], self.windows.pads, strict=True))
        if padded * numbers[0] > _MOST_PADDED:
            raise self.refuse("the padding is too large")

    @property
    def layout(self) -> str:
        return f"{self.kind}/{self.name}"  # it depends on the windows too

    def over_integers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.windows.convolve(x, y)

    def lay_out(self, y: np.ndarray) -> Filters:
        return Filters(y, self.windows)

    def warm(self, y: Filters, x: tuple[int, ...], room: fp.Room) -> None:
        y.lay_out(x, room)

    def columns(self, wires: Wires) -> int:
        filters = wires[self.second].sizes[0]
        return filters if filters > self.windows.groups else 0

    def join_second(self, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        return self._join(y[None], by)[0]

    def join_result(self, z: np.ndarray, by: np.ndarray) -> np.ndarray:
        return self._join(z, by)

    def _join(self, values: np.ndarray, by: np.ndarray) -> np.ndarray:
        """Add up (n, filters, ..) by factors, the filters of each group to one: (n, groups, ..)."""
        groups = self.windows.groups
        out = fp.zeros((len(values), groups, *values.shape[2:]))
        rows = np.ascontiguousarray(values).reshape(*values.shape[:2], -1)
        factors, sums = by.reshape(groups, 1, -1), out.reshape(*out.shape[:2], -1)
        kernels.multiply_patches(view_words(factors), view_words(rows), sums)
        return out

    def over_field(self, x: np.ndarray, y: Filters, offset: np.ndarray | None = None) -> np.ndarray:
        return convolve(x, y, offset)
