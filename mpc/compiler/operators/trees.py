"""Trees and forests, their structure secret.

Every node of every tree is compared at once: x S - t, S a secret choice of features, and a step.
A leaf is reached if all decisions on its path agree: the agreeing ones are counted by a secret
matrix of 1, -1 and 0, whose result is at most 0 and is 0 for one leaf of each tree.  A second
step finds it, a last product adds up the leaves' values.  Nine rounds, whatever the depth.  All
trees are filled up to the size of the largest, which is what a plan tells of them.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.ensembles import ONE_HOT, by_ids, by_places, plain
from mpc.compiler.operators.forest import Forest, values_of
from mpc.compiler.operators.labels import ML, labels_of, read_as
from mpc.compiler.operators.linear import table
from mpc.compiler.operators.missing import limits_of, marks_of, unscaled_columns
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.scores import above, largest, pair, require_classes, transform_of, transformed

THRESHOLD_BITS = 36
"""Of a comparison with a threshold: 2^-35 of a feature's range decides, six chunks of a table pay for it."""
_ROUNDINGS = 2.0**-8
"""Room for what each leaf's value is rounded by, beside the largest sum."""
_MOST_CHOICES = 1 << 24
"""Elements of a secret matrix: 128 MiB of weights."""


def evaluate(state: Context, name: str, forest: Forest, values: np.ndarray, base: np.ndarray | None) -> str:
    """Sum the values of the leaves that are reached, over all trees.

    Args:
        values: (trees * leaves, columns).
    """
    x, features = table(state, name)
    trees = forest.trees
    inner = max(len(tree.features) for tree in trees)
    leaves = len(values) // len(trees)
    if not inner:
        raise state.origin.refuse(
            "its trees decide nothing",
            remedy=(
                "train until a tree splits (a larger max_depth, a smaller min_samples_leaf), or "
                "leave the model out: its result is a constant"
            ),
        )
    if len(trees) * inner * max(leaves, features) > _MOST_CHOICES:
        raise state.origin.refuse(
            f"{len(trees)} trees, the largest with {leaves} leaves, of {features} features, are too large",
            remedy="train fewer or smaller trees (max_depth, max_leaf_nodes)",
        )
    choice, offset = np.zeros((features, len(trees), inner)), np.zeros((len(trees), inner))
    sides = np.zeros_like(choice)
    agree, never = np.zeros((len(trees), inner, leaves)), np.full((len(trees), 1, leaves), -1.0)
    for t, tree in enumerate(trees):
        if any(not 0 <= feature < features for feature in tree.features):
            raise state.origin.refuse(
                f"a feature outside the {features} of its input",
                attribute="nodes_featureids",
                remedy=(
                    "enter all features that the trees were trained on (--shape NAME=batch,FEATURES, "
                    "if the model leaves it open), or convert the forest anew"
                ),
            )
        places = np.arange(len(tree.features))
        choice[tree.features, t, places] = tree.signs
        offset[t, places] = tree.offsets
        sides[tree.features, t, places] = tree.sides
        for place, leaf in enumerate(tree.leaves):
            never[t, 0, place] = sum(turn.less for turn in leaf.turns())
            for decision, factor in (item for turn in leaf.turns() for item in turn.factors.items()):
                agree[t, decision, place] = factor
    rows = state.shapes[x][:-1]
    parts = [each.reshape(features, -1) for each in (choice, sides)]
    apart = _apart(state, x, parts, offset.reshape(-1), forest)
    decisions = state.reshape(state.steps(apart, (0.0,), bits=THRESHOLD_BITS), (*rows, len(trees), 1, inner))
    counted = state.affine(decisions, agree, never)
    state.integral.add(counted)
    reached = state.reshape(state.step(counted), (*rows, len(trees) * leaves))
    return state.affine(reached, values, base, known=_reach(forest, values, base))


def _reach(forest: Forest, values: np.ndarray, base: np.ndarray | None) -> tuple[float, float]:
    """Bound the trees' sum: of each tree one leaf is reached, and intervals alone would add all of them.

    Args:
        values: (trees * leaves, columns), trees filled up to the same number of leaves.
    """
    leaves = values.reshape(len(forest.trees), -1, values.shape[1])
    real = [leaves[t, : len(tree.leaves)] for t, tree in enumerate(forest.trees)]
    start = np.zeros(values.shape[1]) if base is None else base
    low = float((start + sum(tree.min(axis=0) for tree in real)).min())
    high = float((start + sum(tree.max(axis=0) for tree in real)).max())
    room = max(-low, high, 1.0) * _ROUNDINGS
    return low - room, high + room


