"""Support vector machines of ai.onnx.ml: kernels of the input with secret vectors, then a linear map.

A linear kernel and what follows it are one product.  The squared distance of a radial kernel is
|x|^2 - 2 x v + |v|^2, its exponential costs one series a vector and row.
"""

from __future__ import annotations

import math

import numpy as np

from mpc.compiler.graph.attributes import Weigh
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import whole_power
from mpc.compiler.operators.facts import Place
from mpc.compiler.operators.labels import ML, labels_of, read_as
from mpc.compiler.operators.linear import table
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.scores import above, largest, pair, require_classes, transform_of, transformed

_KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")
_LONGEST_POWER = 16


def _machine(state: Context, name: str, settings: Settings, vectors: np.ndarray, weight: np.ndarray) -> str:
    """kernel(x, vectors) weight + rho.

    Shapes: vectors (vectors, features), weight (vectors, scores).
    """
    bias = np.array(settings.get("rho", ()), dtype=np.float64)[: weight.shape[1]]
    if bias.size != weight.shape[1]:
        raise state.origin.refuse(
            f"{bias.size} offsets for {weight.shape[1]} scores",
            attribute="rho",
            remedy="give one offset in rho for each pair of classes, or one for a regression",
        )
    kernel = settings.get("kernel_type", b"LINEAR").decode()
    if kernel not in _KERNELS:
        raise state.origin.refuse(
            f"the kernel {kernel}", attribute="kernel_type", remedy="train with the kernel LINEAR, POLY, RBF or SIGMOID"
        )
    if kernel == "LINEAR":
        return state.affine(name, vectors.T @ weight, bias)
    parameters = [float(p) for p in settings.get("kernel_params", ())]
    if len(parameters) != 3 or not np.isfinite(parameters).all():
        raise state.origin.refuse(
            "gamma, an offset and a degree are needed",
            attribute="kernel_params",
            remedy="give three finite numbers: gamma, coef0 and degree",
        )
    gamma, offset, degree = parameters
    if kernel == "RBF":
        return state.affine(_radial(state, name, vectors, gamma), weight, bias)
    inner = state.affine(name, gamma * vectors.T, np.full(len(vectors), offset))
    if kernel == "SIGMOID":
        return state.affine(state.function("tanh", inner), weight, bias)
    if not degree.is_integer() or not 1 <= degree <= _LONGEST_POWER:
        raise state.origin.refuse(
            f"a kernel of degree {degree:g}; 1 to {_LONGEST_POWER} are possible",
            attribute="kernel_params",
            remedy=f"train with a whole degree from 1 to {_LONGEST_POWER}, or the kernel RBF",
        )
    return state.affine(whole_power(state, inner, int(degree)), weight, bias)


def _radial(state: Context, name: str, vectors: np.ndarray, gamma: float) -> str:
    """exp(-gamma |x - v|^2), from x and v times the root of gamma."""
    if gamma < 0:
        raise state.origin.refuse(
            f"gamma is {gamma:g}",
            attribute="kernel_params",
            remedy="train with a gamma above 0 ('scale' and 'auto' are)",
        )
    root = math.sqrt(gamma)
    x, scaled = state.scale(name, root), vectors * root
    square = state.total(state.multiply(x, x), (1,))
    crossed = state.affine(x, 2.0 * scaled.T, -np.square(scaled).sum(axis=1))
    apart = state.sum((crossed, square), (1.0, -1.0), known=(-np.inf, 0.0))
    return state.function("exp_negative", apart, terms=float(len(vectors)))


def _vectors(state: Context, settings: Settings, number: int, features: int) -> np.ndarray:
    values = np.array(settings.get("support_vectors", ()), dtype=np.float64)
    if number < 1 or values.size != number * features:
        raise state.origin.refuse(
            f"{values.size} numbers for {number} vectors of {features} features",
            attribute="support_vectors",
            remedy=(
                "give as many numbers as vectors times features, and check the input's number of "
                "columns (--shape NAME=batch,FEATURES)"
            ),
        )
    state.require_finite(values)
    return values.reshape(number, features)


# ------------------------------------------------------------------- regression


