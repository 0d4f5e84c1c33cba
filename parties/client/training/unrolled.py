"""Write private logistic regression as a model: gradient descent over all rows, unrolled, with norms and noise.

The plan is the whole training: steps of gradient descent over all rows, unrolled.  Rows are brought to a length of at
most 1, once, and a comparison inside holds them to it, whatever the data are.  The gradient has two parts,

    sum (p - y) x = sum (p - 1/2) x - sum (y - 1/2) x

of which the second is the same in every step, so it gets its noise once, and neither changes by more than the largest
length when a row is replaced, where (p - y) x changes by twice that.  p is held to its range inside, so no bound on
weights is needed.  Sums get Gaussian noise, and only what has noise is in the weights; so the next step may do with
them what it likes.  Told is the mean of the weights of the second half of all steps: it is made of what has noise, and
costs nothing more.  Nobody sees anything else.  With a margin p is that of a logit that is (2 y - 1) margin less, which
is the loss of logistic regression with a margin: rows that are hardly right still count, and noise matters less; but
then p is not how likely a row is a 1.

Noise is judged for all steps together (`mpc.privacy.gaussian.together`): noisy gradient descent as of Bassily, Smith
and Thakurta 2014 (Private empirical risk minimization), without sampling: which rows a step reads the parties know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from mpc.privacy.facts import GAUSSIAN, StoredFacts

if TYPE_CHECKING:
    import onnx

    from mpc.compiler.graph.noising import Noising

X, Y, W, WIDE, LABELS = "x", "y", "w", "wide", "sum of labels"
MOST_STEPS, MARGIN = 50, 3.0
_WORTH, _FEWEST, _MANY = 150, 2, 16
"""One step for so many rows times epsilon, but so few and so many, if none are said: as suits scikit-learn's breast
cancer, and digits of MNIST."""
_RATES = (20.0, 50.0)
"""Rate of few and of many steps, from twelve on, if none is said."""
ONE = 0.25
"""The column that the intercept weighs, beside rows of length 1."""
_SPARE = 1 / 256
"""By so much a row that was shortened may be longer: what approximations are off by."""
_TIGHT = 0.99
"""So much of p - 1/2 is taken: that of the approximation, which is a little beyond 0 to 1, stays within 1/2."""
_OPSET, _IR = 18, 8


@dataclass(frozen=True)
class Course:
    """How a training goes, all of it public.

    Args:
        steps: of gradient descent over all rows.
        rate: how far one goes, for rows of length 1.
        margin: (2 y - 1) times it is taken off each row's logit: a row counts until it is right by so much.
        center, spread: columns are brought to (x - center) / spread, then rows to `norm` spreads at most.
    """

    steps: int
    rate: float
    margin: float
    center: np.ndarray
    spread: np.ndarray


def write(course: Course, low: np.ndarray, high: np.ndarray, rows: int) -> onnx.ModelProto:
    """Write gradient descent as an ONNX model: inputs x (N, D) and y (N, 1), output w (D + 1, 1), the last of them for
    a column of ones.  The output is the mean of the second half of all steps' weights.

    Args:
        low, high: ends of each column's range.
    """
    from onnx import TensorProto, helper, numpy_helper

    size, steps = len(low), course.steps
    far = np.maximum(abs(low - course.center), abs(high - course.center)) / course.spread
    longest, most = norm(size), float(np.linalg.norm(far))
    constants = {
        "center": course.center,
        "narrow": 1 / (course.spread * longest),
        "unit": np.array(1.0),
        "none": np.zeros((size, 1)),
        "one": np.array([ONE]),
        "half": np.array(0.5),
        "apart": np.array(2 * course.margin),
        "first": np.array(1 + _TIGHT * np.tanh(course.margin / 2)),
        "tight": np.array(_TIGHT),
        "w.0": np.zeros((size + 1, 1)),
        "rate": np.array(course.rate / rows),
        "rows": np.array([0]),
        "columns": np.array([1]),
        "tall": np.array([size + 1, 1]),
        "part": np.array(1 / (steps - steps // 2)),
    }
    nodes = [
        helper.make_node("Sub", [X, "center"], ["moved"]),
        helper.make_node("Mul", ["moved", "narrow"], ["scaled"]),
        *(_shortened("scaled", "short") if most > longest else [helper.make_node("Identity", ["scaled"], ["short"])]),
        helper.make_node("MatMul", ["scaled", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("Concat", ["short", "ones"], [WIDE], axis=1),
        helper.make_node("Sub", [Y, "half"], ["label"]),
        helper.make_node("Mul", [WIDE, "label"], ["labels"]),
        helper.make_node("ReduceSum", ["labels", "rows"], ["labelled"], name=LABELS, keepdims=0),
        helper.make_node("Mul", ["label", "apart"], ["margin"]),
    ]
    for step in range(steps):
        nodes += _step(step)
    nodes += _mean(steps // 2 + 1, steps)
    inputs = [
        helper.make_tensor_value_info(X, TensorProto.DOUBLE, ["N", size]),
        helper.make_tensor_value_info(Y, TensorProto.DOUBLE, ["N", 1]),
    ]
    outputs = [helper.make_tensor_value_info(W, TensorProto.DOUBLE, [size + 1, 1])]
    given = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "training", inputs, outputs, given)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    made.ir_version = _IR
    return made


def noising(course: Course, epsilon: Fraction, delta: Fraction, rows: int, facts: Mapping[str, StoredFacts]) -> Noising:
    """Return the noise of a course: of all steps together, the labels' sum has less of it, and rows are held to a norm.

    Args:
        facts: what is public of x and of y.
    """
    from mpc.compiler.graph.noising import Noising

    return Noising(
        {W: epsilon},
        most=rows | 1,  # a power of two would leave no room for the lowest sum
        stored=facts,
        mechanisms=(GAUSSIAN,),
        delta=delta,
        together=True,
        parts={LABELS: label_part(course.steps)},
        norms={WIDE: (1 + _SPARE) * (1 + ONE**2) ** 0.5},
    )


def label_part(steps: int) -> int:
    """Return how many steps the labels' sum counts as: it is in all of them, and its noise with it."""
    return min(3, steps)


