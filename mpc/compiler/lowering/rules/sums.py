"""Sums over rows: what a party proves of a plan (`mpc.privacy`) is what decides the gates here.

Elements that are bits of comparisons, or made of such, are summed as they are.  Anything else is bounded first: brought
to units in which the interval that is proved for it fills [0, 2^width - 2], and lifted back by a public constant behind
the bound.  Of a product with bits that are one by one - a value by category - the other factor is bounded instead: then
a row changes two elements, and not all of them.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.attributes import RowsSum
from mpc.compiler.graph.graph import MOVES, Node, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.gates.base import Gate
from mpc.gates.step import Step
from mpc.privacy.forms import LINEAR
from mpc.wires import MAX_BITS, Lifetime, Masking

_FINE_FACTOR = 256
"""With a factor of so much an interval fills its bits to a part in 256."""
_FIELD_BITS = 61


def rows_sum(state: Lowering, node: Node) -> Value:
    """Return the sum over the rows of what is bounded, whatever the data are."""
    x, taken = state.values[node.reads[0]], node.of(RowsSum)
    if not _is_hard(state, x.wire.name):
        x = bounded(state, x, taken.width)
    bits = (taken.most * ((1 << x.wire.bits) - 1)).bit_length()
    if bits > MAX_BITS:
        raise node.origin.refuse(
            f"the sum of {taken.most:,} rows needs {bits} bits where {MAX_BITS} fit",
            remedy="allow fewer rows, or a smaller width",
        )
    one = x.interval.map(lambda array: array.reshape(static(node.shape)))
    low, high = np.minimum(one.low, one.low * taken.most), np.maximum(one.high, one.high * taken.most)
    interval = Interval(low, high, one.error)
    return state.add("rows", node.shape, x.scale, interval, bits, x=x.wire.name, most=taken.most)


def by_category(state: Lowering, node: Node) -> Value | None:
    """Return the product of bits that are one by one with a value, if only sums over rows read it: the value is bounded
    before; None if this is no such product."""
    readers = sums_behind(state, node.writes)
    if not readers or len(node.reads) != 2 or int(np.prod(static(node.shape)[1:], dtype=int)) < 2:
        return None
    values = [state.values[name] for name in node.reads]
    for bits, value in (values, values[::-1]):
        if _is_pattern(state, bits.wire.name) and not _is_hard(state, value.wire.name):
            held = bounded(state, value, max(readers), Masking.DRAWN)
            interval = bits.interval.product(held.interval, False).broadcast_to(static(node.shape))
            product = state.add(
                "multiply", node.shape, bits.scale * held.scale, interval, x=bits.wire.name, y=held.wire.name
            )
            state.hard.add(product.wire.name)
            return product
    return None


def sums_behind(state: Lowering, name: str) -> list[int]:
    """Return the widths of the sums over rows that read a value; none if anything else does."""
    found = list[int]()
    if state.graph.is_output(name):
        return []
    for reader in state.graph.readers(name):
        behind = sums_behind(state, reader.writes) if reader.op in MOVES or reader.op == "fit" else []
        if reader.op == "rows_sum":
            behind = [reader.of(RowsSum).width]
        if not behind:
            return []
        found += behind
    return found


def _is_pattern(state: Lowering, name: str) -> bool:
    """Is it a public linear map, without a constant, of the bits of one value that is bounded and compared with many
    levels?"""
    sources, gates = _behind(state, name, stop=(Step.kind,))
    if len(sources) != 1 or not isinstance(step := sources.pop(), Step) or any(getattr(g, "offset", 0) for g in gates):
        return False
    writers = {out: gate for gate in state.gates for out in gate.writes}
    single = int(np.prod(static(state.wires[step.out].shape), dtype=int)) == len(step.levels)
    return single and all(gate.kind in LINEAR for gate in gates) and _is_hard(state, writers[step.x].writes[0])


def _behind(state: Lowering, name: str, stop: tuple[str, ...]) -> tuple[list[Gate], list[Gate]]:
    """The gates of these kinds that a wire is made of, and all that lie between; or the inputs."""
    writers = {out: gate for gate in state.gates for out in gate.writes}
    todo, seen, ends, between = [name], {name}, list[Gate](), list[Gate]()
    while todo:
        gate = writers[todo.pop()]
        if gate.kind in stop or not gate.reads:
            ends.append(gate)
            continue
        between.append(gate)
        todo += [each for each in gate.reads if each not in seen]
        seen.update(gate.reads)
    return ends, between


def _is_hard(state: Lowering, name: str) -> bool:
    """Is it a public linear map of bits of comparisons and bounded values alone, and of weights?"""
    writers = {out: gate for gate in state.gates for out in gate.writes}
    todo, seen = [name], {name}
    while todo:
        gate = writers[todo.pop()]
        entered = getattr(gate, "lifetime", None) is Lifetime.SESSION
        if gate.kind in ("bound", "step") or entered or state.hard.intersection(gate.writes):
            continue
        if gate.kind not in LINEAR:
            return False
        todo += [each for each in gate.reads if each not in seen]
        seen.update(gate.reads)
    return True


def bounded(state: Lowering, x: Value, width: int, masking: Masking = Masking.UNOPENED) -> Value:
    """Return x in units in which its interval fills so many bits, held to them."""
    key = ("bounded", x.wire.name, width, masking)
    if key in state.memo:
        return state.memo[key]
    low, high = (end * float(x.scale) for end in x.coarse)
    least = int(np.floor(low))
    span, top = max(1, int(np.ceil(high)) - least), (1 << width) - 2
    shift = 0
    while (factor := (top << shift) // span) < _FINE_FACTOR and width + shift < _FIELD_BITS:
        if factor and x.wire.bits + ((top << shift + 1) // span).bit_length() > LINEAR_BITS:
            break
        shift += 1
    lift = (least * factor) >> shift
    raised = x
    if factor != 1 or lift:
        raised = state.combine([x], [factor], x.shape, x.scale * factor, -(lift << shift))
    interval = raised.interval.truncated(shift).within(0, top + 1)
    name = f"{len(state.gates)}.bound"
    state.gate("bound", x=raised.wire.name, out=name, width=width, shift=shift)
    scale = raised.scale / (1 << shift)
    found = state.wire(name, x.shape, scale, interval, masking, least_bits=width)
    if lift:
        found = state.combine([found], [1], x.shape, scale, lift)
    state.memo[key] = found
    return found