@handles("SVMRegressor", domain=ML)
def svm_regressor(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute a score; of one class, write 1 where the score is positive, else -1."""
    name, features = table(state, node.input[0])
    number = int(settings.get("n_supports", 0))
    weight = np.array(settings.get("coefficients", ()), dtype=np.float64)
    if weight.size != (number or features):
        raise state.origin.refuse(
            f"{weight.size} coefficients for {number} vectors",
            attribute="coefficients",
            remedy="give one coefficient for each support vector",
        )
    if number:
        score = _machine(state, name, settings, _vectors(state, settings, number, features), weight[:, None])
    else:
        score = _machine(state, name, {**settings, "kernel_type": b"LINEAR"}, np.eye(features), weight[:, None])
    if settings.get("one_class", 0):
        state.sum((above(state, score),), (2.0,), node.output[0], -1.0)
    else:
        state.reshape(score, state.shapes[score], node.output[0])


# ------------------------------------------------------------------- classification


@handles("SVMClassifier", domain=ML)
def svm_classifier(state: Context, node: ModelNode, settings: Settings) -> None:
    """Let a score for each pair of classes vote for one of them; with prob_a and prob_b, give Platt's probabilities."""
    name, features = table(state, node.input[0])
    labels = labels_of(settings, "classlabels_ints", "classlabels_strings")
    require_classes(state, labels, "classlabels_ints")
    transform, out = transform_of(state, settings), node.output[1]
    classes, counts = len(labels), [int(c) for c in settings.get("vectors_per_class", ())]
    if not sum(counts):
        _linear(state, node, settings, labels, features)
        return
    if len(counts) != classes or min(counts) < 0:
        raise state.origin.refuse(
            f"vectors of {len(counts)} classes, not {classes}",
            attribute="vectors_per_class",
            remedy=f"list {classes} numbers in vectors_per_class, one for each class label",
        )
    vectors = _vectors(state, settings, sum(counts), features)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    scores = _machine(state, name, settings, vectors, _pairwise(state, settings, counts, pairs))
    if classes == 2:
        bit = above(state, scores)  # a positive score is a vote for the first
        index = state.sum((bit,), (-1.0,), None, 1.0)
        state.facts[index] = Place()
        if settings.get("prob_a"):
            _platt(state, settings, scores, transform, out)
        else:
            pair(state, scores, transform, out, whole=transform != "NONE")
    else:
        index = largest(state, _votes(state, scores, pairs, classes), exact=True)
        if settings.get("prob_a"):
            raise state.origin.refuse(
                "probabilities of more than two classes, which are the result of an iteration",
                attribute="prob_a",
                remedy="train with probability=False, or wrap the model in CalibratedClassifierCV",
            )
        transformed(state, scores, transform, out)
    read_as(state, node.output[0], index, labels, state.shapes[index][:-1])


def _linear(state: Context, node: ModelNode, settings: Settings, labels: tuple[int | str, ...], features: int) -> None:
    """Without vectors: the largest of one score a class; they share one offset."""
    weight = np.array(settings.get("coefficients", ()), dtype=np.float64)
    if len(labels) == 2 or weight.size != len(labels) * features:
        raise state.origin.refuse(
            f"{weight.size} coefficients for {len(labels)} classes and {features} features, and no support vectors",
            attribute="coefficients",
            remedy="use a LinearClassifier",
        )
    rho = np.array(settings.get("rho") or [0.0], dtype=np.float64)
    scores = state.affine(node.input[0], weight.reshape(len(labels), features).T, rho[:1])
    index = largest(state, scores, exact=False)
    read_as(state, node.output[0], index, labels, state.shapes[index][:-1])
    transformed(state, scores, transform_of(state, settings), node.output[1])


def _pairwise(state: Context, settings: Settings, counts: list[int], pairs: list[tuple[int, int]]) -> np.ndarray:
    """(vectors, pairs).  A vector of class i has one coefficient against every other class, j after i in row j - 1."""
    number = sum(counts)
    given = np.array(settings.get("coefficients", ()), dtype=np.float64)
    if given.size != (len(counts) - 1) * number:
        raise state.origin.refuse(
            f"{given.size} coefficients for {number} vectors",
            attribute="coefficients",
            remedy="give each vector as many coefficients as there are classes less one",
        )
    rows = given.reshape(len(counts) - 1, number)
    owner = np.repeat(np.arange(len(counts)), counts)
    weight = np.zeros((number, len(pairs)))
    for place, (i, j) in enumerate(pairs):
        weight[owner == i, place] = rows[j - 1, owner == i]
        weight[owner == j, place] = rows[i, owner == j]
    return weight


def _votes(state: Context, scores: str, pairs: list[tuple[int, int]], classes: int) -> str:
    """How many pairs each class wins: what it wins as the first of a pair, and as the second what is not won."""
    wins = above(state, scores)
    chosen = [place for c in range(classes) for place, two in enumerate(pairs) if c in two]
    signs = [1.0 if two[0] == c else -1.0 for c in range(classes) for two in pairs if c in two]
    lead = state.shapes[scores][:-1]
    taken = state.take(wins, len(lead), chosen)
    signed = state.emit("weigh", (taken,), None, state.shapes[taken], Weigh(axis=len(lead), factors=tuple(signs)))
    won = state.total(state.reshape(signed, (*lead, classes, classes - 1)), (len(lead) + 1,))
    # class c is the second of c pairs, in each of which a loss of the first counts
    votes = state.scale(state.reshape(won, (*lead, classes)), 1.0, np.arange(classes, dtype=np.float64))
    state.integral.add(votes)
    return votes


def _platt(state: Context, settings: Settings, score: str, transform: str, out: str) -> None:
    """The first class has 1 - sigmoid(a s + b); onnxruntime and libsvm iterate towards that, and stop early."""
    a, b = ([float(v) for v in settings.get(name, ())] for name in ("prob_a", "prob_b"))
    if len(a) != 1 or len(b) != 1 or transform != "NONE":
        raise state.origin.refuse(
            f"{len(a)} and {len(b)} numbers for one pair, or a transform",
            attribute="prob_a",
            remedy=(
                "give one number in prob_a and one in prob_b, with post_transform=NONE; or convert "
                "without probabilities"
            ),
        )
    state.note(
        "its probabilities are the sigmoid that was fitted; onnxruntime and scikit-learn stop an iteration early, and "
        "may tell up to 0.005 less or more"
    )
    fitted = state.scale(score, a[0], b[0])
    pair(state, fitted, "LOGISTIC", out, whole=True)
