"""Train logistic regression on others' rows with noise in every step: one plan, whose guarantee every party proves.

The plan is the whole training: steps of gradient descent over all rows, unrolled.  Each step's gradient is a sum over
the rows of numbers that are held to a range inside, whatever the rows and the weights are, so no row is clipped by its
norm and no bound on weights is needed.  The sum gets Gaussian noise, and only what has noise is in the weights; so the
next step may do with them what it likes.  Told is the mean of the weights of the second half of all steps, in which
much of the noise is averaged out: it is made of what has noise, and costs nothing more.  Nobody sees anything else.

Noise is judged for all steps together (`mpc.privacy.gaussian.together`): noisy gradient descent as of Bassily, Smith
and Thakurta 2014 (Private empirical risk minimization), without sampling: which rows a step reads the parties know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import PolicyError, SessionError, UsageError
from mpc.privacy.facts import GAUSSIAN, Loss
from parties.client.at_rest import bound
from parties.client.channels import Parties
from parties.client.consent.granted import as_amount
from parties.client.questions.refusals import Asked, missing, private
from parties.client.running.noised import facts_of
from parties.client.running.roles import PUBLIC, assign
from parties.client.selection import Selection
from parties.client.session import Session

if TYPE_CHECKING:
    import onnx

    from mpc.compiler.compile import Compiled

X, Y, W = "x", "y", "w"
MOST_STEPS = 50
_OPSET, _IR = 18, 8


@dataclass(frozen=True)
class PrivateModel:
    """A logistic regression that tells of each person no more than its epsilon and delta.

    Args:
        coef: a weight for each column, in its own unit.
        intercept: added to what they weigh.
        rows: that it was trained on.
        epsilon, delta: what was charged.
        rounds, sent_bytes: of the one run, to each peer.
    """

    coef: np.ndarray
    intercept: float
    rows: int
    epsilon: Fraction
    delta: Fraction
    rounds: int
    sent_bytes: int

    def decision(self, x: Any) -> np.ndarray:
        """Return the logit of each row; above 0 it is more likely 1."""
        return np.asarray(np.asarray(x, np.float64) @ self.coef + self.intercept)

    def probability(self, x: Any) -> np.ndarray:
        """Return how likely each row is a 1."""
        return np.asarray(0.5 * (1 + np.tanh(self.decision(x) / 2)))


def fit(
    parties: Parties, x: Selection, y: Selection, epsilon: Any, delta: Any, steps: int, rate: float, wait: float = 0.0
) -> PrivateModel:
    """Return a model that was trained on stored columns; the arguments are those of `Cluster.fit_private`.

    Raises:
        UsageError: they make no sense.
        ModelError: nothing is proved of the plan.
        PrivateDataError: an owner's word is missing: whose, and which command says it.
    """
    low, high = _checked(x, y, steps, rate)
    spent, lost = as_amount(epsilon, "epsilon"), as_amount(delta, "delta")
    compiled = compile_training(parties, x, y, spent, lost, steps, rate)
    data = {X: x, Y: y}
    bindings = bound.bindings(compiled.plan, data)
    text = f"logistic regression on {x.manifest.name} in {steps} steps"
    asked = Asked(x.manifest, parties.config.name, text, spent)
    try:
        session = Session(parties, compiled, bindings=bindings, wait=wait, quiet=True)
    except (PolicyError, SessionError) as refused:
        raise private(asked, refused, missing(parties, compiled.plan, bindings)) from refused
    with session:
        [found] = session.run(None, {})
        report = session.last_run
        if report is None:
            raise SessionError("the run left no report", remedy="train again")
    weights = np.asarray(found, np.float64).reshape(-1)
    coef = weights[:-1] * 2 / (high - low)
    cost = Loss() if compiled.guarantee is None else compiled.guarantee.of([gate.out for gate in compiled.plan.stored])
    return PrivateModel(
        coef,
        float(weights[-1] - coef @ (high + low) / 2),
        len(x.bound_rows),
        cost.epsilon,
        cost.delta,
        report.rounds,
        report.sent_bytes,
    )


def compile_training(
    parties: Parties, x: Selection, y: Selection, epsilon: Fraction, delta: Fraction, steps: int, rate: float
) -> Compiled:
    """Compile the whole training to one plan.

    Raises:
        ModelError: nothing is proved of it.
    """
    from mpc.compiler.compile import compile_model
    from mpc.compiler.graph.noising import Noising

    data, rows = {X: x, Y: y}, len(x.bound_rows)
    noise = Noising(
        {W: epsilon},
        most=rows | 1,  # a power of two would leave no room for the lowest sum
        stored=facts_of(data, parties),
        mechanisms=(GAUSSIAN,),
        delta=delta,
        together=True,
    )
    low, high = _ends(x)
    model = write(low, high, rows, steps, rate)
    stored = {name: bound.described(each) for name, each in data.items()}
    roles = assign(parties.config.name, bound.owners(data), weights=PUBLIC, security=parties.config.security)
    return compile_model(model, roles=roles, stored=stored, noise=noise)


def write(low: np.ndarray, high: np.ndarray, rows: int, steps: int, rate: float) -> onnx.ModelProto:
    """Write gradient descent as an ONNX model: inputs x (N, D) and y (N, 1), output w (D + 1, 1), the last of them for
    a column of ones; columns are brought to -1 to 1.  The output is the mean of the second half of all steps' weights.

    Args:
        low, high: ends of each column's range.
    """
    from onnx import TensorProto, helper, numpy_helper

    size = len(low)
    constants = {
        "middle": (high + low) / 2,
        "narrow": 2 / (high - low),
        "none": np.zeros((size, 1)),
        "one": np.ones(1),
        "w.0": np.zeros((size + 1, 1)),
        "rate": np.array(rate / rows),
        "rows": np.array([0]),
        "tall": np.array([size + 1, 1]),
        "part": np.array(1 / (steps - steps // 2)),
    }
    nodes = [
        helper.make_node("Sub", [X, "middle"], ["moved"]),
        helper.make_node("Mul", ["moved", "narrow"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("Concat", ["scaled", "ones"], ["wide"], axis=1),
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


def _step(step: int) -> Iterable[onnx.NodeProto]:
    from onnx import helper

    def name(what: str) -> str:
        return f"{what}.{step}"

    yield helper.make_node("MatMul", ["wide", f"w.{step}"], [name("logit")])
    yield helper.make_node("Sigmoid", [name("logit")], [name("likely")])
    yield helper.make_node("Sub", [name("likely"), Y], [name("error")])
    yield helper.make_node("Mul", ["wide", name("error")], [name("each")])
    yield helper.make_node("ReduceSum", [name("each"), "rows"], [name("gradient")], keepdims=0)
    yield helper.make_node("Mul", [name("gradient"), "rate"], [name("change")])
    yield helper.make_node("Reshape", [name("change"), "tall"], [name("turned")])
    yield helper.make_node("Sub", [f"w.{step}", name("turned")], [f"w.{step + 1}"])


def _mean(first: int, last: int) -> Iterable[onnx.NodeProto]:
    """Write the mean of the weights behind these steps as the output."""
    from onnx import helper

    for step in range(first + 1, last + 1):
        before = f"w.{first}" if step == first + 1 else f"sum.{step - 1}"
        yield helper.make_node("Add", [before, f"w.{step}"], [f"sum.{step}"])
    yield helper.make_node("Mul", [f"w.{first}" if first == last else f"sum.{last}", "part"], [W])


def _checked(x: Any, y: Any, steps: Any, rate: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of each column's range."""
    if not isinstance(x, Selection) or not isinstance(y, Selection):
        raise UsageError("rows and labels are columns of datasets", remedy="cluster.dataset('owner/name')[['age']]")
    [label, *more] = y.columns
    if more or label.low != 0 or label.high != 1 or label.shape:
        raise UsageError("a label is one column of 0 and 1", remedy="y=dataset[['ill']], of the range 0 to 1")
    if any(each.shape for each in x.columns) or len(x.bound_rows) < 2 or len(x.bound_rows) != len(y.bound_rows):
        raise UsageError("rows are columns of numbers, at least two rows, as many as there are labels")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise UsageError(
            f"a training of {steps!r} steps", remedy=f"1 to {MOST_STEPS} steps; few are enough under noise"
        )
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 100:
        raise UsageError(f"a rate of {rate!r}", remedy="rate=4")
    return _ends(x)


def _ends(x: Selection) -> tuple[np.ndarray, np.ndarray]:
    ends = [(float(each.low), float(each.high)) for each in x.columns]
    if any(low == high for low, high in ends):
        raise UsageError("a column of x has one value alone", remedy="leave it out")
    low, high = zip(*ends, strict=True)
    return np.array(low), np.array(high)
