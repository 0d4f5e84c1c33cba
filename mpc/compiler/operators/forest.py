"""The trees of an ensemble of ai.onnx.ml, checked, from one list of nodes: see `ensembles`.

What is reached only through a threshold of plus or minus infinity is cut off here, unless missing numbers reach it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mpc.compiler.operators.context import Context
from mpc.compiler.operators.missing import may_miss

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
"""In the order of their numbers in the operator TreeEnsemble."""


@dataclass(frozen=True)
class Row:
    """A node: a comparison and its two children, or a leaf."""

    mode: str
    feature: int = 0
    value: float = 0.0
    true: int = -1
    false: int = -1
    tracks: bool = False
    """Does a missing number take the true side, whatever the comparison says of it?"""


@dataclass(frozen=True)
class Turn:
    """The last decision on a path: what it adds, at most 0 and 0 if it was taken, and the path before it.

    factors: of the results of comparisons, by their places; less: a constant beside them.
    """

    before: Turn | None
    factors: dict[int, float]
    less: float


@dataclass(frozen=True)
class Leaf:
    """A leaf is reached if what all decisions on its path add is 0."""

    row: int
    path: Turn | None

    def turns(self) -> Iterator[Turn]:
        turn = self.path
        while turn is not None:
            yield turn
            turn = turn.before


@dataclass
class Tree:
    """Comparisons [sign x_feature + offset >= 0], in the order of their places, and the leaves.

    sides: 1 or -1, the comparison's result if the number is missing: [side >= 0].
    """

    features: list[int] = field(default_factory=list)
    sides: list[float] = field(default_factory=list)
    signs: list[float] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)

    def compare(self, feature: int, sign: float, offset: float, missing: bool) -> int:
        """Append a comparison; return its place."""
        self.sides.append(1.0 if missing else -1.0)
        self.features.append(feature)
        self.signs.append(sign)
        self.offsets.append(offset)
        return len(self.features) - 1


@dataclass
class Forest:
    """Trees, and for each row that is a leaf its values: (column, value).

    missing: which features may miss numbers; None if none can.
    side: the end of the number line where trees treat numbers as missing ones; empty if there is none.
    """

    trees: list[Tree]
    values: dict[int, list[tuple[int, float]]]
    missing: np.ndarray | None = None
    side: str = ""


def walked(
    state: Context, x: str, nodes: list[Row], roots: list[int], values: dict[int, list[tuple[int, float]]]
) -> Forest:
    """Make a forest of the nodes, each of which has to have one parent, and roots none."""
    parents: dict[int, int] = {}
    for node in nodes:
        if node.mode == "LEAF":
            continue
        if node.mode not in MODES:
            raise state.origin.refuse(
                f"the comparison {node.mode[:40]} is not supported",
                attribute="nodes_modes",
                remedy=f"use one of {', '.join(MODES)}",
            )
        if math.isnan(node.value):
            raise state.origin.refuse(
                "a threshold is not a number",
                attribute="nodes_values",
                remedy="train the forest on data without NaN (SimpleImputer before it), and convert it anew",
            )
        for child in {node.true, node.false}:
            parents[child] = parents.get(child, 0) + 1
    if -1 in parents:
        raise state.origin.refuse(
            "a node's child is not there",
            attribute="nodes_truenodeids",
            remedy=("let nodes_truenodeids and nodes_falsenodeids name nodes of the tree: convert the forest anew"),
        )
    twice = next((row for row, count in parents.items() if count > 1), None)
    if twice is not None or any(root in parents for root in roots):
        raise state.origin.refuse(
            "a node is the child of two, or a tree's first node is no root",
            attribute="nodes_truenodeids",
            remedy=("write a node that two share once for each, and a tree's root first: convert the forest anew"),
        )
    reached = list(roots)
    for row in reached:  # which grows; no node is the child of two, so it ends
        reached += {nodes[row].true, nodes[row].false} if nodes[row].mode != "LEAF" else ()
    if len(reached) != len(nodes):
        raise state.origin.refuse(
            "a tree has two roots, or a cycle",
            attribute="nodes_truenodeids",
            remedy=(
                "write one root a tree and make every other node the child of one before it: convert the forest anew"
            ),
        )
    side = _side(nodes)
    missing = may_miss(state, x, side)
    return Forest([_tree(nodes, root, missing) for root in roots], values, missing, side)


def _side(nodes: list[Row]) -> str:
    """The end of the number line where all nodes treat numbers as missing ones: their comparison is false of both."""
    inner = [node for node in nodes if node.mode != "LEAF"]
    modes = {node.mode for node in inner} - {"BRANCH_EQ", "BRANCH_NEQ"}
    if any(node.tracks for node in inner):
        return ""
    if modes <= {"BRANCH_LEQ", "BRANCH_LT"}:
        return "high"
    return "low" if modes <= {"BRANCH_GTE", "BRANCH_GT"} else ""


def _tree(nodes: list[Row], root: int, missing: np.ndarray | None) -> Tree:
    tree = Tree()
    pending: list[tuple[int, Turn | None]] = [(root, None)]
    while pending:
        row, path = pending.pop()
        if nodes[row].mode == "LEAF":
            tree.leaves.append(Leaf(row, path))
        else:
            node = nodes[row]
            misses = missing is not None and 0 <= node.feature < len(missing) and bool(missing[node.feature])
            pending += [(child, Turn(path, factors, less)) for child, factors, less in _branches(tree, node, misses)]
    return tree


def _branches(tree: Tree, node: Row, misses: bool) -> Iterator[tuple[int, dict[int, float], float]]:
    """Each child that can be reached, and what its decision adds to a leaf's condition.

    NaN is unequal to all numbers, so all comparisons but that one are false of it.

    Args:
        misses: the number that is compared may be missing.
    """
    mode, x, t = node.mode, node.feature, node.value
    missing = node.tracks or mode == "BRANCH_NEQ"  # to the true side?
    true = {"BRANCH_LEQ": t > 0, "BRANCH_LT": t > 0, "BRANCH_GTE": t < 0, "BRANCH_GT": t < 0}
    there = true.get(mode, mode == "BRANCH_NEQ")
    if math.isinf(t) and not (misses and there != missing and node.true != node.false):
        yield (node.true if there else node.false), {}, 0.0
    elif mode in ("BRANCH_EQ", "BRANCH_NEQ"):
        # at least one of t >= x and x >= t; both where they are equal
        equal, other = (node.true, node.false) if mode == "BRANCH_EQ" else (node.false, node.true)
        least = tree.compare(x, -1.0, t, True)
        most = tree.compare(x, 1.0, -t, missing == (mode == "BRANCH_EQ"))
        yield equal, {least: 1.0, most: 1.0}, -2.0
        yield other, {least: -1.0, most: -1.0}, 1.0
    else:
        sign = -1.0 if mode in ("BRANCH_LEQ", "BRANCH_GT") else 1.0
        straight = mode in ("BRANCH_LEQ", "BRANCH_GTE")
        place = tree.compare(x, sign, -sign * t, missing == straight)
        one, zero = (node.true, node.false) if straight else (node.false, node.true)
        yield one, {place: 1.0}, -1.0
        yield zero, {place: -1.0}, 0.0


def values_of(forest: Forest, leaves: int, columns: int) -> np.ndarray:
    """Return (trees * leaves, columns), each tree filled up to the same number of leaves."""
    table = np.zeros((len(forest.trees), leaves, columns))
    for t, tree in enumerate(forest.trees):
        for place, leaf in enumerate(tree.leaves):
            for column, value in forest.values.get(leaf.row, ()):
                table[t, place, column] += value
    return table.reshape(-1, columns)
