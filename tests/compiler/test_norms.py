"""Norms: bounds of transformers hold for the worst of rows, and do not grow with depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.functions import FUNCTIONS
from mpc.compiler.lowering.norms import Image, Norms, reshaped, spectral_norm
from mpc.compiler.lowering.rules.together import CONTRACTING
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, clear, plaintext

TOKENS, WIDTH, HEADS, HIDDEN = 4, 32, 2, 64
REACH = 8.0


def transformer(folder: Path, layers: int, deviation: float, causal: bool = False) -> Path:
    """An encoder like BERT's, or layers that are normalised before each part, like GPT-2's; gains and shifts vary."""
    rng = np.random.default_rng(4)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}

    def add(operator: str, *reads: str, **settings: object) -> str:
        nodes.append(node(operator, [*reads], [f"v{len(nodes)}"], f"n{len(nodes)}", **settings))
        return f"v{len(nodes) - 1}"

    def constant(values: np.ndarray) -> str:
        weights[f"c{len(weights)}"] = values if values.dtype == np.int64 else values.astype(np.float32)
        return f"c{len(weights) - 1}"

    def linear(x: str, inputs: int, outputs: int) -> str:
        product = add("MatMul", x, constant(rng.normal(0, deviation, (inputs, outputs))))
        return add("Add", product, constant(rng.normal(0, 0.1, outputs)))

    def normal(x: str) -> str:
        gain, shift = constant(rng.uniform(0.3, 1.5, WIDTH)), constant(rng.normal(0, 0.3, WIDTH))
        return add("LayerNormalization", x, gain, shift, epsilon=1e-5)

    def heads(x: str) -> str:
        parts = add("Reshape", x, constant(np.array([0, TOKENS, HEADS, WIDTH // HEADS])))
        return add("Transpose", parts, perm=[0, 2, 1, 3])

    def attention(x: str) -> str:
        query, key, value = (heads(linear(x, WIDTH, WIDTH)) for _ in range(3))
        scores = add("MatMul", query, add("Transpose", key, perm=[0, 1, 3, 2]))
        shares = add("Softmax", add("Mul", scores, constant(np.array(0.25))))
        mixed = add("Transpose", add("MatMul", shares, value), perm=[0, 2, 1, 3])
        return linear(add("Reshape", mixed, constant(np.array([0, TOKENS, WIDTH]))), WIDTH, WIDTH)

    def two(x: str) -> str:
        return linear(add("Gelu", linear(x, WIDTH, HIDDEN)), HIDDEN, WIDTH)

    x = "x"
    for part in (attention, two) * layers:
        x = add("Add", x, part(normal(x))) if causal else normal(add("Add", x, part(x)))
    nodes[-1].output[0] = "y"
    return save_model(folder, nodes, weights, ("batch", TOKENS, WIDTH), opset=20)


def worst(rng: np.random.Generator) -> np.ndarray:
    """Rows at corners, of zeros, nearly zeros, constants and single spikes, and one like data."""
    shape = (TOKENS, WIDTH)
    spike = np.zeros(shape)
    spike[:, 3] = REACH
    corners = [rng.choice([-REACH, REACH], shape) for _ in range(3)]
    small = [rng.normal(0, size, shape) for size in (1e-6, 1e-3, 0.03)]
    kinds = [*corners, *small, np.zeros(shape), np.full(shape, REACH), spike, -spike, rng.normal(0, 1, shape)]
    return np.array(kinds, np.float32).clip(-REACH, REACH)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("deviation", [0.02, 0.2, 1.0])
def test_the_worst_rows_stay_within_bounds(tmp_path: Path, deviation: float, causal: bool) -> None:
    compiled = compile_model(transformer(tmp_path, 2, deviation, causal), {"x": (-REACH, REACH)})
    x = worst(np.random.default_rng(5))
    assert np.isfinite(clear(compiled, x)).all()


def test_what_is_proved_does_not_grow_with_depth(tmp_path: Path) -> None:
    """Bits of all wires of the third layer are those of the second, as are the scales."""
    plans = [compile_model(transformer(tmp_path, layers, 0.2), {"x": (-REACH, REACH)}).plan for layers in (3, 6)]
    short, deep = ([(wire.bits, wire.scale) for wire in plan.wires if not wire.held] for plan in plans)
    assert max(bits for bits, _ in deep) <= 58
    gates = [sum(gate.kind == "truncate" for gate in plan.gates) for plan in plans]
    assert gates[1] <= 2 * gates[0]
    largest = [max(math.ldexp(1 / float(scale), bits) for bits, scale in wires) for wires in (short, deep)]
    assert largest[1] <= 2 * largest[0]


def reaches(compiled: Compiled, kind: str) -> list[float]:
    """The bounds of what gates of a kind write, in the model's units."""
    wires = [compiled.plan.wire[name] for gate in compiled.plan.gates if gate.kind == kind for name in gate.writes]
    return [math.ldexp(1 / float(wire.scale), wire.bits) for wire in wires]


