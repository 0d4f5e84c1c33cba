"""What training keeps of each value: fractional bits, and the ranges that bounds are proved from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Fractional bits and declared ranges of a step.

    Rounding is unbiased, so few bits are enough: half as many cost A less than 0.1 percentage points on MNIST.

    Args:
        activations: fractional bits of what a layer hands on.
        gradients: of the gradients that pass a ReLU or a maximum.
        loss: of p - y.
        weights: no weight is larger: declared, as of an input; a run whose weights are does not say so.
        ceiling: a ReLU's results are cut to it; None proves bounds without, which fits shallow models only.
        logits: of `one_vs_all`, how far from zero sums keep their meaning; beyond, they come back at the other end.
    """

    activations: int = 8
    gradients: int = 10
    loss: int = 14
    weights: float = 8.0
    ceiling: float | None = 32.0
    logits: float = 48.0
