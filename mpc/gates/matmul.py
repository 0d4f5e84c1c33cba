"""Matmul: matrix products, of a secret with a weight or with another secret; see bilinear.py."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.bilinear import Columned
from mpc.wires import Dimension, Wires, broadcast


class Matmul(Columned):
    """z = x y, or z = x weight + bias; stacks of matrices broadcast as numpy's do.

    Shapes:   x (..., m, k) or (k), second (..., k, n), out (..., m, n) or (n); bias broadcasts to out
    Scale:    out = x second = bias
    Deals:    derived mask: nothing; drawn mask: ax ay, shape of out
    Rounds:   1               Opens: out
    Error:    exact; needs |z| < 2^59
    """

    kind: ClassVar[str] = "matmul"

    def check_shapes(self, wires: Wires) -> None:
        x, y, out = (wires[name].shape for name in (self.x, self.second, self.out))
        if len(y) < 2 or not x or x[-1] != y[-2]:
            raise self.refuse(f"shapes {x} and {y} do not multiply")
        if not isinstance(x[-1], int):
            raise self.refuse("a sum over the batch")
        expected: tuple[Dimension, ...] | None
        if len(x) == 1:
            expected = y[-1:] if len(y) == 2 else None
        else:
            stacked = broadcast(x[:-2], y[:-2])
            expected = None if stacked is None else (*stacked, x[-2], y[-1])
        if out != expected:
            raise self.refuse(f"shapes {x} and {y} do not multiply to {out}")

    def over_integers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x @ y

    def lay_out(self, y: np.ndarray) -> fp.Operand:
        return fp.Operand(y)

    def lay_out_public(self, y: np.ndarray) -> fp.Operand:
        return fp.Operand(y, public=True)

    def warm(self, y: fp.Operand, x: tuple[int, ...], room: fp.Room) -> None:
        stack = y.values.shape[:-2]
        y.lay_out(rows=prod(np.broadcast_shapes(x[:-2], stack)) * prod(x[-2:-1]) // prod(stack), room=room)

    def columns(self, wires: Wires) -> int:
        size = wires[self.second].sizes[-1]
        return size if size > 1 else 0

    def join_second(self, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        return _join(y, by)

    def join_result(self, z: np.ndarray, by: np.ndarray) -> np.ndarray:
        return _join(z, by)

    def over_field(self, x: np.ndarray, y: fp.Operand, offset: np.ndarray | None = None) -> np.ndarray:
        if x.ndim > 1:
            return fp.matmul(x, y, offset)
        return fp.matmul(x[None], y, None if offset is None else offset[None])[0]


def _join(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Add up the last axis, by factors; it stays with size 1."""
    rows = np.ascontiguousarray(values).reshape(-1, by.size)
    return fp.matmul(by[None], fp.Operand(rows.T))[0].reshape(*values.shape[:-1], 1)
