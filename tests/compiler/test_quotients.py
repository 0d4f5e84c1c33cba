"""Quotients and functions that are steep at zero keep their digits there, or what is expected of them says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, clear, plaintext

SIZE = [node("Abs", ["x"], ["size"])]
ROOT = [node("Mul", ["x", "x"], ["square"]), node("Sqrt", ["square"], ["size"])]
SQUARE = [node("Mul", ["x", "x"], ["a"], name="square")]
FOURTH = [*SQUARE, node("Mul", ["a", "a"], ["b"], name="fourth")]
RELU = [node("Relu", ["x"], ["a"])]
MORE = [node("Add", ["a", "little"], ["more"])]
ROWS = 200


def made(folder: Path, nodes: list[NodeProto], little: float) -> Path:
    constants = {"little": np.float32(little), "one": np.float32(1.0)}
    read = {name for each in nodes for name in each.input}
    return save_model(folder, nodes, {name: constants[name] for name in read & constants.keys()})


def spread(reach: float, least: float) -> np.ndarray:
    """Numbers of both signs, of all sizes from the least on alike."""
    rng = np.random.default_rng(4)
    sizes = np.exp(rng.uniform(np.log(least), np.log(reach), (ROWS, 4)))
    return (sizes * rng.choice([-1.0, 1.0], sizes.shape)).astype(np.float32)


@pytest.mark.parametrize("reach", [1.0, 1e3, 1e6])
@pytest.mark.parametrize(
    "nodes",
    [
        [*SIZE, node("Div", ["x", "size"], ["y"])],
        [*SIZE, node("Div", ["size", "x"], ["y"])],
        [*ROOT, node("Div", ["x", "size"], ["y"])],
        [*FOURTH, node("Div", ["b", "b"], ["y"])],
    ],
)
def test_a_quotient_of_a_value_and_its_size_is_exact(nodes: list[NodeProto], reach: float, tmp_path: Path) -> None:
    """It was 0 or 2 near zero, and off by 10 in fourth powers."""
    x = spread(reach, 1e-5 * reach)
    compiled = assert_agrees(made(tmp_path, nodes, 0.0), {"x": x}, {"x": (-reach, reach)}, tolerance=0.0)
    assert any("0 / 0" in note for note in compiled.notes)


@pytest.mark.parametrize("reach", [1.0, 30.0, 300.0])
@pytest.mark.parametrize(
    ("nodes", "little"),
    [
        ([*SQUARE, *MORE, node("Div", ["a", "more"], ["y"])], 1e-6),
        ([*RELU, *MORE, node("Div", ["a", "more"], ["y"])], 1e-4),
        ([node("Abs", ["x"], ["a"]), *MORE, node("Div", ["x", "more"], ["y"])], 1e-4),
        ([*RELU, *MORE, node("Log", ["more"], ["y"])], 1e-4),
        ([node("Clip", ["x", "little", "one"], ["a"]), node("Log", ["a"], ["y"])], 1e-4),
        ([node("Max", ["x", "little"], ["a"]), node("Log", ["a"], ["y"])], 1e-4),
    ],
)
def test_what_is_near_zero_counts(nodes: list[NodeProto], little: float, reach: float, tmp_path: Path) -> None:
    """A ReLU left 16 fractional bits, of which a logarithm or an inverse of little had none."""
    path = made(tmp_path, nodes, little)
    compiled = compile_model(path, {"x": (-reach, reach)})
    x = spread(reach, 1e-3)
    [right] = plaintext(path, {"x": x})
    assert np.abs(clear(compiled, x) - right).max() < 1e-2
    [expected] = compiled.errors.values()
    even = np.random.default_rng(5).uniform(-reach, reach, (ROWS, 4)).astype(np.float32)
    [right] = plaintext(path, {"x": even})
    off = np.sqrt(np.square(clear(compiled, even) - right).mean())
    assert off <= 3 * expected + 1e-6 and expected < 1e-3


@pytest.mark.parametrize("op", ["Reciprocal", "Sqrt"])
def test_an_inverse_of_a_relu_has_its_digits(op: str, tmp_path: Path) -> None:
    last = [node(op, ["more"], ["root" if op == "Sqrt" else "y"])]
    nodes = [*RELU, *MORE, *last, *([node("Reciprocal", ["root"], ["y"])] if op == "Sqrt" else [])]
    path = made(tmp_path, nodes, 1e-3)
    x = spread(10.0, 1e-4)
    [right] = plaintext(path, {"x": x})
    np.testing.assert_allclose(clear(compile_model(path, {"x": (-10.0, 10.0)}), x), right, rtol=2e-4)


def test_a_row_over_its_largest_has_digits_in_a_wide_range(tmp_path: Path) -> None:
    """Least divisors of 2^-12 left none to a product with a million: quotients of 1 were off by up to 10."""
    nodes = [node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml", norm="MAX")]
    path = save_model(tmp_path, nodes, {}, ("batch", 4))
    compiled = compile_model(path, {"x": (-1e6, 1e6)})
    x = np.random.default_rng(3).uniform(-1e6, 1e6, (ROWS, 4)).astype(np.float32)
    [right] = plaintext(path, {"x": x})
    off = np.abs(clear(compiled, x) - right)
    assert off.max() < 1 and compiled.errors["y"] < 0.4
    assert any("counts as about that" in note for note in compiled.notes)


@pytest.mark.parametrize(
    ("nodes", "little", "reach"),
    [
        ([*SIZE, node("Add", ["size", "little"], ["more"]), node("Div", ["size", "more"], ["y"])], 1e-8, 8.0),
        ([*RELU, *MORE, node("Div", ["a", "more"], ["y"])], 1e-8, 1.0),
        ([*SQUARE, *MORE, node("Div", ["a", "more"], ["y"])], 1e-5, 1e4),
        ([*SQUARE, *MORE, node("Div", ["a", "more"], ["y"])], 1e-3, 1e5),
        ([*SQUARE, *MORE, node("Div", ["a", "more"], ["y"])], 1e-6, 300.0),
    ],
)
def test_zero_over_a_little_is_about_zero(nodes: list[NodeProto], little: float, reach: float, tmp_path: Path) -> None:
    """One less the part that is added was up to 0.9996, where that part has no digits in what is inverted."""
    compiled = compile_model(made(tmp_path, nodes, little), {"x": (-reach, reach)})
    off = clear(compiled, np.zeros((ROWS, 4), np.float32))
    told = compiled.rehearsal.expected["y"]
    assert np.abs(off).max() < 1 / 16 and np.sqrt(np.square(off).mean()) < 2 * max(told.empty, told.smooth, 0.01)


@pytest.mark.parametrize("reach", [1.0, 10.0, 1e4, 1e5])
@pytest.mark.parametrize("nodes", [RELU, SQUARE])
def test_a_value_over_hardly_more_than_itself_is_between_zero_and_one(
    nodes: list[NodeProto], reach: float, tmp_path: Path
) -> None:
    """It was off by up to 3000: the inverse of nearly nothing is so large that a product with it has no digits."""
    path = made(tmp_path, [*nodes, *MORE, node("Div", ["a", "more"], ["y"])], 1e-8)
    compiled = compile_model(path, (-reach, reach))
    even = np.random.default_rng(5).uniform(-reach, reach, (ROWS, 4)).astype(np.float32)
    off = clear(compiled, even) - plaintext(path, {"x": even})[0]
    assert np.sqrt(np.square(off).mean()) < 1e-3 and compiled.errors["y"] < 1e-3
    small = clear(compiled, np.concatenate([spread(reach, 1e-9), np.zeros((4, 4), np.float32)]))
    assert -0.01 < small.min() and small.max() < 1.01
    if nodes is RELU:  # squares have more digits
        assert any("another one for x that is hardly larger" in note for note in compiled.notes)


@pytest.mark.parametrize(("reach", "tolerance"), [(64.0, 5e-5), (1000.0, 5e-5), (1e4, 1e-3)])
def test_a_large_value_over_itself_and_one_is_nearly_one(reach: float, tolerance: float, tmp_path: Path) -> None:
    """The inverse of a million has no digits that a product with a million leaves: it was off by 0.4, and told 0.2."""
    compiled = compile_model(
        path := made(tmp_path, [*SQUARE, *MORE, node("Div", ["a", "more"], ["y"])], 1.0), (-reach, reach)
    )
    x = np.concatenate([spread(reach, 1e-3), spread(4.0, 1e-3)])
    assert np.abs(clear(compiled, x) - plaintext(path, {"x": x})[0]).max() < tolerance
    assert compiled.errors["y"] < tolerance


@pytest.mark.parametrize("columns", [3, 4, 100])
@pytest.mark.parametrize(("least", "most"), [(0.1, 10.0), (1e-3, 100.0)])
def test_quotients_by_a_mean_keep_their_bounds(least: float, most: float, columns: int, tmp_path: Path) -> None:
    """Numbers in the octave of their mean are as many times as large as there are numbers: bounds said two."""
    nodes = [
        node("ReduceMean", ["x"], ["mean"], name="mean", axes=[1], keepdims=1),
        node("Div", ["x", "mean"], ["part"], name="part"),
        node("Sin", ["x"], ["sine"], name="sine"),
        node("Mul", ["x", "sine"], ["weighed"], name="weighed"),
        node("ReduceMean", ["weighed"], ["above"], name="above", axes=[1], keepdims=1),
        node("Div", ["above", "mean"], ["weighted"], name="weighted"),
        node("Add", ["part", "weighted"], ["y"], name="y"),
    ]
    path = save_model(tmp_path, nodes, {}, ("batch", columns), opset=13)
    x = np.full((columns + 2, columns), least, np.float32)
    np.fill_diagonal(x, most)
    x[-1] = most
    assert_agrees(path, {"x": x}, {"x": (least, most)}, tolerance=3e-5 * columns)


def normalised(x: str, out: str, norm: str = "ReduceL2") -> list[NodeProto]:
    """Nodes of x over its norm, as PyTorch exports `normalize`: the norm is at least 1e-12, and repeated."""
    names = [f"{out}.{name}" for name in ("norm", "least", "all")]
    return [
        node(norm, [x], [names[0]], axes=[-1], keepdims=1),
        node("Clip", [names[0], "least"], [names[1]]),
        node("Expand", [names[1], "shape"], [names[2]]),
        node("Div", [x, names[2]], [out]),
    ]


LEAST = {"least": np.float32(1e-12), "shape": np.array([1, 4], dtype=np.int64)}


@pytest.mark.parametrize(("norm", "p"), [("ReduceL2", 2), ("ReduceL1", 1)])
def test_x_over_its_norm_is_one_operator(norm: str, p: int, tmp_path: Path) -> None:
    spelt = save_model(tmp_path, normalised("x", "y", norm), LEAST)
    x = np.random.default_rng(2).uniform(-3, 3, (ROWS, 4)).astype(np.float32)
    compiled = assert_agrees(spelt, {"x": x}, {"x": (-3, 3)}, tolerance=1e-3)
    alone = save_model(tmp_path, [node("LpNormalization", ["x"], ["y"], axis=-1, p=p)])
    assert compiled.plan.digest == compile_model(alone, {"x": (-3, 3)}).plan.digest


def test_rows_over_their_norms_have_products_of_one_at_most(tmp_path: Path) -> None:
    """Attention by cosines: scores could reach 10^12, as one over a norm could."""
    nodes = [
        *normalised("x", "unit"),
        node("MatMul", ["unit", "turned"], ["scores"]),
        node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    turned = np.random.default_rng(3).uniform(-50, 50, (4, 4)).astype(np.float32)
    model = save_model(tmp_path, nodes, {**LEAST, "turned": turned})
    x = np.random.default_rng(2).uniform(-3, 3, (ROWS, 4)).astype(np.float32)
    assert_agrees(model, {"x": x}, {"x": (-3, 3)}, tolerance=2e-3)


def test_a_softmax_over_one_element_is_one(tmp_path: Path) -> None:
    nodes = [
        node("Unsqueeze", ["x", "axis"], ["a"]),
        node("Softmax", ["a"], ["b"], axis=-1),
        node("Mul", ["a", "b"], ["c"]),
        node("Squeeze", ["c", "axis"], ["y"]),
    ]
    model = save_model(tmp_path, nodes, {"axis": np.array([2], dtype=np.int64)})
    x = np.random.default_rng(2).uniform(-3, 3, (ROWS, 4)).astype(np.float32)
    compiled = assert_agrees(model, {"x": x}, {"x": (-3, 3)}, tolerance=1e-4)
    assert any("over one element" in note for note in compiled.notes)


@pytest.mark.parametrize("dividend", [2.0, [1.0, 2.0, 3.0, 4.0]])
def test_a_constant_over_a_secret(tmp_path: Path, dividend: object) -> None:
    nodes = [node("Div", ["c", "x"], ["y"])]
    path = save_model(tmp_path, nodes, {"c": np.array(dividend, np.float32)}, ("batch", 4))
    x = np.random.default_rng(5).uniform(1, 3, (6, 4)).astype(np.float32)
    assert_agrees(path, {"x": x}, {"x": (1.0, 3.0)}, tolerance=1e-3)


@pytest.mark.parametrize("out_of", ["eight", "those that are not 0"])
def test_what_counts_leave_is_no_nearer_to_zero_than_a_step(out_of: str, tmp_path: Path) -> None:
    """ESM-2 divides by the share of tokens that are no masks; its answers were off by their own size, or refused."""
    x = np.array([[1, 2, 4, 5, 6, 7, 1, 2], [3, 2, 3, 5, 6, 0, 0, 0], [3, 3, 3, 3, 3, 3, 3, 1]])
    nodes = [
        node("Cast", ["x"], ["reals"], name="reals", to=TensorProto.FLOAT),
        node("Equal", ["x", "mask"], ["masked"]),
        node("Cast", ["masked"], ["marks"], name="marks", to=TensorProto.INT64),
        node("ReduceSum", ["marks", "last"], ["n"], name="n", keepdims=0),
        node("Cast", ["n"], ["n_real"], name="n_real", to=TensorProto.FLOAT),
        node("Cast", ["x"], ["kept"], name="kept", to=TensorProto.BOOL),
        node("Cast", ["kept"], ["ones"], name="ones", to=TensorProto.INT64),
        node("ReduceSum", ["ones", "last"], ["m"], name="m", keepdims=0),
        node("Cast", ["m"], ["m_real"], name="m_real", to=TensorProto.FLOAT),
        node("Div", ["n_real", "eight" if out_of == "eight" else "m_real"], ["share"], name="share"),
        node("Sub", ["one", "share"], ["left"]),
        node("Unsqueeze", ["left", "last"], ["column"]),
        node("Div", ["reals", "column"], ["y"]),
    ]
    constants = {
        "mask": np.int64(3), "last": np.array([-1]), "eight": np.float32(8.0), "one": np.float32(1.0)
    }  # fmt: skip
    nodes = (
        nodes
        if out_of != "eight"
        else [each for each in nodes if each.output[0] not in ("kept", "ones", "m", "m_real")]
    )
    path = save_model(tmp_path, nodes, constants, ("batch", 8), element=TensorProto.INT64)
    assert_agrees(path, {"x": x}, {"x": (0, 7)}, tolerance=2e-3)


def test_a_sum_of_products_of_which_none_is_below_zero(tmp_path: Path) -> None:
    """The weights of linear attention are such sums, and were refused as divisors: bounds had lost their sign."""
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["r", "t"], ["weights"], name="weights"),
        node("MatMul", ["x", "t"], ["mixed"], name="mixed"),
        node("Add", ["weights", "more"], ["divisor"]),
        node("Div", ["mixed", "divisor"], ["y"]),
    ]
    x = np.random.default_rng(4).uniform(-1, 1, (5, 3, 4)).astype(np.float32)
    path = save_model(tmp_path, nodes, {"more": np.float32(0.5)}, ("batch", 3, 4))
    assert_agrees(path, {"x": x}, {"x": (-1, 1)}, tolerance=1e-3)


@pytest.mark.parametrize(("root", "squares"), [("Pow", "Pow"), ("Sqrt", "Mul"), ("Clip", "ReduceSumSquare")])
def test_rows_over_a_length_that_is_spelt_out(root: str, squares: str, tmp_path: Path) -> None:
    """CLIP's embeddings are such rows: no bound showed that they are no longer than 1, and their cosines were off."""
    whole = squares == "ReduceSumSquare"
    nodes = [
        node("MatMul", ["x", "w"], ["u"]),
        node(
            squares,
            ["u", "two"] if squares == "Pow" else ["u"] if whole else ["u", "u"],
            ["t" if whole else "s"],
            name="a",
        ),
        *([] if whole else [node("ReduceSum", ["s", "last"], ["t"], keepdims=1)]),
        node("Pow" if root == "Pow" else "Sqrt", ["t", "half"] if root == "Pow" else ["t"], ["r"], name="root"),
        *([node("Clip", ["r", "little"], ["n"])] if root == "Clip" else []),
        node("Div", ["u", "n" if root == "Clip" else "r"], ["e"]),
        node("Transpose", ["e"], ["f"], perm=[0, 2, 1]),
        node("MatMul", ["e", "f"], ["c"], name="cosines"),
        node("Mul", ["c", "scale"], ["y"]),
    ]
    if whole:
        nodes[1].attribute.append(helper.make_attribute("axes", [-1]))
    rng = np.random.default_rng(6)
    constants = {
        "w": rng.standard_normal((4, 6)).astype(np.float32), "two": np.float32(2.0), "half": np.float32(0.5),
        "last": np.array([-1]), "little": np.float32(1e-12), "scale": np.float32(14.28),
    }  # fmt: skip
    read = {name for each in nodes for name in each.input}
    kept = {name: value for name, value in constants.items() if name in read}
    x = rng.uniform(-500, 500, (5, 3, 4)).astype(np.float32)
    path = save_model(tmp_path, nodes, kept, ("batch", 3, 4))
    assert_agrees(path, {"x": x}, {"x": (-500, 500)}, tolerance=3e-3)


