"""Make of a classifier's scores (ai.onnx.ml) its label and its probabilities."""

from __future__ import annotations

from mpc.compiler.graph.attributes import ArgMax
from mpc.compiler.operators.context import Context, Settings
from mpc.compiler.operators.facts import Place, Probabilities
from mpc.compiler.operators.labels import Labels
from mpc.compiler.operators.reductions import softmax_of

ALL_BITS = 48
"""As many as a comparison has: nothing is rounded off that decides between two classes."""


def transform_of(state: Context, settings: Settings) -> str:
    """Return the attribute `post_transform`."""
    name: str = settings.get("post_transform", b"NONE").decode()
    if name not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise state.origin.refuse(
            f"the transform {name}; NONE, LOGISTIC and SOFTMAX are possible",
            attribute="post_transform",
            remedy=(
                "use one of these, and compute the other behind the model: SOFTMAX_ZERO is 0 where "
                "a score is, PROBIT an inverse of the normal distribution"
            ),
        )
    return name


def transformed(state: Context, x: str, transform: str, out: str) -> None:
    """Apply `post_transform` to two scores or more."""
    if transform == "LOGISTIC":
        state.function("sigmoid", x, out)
    elif transform == "SOFTMAX":
        softmax_of(state, x, [len(state.shapes[x]) - 1], out)
    else:
        state.reshape(x, state.shapes[x], out)


def pair(state: Context, score: str, transform: str, out: str, *, whole: bool) -> None:
    """Compute both columns from the second class's score s: -s and s, or 1 - s and s where they are parts of a whole.

    A softmax is left out, as onnxruntime does; a logistic function makes parts of a whole.
    """
    if transform == "LOGISTIC":
        score, whole = state.function("sigmoid", score), True
    other = state.sum((score,), (-1.0,), None, 1.0 if whole else 0.0)
    state.concat((other, score), len(state.shapes[score]) - 1, out)
    if transform == "LOGISTIC":
        state.facts[out] = Probabilities()


def above(state: Context, x: str, level: float = 0.0) -> str:
    """Return [x > level]: the opposite of -x >= -level."""
    below = state.steps(state.sum((x,), (-1.0,)), (-level,), bits=ALL_BITS)
    bit = state.sum((state.reshape(below, state.shapes[x]),), (-1.0,), None, 1.0)
    state.facts[bit] = Place()
    return bit


def largest(state: Context, scores: str, *, exact: bool) -> str:
    """Return the first of the largest; `exact` compares all bits, where equal scores are to be expected."""
    shape = state.shapes[scores]
    taken = ArgMax(last=False, bits=ALL_BITS if exact else None)
    name = state.emit("argmax", (scores,), None, (*shape[:-1], 1), taken)
    state.integral.add(name)
    state.facts[name] = Place()
    return name


def require_classes(state: Context, labels: Labels, attribute: str) -> None:
    if len(labels) < 2:
        raise state.origin.refuse(
            f"{len(labels)} classes; there must be two or more",
            attribute=attribute,
            remedy="train on data with two classes or more; a classifier of one class gives a constant",
        )