def _apart(state: Context, x: str, parts: list[np.ndarray], offset: np.ndarray, forest: Forest) -> str:
    """Return values (.., comparisons) that are at least 0 where a comparison holds.

    Args:
        parts: the features' signs, and the sides of those that are missing; (features, comparisons) each.
    """
    choice, sides = parts
    if forest.missing is None:
        return state.affine(x, choice, offset, signs=True)
    x, weight, bias = unscaled_columns(state, x)
    choice, offset = weight.reshape(-1, 1) * choice, offset + bias @ choice
    found = marks_of(state, x)
    if found is None:
        limits, there = (each.reshape(-1, each.shape[-1])[0] for each in limits_of(state, x))
        offset = _below(choice, offset, limits, there, forest.side)
        return state.affine(x, choice, offset, signs=True)
    choice, offset = _finite(choice, offset)
    beside = state.concat((x, found[0]), 1)
    apart = state.affine(beside, np.concatenate([choice, sides]), offset, signs=True, marks=len(sides))
    state.aware.add(apart)
    return apart


def _finite(choice: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Comparisons with plus and minus infinity, of which only missing numbers decide, as ones with a constant."""
    endless = np.isinf(offset)
    return np.where(endless, 0.0, choice), np.where(endless, np.sign(offset), offset)


def _below(choice: np.ndarray, offset: np.ndarray, limits: np.ndarray, there: np.ndarray, side: str) -> np.ndarray:
    """Offsets of thresholds that are at most halfway between a column's range and what stands for missing numbers.

    Shapes: choice (features, comparisons), of one feature each; limits and there (features,).
    """
    feature = np.abs(choice).argmax(axis=0)
    factor = choice[feature, np.arange(choice.shape[1])]
    compared = (factor != 0) & there[feature]
    limit = limits[feature]
    threshold = np.where(compared, -offset / np.where(compared, factor, 1.0), 0.0)
    over = compared & ((threshold > limit) if side == "high" else (threshold < limit))
    return np.where(over, -limit * factor, offset)


def _table(forest: Forest, columns: int) -> np.ndarray:
    return values_of(forest, max(len(tree.leaves) for tree in forest.trees), columns)


def _base(state: Context, settings: Settings, columns: int) -> np.ndarray | None:
    base = list(settings.get("base_values") or ())
    if len(base) not in (0, columns):
        raise state.origin.refuse(
            f"{len(base)} base values for {columns} columns",
            attribute="base_values",
            remedy=f"give {columns} base values, or none",
        )
    return np.array(base, dtype=np.float64) if base else None


def _regress(state: Context, node: ModelNode, settings: Settings, forest: Forest, columns: int) -> None:
    """The transform of one target alone is left out, as onnxruntime does."""
    joined = settings.get("aggregate_function", b"SUM").decode()
    if joined not in ("SUM", "AVERAGE"):
        raise state.origin.refuse(
            f"the aggregate {joined}; SUM and AVERAGE are possible",
            attribute="aggregate_function",
            remedy=(
                "use SUM or AVERAGE; the least or largest of several trees is a Min or Max of models of one tree each"
            ),
        )
    transform = transform_of(state, settings)
    values = _table(forest, columns) / (len(forest.trees) if joined == "AVERAGE" else 1)
    total = evaluate(state, node.input[0], forest, values, _base(state, settings, columns))
    transformed(state, total, transform if columns > 1 else "NONE", node.output[0])


@handles("TreeEnsembleRegressor", domain=ML)
def tree_regressor(state: Context, node: ModelNode, settings: Settings) -> None:
    settings = plain(state, settings)
    columns = _columns(state, settings)
    _regress(state, node, settings, by_ids(state, node.input[0], settings, "target", columns), columns)


def _columns(state: Context, settings: Settings) -> int:
    columns = int(settings.get("n_targets", 1))
    if not 1 <= columns <= 1 << 16:
        raise state.origin.refuse(
            f"{columns} targets", attribute="n_targets", remedy="declare 1 to 65,536 targets, or several models"
        )
    return columns


@handles("TreeEnsemble", domain=ML)
def tree_ensemble(state: Context, node: ModelNode, settings: Settings) -> None:
    """Evaluate the trees; numbers name the aggregate and the transform."""
    settings = plain(state, settings)
    if settings.get("membership_values"):
        raise state.origin.refuse("set membership is not possible", attribute="membership_values", remedy=ONE_HOT)
    if settings.get("post_transform", 0):
        raise state.origin.refuse(
            "a transform, whose number onnxruntime and the standard read differently",
            attribute="post_transform",
            remedy="write it as an operator of its own behind this one",
        )
    columns, joined = _columns(state, settings), int(settings.get("aggregate_function", 1))
    if joined not in (0, 1):
        raise state.origin.refuse(
            "neither the sum nor the average",
            attribute="aggregate_function",
            remedy=(
                "use 1, the sum, or 0, the average; the least or largest is a Min or Max of models of one tree each"
            ),
        )
    named = {"aggregate_function": b"SUM" if joined else b"AVERAGE", "post_transform": b"NONE"}
    _regress(state, node, {**settings, **named}, by_places(state, node.input[0], settings, columns), columns)


@handles("TreeEnsembleClassifier", domain=ML)
def tree_classifier(state: Context, node: ModelNode, settings: Settings) -> None:
    settings = plain(state, settings)
    labels = labels_of(settings, "classlabels_int64s", "classlabels_strings")
    require_classes(state, labels, "classlabels_int64s")
    transform = transform_of(state, settings)
    forest = by_ids(state, node.input[0], settings, "class", len(labels))
    columns = {column for values in forest.values.values() for column, _ in values}
    if len(labels) == 2:
        index = _two_classes(state, node, settings, forest, columns, transform)
    else:
        _require_scores(state, settings, forest, len(labels))
        values = _table(forest, len(labels))
        scores = evaluate(state, node.input[0], forest, values, _base(state, settings, len(labels)))
        index = largest(state, scores, exact=transform == "NONE")
        transformed(state, scores, transform, node.output[1])
    read_as(state, node.output[0], index, labels, state.shapes[index][:-1])


def _two_classes(
    state: Context, node: ModelNode, settings: Settings, forest: Forest, columns: set[int], transform: str
) -> str:
    """One score s for both.  Where no leaf is negative it is a probability, and is compared with a half.

    Listed as class 1's, it is alone: the first class's score stays 0, and is transformed like any other.
    """
    base = list(settings.get("base_values") or ())
    if len(columns) != 1 or len(base) > (1 if columns == {0} else 0):
        raise state.origin.refuse(
            "two classes with scores of their own, whose label onnxruntime and the standard read differently",
            attribute="class_ids",
            remedy="write one score a leaf, that of the second class, as skl2onnx does",
        )
    [column] = columns
    values = _table(forest, 2)[:, [column]]
    score = evaluate(state, node.input[0], forest, values, np.array(base) if base else None)
    positive = all(value >= 0 for entries in forest.values.values() for _, value in entries)
    index = above(state, score, 0.5 if positive else 0.0)
    if column == 0:
        pair(state, score, transform, node.output[1], whole=positive)
    else:
        scores = state.concat((state.sum((score, score), (1.0, -1.0)), score), 1)
        transformed(state, scores, transform, node.output[1])
    return index


def _require_scores(state: Context, settings: Settings, forest: Forest, number: int) -> None:
    """onnxruntime leaves a class out that no leaf has given a score; that matters where scores can be negative."""
    positive = all(value >= 0 for entries in forest.values.values() for _, value in entries)
    if settings.get("base_values") or positive:
        return
    always: set[int] = set()
    for tree in forest.trees:
        given = [{column for column, _ in forest.values.get(leaf.row, ())} for leaf in tree.leaves]
        always |= set.intersection(*given)
    if len(always) < number:
        raise state.origin.refuse(
            "a class may be left without a score, and scores can be negative",
            attribute="class_ids",
            remedy="give every class a score in all leaves of some tree, 0 if need be",
        )
