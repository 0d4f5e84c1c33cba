"""Functions of pieces: right on every side of where two of them meet; and attention as peaked as trained one is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto

from mpc.compiler.compile import compile_model
from mpc.compiler.series import fit
from mpc.gates.between import Between
from mpc.gates.fourier import Fourier
from mpc.gates.multiply import Multiply
from mpc.gates.pieces import Pieces
from mpc.gates.truncate import Truncate
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, clear, encrypted, plaintext

RNG = np.random.default_rng(14)
RANGES = {"x": (-32.0, 32.0)}


def rows_of_scores(width: int) -> np.ndarray:
    """Rows of a softmax: flat, peaked, with many that hardly count, around where exp is cut off, and ties."""
    peaked = RNG.normal(0, 6, (24, width))
    far = np.full((4, width), -14.0) + RNG.normal(0, 0.01, (4, width))
    edge = np.full((6, width), -13.0) + RNG.normal(0, 0.2, (6, width))
    tail = RNG.uniform(-13, -6, (8, width))
    for rows in (far, edge, tail):
        rows[:, 3] = 0.0
    return np.concatenate([np.zeros((1, width)), peaked, far, edge, tail]).clip(-31, 31).astype(np.float32)


@pytest.mark.parametrize("width", [8, 128])
def test_no_share_of_a_softmax_is_off_by_much(width: int, tmp_path: Path) -> None:
    """Of 127 that hardly count, each is off by so little that their sum is: no error is common to them."""
    path = save_model(tmp_path, [node("Softmax", ["x"], ["y"], axis=-1)], shape=("batch", width))
    drawn = RNG.uniform(-32, 32, (20, width)).astype(np.float32)  # as whoever predicts an error draws them
    x = np.concatenate([rows_of_scores(width), drawn])
    compiled = compile_model(path, RANGES)
    exact = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    [ours] = encrypted(compiled, {"x": x})
    off = np.abs(ours - exact)
    cut = 2.4e-6 * width  # what lies below -13 counts as nothing
    assert off.max() < 6e-5 + cut
    assert np.sqrt(np.square(off).mean()) < 2e-5
    assert np.sqrt(np.square(off[-20:]).mean()) < 4 * compiled.errors["y"]


SPELT = {
    "softmax": [node("Softmax", ["x"], ["y"], axis=-1)],
    "log of softmax": [node("LogSoftmax", ["x"], ["z"], axis=-1), node("Exp", ["z"], ["y"])],
    "log of sum": [
        node("ReduceLogSumExp", ["x"], ["t"], axes=[-1], name="top"),
        node("Sub", ["x", "t"], ["z"]),
        node("Exp", ["z"], ["y"]),
    ],
    "by hand": [
        node("ReduceMax", ["x"], ["t"], axes=[-1], name="top"),
        node("Sub", ["x", "t"], ["z"]),
        node("Exp", ["z"], ["p"]),
        node("ReduceSum", ["p", "last"], ["s"], name="sum"),
        node("Div", ["p", "s"], ["y"]),
    ],
}


@pytest.mark.parametrize("form", SPELT)
def test_what_lies_far_below_counts_in_a_long_row(form: str, tmp_path: Path) -> None:
    """In rows of thousands, numbers below -13 and what all series are off by alike took 4e-3 of the largest share."""
    width = 4096
    path = save_model(tmp_path, SPELT[form], {"last": np.array([-1])}, shape=("batch", width))
    far, spread = RNG.uniform(-14.4, -13.2, (2, width)), RNG.normal(-9, 2, (4, width))
    far[:, 7], spread[:, 7] = 0.0, 0.0
    x = np.concatenate([far, spread]).clip(-16, 0).astype(np.float32)
    compiled = compile_model(path, {"x": (-16.0, 0.0)})
    exact = np.exp(x.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    assert np.abs(clear(compiled, x) - exact).max() < 3e-4


@pytest.mark.parametrize(("width", "terms"), [(8, 12), (256, 12), (1024, 12), (4096, 14)])
def test_a_series_of_more_terms_is_dealt_for_long_rows_alone(width: int, terms: int, tmp_path: Path) -> None:
    path = save_model(tmp_path, SPELT["softmax"], shape=("batch", width))
    first = next(gate for gate in compile_model(path, RANGES).plan.gates if isinstance(gate, Fourier))
    assert first.terms == terms


def attention(folder: Path, tokens: int, size: int, sharp: float) -> Path:
    weights = {name: RNG.normal(0, size**-0.5, (size, size)).astype(np.float32) for name in "qkv"}
    weights["q"] *= sharp
    nodes = [node("MatMul", ["x", name], [f"x{name}"], name=name) for name in "qkv"]
    nodes += [
        node("Transpose", ["xk"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["xq", "kt"], ["scores"], name="products"),
        node("Softmax", ["scores"], ["shares"], axis=-1),
        node("MatMul", ["shares", "xv"], ["y"], name="mean"),
    ]
    return save_model(folder, nodes, weights, shape=("batch", tokens, size))


@pytest.mark.parametrize("sharp", [0.3, 3.0, 12.0])
def test_attention_that_is_peaked(sharp: float, tmp_path: Path) -> None:
    path = attention(tmp_path, 24, 8, sharp)
    x = RNG.normal(0, 1, (6, 24, 8)).clip(-3, 3).astype(np.float32)
    compiled = compile_model(path, {"x": (-3.0, 3.0)})
    [ours], [exact] = encrypted(compiled, {"x": x}), plaintext(path, {"x": x})
    off = np.abs(ours - exact)
    assert off.max() < 2e-3 * max(1.0, sharp / 3)
    assert np.sqrt(np.square(off).mean()) < 4 * compiled.errors["y"]
    kinds = [gate for gate in compiled.plan.gates if isinstance(gate, Between | Pieces)]
    assert len(kinds) == 2


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("reach", [4.0, 6.0, 40.0, 4000.0])
def test_gelu_on_all_sides_of_its_pieces(approximate: str, reach: float, tmp_path: Path) -> None:
    nodes = [node("Gelu", ["x"], ["h"], approximate=approximate), node("Mul", ["h", "h"], ["y"])]
    path = save_model(tmp_path, nodes, shape=("batch", 1), opset=20)
    near = np.concatenate([c + np.linspace(-0.6, 0.6, 121) for c in (-5.0, 0.0, 5.0)])
    x = np.concatenate([near, np.linspace(-reach, reach, 101)]).clip(-reach, reach)
    compiled = assert_agrees(path, {"x": x.astype(np.float32)[:, None]}, {"x": (-reach, reach)}, tolerance=1e-4 * reach)
    levels = [gate.levels for gate in compiled.plan.gates if isinstance(gate, Between)]
    assert [len(found) for found in levels] == ([2] if reach > 5 else [])


@pytest.mark.parametrize("ends", [(0.0, 5.5), (0.125, 9.0), (-1.0, 300.0), (-9.0, 1.0), (-7.0, 7.0), (6.0, 9.0)])
@pytest.mark.parametrize("follows", [True, False])
def test_gelu_of_one_sided_ranges_and_as_an_output(ends: tuple[float, float], follows: bool, tmp_path: Path) -> None:
    nodes = [node("Gelu", ["x"], ["h" if follows else "y"])] + [node("Mul", ["h", "h"], ["y"])] * follows
    path = save_model(tmp_path, nodes, shape=("batch", 1), opset=20)
    x = np.concatenate([np.linspace(*ends, 81), [*ends]]).astype(np.float32)[:, None]
    assert_agrees(path, {"x": x}, {"x": ends}, tolerance=1e-4 * max(4.0, *ends))


def swish(name: str) -> list[NodeProto]:
    """SiLU or Mish as exporters of PyTorch spell them out."""
    if name == "silu":
        return [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])]
    return [node("Softplus", ["x"], ["p"]), node("Tanh", ["p"], ["t"]), node("Mul", ["x", "t"], ["y"])]


@pytest.mark.parametrize(
    "ends", [(-4000.0, 1.0), (-1.0, 4000.0), (-40.0, 40.0), (-3.0, 2.0), (-50.0, -20.0), (9.0, 30.0)]
)
@pytest.mark.parametrize("name", ["silu", "mish"])
def test_far_from_zero_nothing_of_a_swish_is_off(name: str, ends: tuple[float, float], tmp_path: Path) -> None:
    """As a product of the value and a series it would be off by the series' error times the value: .14 at -4000."""
    path = save_model(tmp_path, swish(name), shape=("batch", 1))
    near = np.concatenate([center + np.linspace(-0.6, 0.6, 61) for center in (-13.0, 0.0, 7.0, 13.0)])
    x = np.concatenate([near, np.linspace(*ends, 101)]).clip(*ends).astype(np.float32)[:, None]
    compiled = assert_agrees(path, {"x": x}, {"x": ends}, tolerance=2e-4)
    [series] = [gate for gate in compiled.plan.gates if isinstance(gate, Fourier)]
    assert series.terms <= 24 and not any(isinstance(gate, Multiply) for gate in compiled.plan.gates)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 1.702, -1.0])
