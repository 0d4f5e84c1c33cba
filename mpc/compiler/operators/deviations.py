"""Normalisations that a model spells out: x over the root of mean x^2 + epsilon, node by node.

Facts follow the chain: "square x", "mean AXES square x", "above EPSILON mean AXES square x", "root y" of such a y,
and "over root y" of its inverse.  Where x meets that, the product is at most the root of the number of elements,
which no interval can see; and one over a root is one function.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mpc.compiler.onnx_import import Importer


def variance(state: Importer, left: str, right: str, out: str) -> bool:
    """Mean (x - mean x)^2 where a model subtracts the square of the mean: bounds show that it is not negative."""
    mean = state.facts.get(right, "").removeprefix("square ")
    fact = state.facts.get(mean, "")
    if not fact.startswith("mean ") or state.shapes[left] != state.shapes[right]:
        return False
    _, axes, x = fact.split(" ", 2)
    if state.facts.get(left) != f"mean {axes} square {x}" or len(state.shapes[mean]) != len(state.shapes[x]):
        return False
    apart = state.sum((x, mean), (1.0, -1.0))
    state.mean(state.multiply(apart, apart), [int(axis) for axis in axes.split(",")], out)
    return True


def shifted(state: Importer, x: str, by: np.ndarray, out: str) -> bool:
    """mean x^2 + epsilon, which is epsilon at least; False if it is something else."""
    fact = state.facts.get(x, "")
    if by.size != 1 or by.ndim > len(state.shapes.get(x, ())) or not 0 < by.flat[0] < math.inf:
        return False
    if not fact.startswith("mean ") or not fact.split(" ", 2)[2].startswith("square "):
        return False
    epsilon = float(by.flat[0])
    state.sum((x,), (1.0,), out, epsilon, known=(epsilon, math.inf))
    state.facts[out] = f"above {epsilon!r} {fact}"
    return True


def inverse_root(state: Importer, y: str, out: str | None = None) -> str:
    """One over the root of y."""
    fact = state.facts.get(y, "")
    known = (0.0, float(fact.split(" ", 2)[1]) ** -0.5) if fact.startswith("above ") else None
    name = state.function("rsqrt", y, out, known=known)
    state.facts[name] = f"over root {y}"
    return name


def scaled(state: Importer, x: str, over: str, out: str) -> bool:
    """x times one over the root of its own mean square; False if it is another product."""
    y = state.facts.get(over, "").removeprefix("over root ")
    fact = state.facts.get(y, "")
    if not state.facts.get(over, "").startswith("over root ") or not fact.startswith("above "):
        return False
    _, _, _, axes, _, of = fact.split(" ", 5)
    if of != x or len(state.shapes[over]) != len(state.shapes[x]):
        return False
    most = math.sqrt(state.count(x, [int(axis) for axis in axes.split(",")]))
    state.multiply(x, over, out, known=(-most, most))
    return True
