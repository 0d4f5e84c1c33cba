"""Count how often rounding decides a comparison otherwise, and see what then becomes of the outputs.

Few rows show it seldom, and it may matter all the same.  So what is compared is moved on purpose, by a part of its
spread that is many times what it is off by.  Results that jump do so in proportion to that part, while it is small;
so how often they jump is known for what the compared values are really off by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from mpc.compiler.graph.attributes import Step, Take
from mpc.compiler.graph.evaluate import Reals, entered, evaluate, follow
from mpc.compiler.graph.graph import Graph, Node, Shape, static
from mpc.compiler.graph.hidden import ABSORBING
from mpc.compiler.rehearsal.drawing import Draws, Feeds
from mpc.wires import BATCH

_FIRST_PART, _FINER = 1 / 16, 1 / 8
"""By which part of their spread compared values are moved at first, and how much less each time after."""
_LEAST_PART = 1e-8
_ENOUGH = 16
"""Jumps from which on their number says something."""
_OFTEN = 4
"""The same of values that are moved by what they are off by."""
_IN_VAIN = 10
"""Jumps that were seen count if they are so many times more than are expected: ties are denser the nearer they are."""
_TRIES = 4
_LINEAR = frozenset(
    {"reshape", "transpose", "take", "concat", "sum", "weigh", "scale", "columns", "round", "lowest", "fit", "constant"}
)
"""What keeps errors as they are, or adds them up, as the differences of a ranking do."""
_MEDIAN = 0.6745
"""The median size of a normal error, as a part of its root mean square."""
_COMMON = 1 / 64
"""The part of all numbers that one is at least if no data, but a mask has put it there."""
_APART = 1e3
"""Numbers are far away that are so many times the largest of all others."""
_SAME = 2.0**-40
"""Reals that differ by less, beside the largest, are equal but for the roundings of float64."""


@dataclass(frozen=True)
class Compared:
    """The operand of a decision, element by element of a row.

    Args:
        off: what it is off by in the plan, root mean square, in the model's units.
        spread: its standard deviation over the rows.
        fixed: numbers of the graph that masks have put in it, and that the plan has without an error.
    """

    off: np.ndarray
    spread: np.ndarray
    fixed: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def spared(self, operand: Reals, noise: np.ndarray) -> np.ndarray:
        """Return the noise without that of fixed numbers."""
        return np.where(np.isin(operand, self.fixed), 0.0, noise) if self.fixed.size else noise


class Decisions:
    """Collects what decisions compare, over several runs."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._blur: dict[str, float] = {}
        self._signs: set[str] = set()
        self._levels: dict[str, tuple[float, ...]] = {}

    def take(self, node: Node, shape: Shape, ours: Reals, theirs: Reals, blur: float, *, signs: bool) -> None:
        """Add a run.

        Args:
            shape: of the operand, in the graph.
            ours: the operand as the plan has it; theirs: as the graph has it.
            blur: a value may be up to so much below a level and count as above it.
            signs: the plan only has the signs of the operand right: each element may be multiplied and shifted.
        """
        self._seen.setdefault(node.writes, []).append((by_rows(shape, ours), by_rows(shape, theirs)))
        self._blur[node.writes] = blur
        if signs:
            self._signs.add(node.writes)
        if node.op == "argmax" or (node.op == "step" and not signs):
            self._levels[node.writes] = () if node.op == "argmax" else node.of(Step).levels

    def unsure(self) -> dict[str, Compared]:
        """Find the decisions that rounding can change: what they compare is not exact."""
        found = {}
        for name, runs in self._seen.items():
            ours, theirs = (np.concatenate(parts) for parts in zip(*runs, strict=True))
            if name in self._signs:
                off, blur = _beside(ours, theirs, self._blur[name])
                off = np.where(off > _SAME * np.abs(theirs).max(axis=0), off, 0.0)
            else:
                counted, blur = _near(theirs), np.asarray(self._blur[name])
                off = np.sqrt(np.square(ours - theirs).mean(axis=0, where=counted))
                off = np.where(off > _SAME * np.abs(theirs).max(axis=0, where=counted, initial=0.0), off, 0.0)
            spread, whole = theirs.std(axis=0), (theirs == np.rint(theirs)).all(axis=0) & (blur < 0.5)
            exact = (off == 0) & (whole | (spread == 0))
            off = np.where(exact, 0.0, np.hypot(off, blur / 3**0.5))
            if off.any():
                levels = self._levels.get(name)
                found[name] = Compared(off, spread, np.zeros(0) if levels is None else _fixed(ours, theirs, levels))
        return found


def _near(values: np.ndarray) -> np.ndarray:
    """Tell which numbers of each column are not among those that a mask has put far away from all others, if any are.

    What these are off by is not what the others are off by.
    """
    sizes = np.abs(values)
    near = sizes < -ABSORBING
    most = sizes.max(axis=0, where=near, initial=0.0)
    least = sizes.min(axis=0, where=~near, initial=np.inf)
    return near | ~(near.any(axis=0) & (least > _APART * most))


