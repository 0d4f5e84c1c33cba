"""The table of derivatives: gradients are what finite differences of random graphs are; what has none is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.compiler.functions import FUNCTIONS
from mpc.compiler.graph.attributes import Columns, Fit, Lowest, Maximum, Rectified, Round, Weigh
from mpc.compiler.graph.emitter import Emitter
from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Origin
from mpc.compiler.graph.spec import SPEC, check
from mpc.compiler.training.backward import differentiate
from mpc.compiler.training.derivatives import DERIVATIVES
from mpc.compiler.training.slopes import SLOPES
from mpc.compiler.training.tape import Tape
from mpc.errors import ModelError
from mpc.windows import Windows
from tests.support.effort import examples

Arrays = dict[str, np.ndarray]
Write = Callable[[Emitter, np.random.Generator], str]
"""Writes a value made of "x" and "w"."""


class Trained:
    """A graph of inputs, and what it computes."""

    def __init__(self, inputs: Arrays, write: Callable[[Emitter], str]) -> None:
        self.feeds = dict(inputs)
        emitter = Emitter()
        emitter.origin = Origin("layer", "test")
        emitter.shapes = {name: values.shape for name, values in inputs.items()}
        self.out = write(emitter)
        given_ = [GraphInput(name, values.shape, "float64", (-4.0, 4.0)) for name, values in inputs.items()]
        shape = emitter.shapes[self.out]
        self.feeds["g"] = np.random.default_rng(5).standard_normal(tuple(map(int, shape)))
        given_.append(GraphInput("g", shape, "float64", (-4.0, 4.0)))
        self.graph = Graph(given_, emitter.nodes, [GraphOutput("y", self.out, shape, "float64")])

    def values(self, graph: Graph, **changed: np.ndarray) -> Arrays:
        feeds = self.feeds | changed
        return feeds | {node.writes: value for node, value in evaluate(graph, feeds)}

    def loss(self, **changed: np.ndarray) -> float:
        return float((self.values(self.graph, **changed)[self.out] * self.feeds["g"]).sum())

    def gradients(self, names: list[str]) -> Arrays:
        tape = Tape(self.graph)
        found = differentiate(tape, {self.out: "g"}, names)
        outputs = [GraphOutput(name, value, tape.shapes[value], "float64") for name, value in found.items()]
        graph = Graph(self.graph.inputs, tape.nodes, [*self.graph.outputs, *outputs])
        check(graph)
        needed = self._kept(graph)
        return {name: needed[value] for name, value in found.items()}

    def _kept(self, graph: Graph) -> Arrays:
        return {k: np.array(v) for k, v in self.values(graph).items()}


def hold(trained: Trained, *names: str, step: float = 1e-6) -> None:
    """Each gradient along a random direction is the difference that a small step makes."""
    found = trained.gradients(list(names))
    assert set(found) == set(names)
    for number, name in enumerate(names):
        x = trained.feeds[name]
        assert found[name].shape == x.shape
        for again in range(3):
            direction = np.random.default_rng([number, again]).standard_normal(x.shape)
            ends = [trained.loss(**{name: x + sign * step * direction}) for sign in (1, -1)]
            wanted = (ends[0] - ends[1]) / (2 * step)
            assert (found[name] * direction).sum() == pytest.approx(wanted, rel=2e-4, abs=2e-5), name


def normal(seed: int, *shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in zip(("x", "w", "v"), shapes, strict=False)}


def test_every_operator_has_a_derivative_or_none_by_decision() -> None:
    without = {"constant", "held", "link", "noise", "onehot", "rows_sum", "scatter", "select"}
    assert set(DERIVATIVES) == set(SPEC) - without


@pytest.mark.parametrize(
    ("x", "y"),
    [((5, 3), (3, 4)), ((3,), (3, 4)), ((2, 5, 3), (3, 4)), ((2, 5, 3), (2, 3, 4)), ((5, 3), (2, 3, 4)),
     ((2, 1, 5, 3), (6, 3, 4))],
)  # fmt: skip
def test_matrix_products(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    hold(Trained(normal(1, x, y), lambda e: e.matmul("x", "w")), "x", "w")
    constant = np.random.default_rng(2).standard_normal(y)
    hold(Trained(normal(1, x), lambda e: e.affine("x", constant)), "x")


@examples(25)
@given(data=st.data())
def test_convolutions(data: st.DataObject) -> None:
    """Strides, dilations, paddings on either side, groups, one to two axes."""
    axes = data.draw(st.integers(1, 2))
    several = st.lists(st.integers(1, 3), min_size=axes, max_size=axes).map(tuple)
    kernel, strides, dilations = data.draw(several), data.draw(several), data.draw(several)
    pads = tuple((data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))) for _ in range(axes))
    groups, c, o = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = tuple(span + data.draw(st.integers(0, 4)) for span in spans)
    windows = Windows(kernel=kernel, strides=strides, dilations=dilations, pads=pads, groups=groups)
    arrays = normal(3, (2, c * groups, *sizes), (o * groups, c, *kernel))
    hold(Trained(arrays, lambda e: e.convolve_secrets("x", "w", windows)), "x", "w")
    weight = arrays["w"]
    hold(Trained({"x": arrays["x"]}, lambda e: e.convolve("x", weight, None, windows)), "x")


@pytest.mark.parametrize("name", sorted(SLOPES))
def test_functions(name: str) -> None:
    settings = {"exponent": 2.5} if name == "power" else {}
    least = 0.5 if FUNCTIONS[name](**settings).domain == 0 else -3.0
    most = -0.1 if name == "exp_negative" else 4.5
    x = np.random.default_rng(4).uniform(least, most, (4, 5))
    hold(Trained({"x": x}, lambda e: e.function(name, "x", **settings)), "x")


MOVES: dict[str, Callable[[Emitter], str]] = {
    "relu": lambda e: e.relu("x"),
    "maximum": lambda e: e.maximum("x"),
    "scale": lambda e: e.scale("x", np.arange(1.0, 6.0), np.ones(5)),
    "scale to more": lambda e: e.scale("x", np.arange(1.0, 13.0).reshape(3, 4, 1)),
    "multiply": lambda e: e.multiply("x", "w"),
    "square": lambda e: e.multiply("x", "x"),
    "sum": lambda e: e.sum(("x", "w", "x"), (2.0, -0.5, 1.0), None, 3.0),
    "total": lambda e: e.total("x", (0, 1), None, 3),
    "weigh": lambda e: e.emit("weigh", ("x",), None, e.shapes["x"], Weigh(axis=1, factors=(1.0, 2.0, -1.0, 0.5, 4.0))),
    "columns": lambda e: e.emit(
        "columns", ("x",), None, e.shapes["x"], Columns(weight=np.exp2(np.arange(5.0)), bias=np.ones(5))
    ),
    "reshape": lambda e: e.reshape("x", (2, 10)),
    "transpose": lambda e: e.transpose("x", (1, 0)),
    "concat": lambda e: e.concat(("x", "w", "x"), 0),
    "take": lambda e: e.take("x", 1, (3, -1, 0)),
    "take again": lambda e: e.take("x", 0, (2, 2, -1, 0, 2)),
    "expand": lambda e: e.expand("x", (3, 4, 5)),
    "round": lambda e: e.emit("round", ("x",), None, e.shapes["x"], Round()),
}


@pytest.mark.parametrize("name", sorted(MOVES))
def test_all_other_operators(name: str) -> None:
    arrays = normal(6, (4, 5), (1, 5))
    names = ["x", "w"] if name in ("multiply", "sum", "concat") else ["x"]
    hold(Trained({each: arrays[each] for each in names}, MOVES[name]), *names)


def test_a_maximum_with_zero_beside_it_passes_nothing_where_zero_is_larger() -> None:
    x = np.array([[-3.0, -1.0], [2.0, 5.0], [4.0, 4.0]])
    trained = Trained({"x": x}, lambda e: e.emit("maximum", ("x",), None, (3, 1), Maximum(rectify=True)))
    g = trained.feeds["g"][:, 0]
    np.testing.assert_array_equal(trained.gradients(["x"])["x"], [[0, 0], [0, g[1]], [g[2], 0]])


def test_a_relu_passes_gradients_from_zero_on_and_not_beyond_its_ceiling() -> None:
    x = np.array([-1.0, 0.0, 3.0, 4.0, 9.0])
    trained = Trained({"x": x}, lambda e: e.emit("relu", ("x",), None, (5,), Rectified(ceiling=4.0)))
    np.testing.assert_array_equal(trained.gradients(["x"])["x"], trained.feeds["g"] * [0, 1, 1, 0, 0])


LAYERS = (
    "dense", "smooth", "relu", "gate", "skip", "pool", "mean", "conv", "turned", "joined", "weighed", "units", "padded",
)  # fmt: skip
SMOOTH = ("tanh", "sigmoid", "softplus", "gelu", "silu", "mish", "erf", "atan", "asinh", "sin", "cos")


@examples(80)
@given(data=st.data())
def test_random_graphs(data: st.DataObject) -> None:
    """Chains and diamonds of layers, their parameters among the inputs: values that are read twice add up."""
    seed, layers = data.draw(st.integers(0, 1 << 20)), data.draw(st.integers(1, 4))
    trained, names = _random([data.draw(st.sampled_from(LAYERS)) for _ in range(layers)], seed)
    hold(trained, *names)


def test_random_graphs_have_every_row_of_the_table() -> None:
    """But for those that are refused, or behind which nothing learns."""
    trained, _ = _random(LAYERS, 1)
    refused = {"step", "argmax", "whole"}
    assert {node.op for node in trained.graph.nodes} == DERIVATIVES.keys() - refused


def _random(kinds: Sequence[str], seed: int) -> tuple[Trained, list[str]]:
    """A graph of these layers, and the names of its inputs."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {"x": rng.standard_normal((3, 4))}
    for number, kind in enumerate(kinds):
        if kind in ("dense", "gate"):
            arrays[f"w{number}"] = rng.standard_normal((4, 4)) / 2
            arrays[f"b{number}"] = rng.standard_normal(4)
        if kind == "conv":
            arrays[f"k{number}"] = rng.standard_normal((2, 1, 2, 2)) / 2
    smooth = rng.choice(SMOOTH, len(kinds))

    def write(e: Emitter) -> str:
        h = "x"
        for number, kind in enumerate(kinds):
            h = _layer(e, h, number, kind, str(smooth[number]))
        return h

    return Trained(arrays, write), [*arrays]


