"""Affine: a masked matrix times a secret, masked weight matrix.

With x^ = x + ax and w^ = w + aw public, and s uniform from seeds,

    [z] + [r] = x^ [w] - [ax] w^ + [s]        where  r := s - ax aw

(Beaver 1991 with the masks placed by the plan.)  The provider knows r and deals whatever the
next gate needs of it; no product is dealt.  Where the parties themselves must hold shares of
the output's mask - it feeds another bilinear gate, or its sub-seeds go to a recipient - r is
drawn instead and the product ax aw is dealt, 8 bytes an element.

[w] = w^ [1] - [aw] is split into limbs once a session; -[ax] w^ + [s] + [b] is offline work;
online a party does the one product x^ [w] and opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, Wires, drawn_mask
from mpc.shares import Share
from mpc.wires import Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Affine(Gate):
    """z = x w + b.

    Shapes:   x (..., k), weight (k, n), bias (n), out (..., n)
    Scale:    out = x weight = bias
    Deals:    derived mask: nothing; drawn mask: ax aw, shape of out
    Rounds:   1               Opens: out
    Error:    exact; needs |z| < 2^59
    """

    kind: ClassVar[str] = "affine"
    needs_masks: ClassVar[bool] = True
    x: Name
    weight: Name
    bias: Name | None = None
    out: Name

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.x, self.weight) + ((self.bias,) if self.bias else ())

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    @property
    def weights(self) -> tuple[str, ...]:
        return self.reads[1:]

    def check(self, wires: Wires) -> None:
        x, weight, out = wires[self.x], wires[self.weight], wires[self.out]
        if len(weight.shape) != 2 or not x.shape or x.shape[-1] != weight.shape[0]:
            raise self.refuse(f"shapes {x.shape} and {weight.shape} do not multiply")
        if out.shape != (*x.shape[:-1], weight.shape[1]):
            raise self.refuse(f"the output has shape {out.shape}")
        if out.scale != x.scale * weight.scale:
            raise self.refuse("the output's scale is not the product of its operands'")
        if out.masking is Masking.INHERITED:
            raise self.refuse("the output's mask is derived or drawn")
        if self.bias is not None:
            bias = wires[self.bias]
            if bias.shape != weight.shape[1:] or bias.scale != out.scale:
                raise self.refuse("the bias does not have the output's columns and scale")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return ((Opening("z", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        out = wires[self.out]
        if out.masking is Masking.DERIVED:
            return (Correlation("s", out.sizes),)
        return (drawn_mask(out), Correlation("product", out.sizes, dependent=True))

    def reference(self, run: Reference) -> None:
        z = run.value(self.x) @ run.value(self.weight)
        run.set(self.out, z + run.value(self.bias) if self.bias else z)

    def deal(self, run: Dealer) -> None:
        ax = run.mask(self.x)
        product = fp.matmul(_rows(ax), run.operand(self.weight)).reshape(run.shape(self.out))
        if run.wire(self.out).masking is Masking.DERIVED:
            run.derive_mask(self.out, fp.sub(run.uniform("s"), product))
        else:
            run.draw_mask(self.out)
            run.dependent("product", product)

    def prepare(self, run: Party) -> None:
        if run.wire(self.out).masking is Masking.DERIVED:
            masked = run.take("s")
        else:
            masked = run.take("product") + run.take_mask(self.out)
        weight_public = run.once(f"{self.weight}/public", lambda: fp.Operand(run.public(self.weight)))
        crossed = fp.matmul(_rows(run.mask_share(self.x).values), weight_public)
        masked = masked - Share(crossed.reshape(run.shape(self.out)))
        if self.bias is not None:
            masked = masked + run.share(self.bias)
        run.kept["offset"] = _rows(masked.values)
        self._weight_share(run).rows  # noqa: B018 - made here, before inputs exist
        if len(run.kept["offset"]) > fp.THIN_ROWS:
            self._weight_share(run).limbs  # noqa: B018

    def _weight_share(self, run: Party) -> fp.Operand:
        return run.once(f"{self.weight}/share", lambda: fp.Operand(run.share(self.weight).values))

    def evaluate(self, run: Party) -> Evaluation:
        z = fp.matmul(_rows(run.public(self.x)), self._weight_share(run), run.kept["offset"])
        (opened,) = yield (Share(z.reshape(run.shape(self.out))),)
        run.set(self.out, opened)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])
