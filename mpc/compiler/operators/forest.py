"""A tree ensemble of ai.onnx.ml as one list of nodes, whichever operator has it, checked.

What is reached only through a threshold of plus or minus infinity is cut off here, unless missing numbers reach it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc.compiler.operators.context import Context, Settings
from mpc.compiler.operators.missing import may_miss

ONE_HOT = "train on a column of 0 and 1 for each category (scikit-learn's OneHotEncoder), with thresholds between them"
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
"""In the order of their numbers in the operator TreeEnsemble."""
_NODES = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
_VALUES = ("treeids", "nodeids", "ids", "weights")


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
        """Its place."""
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


def plain(state: Context, settings: Settings) -> Settings:
    """Tensor attributes as lists; the double-precision twin of a list wins."""
    tensors = {name: value for name, value in settings.items() if hasattr(value, "data_type")}
    arrays = {name.removesuffix("_as_tensor"): state.array(value).reshape(-1) for name, value in tensors.items()}
    return {**settings, **{name: array.tolist() for name, array in arrays.items()}}


def lists(state: Context, settings: Settings, names: Sequence[str]) -> list[list[Any]]:
    """Attributes that have one entry for each of the same things."""
    found = [list(settings.get(name, ())) for name in names]
    for name, entries in zip(names, found, strict=True):
        if not entries or len(entries) != len(found[0]):
            raise state.origin.refuse(
                f"{name} has {len(entries)} entries, {names[0]} {len(found[0])}",
                attribute=name,
                remedy=f"give as many entries as {names[0]} has",
            )
    return found


# ------------------------------------------------------------------- the operators' attributes


def by_ids(state: Context, x: str, settings: Settings, kind: str, columns: int) -> Forest:
    """Of TreeEnsembleClassifier and -Regressor: nodes named by (tree, node); kind: of their values' attributes."""
    entries = list(zip(*lists(state, settings, [f"nodes_{name}" for name in _NODES]), strict=True))
    tracks = _tracks(state, settings, len(entries))
    rows = {(tree, node): row for row, (tree, node, *_) in enumerate(entries)}
    if len(rows) != len(entries):
        raise state.origin.refuse(
            "a node is there twice",
            attribute="nodes_nodeids",
            remedy=("give every node of a tree an id of its own: convert the forest anew (skl2onnx, onnxmltools)"),
        )
    nodes, roots, before = [], [], None
    for row, (tree, _, mode, feature, value, true, false) in enumerate(entries):
        if tree != before:
            roots.append(row)
        before = tree
        if mode == b"LEAF":
            nodes.append(Row("LEAF"))
            continue
        children = [rows.get((tree, child), -1) for child in (true, false)]
        nodes.append(
            Row(mode.decode(errors="replace"), int(feature), float(value), children[0], children[1], tracks[row])
        )
    if len(roots) != len({tree for tree, _ in rows}):
        raise state.origin.refuse(
            "the nodes of a tree are not side by side",
            attribute="nodes_treeids",
            remedy="sort the nodes by tree: all lists of nodes_ in one order",
        )
    values: dict[int, list[tuple[int, float]]] = {}
    for tree, node, column, value in zip(*lists(state, settings, [f"{kind}_{name}" for name in _VALUES]), strict=True):
        row = rows.get((tree, node), -1)
        if row < 0 or nodes[row].mode != "LEAF":
            raise state.origin.refuse(
                f"node {node} of tree {tree} has values and is no leaf",
                attribute=f"{kind}_nodeids",
                remedy="give values to leaves only: convert the forest anew",
            )
        given = values.setdefault(row, [])
        if any(column == before for before, _ in given):
            raise state.origin.refuse(
                f"node {node} of tree {tree} has two values for one column",
                attribute=f"{kind}_ids",
                remedy="give their sum as one value",
            )
        given.append((_column(state, column, columns, f"{kind}_ids"), float(value)))
    return _walked(state, x, nodes, roots, values)


def by_places(state: Context, x: str, settings: Settings, columns: int) -> Forest:
    """Of TreeEnsemble: inner nodes and leaves in two lists, whose places are their names."""
    sides = ("truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    names = [f"nodes_{name}" for name in ("featureids", "splits", "modes", *sides)]
    inner = list(zip(*lists(state, settings, names), strict=True))
    leaves = list(zip(*lists(state, settings, ("leaf_targetids", "leaf_weights")), strict=True))
    nodes, tracks = [], _tracks(state, settings, len(inner))
    for row, (feature, value, mode, true, false, true_leaf, false_leaf) in enumerate(inner):
        if not 0 <= int(mode) < len(MODES):
            raise state.origin.refuse(
                f"the comparison {mode}; set membership is not possible", attribute="nodes_modes", remedy=ONE_HOT
            )
        ends = [
            _place(child, leaf, len(inner), len(leaves)) for child, leaf in ((true, true_leaf), (false, false_leaf))
        ]
        nodes.append(Row(MODES[int(mode)], int(feature), float(value), ends[0], ends[1], tracks[row]))
    nodes += [Row("LEAF")] * len(leaves)
    values = {
        len(inner) + leaf: [(_column(state, column, columns, "leaf_targetids"), float(value))]
        for leaf, (column, value) in enumerate(leaves)
    }
    roots = [int(root) for root in settings.get("tree_roots", ())]
    if not roots or min(roots) < 0 or max(roots) >= len(inner):
        raise state.origin.refuse(
            "a tree has no root",
            attribute="tree_roots",
            remedy="list the place of each tree's first node in tree_roots, at least one",
        )
    # a tree that is one leaf has an inner node whose children both are that leaf
    for root in roots:
        if nodes[root].true == nodes[root].false:
            nodes[root] = Row("BRANCH_LEQ", nodes[root].feature, math.inf, nodes[root].true, nodes[root].true)
    return _walked(state, x, nodes, roots, values)


def _tracks(state: Context, settings: Settings, number: int) -> list[bool]:
    """Does a missing number take the true side, for each node?"""
    name = "nodes_missing_value_tracks_true"
    found = [bool(entry) for entry in settings.get(name, ())] or [False] * number
    if len(found) != number:
        raise state.origin.refuse(
            f"{name} has {len(found)} entries for {number} nodes",
            attribute=name,
            remedy="give it one entry for each node, or leave it out: convert the forest anew",
        )
    return found


def _place(child: int, leaf: int, inner: int, leaves: int) -> int:
    """-1 for what is not there."""
    if leaf:
        return inner + child if 0 <= child < leaves else -1
    return child if 0 <= child < inner else -1


def _column(state: Context, column: int, columns: int, attribute: str) -> int:
    if not 0 <= column < columns:
        raise state.origin.refuse(
            f"column {column} of {columns}",
            attribute=attribute,
            remedy=(f"number the columns from 0 to {columns - 1}, or declare more of them (n_targets, classlabels)"),
        )
    return int(column)


# ------------------------------------------------------------------- the trees


def _walked(
    state: Context, x: str, nodes: list[Row], roots: list[int], values: dict[int, list[tuple[int, float]]]
) -> Forest:
    """Every node has one parent, roots none."""
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
    """(trees * leaves, columns), each tree filled up to the same number of leaves."""
    table = np.zeros((len(forest.trees), leaves, columns))
    for t, tree in enumerate(forest.trees):
        for place, leaf in enumerate(tree.leaves):
            for column, value in forest.values.get(leaf.row, ()):
                table[t, place, column] += value
    return table.reshape(-1, columns)