def test_swishes_of_another_slope(alpha: float, tmp_path: Path) -> None:
    """x sigmoid(1.702 x), a GELU to many, is a multiple of SiLU; any other alpha is a weight, and not told."""
    constants = {"alpha": np.float32(alpha)}
    nodes = [
        node("Mul", ["x", "alpha"], ["z"], name="z"),
        node("Sigmoid", ["z"], ["s"]),
        node("Mul", ["s", "x"], ["y"]),
    ]
    path = save_model(tmp_path, nodes, constants, shape=("batch", 1))
    x, joined = np.linspace(-60, 30, 181, dtype=np.float32)[:, None], alpha in (1.0, 1.702)
    compiled = assert_agrees(path, {"x": x}, {"x": (-60.0, 30.0)}, tolerance=2e-4 if joined else 4e-3)
    assert any(isinstance(gate, Pieces) for gate in compiled.plan.gates) is joined


@pytest.mark.parametrize("alpha", [1.0, 0.25, -0.5])
def test_the_operator_of_a_swish(alpha: float, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Swish", ["x"], ["y"], alpha=alpha)], shape=("batch", 1), opset=24)
    x = np.linspace(-60, 30, 181, dtype=np.float32)[:, None]
    [ours] = encrypted(compile_model(path, {"x": (-60.0, 30.0)}), {"x": x})
    exact = x / (1.0 + np.exp(-alpha * x.astype(np.float64)))
    assert np.abs(ours - exact).max() < (5e-4 if alpha > 0 else 5e-3)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Sigmoid", ["x"], ["s"]), node("Add", ["x", "c"], ["z"]), node("Mul", ["z", "s"], ["y"])],
        [node("Add", ["x", "c"], ["z"]), node("Sigmoid", ["z"], ["s"]), node("Mul", ["x", "s"], ["y"])],
        [node("Tanh", ["x"], ["t"]), node("Mul", ["x", "t"], ["y"])],
        [*swish("mish")[:1], node("Sigmoid", ["p"], ["t"]), node("Mul", ["x", "t"], ["y"])],
        [
            *swish("mish")[:1],
            node("Mul", ["p", "c"], ["q"], name="q"),
            node("Tanh", ["q"], ["t"]),
            node("Mul", ["x", "t"], ["y"]),
        ],
    ],
)
def test_what_only_looks_like_a_swish_is_none(nodes: list[NodeProto], tmp_path: Path) -> None:
    path = save_model(tmp_path, nodes, {"c": np.float32(0.5)}, shape=("batch", 1))
    x = np.linspace(-6, 6, 61, dtype=np.float32)[:, None]
    compiled = assert_agrees(path, {"x": x}, {"x": (-6.0, 6.0)}, tolerance=1e-3)
    assert any(isinstance(gate, Multiply) for gate in compiled.plan.gates)


