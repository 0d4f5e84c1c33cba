"""Hold what the bilinear gates share: the equation, and where their output's mask comes from.

    [x y] + [r] = x^ [y] - [ax] y^ + [s]      with   r := s - ax ay,   [y] = y^ [1] - [ay]

(Beaver 1991, Efficient multiparty protocols using circuit randomization, with the masks placed by
the plan, as in Turbospeedz 2019 and ABY2.0 2021; docs/protocols.md, "Bilinear gates".)  s is uniform,
expanded from seeds; the provider knows the *derived* mask r and deals whatever the next gate needs of it; no product is
dealt.  Where the parties themselves must hold shares of the output's mask - it feeds another
bilinear gate, or its sub-seeds go to a recipient - r is *drawn* instead and the product ax ay
is dealt, 8 bytes an element.

The second operand is a wire of the run (`y`) or of the session (`weight`, with or without a
`bias`).  A weight's layouts are made once a session, and - [ax] w^ + [s] + [b] is offline work:
online a party does one product, x^ [w], and opens.

A *public* weight makes the product a public linear map, as those of linear.py are:

    z^ = x^ w + b^        with the inherited mask   az = ax w + ab

Nothing is opened and nothing dealt; where x is not opened, the shares of x are mapped instead.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, drawn_mask
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Wires, broadcast


class Bilinear(Gate):
    """Base: one round, which opens `out`; with a public weight none.  A subclass says what its product is.

    Deals:    derived or inherited mask: nothing; drawn mask: ax ay, shape of out
    Error:    exact; needs |z| < 2^59
    """

    operands: ClassVar[tuple[str, ...]] = ("x", "y", "weight", "bias")
    x: Name
    y: Name | None = None
    weight: Name | None = None
    bias: Name | None = None
    out: Name

    # -- what a subclass says

    def over_integers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return x y over Z."""
        raise NotImplementedError

    def lay_out(self, y: np.ndarray) -> Any:
        """Return the second operand in the form that `over_field` takes."""
        return y

    def lay_out_public(self, y: np.ndarray) -> Any:
        """Lay out a public weight, whose elements may decide how."""
        return self.lay_out(y)

    def warm(self, y: Any, x: tuple[int, ...], room: fp.Room) -> None:
        """Make now what a product of the laid out y with an x of this shape will need, as far as there is room."""

    @property
    def layout(self) -> str:
        """Under which name a weight's layouts are kept: gates that share the weight share them."""
        return f"{self.kind}/{self.second}"

    def over_field(self, x: np.ndarray, y: Any, offset: np.ndarray | None = None) -> np.ndarray:
        """Return x y (+ offset, which broadcasts to the output's shape) over F_p."""
        raise NotImplementedError

    def check_shapes(self, wires: Wires) -> None:
        """Raise `PlanError` unless x, `second` and out fit together."""
        raise NotImplementedError

    # -- what they share

    @property
    def second(self) -> str:
        """The wire of the second operand."""
        return self.reads[1]

    @property
    def weights(self) -> tuple[str, ...]:
        return self._named(("weight", "bias"))

    def is_linear(self, wires: Wires) -> bool:
        return self.weight is not None and wires[self.weight].masking is Masking.PUBLIC

    def needs_masks(self, wires: Wires) -> bool:
        return not self.is_linear(wires)

    def check(self, wires: Wires) -> None:
        if (self.y is None) == (self.weight is None) or (self.bias and not self.weight):
            raise self.refuse("its second operand is either a wire or a weight; only a weight has a bias")
        x, y, out = wires[self.x], wires[self.second], wires[self.out]
        if out.scale != x.scale * y.scale:
            raise self.refuse("the output's scale is not the product of its operands'")
        if self.is_linear(wires):
            if out.masking is not self.inherited(wires) or out.held:
                raise self.refuse("with a public weight the output's mask is inherited, and nobody's")
        elif out.masking not in (Masking.DERIVED, Masking.DRAWN):
            raise self.refuse("the output's mask is derived or drawn")
        self.check_shapes(wires)
        if self.bias is not None:
            bias = wires[self.bias]
            if bias.scale != out.scale or broadcast(bias.shape, out.shape) != out.shape:
                raise self.refuse("the bias does not fit the output's shape and scale")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return () if self.is_linear(wires) else ((Opening("z", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        out = wires[self.out]
        if self.is_linear(wires):
            return ()
        if out.masking is Masking.DERIVED:
            return (Correlation("s", out.sizes),)
        return (drawn_mask(out), Correlation("product", out.sizes, dependent=True))

    def reference(self, run: ClearReading) -> None:
        z = self.over_integers(run.value(self.x), run.value(self.second))
        run.set(self.out, z + run.value(self.bias) if self.bias else z)

    def deal(self, run: DealReading) -> None:
        if self.is_linear(run.wires):
            if run.wire(self.out).masking is Masking.INHERITED:
                run.derive_mask(self.out, self._mapped(run, run.mask(self.x), self.bias and run.mask(self.bias)))
            return
        mask = run.mask(self.second)
        y = run.once(f"{self.layout}/mask", lambda: self.lay_out(mask)) if self.weight else self.lay_out(mask)
        if self.weight is not None:
            self.warm(y, run.shape(self.x), run.room)
        if run.wire(self.out).masking is Masking.DERIVED:
            run.derive_mask(self.out, self._taken_off(run.uniform("s"), run.mask(self.x), y))
        else:
            run.draw_mask(self.out)
            run.dependent("product", self.over_field(run.mask(self.x), y))

    def prepare(self, run: PartyReading) -> Share | None:
        """Compute all that does not depend on the run's values; of a public linear map there is nothing."""
        if self.is_linear(run.wires):
            self._prepare_linear(run)
            return None
        derived = run.wire(self.out).masking is Masking.DERIVED
        offset = run.take("s") if derived else run.take("product") + run.take_mask(self.out)
        if self.weight is not None:
            public = run.once(f"{self.layout}/public", lambda: self.lay_out(run.public(self.second)))
            self.warm(self._share_of_weight(run), run.shape(self.x), run.room)
            self.warm(public, run.shape(self.x), run.room)
            offset = Share(self._taken_off(offset.values, run.mask_share(self.x).values, public))
            if self.bias is not None:
                offset = offset + run.share(self.bias)
        return offset

    def _taken_off(self, offset: np.ndarray, x: np.ndarray, y: Any) -> np.ndarray:
        """Return offset - x y: of the smaller one of x and the product the sign is changed, in a pass of its own."""
        if x.size < offset.size:
            return self.over_field(fp.neg(x), y, offset)
        return fp.sub(offset, self.over_field(x, y))

    def _prepare_linear(self, run: PartyReading) -> None:
        self.warm(self._public_weight(run), run.shape(self.x), run.room)
        if run.wire(self.out).masking is Masking.INHERITED and run.needs_mask(self.out) and run.has_mask(self.x):
            bias = self.bias and run.mask_share(self.bias).values
            run.set_mask(self.out, Share(self._mapped(run, run.mask_share(self.x).values, bias)))

    def _share_of_weight(self, run: PartyReading) -> Any:
        return run.once(f"{self.layout}/share", lambda: self.lay_out(run.share(self.second).values))

    def _public_weight(self, run: DealReading | PartyReading) -> Any:
        return run.once(f"{self.layout}/public", lambda: self.lay_out_public(run.public(self.second)))

    def _mapped(self, run: DealReading | PartyReading, x: np.ndarray, bias: Any) -> np.ndarray:
        """x w (+ bias): of masks, of masked values, of shares."""
        return self.over_field(x, self._public_weight(run), bias)

    def evaluate(self, run: PartyReading, kept: Share | None) -> Evaluation:
        if kept is None:
            if run.wire(self.out).masking is Masking.UNOPENED:
                bias = self.bias and run.share(self.bias).values
                run.set_share(self.out, Share(self._mapped(run, run.share(self.x).values, bias)))
            else:
                run.set(self.out, self._mapped(run, run.public(self.x), self.bias and run.public(self.bias)))
            return
        x, offset = run.public(self.x), kept.values
        if self.weight is not None:
            z = self.over_field(x, self._share_of_weight(run), offset)
        else:
            public = self.lay_out(run.public(self.second))
            rest = self._taken_off(offset, run.mask_share(self.x).values, public)
            z = self.over_field(x, self.lay_out(run.share(self.second).values), rest)
        (opened,) = yield (Share(z),)
        run.set(self.out, opened)


class Columned(Bilinear):
    """Base: a product whose second operand has columns, each of which makes a column of the result."""

    @abstractmethod
    def columns(self, wires: Wires) -> int:
        """Count the columns; 0 if there are none to join."""

    @abstractmethod
    def join_second(self, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        """Return the second operand whose columns are added up to one, by factors; their result is `join_result`'s."""

    @abstractmethod
    def join_result(self, z: np.ndarray, by: np.ndarray) -> np.ndarray:
        """Return a result whose columns are added up to one, by factors."""