@pytest.mark.parametrize("keep", [0, 1])
def test_a_mixture_of_shares_over_its_own_sum(keep: int, tmp_path: Path) -> None:
    """ConViT divides so: bounds showed of the sum that it can be 0, and peaked attention was off by its own size."""
    rng = np.random.default_rng(5)
    nodes = [
        node("Softmax", ["x"], ["one"], axis=-1),
        node("MatMul", ["x", "w"], ["m"]),
        node("Softmax", ["m"], ["other"], axis=-1, name="second"),
        node("Mul", ["gate", "one"], ["a"], name="a"),
        node("Mul", ["other", "rest"], ["b"], name="b"),
        node("Add", ["a", "b"], ["mixed"]),
        node("ReduceSum", ["mixed", "last"], ["s"], keepdims=keep),
        *([] if keep else [node("Unsqueeze", ["s", "last"], ["t"])]),
        node("Div", ["mixed", "s" if keep else "t"], ["y"]),
    ]
    gate = np.array([[0.9], [0.2], [0.6]], np.float32)
    constants = {
        "w": 4 * rng.standard_normal((4, 4)).astype(np.float32), "gate": gate, "rest": 1 - gate, "last": np.array([-1])
    }  # fmt: skip
    x = rng.uniform(-8, 8, (5, 3, 4)).astype(np.float32)
    path = save_model(tmp_path, nodes, constants, ("batch", 3, 4))
    compiled = assert_agrees(path, {"x": x}, {"x": (-8, 8)}, tolerance=1e-4)
    assert not any("of reciprocal can be 0" in note for note in compiled.notes)


