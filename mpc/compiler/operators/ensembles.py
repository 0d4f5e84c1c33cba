"""A tree ensemble's attributes as a forest: nodes named by ids, or by places in their lists, as the operator has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mpc.compiler.operators.context import Context, Settings
from mpc.compiler.operators.forest import MODES, Forest, Row, walked

ONE_HOT = "train on a column of 0 and 1 for each category (scikit-learn's OneHotEncoder), with thresholds between them"
_NODES = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
_VALUES = ("treeids", "nodeids", "ids", "weights")


def plain(state: Context, settings: Settings) -> Settings:
    """Return tensor attributes as lists; the double-precision twin of a list wins."""
    tensors = {name: value for name, value in settings.items() if hasattr(value, "data_type")}
    arrays = {name.removesuffix("_as_tensor"): state.array(value).reshape(-1) for name, value in tensors.items()}
    return {**settings, **{name: array.tolist() for name, array in arrays.items()}}


def lists(state: Context, settings: Settings, names: Sequence[str]) -> list[list[Any]]:
    """Return attributes that have one entry for each of the same things."""
    found = [list(settings.get(name, ())) for name in names]
    for name, entries in zip(names, found, strict=True):
        if not entries or len(entries) != len(found[0]):
            raise state.origin.refuse(
                f"{name} has {len(entries)} entries, {names[0]} {len(found[0])}",
                attribute=name,
                remedy=f"give as many entries as {names[0]} has",
            )
    return found


def by_ids(state: Context, x: str, settings: Settings, kind: str, columns: int) -> Forest:
    """Read a TreeEnsembleClassifier or -Regressor, whose nodes are named by (tree, node).

    Args:
        kind: how the names of the attributes begin that have the leaves' values.
    """
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
    return walked(state, x, nodes, roots, values)


def by_places(state: Context, x: str, settings: Settings, columns: int) -> Forest:
    """Read a TreeEnsemble: inner nodes and leaves are in two lists, and their places are their names."""
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
    return walked(state, x, nodes, roots, values)


def _tracks(state: Context, settings: Settings, number: int) -> list[bool]:
    """Tell, for each node, whether a missing number takes the true side."""
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
            f"column {column}, and there are columns 0 to {columns - 1}",
            attribute=attribute,
            remedy=(f"number the columns from 0 to {columns - 1}, or declare more of them (n_targets, classlabels)"),
        )
    return int(column)