def _fixed(ours: np.ndarray, theirs: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return the numbers that stand at many places, and of which the plan decides alike at all of them, as the graph
    does: by levels, or without any since it has one number there, too.
    """
    numbers, counts = np.unique(theirs, return_counts=True)
    common = numbers[counts >= max(2, _COMMON * theirs.size)]
    if not levels:
        return np.array([each for each in common if np.ptp(ours[theirs == each]) == 0.0])
    right = (all(((ours[theirs == each] >= level) == (each >= level)).all() for level in levels) for each in common)
    return common[np.fromiter(right, bool, len(common))]


def _beside(ours: np.ndarray, theirs: np.ndarray, blur: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors of elements, and their blur, in the units of `theirs`, which most rows are of.

    The plan puts something far away where numbers are missing, so a mean would say nothing.  Quartiles say by which
    factor the plan multiplies if as many are missing at both ends; the slopes between rows that are half of all apart
    say it too if they are missing at one.  It is the one that leaves less.
    """
    wide = [np.subtract(*np.quantile(each, (0.75, 0.25), axis=0)) for each in (ours, theirs)]
    varies = (wide[0] > 0) & (wide[1] > 0)
    quartiles = np.where(varies, wide[0], 1.0) / np.where(varies, wide[1], 1.0)
    order, half = np.argsort(theirs, axis=0, kind="stable"), len(theirs) // 2
    runs, rises = (np.take_along_axis(each, order, axis=0) for each in (theirs, ours))
    runs, rises = (each[half:] - each[: len(each) - half] for each in (runs, rises))
    slopes = np.median(np.where(runs > 0, rises, 0.0) / np.where(runs > 0, runs, 1.0), axis=0)
    slopes = np.where(slopes > 0, slopes, quartiles)
    offs = [_spread_about_median(ours / factor - theirs) for factor in (quartiles, slopes)]
    off, factor = np.minimum(*offs), np.where(offs[1] < offs[0], slopes, quartiles)
    return np.where(varies, off, 0.0), blur / factor


def _spread_about_median(values: np.ndarray) -> np.ndarray:
    """Return the root mean square about the median that a normal error with this median size would have."""
    return np.median(np.abs(values - np.median(values, axis=0)), axis=0) / _MEDIAN


def by_rows(shape: Shape, values: np.ndarray) -> np.ndarray:
    """Return an array with the batch as its first axis; what has none is one row."""
    return np.moveaxis(values, list(shape).index(BATCH), 0) if BATCH in shape else values[None]


@dataclass(frozen=True)
class Jumps:
    """The effect of moved operands on one output.

    Args:
        moved: the output's values; still: its values where nothing is moved.
        chances: of each row, how likely what moved it is in a run, beside how likely it was here.
    """

    moved: Reals
    still: Reals
    chances: np.ndarray


def jumps(
    graph: Graph,
    runs: Sequence[Feeds],
    unsure: Mapping[str, Compared],
    draws: Draws,
    count: Callable[[str, Sequence[Jumps]], int],
) -> dict[str, list[Jumps]]:
    """Find how outputs that decisions lead to change where these do; by the name of the graph's value.

    What jumps often does so where values move by no more than they are off by.  Else they are moved further, then less
    and less for as long as enough jumps are seen: what only bends where it seems to jump shows that it does not.  Two
    that differ ever less, as probabilities that saturate, are equal more often than that shows; then it is what was
    seen at first.

    Args:
        count: how many rows of a value jump.
    """
    scenes = [_Scene(graph, feeds, unsure) for feeds in runs]

    def tried(part: float, wanted: set[str]) -> dict[str, list[Jumps]]:
        moved = [scene.moved(part, draws) for scene in scenes * _TRIES]
        return {name: [each[name] for each in moved if name in each] for name in wanted}

    found = tried(0.0, {name for scene in scenes for name in scene.outputs})
    few = {name: seen for name, seen in found.items() if count(name, seen) < _OFTEN}
    part, wanted = _FIRST_PART, set(few)
    while wanted and part > _LEAST_PART:
        enough = 1 if part == _FIRST_PART else _ENOUGH
        seen = {name: each for name, each in tried(part, wanted).items() if count(name, each) >= enough}
        found.update(seen)
        wanted, part = set(seen), part * _FINER
    found.update((name, seen) for name, seen in few.items() if 2 <= count(name, seen) > _IN_VAIN * _sum(found[name]))
    return found


def _sum(seen: Sequence[Jumps]) -> float:
    """Return how many rows can be expected to jump."""
    return sum(float(each.chances.sum()) for each in seen)


class _Scene:
    """One run: what does not depend on any unsure decision is computed once."""

    def __init__(self, graph: Graph, feeds: Feeds, unsure: Mapping[str, Compared]) -> None:
        self._unsure = unsure
        self._shapes = {given.name: given.shape for given in graph.inputs}
        self._shapes.update((node.writes, node.shape) for node in graph.nodes)
        behind = set(unsure)
        for node in graph.nodes:
            if behind.intersection(node.reads):
                behind.add(node.writes)
        self._nodes = [node for node in graph.nodes if node.writes in behind]
        self.outputs = {out.value for out in graph.outputs} & behind
        self._known = {name for node in self._nodes for name in node.reads} - behind
        reads = {node.writes: node.reads[0] for node in self._nodes if node.writes in unsure}
        self._sources = {name: _source_of(graph, self._shapes, read) for name, read in reads.items()}
        self._values, self._rows = entered(graph, feeds)
        self._still: dict[str, Reals] = {}
        for node, value in evaluate(graph, feeds):
            if node.writes in self._known:
                self._values[node.writes] = value
            if node.writes in self.outputs:
                self._still[node.writes] = value

    def moved(self, part: float, draws: Draws) -> dict[str, Jumps]:
        """The outputs where every unsure decision compares something else, by a part of its spread."""
        weight, number = np.zeros(self._rows), np.zeros(self._rows)

        def decide(node: Node, operand: Reals, operator: Callable[[Reals], Reals]) -> Reals:
            known = self._unsure.get(node.writes)
            if known is None:
                return operator(operand)
            noise, chance = self._noise(node, known, operand, part, draws)
            decided = operator(operand + noise)
            flips = by_rows(node.shape, decided != operator(operand))
            if node.op != "whole":
                chance = chance[..., None] if node.op == "step" else chance.max(axis=-1, keepdims=True)
            axes = tuple(range(1, flips.ndim))
            weight[...] += (flips * chance).sum(axis=axes)
            number[...] += flips.sum(axis=axes)
            return decided

        found = {
            node.writes: value
            for node, value in follow(self._nodes, dict(self._values), self._rows, decide)
            if node.writes in self.outputs
        }
        chances = weight / np.maximum(number, 1.0)
        return {name: Jumps(value, self._still[name], chances) for name, value in found.items()}

    def _noise(
        self, node: Node, known: Compared, operand: Reals, part: float, draws: Draws
    ) -> tuple[np.ndarray, np.ndarray]:
        """By how much an operand moves, and how large its error is beside that; elements of one source move alike."""
        source = self._sources[node.writes]
        if source is not None:
            noise = known.spared(operand, source.noise(self._rows, draws))
            by = max(part * _size(known.spread), float(known.off.max()))
            return noise * (by / (_size(noise) or 1.0)), known.off / by
        each = np.where(known.off > 0, np.maximum(part * known.spread, known.off), 0.0)
        shape = self._shapes[node.reads[0]]
        noise = draws.normal(by_rows(shape, operand).shape) * each
        noise = np.moveaxis(noise, 0, list(shape).index(BATCH)) if BATCH in shape else noise[0]
        return known.spared(operand, noise), known.off / np.where(each > 0, each, 1.0)


def _size(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


@dataclass(frozen=True)
class _Source:
    """The one value that a compared one is made of, elements of which go into several of its elements.

    Args:
        chain: the linear nodes between them.
        value: what the last of them writes.
    """

    name: str
    shape: Shape
    chain: list[Node]
    value: str

    def noise(self, rows: int, draws: Draws) -> np.ndarray:
        """Return the noise in the compared value that independent noise on the source makes."""
        noise = draws.normal(tuple(rows if size == BATCH else int(size) for size in self.shape))
        there, without = (self._followed(values, rows) for values in (noise, np.zeros_like(noise)))
        return there - without

    def _followed(self, values: np.ndarray, rows: int) -> np.ndarray:
        return next(v for node, v in follow(self.chain, {self.name: values}, rows) if node.writes == self.value)


def _source_of(graph: Graph, shapes: Mapping[str, Shape], value: str) -> _Source | None:
    """The source of a compared value; None if it has several, or one element each."""
    writers = {node.writes: node for node in graph.nodes}
    chain: dict[str, Node] = {}
    sources: set[str] = set()
    ahead = [value]
    while ahead:
        name = ahead.pop()
        node = writers.get(name)
        if node is None or node.op not in _LINEAR:
            sources.add(name)
        elif name not in chain:
            chain[name] = node
            ahead += node.reads
    if len(sources) != 1 or not any(_spreads(node, shapes) for node in chain.values()):
        return None
    [name] = sources
    return _Source(name, shapes[name], [node for node in graph.nodes if node.writes in chain], value)


def _spreads(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Does one element of what it reads go into several?"""
    if isinstance(node.attributes, Take):
        taken = [index for index in node.attributes.indices if index >= 0]
        return len(taken) > len(set(taken))
    return len(node.reads) > 1 or any(prod(static(node.shape)) > prod(static(shapes[name])) for name in node.reads)
