"""Choices that suit a plan whose runs are checked: there each bit that is dealt has a tag of 64 bits.

So a comparison costs by the bits of its tables, which are nearly all that is dealt:

* tables are cut into the number of chunks that needs the fewest words, whatever is opened (`comparison.fewest_tags`);
* what goes on into products is compared on fewer bits: a value keeps its digits, and takes another way than it should
  only within 2^-11 of where two ways meet.  That changes it by as little, and seldom;
* a maximum of two candidates and zero, the last of many a tournament (`tournaments`), spends bytes for a round less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from mpc.at_once import fewest_words
from mpc.comparison import fewest_tags
from mpc.compiler.graph.graph import MOVES, Node
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.scales import log2
from mpc.gates.base import Gate
from mpc.gates.bound import Bound
from mpc.gates.fourier import Fourier
from mpc.gates.maximum import Maximum
from mpc.gates.relu import Relu
from mpc.gates.step import Step
from mpc.wires import Wire

_COMPARED_FRACTION = 11
_LEAST_COMPARED_BITS = 12
_PASSES_ON = MOVES | {"scale", "sum", "total", "weigh", "maximum"}
"""Name operations that hand their operands on, however small these are; products add many of them up."""


def coarse(state: Lowering, node: Node, x: Value, shift: int, extra: int = 0) -> int:
    """Return how many bits of a rounded value its comparison passes over, with `extra` bits above its own.

    About 11 fractional bits are compared, and 12 bits or more: a value that is much smaller than its bound has none to
    spare.  What is as far below zero as one of these, where it should be zero, is within the room that bounds have.
    """
    if state.roles.security == "passive" or not _feeds_products(state, node):
        return 0
    spare = log2(x.scale) - shift - _COMPARED_FRACTION
    return max(0, min(spare, x.wire.bits - shift + extra - _LEAST_COMPARED_BITS))


def _feeds_products(state: Lowering, node: Node) -> bool:
    """Do only products read it, through maps and maxima at most?"""
    readers = list(state.graph.readers(node.writes))
    if not readers or state.graph.is_output(node.writes):
        return False
    return all(
        one.op in ("matmul", "conv") or (one.op in _PASSES_ON and _feeds_products(state, one)) for one in readers
    )


def misjudged(found: Interval, among: Interval, dropped: int, others: int = 0) -> Interval:
    """Return the interval of what is chosen by a coarse comparison.

    Two ways meet at zero, or where two candidates are equal.  What is by d from zero, d < u = 2^dropped, takes the
    wrong one with probability 1 - d / u, and is off by d then: u^3 / 6 times the density there, both sides together.
    Two candidates are rounded by two coins, so the one that is chosen may be up to 2 u below the other.

    Args:
        found: if all bits were compared.
        among: of what is compared.
        others: candidates with which each is compared, zero among them; 0: it is compared with zero alone.
    """
    if not dropped:
        return found
    unit = float(1 << dropped)
    deviation = np.sqrt(among.variance + among.mean.var()).mean()
    density = min(1.0, max(1, others) / (2 * max(float(deviation), 1.0)))
    reach = 2 * unit if others else unit
    below = np.minimum(found.low, np.maximum(found.low - reach - 1, among.low.min()))
    return replace(found, low=below, error=np.hypot(found.error, np.sqrt(density * unit**3 / 6)))


def is_direct(n: int, rectify: bool) -> bool:
    """Does a maximum of so many candidates, and zero if it is rectified, choose by the bits of its pairs?"""
    return n == 2 and rectify


def with_fewest_tags(gates: Iterable[Gate], wires: Mapping[str, Wire]) -> list[Gate]:
    """Return the gates, of which those that compare cut their tables as suits tags."""
    bound = {name: wire.bind(1) for name, wire in wires.items()}
    return [_recut(gate, bound) for gate in gates]


def _recut(gate: Gate, wires: Mapping[str, Wire]) -> Gate:
    if not isinstance(gate, Relu | Step | Maximum | Fourier | Bound) or (isinstance(gate, Fourier) and not gate.clamp):
        return gate
    comparison = gate.comparison if isinstance(gate, Bound) else gate.comparison(wires)
    looks = sum(spec.name.endswith("leaf_mask") for spec in gate.correlations(wires))
    chunks = fewest_words(comparison.bits) if comparison.at_once else fewest_tags(comparison.bits, looks)
    return gate if chunks == comparison.chunks else gate.model_copy(update={"chunks": chunks})