def suited_steps(epsilon: Fraction, rows: int) -> int:
    """Return how many steps are taken if none are said: where there is less noise, more are worth theirs."""
    return min(_MANY, max(_FEWEST, round(rows * epsilon / _WORTH)))


def suited_rate(steps: int) -> float:
    """Return the rate that is taken if none is said."""
    return _RATES[steps >= 12]


def in_units(weights: np.ndarray, course: Course) -> tuple[np.ndarray, float]:
    """Return (a weight for each column in its own unit, the intercept) of what a training tells."""
    coef = weights[:-1] / (course.spread * norm(len(course.spread)))
    return coef, float(weights[-1] * ONE - coef @ course.center)


def norm(columns: int) -> float:
    """Return the length, in spreads, that longer rows are shortened to."""
    return float(np.sqrt(columns)) / 3


def _shortened(name: str, short: str) -> Iterable[onnx.NodeProto]:
    """Write rows that are longer than 1 as rows of length 1."""
    from onnx import helper

    yield helper.make_node("Mul", [name, name], ["squares"])
    yield helper.make_node("ReduceSum", ["squares", "columns"], ["square"], keepdims=1)
    yield helper.make_node("Max", ["square", "unit"], ["least"])
    yield helper.make_node("Sqrt", ["least"], ["length"])
    yield helper.make_node("Div", [name, "length"], [short])


def _step(step: int) -> Iterable[onnx.NodeProto]:
    """Write a step: the sum over rows of (p - 1/2) x, less that of (y - 1/2) x.  With no weights p - 1/2 is the label
    less 1/2 times what a margin makes of it, so the first step is made of the labels' sum alone."""
    from onnx import helper

    def name(what: str) -> str:
        return f"{what}.{step}"

    if step:
        yield helper.make_node("MatMul", [WIDE, f"w.{step}"], [name("product")])
        yield helper.make_node("Sub", [name("product"), "margin"], [name("logit")])
        yield helper.make_node("Sigmoid", [name("logit")], [name("likely")])
        yield helper.make_node("Sub", [name("likely"), "half"], [name("off")])
        yield helper.make_node("Mul", [name("off"), "tight"], [name("error")])
        yield helper.make_node("Mul", [WIDE, name("error")], [name("each")])
        yield helper.make_node("ReduceSum", [name("each"), "rows"], [name("over")], keepdims=0)
        yield helper.make_node("Sub", ["labelled", name("over")], [name("down")])
    else:
        yield helper.make_node("Mul", ["labelled", "first"], [name("down")])
    yield helper.make_node("Mul", [name("down"), "rate"], [name("change")])
    yield helper.make_node("Reshape", [name("change"), "tall"], [name("turned")])
    yield helper.make_node("Add", [f"w.{step}", name("turned")], [f"w.{step + 1}"])


def _mean(first: int, last: int) -> Iterable[onnx.NodeProto]:
    """Write the mean of the weights behind these steps as the output."""
    from onnx import helper

    for step in range(first + 1, last + 1):
        before = f"w.{first}" if step == first + 1 else f"sum.{step - 1}"
        yield helper.make_node("Add", [before, f"w.{step}"], [f"sum.{step}"])
    yield helper.make_node("Mul", [f"w.{first}" if first == last else f"sum.{last}", "part"], [W])