def test_a_layer_makes_rows_longer_by_its_spectral_norm_and_an_element_by_a_column(tmp_path: Path) -> None:
    """Each bound is the next power of two above what numpy finds, but for a few percent."""
    rng = np.random.default_rng(10)
    first, second, third = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((64, 256), (256, 64), (64, 64)))
    nodes = [
        node("LayerNormalization", ["x", "gain", "shift"], ["n"]),
        node("MatMul", ["n", "first"], ["a"], "one"),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "second"], ["c"], "two"),
        node("Add", ["c", "n"], ["d"]),
        node("MatMul", ["d", "third"], ["y"], "three"),
    ]
    weights = {"first": first, "second": second, "third": third, "gain": np.full(64, 0.7, np.float32)}
    path = save_model(tmp_path, nodes, weights | {"shift": np.zeros(64, np.float32)}, ("batch", 64))
    found = reaches(compile_model(path, {"x": (-REACH, REACH)}), "matmul")[-3:]
    row = 0.7 * 8
    inner, columns = (
        row * np.linalg.norm(first, 2),
        [np.linalg.norm(each, axis=0).max() for each in weights.values()][:3],
    )
    outer = inner * np.linalg.norm(second, 2) + row
    for bound, real in zip(found, (row * columns[0], inner * columns[1], outer * columns[2]), strict=True):
        assert real < bound < 2 * 1.2 * real


def test_a_mean_by_shares_of_a_softmax_is_no_larger_than_what_it_is_a_mean_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    scores, values = (rng.normal(0, 0.5, (8, size)).astype(np.float32) for size in (8, 8))
    nodes = [
        node("MatMul", ["x", "scores"], ["s"], "scores"),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["x", "values"], ["v"], "values"),
        node("MatMul", ["p", "v"], ["y"], "mixed"),
    ]
    path = save_model(tmp_path, nodes, {"scores": scores, "values": values}, ("batch", 8, 8))
    *_, own, mixed = sorted(reaches(compile_model(path, {"x": (-REACH, REACH)}), "matmul"))
    assert mixed == own == 2.0 ** math.ceil(math.log2(REACH * np.abs(values).sum(axis=0).max()))


@pytest.mark.parametrize("causal", [False, True])
def test_a_deep_transformer_keeps_its_digits(tmp_path: Path, causal: bool) -> None:
    path = transformer(tmp_path, 6, 0.2, causal)
    x = np.random.default_rng(7).normal(0, 1, (3, TOKENS, WIDTH)).astype(np.float32).clip(-REACH, REACH)
    [theirs] = plaintext(path, {"x": x})
    ours = clear(compile_model(path, {"x": (-REACH, REACH)}), x)
    assert np.abs(ours - theirs).max() < 3e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (60, 20), (48, 48)])