def _layer(e: Emitter, h: str, number: int, kind: str, smooth: str) -> str:
    if kind == "conv":
        sliding = Windows(kernel=(2, 2), strides=(1, 2), dilations=(1, 1), pads=((0, 1), (1, 1)), groups=1)
        seen = e.convolve_secrets(e.reshape(h, (3, 1, 2, 2)), f"k{number}", sliding)
        return e.take(e.reshape(seen, (3, 8)), 1, (0, 3, 5, 6))
    if kind == "turned":
        return e.transpose(e.reshape(e.transpose(h, (1, 0)), (4, 3)), (1, 0))
    if kind == "joined":
        return e.take(e.concat((h, e.scale(h, 0.5), h), 1), 1, (1, 7, 4, 10))
    if kind == "weighed":
        return e.emit("weigh", (h,), None, e.shapes[h], Weigh(axis=1, factors=(1.0, 0.5, -1.0, 2.0)))
    if kind == "units":
        units = Columns(weight=np.array([[1.0, 2.0, 0.5, 1.0]]), bias=np.ones((1, 4)))
        held = e.emit("fit", (h,), None, e.shapes[h], Fit(ends=(-1e3, 1e3), outside="a test"))
        return e.emit("columns", (e.emit("round", (held,), None, e.shapes[h], Round()),), None, e.shapes[h], units)
    if kind == "padded":
        padded = e.reshape(e.take(h, 1, (0, 1, -1, 2, 3, -1, 1, 2, -1, 3, 0, -1)), (3, 4, 3))
        where = np.broadcast_to(np.array([False, False, True]), (3, 4, 3))
        return e.reshape(e.maximum(e.emit("lowest", (padded,), None, (3, 4, 3), Lowest(where=where))), (3, 4))
    if kind in ("dense", "gate"):
        z = e.sum((e.matmul(h, f"w{number}"), f"b{number}"), (1.0, 1.0))
        return z if kind == "dense" else e.multiply(z, e.function("sigmoid", h))
    if kind == "smooth":
        return e.function(smooth, h)
    if kind == "relu":
        return e.relu(h)
    if kind == "skip":
        return e.sum((h, e.relu(e.scale(h, -2.0, 0.25))), (1.0, 0.5))
    if kind == "pool":
        windows = e.reshape(e.take(h, 1, (0, 1, 1, 2, 2, 3, 3, 0)), (3, 4, 2))
        return e.reshape(e.maximum(windows), (3, 4))
    return e.sum((h, e.mean(h, (1,))), (1.0, -1.0))


def test_what_leads_to_no_weight_needs_no_derivative_and_what_does_is_refused_by_name() -> None:
    arrays = normal(7, (3, 4), (4, 4))

    def write(e: Emitter) -> str:
        return e.matmul(e.step("x"), "w")

    hold(Trained(arrays, write), "w")
    with pytest.raises(ModelError, match=r"node 'layer' \(test\): the derivative of 'step' is zero") as caught:
        Trained(arrays, write).gradients(["x"])
    assert "frozen=" in str(caught.value.remedy)
    sliced = normal(7, (3, 4))
    with pytest.raises(ModelError, match=r"no derivative of 'scatter' is known"):
        Trained(sliced, lambda e: e.scatter("x", 0, (1, 1, -1), 2)).gradients(["x"])


def test_a_value_that_the_seeds_do_not_depend_on_has_no_gradient() -> None:
    trained = Trained(normal(8, (3, 4), (4, 4)), lambda e: e.relu("x"))
    assert set(trained.gradients(["x", "w"])) == {"x"}