@pytest.mark.parametrize("most", [8, 9, 12, 20])
def test_what_counts_leave_is_refused_where_it_may_be_negative(most: int, tmp_path: Path) -> None:
    """Each negative number counted as half a step, of the other sign; of far ones the parties had no bound."""
    nodes = [
        node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        node("Div", ["real", "eight"], ["share"], name="share"),
        node("Sub", ["one", "share"], ["left"]),
        node("Div", ["real", "left"], ["y"], name="quotient"),
    ]
    constants = {"eight": np.float32(8.0), "one": np.float32(1.0)}
    path = save_model(tmp_path, nodes, constants, ("batch", 4), element=TensorProto.INT64)
    if most == 8:
        assert compile_model(path, {"x": (0, most)}).errors["y"] < 1e-3
        return
    with pytest.raises(ModelError, match="'quotient'.*defined above 0 only"):
        compile_model(path, {"x": (0, most)})


@pytest.mark.parametrize("most", [2, 3, 5])
def test_more_than_all_are_counted_within_bounds(most: int, tmp_path: Path) -> None:
    """Of 20 marks over few others bounds fear -20; what is negative counts as half, and had left its wire's bound."""
    nodes = [
        node("ReduceSum", ["x", "last"], ["n"], name="n"),
        node("Slice", ["x", "zero", "few", "last"], ["first"], name="first"),
        node("ReduceSum", ["first", "last"], ["m"], name="m"),
        node("Cast", ["n"], ["n_real"], name="n_real", to=TensorProto.FLOAT),
        node("Cast", ["m"], ["m_real"], name="m_real", to=TensorProto.FLOAT),
        node("Div", ["n_real", "m_real"], ["share"], name="share"),
        node("Sub", ["one", "share"], ["left"]),
        node("Div", ["m_real", "left"], ["y"], name="quotient"),
    ]
    constants = {
        "last": np.array([1]), "zero": np.array([0]), "few": np.array([most]), "one": np.float32(1.0)
    }  # fmt: skip
    path = save_model(tmp_path, nodes, constants, ("batch", 20), element=TensorProto.INT64)
    y = clear(compile_model(path, {"x": (0, 1)}), np.ones((2, 20), np.int64))
    assert (y >= 0).all() and np.isfinite(y).all()