@pytest.mark.parametrize("ends", [(-20.0, -15.0), (-13.5, -12.9), (-30.0, -13.0), (-14.0, 0.0)])
@pytest.mark.parametrize("name", ["Elu", "Gelu"])
def test_ranges_that_are_mostly_below_all_pieces(name: str, ends: tuple[float, float], tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(name, ["x"], ["y"])], shape=("batch", 1), opset=20)
    assert_agrees(path, {"x": np.linspace(*ends, 81, dtype=np.float32)[:, None]}, {"x": ends}, tolerance=1e-4)


def multiplied(before: str) -> list[NodeProto]:
    """A value `m` as long as a product, and a factor, c or the gains g, that is no power of two."""
    if before == "gains":
        return [node("LayerNormalization", ["x", "g", "zeros"], ["m"])]
    if before == "norm":
        return [node("LayerNormalization", ["x", "ones", "zeros"], ["n"]), node("Mul", ["n", "c"], ["m"], name="times")]
    square = node("Mul", ["x", "x"], ["q"], name="square")
    if before == "mean":
        mean = node("ReduceMean", ["q", "last"], ["n"], keepdims=1)
        return [square, mean, node("Mul", ["n", "c"], ["m"], name="times")]
    return [square, node("Mul" if before == "square" else "Div", ["q", "c"], ["m"], name="times")]


def activated(name: str) -> list[NodeProto]:
    if name == "silu":
        return [node("Sigmoid", ["m"], ["s"]), node("Mul", ["m", "s"], ["y"], name="swish")]
    return [node(name, ["m"], ["y"])]


FACTORS = [
    ("gains", 3.0, 4.0),
    ("gains", 5.0, 4.0),
    ("gains", 6.0, 4.0),
    ("gains", 2.9, 4.0),
    ("norm", 3.0, 4.0),
    ("square", 3.0, 8.0),
    ("divided", 3.0, 8.0),
    ("mean", 7.0, 2.0),
]


