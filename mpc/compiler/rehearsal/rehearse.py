"""A plan rehearsed in the clear, at its owner's: how far its answers are from the model's.

To add up roundings as if they were independent is wrong wherever errors cancel, where values are far smaller than
their bounds, and where a function is steep in one place.  So nothing is added up here: the plan's own gates compute on
integers, rounding as parties do, the graph computes on reals, and what they differ by is the error.  Where decisions
are taken - a tree's, a label's - the graph takes those of the plan, so that the difference is what smooth parts are
off by; how often a decision comes out otherwise, and what it does then, is found in `jumps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from mpc.compiler.graph.evaluate import DECISIONS, Decide, Reals, evaluate
from mpc.compiler.graph.graph import MOVES, Graph, Node, Origin
from mpc.compiler.rehearsal.bounds import Bounds
from mpc.compiler.rehearsal.clear import Clear, computed, integers
from mpc.compiler.rehearsal.drawing import (
    EMPTIES,
    Draws,
    Feeds,
    corner_runs,
    drawn_runs,
    empty_runs,
    rarities,
    sampled_runs,
)
from mpc.compiler.rehearsal.jumps import Decisions, jumps
from mpc.compiler.rehearsal.tally import Expected, Tally
from mpc.compiler.threads import on_one_thread
from mpc.gates.bilinear import Bilinear
from mpc.plan.plan import Plan

_MOST_ROWS = 255
_FEWEST_ROWS = 3
MOST_WORK = 1 << 28
"""Multiplications that a rehearsal takes about, if the fewest rows do not need more."""
_ELEMENTS = 1 << 22
"""Elements of all wires that it takes about, likewise."""
_MOST_CORNERS = 512
_MOST_EMPTY = 16
"""Rows of zeros: they are nearly all alike."""
_THREADS = 2
"""Threads on which the parts of a rehearsal are held where a row takes long."""
_PART = 8
"""Rows at the ends of ranges, on which a plan is held to its bounds, take one of so many parts of that."""


class Rehearsal:
    """A rehearsal that is held when somebody asks what it shows, once.

    Args:
        graph: that the plan was made of.
        weights: int64 integers of each weight wire.
        wires: graph value -> the plan's wire that holds it.
        samples: data to rehearse on, by input name; else inputs are drawn from their ranges.
        origins: the model's node for each gate.
        proved: all bounds are, so that whatever is within its range keeps them; else some rest on the samples.

    Every wire is held to its bound: beyond it the parties' arithmetic would go round silently.

    Raises, from what it is asked first:
        ModelError: a bound that is proved does not hold, which is a fault of this compiler.  It says which gate, wire
            and node, and nothing of values; it is raised at the model's owner, before anything is entered.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        weights: Mapping[str, np.ndarray],
        wires: Mapping[str, str],
        samples: Mapping[str, np.ndarray] | None = None,
        origins: Mapping[str, Origin] = MappingProxyType({}),
        *,
        proved: bool = True,
    ) -> None:
        def rehearse() -> tuple[dict[str, Expected], tuple[str, ...]]:
            bounds = Bounds(plan, origins)
            with on_one_thread():
                expected = _rehearse(graph, plan, weights, wires, samples, bounds)
                if proved:
                    _rehearse_corners(graph, plan, weights, bounds)
            return expected, bounds.notes

        self._todo: Callable[[], tuple[dict[str, Expected], tuple[str, ...]]] | None = rehearse
        self._found: tuple[dict[str, Expected], tuple[str, ...]] = ({}, ())

    @classmethod
    def held(cls, expected: Mapping[str, Expected], notes: Iterable[str] = ()) -> Self:
        """Return one that was held before, and showed this."""
        found = cls.__new__(cls)
        found._todo, found._found = None, (dict(expected), tuple(notes))
        return found

    @property
    def expected(self) -> dict[str, Expected]:
        """The expected error of each output."""
        return self._all[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Tell the owner of samples on which a bound does not hold."""
        return self._all[1]

    @property
    def _all(self) -> tuple[dict[str, Expected], tuple[str, ...]]:
        todo = self._todo
        if todo is not None:  # two threads may hold it at once: it is the same one
            self._found = todo()
            self._todo = None
        return self._found


def _rehearse_corners(graph: Graph, plan: Plan, weights: Mapping[str, np.ndarray], bounds: Bounds) -> None:
    """Hold the wires of a plan to their bounds at the ends of ranges and towards zero, if few rows take that long."""
    rows = min(_affordable(plan) // _PART, _MOST_CORNERS, plan.most_rows)
    if not rows:
        return
    draws = Draws("corners")
    with np.errstate(all="ignore"):
        for feeds in corner_runs(graph.inputs, rows, draws):
            bounds.hold(computed(plan, weights, integers(graph, plan, feeds), (), draws), sampled=False)


def _rehearse(
    graph: Graph,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    wires: Mapping[str, str],
    samples: Mapping[str, np.ndarray] | None,
    bounds: Bounds,
) -> dict[str, Expected]:
    told = {out.name for out in plan.outputs}
    graph = Graph(graph.inputs, graph.nodes, [out for out in graph.outputs if out.name in told])
    if not told:  # what runs hand on alone is nobody's to see
        return {}
    draws, decisions, rows = Draws(), Decisions(), _rows(plan)
    kinds, decides = rarities(graph.inputs), any(node.op in DECISIONS for node in graph.nodes)
    differ = samples is None and not all(given.places for given in graph.inputs)
    tallies = [Tally(out, drawn=differ, rare=kinds) for out in graph.outputs]
    rounded = [wires[name] for node in graph.nodes if node.op == "whole" for name in (node.reads[0], node.writes)]

    def compared(feeds: Feeds, decisions: Decisions, draws: Draws) -> Iterator[tuple[Tally, np.ndarray, Reals]]:
        clear = computed(plan, weights, integers(graph, plan, feeds), wires.values(), draws, rounded)
        bounds.hold(clear, sampled=samples is not None)
        reals = _followed(graph, plan, wires, feeds, clear, decisions)
        for tally, out in zip(tallies, plan.outputs, strict=True):
            yield tally, clear.reals(out.wire), reals[tally.out.value]

    inputs, samples = graph.inputs, samples or None
    runs = drawn_runs(inputs, rows, draws) if samples is None else sampled_runs(inputs, rows, samples)
    large = rows <= _FEWEST_ROWS

    def usual() -> None:
        for number, feeds in enumerate(runs):
            for tally, ours, theirs in compared(feeds, decisions, draws):
                tally.take(ours, theirs, number)

    def rare() -> None:
        others = Draws("rare") if large else draws
        each = min(len(kinds), plan.most_rows) if large else rows
        for number, feeds in enumerate(drawn_runs(inputs, each, others, rare=True)):
            for tally, ours, theirs in compared(feeds, Decisions(), others):
                tally.take_rare(ours, theirs, number)

    def empty() -> None:
        few, others = int(np.clip(rows // _PART, EMPTIES, _MOST_EMPTY)), Draws("empty")
        for number, feeds in enumerate(empty_runs(inputs, few, others)):
            exact = _outputs(graph, feeds) if decides else {}
            for tally, ours, theirs in compared(feeds, Decisions(), others):
                tally.take_empty(ours, theirs, exact.get(tally.out.value, theirs), number)

    _all_of([usual] if samples is not None else [usual, rare, empty], _THREADS if large else 1)
    with np.errstate(all="ignore"):
        unsure = decisions.unsure()
        if unsure:
            named = {tally.out.value: tally for tally in tallies}
            found = jumps(graph, runs, unsure, draws, lambda name, seen: named[name].count(seen))
            for tally in tallies:
                tally.jumps = found.get(tally.out.value, [])
    return {tally.out.name: tally.expected for tally in tallies}


def _all_of(parts: Sequence[Callable[[], None]], threads: int) -> None:
    """Hold the parts of a rehearsal, on so many threads; raise what the first of them raises."""

    def held(part: Callable[[], None]) -> None:
        with np.errstate(all="ignore"):
            part()

    if threads == 1:
        for part in parts:
            held(part)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="rehearsal") as pool:
        for done in [pool.submit(held, part) for part in parts]:
            done.result()


def _rows(plan: Plan) -> int:
    """As many rows as time, memory and the plan allow."""
    return min(int(np.clip(_affordable(plan), _FEWEST_ROWS, _MOST_ROWS)), plan.most_rows)


def _affordable(plan: Plan) -> int:
    """So many rows take the work and the elements of a rehearsal."""
    wires, weights = plan.bind(1).wire, {gate.out for gate in plan.weights}
    held = work = sum(math.prod(wire.sizes) for name, wire in wires.items() if name not in weights)
    for gate in plan.gates:
        if isinstance(gate, Bilinear):
            second, results = wires[gate.second].sizes, math.prod(wires[gate.out].sizes)
            work += results * (math.prod(second[1:]) if gate.kind == "convolution" else second[-2:][0] if second else 1)
    return min(MOST_WORK // max(1, work), _ELEMENTS // max(1, held))


def _followed(
    graph: Graph,
    plan: Plan,
    wires: Mapping[str, str],
    feeds: Feeds,
    clear: Clear,
    decisions: Decisions,
) -> dict[str, Reals]:
    """The outputs on reals, by the decisions that the plan took; these are collected."""
    gates = {name: gate for gate in plan.gates for name in gate.writes}
    shapes = {given.name: given.shape for given in graph.inputs} | {node.writes: node.shape for node in graph.nodes}

    of_signs = _of_signs(graph)

    def decide(node: Node, operand: Reals, operator: Callable[[Reals], Reals]) -> Reals:
        wire = wires[node.writes]
        if wire not in gates:  # nothing reads it
            return operator(operand)
        gate: Any = gates[wire]
        compared, shift = (wires[node.reads[0]], 0) if node.op == "whole" else (gate.x, gate.shift)
        ours = clear.reals(compared).reshape(operand.shape)
        blur = (1 << shift) / float(clear.wires[compared].scale) if shift else 0.0
        signs = node.reads[0] in of_signs
        decisions.take(node, shapes[node.reads[0]], ours, operand, blur, signs=signs)
        return clear.reals(wire)

    return _outputs(graph, feeds, decide)


def _outputs(graph: Graph, feeds: Feeds, decide: Decide | None = None) -> dict[str, Reals]:
    """Return the outputs on reals, by the graph's own decisions or by others; see `follow`."""
    wanted = {out.value for out in graph.outputs}
    found = {given.name: np.asarray(feeds[given.name]) for given in graph.inputs if given.name in wanted}
    found.update(
        (node.writes, value) for node, value in evaluate(graph, feeds, decide, exact=True) if node.writes in wanted
    )
    return found


def _of_signs(graph: Graph) -> set[str]:
    """Values of which a plan has the signs only, and what moves make of them."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.only_signs or (node.op in MOVES and found.intersection(node.reads)):
            found.add(node.writes)
    return found
