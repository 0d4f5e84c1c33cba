"""Reshape and transpose: free, since a mask moves with its wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpc.errors import PlanError
from mpc.gates.base import Evaluation, Gate, Name, Wires
from mpc.wires import BATCH, Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Reshape(Gate):
    """out has x's elements, its axes first put in the order `axes` if given.

    Rounds: 0   Opens: nothing   Deals: nothing   Scale: unchanged
    """

    kind: ClassVar[str] = "reshape"
    x: Name
    out: Name
    axes: tuple[int, ...] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        if self.axes is not None and sorted(self.axes) != list(range(len(x.shape))):
            raise self.refuse("the axes are not a permutation of the input's")
        if _elements(x.shape) != _elements(out.shape):
            raise self.refuse(f"{x.shape} does not reshape to {out.shape}")
        if x.scale != out.scale or x.bits != out.bits or out.masking is not Masking.INHERITED or out.holders:
            raise self.refuse("the output differs from the input in more than its shape")

    def reference(self, run: Reference) -> None:
        value = run.value(self.x)
        run.set(self.out, (value if self.axes is None else value.transpose(self.axes)).reshape(run.shape(self.out)))

    def deal(self, run: Dealer) -> None:
        mask = run.mask(self.x)
        run.derive_mask(
            self.out, (mask if self.axes is None else mask.transpose(self.axes)).reshape(run.shape(self.out))
        )

    def prepare(self, run: Party) -> None:
        if run.has_mask(self.x):
            mask = run.mask_share(self.x)
            moved = mask if self.axes is None else mask.transpose(self.axes)
            run.set_mask(self.out, moved.reshape(run.shape(self.out)))

    def evaluate(self, run: Party) -> Evaluation:
        public = run.public(self.x)
        moved = public if self.axes is None else public.transpose(self.axes)
        run.set(self.out, moved.reshape(run.shape(self.out)))
        yield from ()


def _elements(shape: tuple[object, ...]) -> tuple[int, int]:
    """(batch dimensions, product of the others)."""
    total, batches = 1, 0
    for size in shape:
        if size == BATCH:
            batches += 1
        elif isinstance(size, int):
            total *= size
        else:
            raise PlanError(f"{size!r} is no dimension")
    return batches, total
