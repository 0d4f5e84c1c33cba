"""Say what training keeps of each value: fractional bits, and the ranges that bounds are proved from."""

from __future__ import annotations

from dataclasses import dataclass

from mpc.errors import UsageError

LOSS_BITS = 14
"""Fractional bits of p - y, unless it is a series' and more cost nothing."""
_BITS = {"activations": (2, 30), "gradients": (2, 40), "loss": (8, 30)}
_RANGES = {"weights": (2.0**-10, 2.0**30), "ceiling": (2.0**-2, 2.0**30), "logits": (2.0, 400.0)}


@dataclass(frozen=True)
class Precision:
    """Fractional bits and declared ranges of a step.

    Rounding is unbiased, so few bits are enough: half as many cost A less than 0.1 percentage points on MNIST.

    Args:
        activations: fractional bits of what a layer hands on.
        gradients: of the gradients that pass a ReLU or a maximum.
        loss: of p - y.  None: 14; and of `one_vs_all`, whose series rounds many terms, up to 20, if a step then has no
            round more, and hardly a byte.
        weights: no weight is larger: declared, as of an input; a run whose weights are does not say so.
        ceiling: a ReLU's results are cut to it; None proves bounds without, which fits shallow models only.
        logits: of `one_vs_all`, how far from zero sums keep their meaning; beyond, they come back at the other end.
            From five sixths of that on their gradient turns them back, if there are 40 or more.

    Raises:
        UsageError: fractional bits are no whole number, or a range no number, that a step can have.
    """

    activations: int = 8
    gradients: int = 10
    loss: int | None = None
    weights: float = 8.0
    ceiling: float | None = 32.0
    logits: float = 48.0

    def __post_init__(self) -> None:
        for name, (least, most) in _BITS.items():
            bits = getattr(self, name)
            if bits is None and name == "loss":
                continue
            if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= most:
                raise UsageError(
                    f"a precision with {name}={bits!r}", remedy=f"{name} are fractional bits: {least} to {most} of them"
                )
        for name, (low, high) in _RANGES.items():
            end = getattr(self, name)
            if end is None and name == "ceiling":
                continue
            if isinstance(end, bool) or not isinstance(end, int | float) or not low <= end <= high:
                remedy = f"{name} is a number from {low:g} to {high:g}" + ", or None" * (name == "ceiling")
                raise UsageError(f"a precision with {name}={end!r}", remedy=remedy)


def loss_bits(precision: Precision) -> int:
    """Return the fractional bits of p - y that are kept in any case."""
    return LOSS_BITS if precision.loss is None else precision.loss
