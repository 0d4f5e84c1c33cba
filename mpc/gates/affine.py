"""Affine: a masked matrix times a secret, masked weight matrix; see bilinear.py for the masks.

    [z] + [r] = x^ [w] - [ax] w^ + [s] + [b]

[w] = w^ [1] - [aw] is split into limbs once a session; -[ax] w^ + [s] + [b] is offline work;
online a party does the one product x^ [w] and opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.base import Evaluation, Name, Wires
from mpc.gates.bilinear import Bilinear
from mpc.shares import Share

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Affine(Bilinear):
    """z = x w + b.

    Shapes:   x (..., k), weight (k, n), bias (n), out (..., n)
    Scale:    out = x weight = bias
    Deals:    derived mask: nothing; drawn mask: ax aw, shape of out
    Rounds:   1               Opens: out
    Error:    exact; needs |z| < 2^59
    """

    kind: ClassVar[str] = "affine"
    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias")
    x: Name
    weight: Name
    bias: Name | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        return self.reads[1:]

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, weight, out = wires[self.x], wires[self.weight], wires[self.out]
        if len(weight.shape) != 2 or not x.shape or x.shape[-1] != weight.shape[0]:
            raise self.refuse(f"shapes {x.shape} and {weight.shape} do not multiply")
        if out.shape != (*x.shape[:-1], weight.shape[1]):
            raise self.refuse(f"the output has shape {out.shape}")
        if self.bias is not None:
            bias = wires[self.bias]
            if bias.shape != weight.shape[1:] or bias.scale != out.scale:
                raise self.refuse("the bias does not have the output's columns and scale")

    def reference(self, run: Reference) -> None:
        z = run.value(self.x) @ run.value(self.weight)
        run.set(self.out, z + run.value(self.bias) if self.bias else z)

    def deal(self, run: Dealer) -> None:
        product = fp.matmul(_rows(run.mask(self.x)), run.operand(self.weight))
        self.deal_product(run, product.reshape(run.shape(self.out)))

    def prepare(self, run: Party) -> None:
        weight_public = run.once(f"{self.weight}/public", lambda: fp.Operand(run.public(self.weight)))
        crossed = fp.matmul(_rows(run.mask_share(self.x).values), weight_public)
        offset = self.take_masked(run) - Share(crossed.reshape(run.shape(self.out)))
        if self.bias is not None:
            offset = offset + run.share(self.bias)
        run.kept["offset"] = _rows(offset.values)
        self._weight_share(run).lay_out(rows=len(run.kept["offset"]))

    def _weight_share(self, run: Party) -> fp.Operand:
        return run.once(f"{self.weight}/share", lambda: fp.Operand(run.share(self.weight).values))

    def evaluate(self, run: Party) -> Evaluation:
        z = fp.matmul(_rows(run.public(self.x)), self._weight_share(run), run.kept["offset"])
        (opened,) = yield (Share(z.reshape(run.shape(self.out))),)
        run.set(self.out, opened)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])
