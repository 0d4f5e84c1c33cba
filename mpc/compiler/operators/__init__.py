"""Turn each operator of ONNX into those of the compiler's graph; see `registry`."""

from __future__ import annotations

from mpc.compiler.operators import (
    activations,
    casts,
    choices,
    deviations,
    distances,
    einsum,
    elementwise,
    joined,
    labels,
    layers,
    linear,
    logic,
    normalisation,
    pooling,
    ranking,
    reductions,
    resizing,
    shapes,
    sklearn,
    trees,
    vectors,
)
from mpc.compiler.operators.registry import HANDLERS, supported

__all__ = [
    "HANDLERS",
    "activations",
    "casts",
    "choices",
    "deviations",
    "distances",
    "einsum",
    "elementwise",
    "joined",
    "labels",
    "layers",
    "linear",
    "logic",
    "normalisation",
    "pooling",
    "ranking",
    "reductions",
    "resizing",
    "shapes",
    "sklearn",
    "supported",
    "trees",
    "vectors",
]
