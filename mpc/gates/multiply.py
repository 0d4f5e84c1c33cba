"""Multiply: element by element, a secret with a weight or with another secret; see bilinear.py."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.bilinear import Bilinear
from mpc.wires import Wires, broadcast


class Multiply(Bilinear):
    """z = x y, or z = x weight + bias.

    Shapes:   x, second, bias: broadcast to out   Scale: out = x second = bias
    Deals:    derived mask: nothing; drawn mask: ax ay, 8 bytes an element
    Rounds:   1               Opens: out
    Error:    exact; needs |z| < 2^59
    """

    kind: ClassVar[str] = "multiply"

    def check_shapes(self, wires: Wires) -> None:
        x, y, out = (wires[name].shape for name in (self.x, self.second, self.out))
        if broadcast(x, y) != out:
            raise self.refuse(f"{x} and {y} do not broadcast to {out}")

    def over_integers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x * y

    def over_field(self, x: np.ndarray, y: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
        product = fp.mul(x, y)
        return product if offset is None else fp.add(product, offset)