def test_a_spectral_norm_is_bounded_from_above_and_closely(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(8).normal(0, 1, shape)
    real = float(np.linalg.norm(weight, 2))
    assert real <= spectral_norm(weight) <= 1.1 * real
    assert spectral_norm(np.zeros(shape)) == 0.0
    assert spectral_norm(weight * 1e-120) > 0


Move = Callable[[np.ndarray], np.ndarray]


def test_the_image_of_a_weight_stays_one_wherever_its_rows_go() -> None:
    """Heads behind a reshape of the rows are bounded by their own blocks of the weight."""
    rng = np.random.default_rng(12)
    x, weight = rng.normal(0, 1, (10, 4)), rng.normal(0, 1, (4, 6)) * [1, 1, 1, 9, 9, 9]
    given = Norms(1, 4, np.linalg.norm(x, axis=-1, keepdims=True))
    found: Norms | None = Norms(1, 6, np.full((10, 1), np.inf), image=Image(given, weight, None, 0.0))
    for before, after in (((10, 6), (2, 5, 6)), ((2, 5, 6), (2, 5, 2, 3))):
        found = reshaped(found, before, after)
    assert found is not None
    real = np.linalg.norm((x @ weight).reshape(2, 5, 2, 3), axis=-1, keepdims=True)
    norms = [np.linalg.norm(part, 2) for part in (weight[:, :3], weight[:, 3:])]
    most = np.linalg.norm(x, axis=-1).reshape(2, 5, 1, 1) * np.reshape(norms, (1, 1, 2, 1))
    assert (found.euclidean >= real).all()
    np.testing.assert_allclose(found.euclidean, most, rtol=0.1)


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 5, 12), (2, 5, 3, 4)), ((2, 5, 3, 4), (2, 5, 12)), ((2, 5, 12), (10, 12)), ((12,), (3, 4))],
)
def test_norms_of_what_is_reshaped(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    x = np.random.default_rng(9).normal(0, 1, before)
    found = reshaped(Norms(len(before) - 1, before[-1], np.linalg.norm(x, axis=-1, keepdims=True)), before, after)
    real = np.linalg.norm(x.reshape(after), axis=-1, keepdims=True)
    assert found is not None
    assert found.axis == len(after) - 1
    assert found.euclidean.shape == real.shape
    assert (found.euclidean >= real * (1 - 1e-9)).all()


def test_norms_of_other_vectors_are_unknown() -> None:
    norms = Norms(1, 6, np.ones((4, 1)))
    assert reshaped(norms, (4, 6), (6, 4)) is None
    assert norms.taken(1, (0, 0, 1)) is None
    assert norms.taken(1, (5, -1, -1, 1)) is not None
    taken = norms.taken(0, (3, 3, 0))
    assert taken is not None
    assert taken.euclidean.shape == (3, 1)


@pytest.mark.parametrize("name", sorted(CONTRACTING))
def test_functions_that_are_said_to_make_nothing_larger_do_not(name: str) -> None:
    x = np.concatenate([np.linspace(-30, 30, 6001), np.linspace(-0.01, 0.01, 2001)])
    assert (np.abs(FUNCTIONS[name]().value(x)) <= np.abs(x)).all()


# ------------------------------------------------------------------ what a bound of whole rows does not say of parts


def test_what_is_centred_may_be_longer_in_a_part(tmp_path: Path) -> None:
    """Half of a row is far from zero and the other half is not: less the mean of all, the other one is."""
    rng, size = np.random.default_rng(0), 16
    far = np.abs(rng.normal(0.5, 0.2, (size, size // 2))) * np.sign(rng.normal(size=(size, 1)))
    weights = {
        "gain": np.ones(size, np.float32),
        "shift": np.zeros(size, np.float32),
        "w": np.concatenate([far, 1e-4 * rng.normal(size=far.shape)], axis=1).astype(np.float32),
        "axes": np.array([-1]),
        "halves": np.array([0, 2, size // 2]),
        "second": np.array(1),
        "v": (np.array([1, 0.7, -0.9]) + rng.normal(0, 0.01, (size // 2, 3))).astype(np.float32),
        "last": np.eye(3, dtype=np.float32) * np.float32(1.01),
    }
    nodes = [
        node("LayerNormalization", ["x", "gain", "shift"], ["n"]),
        node("MatMul", ["n", "w"], ["h"], "one"),
        node("ReduceMean", ["h", "axes"], ["m"], keepdims=1),
        node("Sub", ["h", "m"], ["c"]),
        node("Reshape", ["c", "halves"], ["r"]),
        node("Gather", ["r", "second"], ["s"], axis=1),
        node("MatMul", ["s", "v"], ["z"], "two"),
        node("Relu", ["z"], ["relu"]),
        node("MatMul", ["relu", "last"], ["y"], "three"),
    ]
    path = save_model(tmp_path, nodes, weights, ("batch", size), opset=20)
    x = (8 * np.sign(far[:, 0]) * np.array([[1], [-1]])).astype(np.float32)
    assert_agrees(path, {"x": x}, {"x": (-8, 8)}, tolerance=1e-2)


def test_shares_that_are_centred_are_more_than_one_together(tmp_path: Path) -> None:
    tokens, reach = 16, 7.7
    weights = {
        "scores": np.array([[3.0] + [0.0] * (tokens - 1), [0.0] * tokens], np.float32),
        "values": np.eye(2, dtype=np.float32)[:, ::-1].copy(),
        "axes": np.array([-1]),
        "last": np.array([[1.01], [0.013]], np.float32),
    }
    nodes = [
        node("MatMul", ["x", "scores"], ["s"], "one"),
        node("Softmax", ["s"], ["p"]),
        node("ReduceMean", ["p", "axes"], ["m"], keepdims=1),
        node("Sub", ["p", "m"], ["c"]),
        node("MatMul", ["x", "values"], ["v"], "two"),
        node("MatMul", ["c", "v"], ["o"], "mixed"),
        node("Relu", ["o"], ["r"]),
        node("MatMul", ["r", "last"], ["y"], "three"),
    ]
    path = save_model(tmp_path, nodes, weights, ("batch", tokens, 2), opset=20)
    x = np.zeros((1, tokens, 2), np.float32)
    x[..., 0], x[..., 1] = 7, -reach
    x[0, 0, 1] = reach
    assert_agrees(path, {"x": x}, {"x": (-reach, reach)}, tolerance=1e-2)


@pytest.mark.parametrize("factor", [2.0 ** (step / 8) for step in range(8)])
def test_rows_about_as_small_as_epsilon_are_normalised_within_their_bounds(factor: float, tmp_path: Path) -> None:
    """What their mean square is rounded to is as large as epsilon here.  Of these factors one at least brings the bound
    of what is behind close below a power of two, which is as far as a wire reaches."""
    size, reach = 16, 4096.0
    signs = np.tile([1.0, -1.0], size // 2)
    weights = {
        "gain": np.ones(size, np.float32),
        "shift": np.zeros(size, np.float32),
        "w": (signs[:, None] * np.array([[1.0, 0.4]]) * factor / np.sqrt(size)).astype(np.float32),
        "last": np.eye(2, dtype=np.float32) * np.float32(1.01),
    }
    nodes = [
        node("LayerNormalization", ["x", "gain", "shift"], ["n"], epsilon=1e-5),
        node("MatMul", ["n", "w"], ["h"], "one"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "last"], ["y"], "two"),
    ]
    made = compile_model(save_model(tmp_path, nodes, weights, ("batch", size), opset=23), {"x": (-reach, reach)})
    rows = np.exp(np.linspace(np.log(5e-3), np.log(0.3), 300))[:, None] * signs
    answers = clear(made, rows.astype(np.float32))  # no value leaves the bound of its wire
    assert answers[-1, 0] == pytest.approx(np.sqrt(size) * factor * 1.01, rel=0.05)


@pytest.mark.parametrize("reach", [64.0, 16384.0])
def test_a_small_row_with_one_element_is_normalised_within_its_bounds(reach: float, tmp_path: Path) -> None:
    """All of a row's length is in one element, whose bound is the root of 12 or 15: close below a power of two."""
    for size in (12, 15):
        weights = {"gain": np.ones(size, np.float32), "last": np.eye(size, dtype=np.float32) * np.float32(1.01)}
        nodes = [
            node("RMSNormalization", ["x", "gain"], ["n"], epsilon=1e-5),
            node("MatMul", ["n", "last"], ["y"], "two"),
        ]
        path = save_model(tmp_path, nodes, weights, ("batch", size), opset=23)
        made = compile_model(path, {"x": (-reach, reach)})
        rows = np.exp(np.linspace(np.log(1e-4), np.log(0.3), 400))[:, None] * np.eye(size)[:1]
        clear(made, rows.astype(np.float32))  # no value leaves the bound of its wire


@pytest.mark.parametrize("norm", ["ReduceL1", "ReduceL2"])
@pytest.mark.parametrize("total", [False, True])
def test_a_norm_that_is_repeated_along_more_than_x_repeats_x(tmp_path: Path, norm: str, total: bool) -> None:
    """What divides has more places than x then, and so has the quotient: its sum is three times as much."""
    nodes = [node(norm, ["x"], ["n"], axes=[-1], keepdims=1), node("Expand", ["n", "shape"], ["e"])]
    nodes.append(node("Div", ["x", "e"], ["d" if total else "y"]))
    constants = {"shape": np.array([1, 3, 1])}
    if total:
        nodes.append(node("ReduceSum", ["d", "axis"], ["y"], keepdims=0))
        constants["axis"] = np.array([1])
    x = np.random.default_rng(3).uniform(-1, 1, (6, 1, 4)).astype(np.float32)
    assert_agrees(save_model(tmp_path, nodes, constants, ("batch", 1, 4)), {"x": x}, {"x": (-1.0, 1.0)}, tolerance=1e-3)


@pytest.mark.parametrize("quotient", ["Div", "Reciprocal", "Pow"])
def test_layers_that_are_normalised_without_an_epsilon_keep_their_digits(tmp_path: Path, quotient: str) -> None:
    """PyTorch's exporter drops an epsilon of 1e-12: an element over its row's deviation was taken for a large one, and
    each layer made the next one's deviation less precise, until answers were off by a sixth of their size."""
    rng, width, nodes = np.random.default_rng(11), 16, []
    constants = {"two": np.float32(2.0), "power": np.float32(-0.5), "last": np.array([-1])}

    def add(operator: str, *reads: str) -> str:
        name = f"t{len(nodes)}"
        nodes.append(node(operator, list(reads), [name], name))
        return name

    x = "x"
    for layer in range(4):
        constants[f"w{layer}"] = (rng.standard_normal((width, width)) / 4).astype(np.float32)
        apart = add("Sub", x, add("ReduceMean", x, "last"))
        square = add("ReduceMean", add("Pow", apart, "two"), "last")
        if quotient == "Div":
            normal = add("Div", apart, add("Sqrt", square))
        else:
            over = add("Pow", square, "power") if quotient == "Pow" else add("Reciprocal", add("Sqrt", square))
            normal = add("Mul", apart, over)
        x = add("Add", normal, add("MatMul", normal, f"w{layer}"))
    nodes[-1].output[0] = "y"
    given = np.random.default_rng(12).uniform(-4, 4, (6, width)).astype(np.float32)
    path = save_model(tmp_path, nodes, constants, ("batch", width), opset=18)
    assert assert_agrees(path, {"x": given}, {"x": (-4.0, 4.0)}).errors["y"] < 2e-4