@pytest.mark.parametrize(
    ("name", "before", "factor", "reach"),
    [(name, *case) for name in ("Gelu", "Mish") for case in FACTORS] + [("silu", *case) for case in FACTORS[1:3]],
)
def test_pieces_of_an_argument_whose_scale_is_no_power_of_two(
    name: str, before: str, factor: float, reach: float, tmp_path: Path
) -> None:
    """The argument is one of the pieces; the series, another one, has a power of two as its scale."""
    ones = np.ones(16, np.float32)
    constants = {"c": np.float32(factor), "last": np.array([-1]), "ones": ones, "zeros": 0 * ones, "g": factor * ones}
    nodes = [*multiplied(before), *activated(name)]
    read = {each for one in nodes for each in one.input}
    path = save_model(
        tmp_path,
        nodes,
        {each: np.asarray(value) for each, value in constants.items() if each in read},
        shape=("batch", 16),
        opset=22,
    )
    x = RNG.uniform(-reach, reach, (12, 16)).astype(np.float32)
    compiled = assert_agrees(path, {"x": x}, {"x": (-reach, reach)}, tolerance=5e-4)
    [pieces] = [gate for gate in compiled.plan.gates if isinstance(gate, Pieces)]
    assert len(pieces.xs) == 2


def gated_chain(folder: Path, layers: int, gain: float) -> Path:
    """Layers of x sigmoid(x), each of which amplifies another one of eight numbers, and lets the others fade."""
    nodes, weights, x = [], {}, "x"
    for layer in range(layers):
        weight = np.eye(8) * np.where(np.arange(8) == layer % 8, gain, 0.7)
        weights[f"w{layer}"] = (weight + RNG.normal(0, 0.01, (8, 8))).astype(np.float32)
        names = [f"{name}{layer}" for name in "zsy"]
        nodes += [
            node("MatMul", [x, f"w{layer}"], names[:1], name=names[0]),
            node("Sigmoid", names[:1], names[1:2], name=names[1]),
            node("Mul", names[:2], names[2:], name=names[2]),
        ]
        x = names[2]
    return save_model(folder, [*nodes, node("Identity", [x], ["y"])], weights, shape=("batch", 8))


def test_deep_layers_of_gates_are_as_wide_as_samples_show(tmp_path: Path) -> None:
    """What a value may be off by at worst grew with every layer, and the bounds with it: such models were refused."""
    path = gated_chain(tmp_path, 40, 12.0)
    x = RNG.uniform(-20, 20, (64, 8)).astype(np.float32)
    compiled = compile_model(path, {"x": (-20.0, 20.0)}, samples={"x": x})
    wires = {wire.name: wire for wire in compiled.plan.wires}
    compared = [wires[gate.x].bits - gate.shift for gate in compiled.plan.gates if isinstance(gate, Between)]
    assert len(compared) == 40 and max(compared) < 16
    [exact] = plaintext(path, {"x": x})
    assert np.abs(clear(compiled, x) - exact).max() < 1e-3 * max(1.0, np.abs(exact).max())


def test_a_fit_decomposes_each_basis_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many cuts are tried: with emphasis and without."""
    shapes: list[tuple[int, ...]] = []
    usual = np.linalg.svd

    def counted(matrix: np.ndarray, full_matrices: bool) -> tuple[np.ndarray, ...]:
        shapes.append(matrix.shape)
        return usual(matrix, full_matrices=full_matrices)

    monkeypatch.setattr(np.linalg, "svd", counted)
    found = fit("exp_negative", (), -13.5, 0.0625, 8e-6, 2.0**-29, 2.0**-21)
    assert found.cosines.size == 12 and found.whole_error <= 8e-6
    assert len(shapes) == 3 * len(set(shapes)) == 12
    shapes.clear()
    fit("exp_negative", (), -13.5, 0.0625, 2e-6, 2.0**-29)
    assert len(shapes) == 3 * len(set(shapes)) > 0


def test_what_is_chosen_is_not_truncated_again(tmp_path: Path) -> None:
    """A result has the scale that a product takes, so that nothing stands between."""
    path = save_model(
        tmp_path, [node("Gelu", ["x"], ["h"]), node("Mul", ["h", "h"], ["y"])], shape=("batch", 3), opset=20
    )
    plan = compile_model(path, RANGES).plan
    [pieces] = [gate for gate in plan.gates if isinstance(gate, Pieces)]
    assert not any(isinstance(gate, Truncate) and gate.x == pieces.out for gate in plan.gates)
    [series] = [gate for gate in plan.gates if isinstance(gate, Fourier)]
    assert series.clamp is None and series.terms <= 10
