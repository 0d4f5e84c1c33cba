"""Attention, embeddings and normalisations as onnxruntime's optimiser for transformers has them, beside onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from tests.support.graphs import node
from tests.support.models import assert_agrees

RNG = np.random.default_rng(11)
HEADS, PLACES, WIDTH, WORDS = 2, 5, 8, 12
MASKS = {
    "places": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], np.int32),
    "lengths": np.array([5, 3, 1], np.int32),
}


def drawn(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


X = drawn(3, PLACES, WIDTH)


def saved(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    feeds: dict[str, np.ndarray],
    opset: int = 21,
) -> Path:
    """A model whose inputs are these, with an open batch; y and z are its outputs."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), ["batch", *value.shape[1:]])
        for name, value in feeds.items()
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("y", "z")
        if any(name in each.output for each in nodes)
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "fused", inputs, outputs, stored), opset_imports=opsets)
    model.ir_version = 10
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def fused(operator: str, reads: list[str], *writes: str, **settings: object) -> onnx.NodeProto:
    return node(operator, reads, [*writes] or ["y"], domain="com.microsoft", **settings)


@pytest.mark.parametrize("least", [-1e4, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("mask", MASKS)
def test_attention_with_its_projections(mask: str, least: float, tmp_path: Path) -> None:
    feeds = {"x": X, "mask": MASKS[mask]}
    nodes = [fused("Attention", ["x", "w", "b", "mask"], num_heads=HEADS, mask_filter_value=least)]
    path = saved(tmp_path, nodes, {"w": 2 * drawn(WIDTH, 3 * WIDTH), "b": drawn(3 * WIDTH)}, feeds)
    assert_agrees(path, feeds, {"x": (-1, 1), "mask": (0, 1) if mask == "places" else (0, PLACES)}, 5e-4)


@pytest.mark.parametrize("least", [None, -65504.0, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("operator", ["Attention", "MultiHeadAttention"])
def test_rows_that_a_mask_hides_whole_are_told(operator: str, least: float | None, tmp_path: Path) -> None:
    """They were off by 2e-3 without a word, or it was said that the model has none."""
    settings = {} if least is None else {"mask_filter_value": least}
    reads = ["x", "w", "b", "mask"] if operator == "Attention" else ["x", "x", "x", "", "mask"]
    constants = {"w": drawn(WIDTH, 3 * WIDTH), "b": drawn(3 * WIDTH)} if operator == "Attention" else {}
    path = saved(
        tmp_path,
        [fused(operator, reads, num_heads=HEADS, **settings)],
        constants,
        {"x": X, "mask": MASKS["places"]},
    )
    notes = "".join(compile_model(path, {"x": (-1, 1), "mask": (0, 1)}).notes)
    assert "where masks hide all scores of a row" in notes and "minus infinity" not in notes


def test_causal_attention_with_a_bias_for_scores(tmp_path: Path) -> None:
    constants = {"w": drawn(WIDTH, 3 * WIDTH), "b": drawn(3 * WIDTH), "added": drawn(1, HEADS, PLACES, PLACES)}
    reads = ["x", "w", "b", "", "", "added"]
    nodes = [fused("Attention", reads, num_heads=HEADS, unidirectional=1, scale=0.7)]
    assert_agrees(saved(tmp_path, nodes, constants, {"x": X}), {"x": X}, {"x": (-1, 1)}, 2e-4)


def test_projections_of_different_widths(tmp_path: Path) -> None:
    constants = {"w": drawn(WIDTH, 16), "b": drawn(16)}
    nodes = [fused("Attention", ["x", "w", "b"], num_heads=HEADS, qkv_hidden_sizes=[4, 4, 8])]
    assert_agrees(saved(tmp_path, nodes, constants, {"x": X}), {"x": X}, {"x": (-1, 1)}, 2e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_what_was_projected_before(masked: bool, tmp_path: Path) -> None:
    feeds = {"x": X, **({"mask": MASKS["places"]} if masked else {})}
    names = ("q", "k", "v")
    nodes = [
        *(node("MatMul", ["x", f"w{name}"], [name], name=name) for name in names),
        fused("MultiHeadAttention", [*names, "b", "mask" if masked else "", "added"], num_heads=HEADS),
    ]
    constants = {f"w{name}": drawn(WIDTH, WIDTH) for name in names}
    constants |= {"b": drawn(3 * WIDTH), "added": drawn(1, HEADS, PLACES, PLACES)}
    assert_agrees(
        saved(tmp_path, nodes, constants, feeds),
        feeds,
        {"x": (-1, 1), "mask": (0, 1)} if masked else {"x": (-1, 1)},
        2e-4,
    )


def test_quantised_attention(tmp_path: Path) -> None:
    """Weights of 8 bits beside rows that are quantised as they come."""
    constants = {
        "w": RNG.integers(-90, 90, (WIDTH, 3 * WIDTH)).astype(np.int8), "b": drawn(3 * WIDTH), "xz": np.uint8(128),
        "ws": np.float32(0.01), "xs": np.float32(1 / 127), "wz": np.int8(3),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        fused("QAttention", ["q", "w", "b", "xs", "ws", "", "xz", "wz"], num_heads=HEADS, unidirectional=1),
    ]
    assert_agrees(saved(tmp_path, nodes, constants, {"x": X}), {"x": X}, {"x": (-1, 1)}, 2e-2)


def test_embeddings_and_the_count_of_a_mask(tmp_path: Path) -> None:
    feeds = {
        "ids": RNG.integers(0, WORDS, (3, PLACES)).astype(np.int32),
        "kinds": RNG.integers(0, 2, (3, PLACES)).astype(np.int32),
        "mask": MASKS["places"],
    }
    constants = {
        "words": drawn(WORDS, WIDTH), "places": drawn(9, WIDTH), "segments": drawn(2, WIDTH), "g": drawn(WIDTH),
        "h": drawn(WIDTH), "w": drawn(WIDTH, 3 * WIDTH), "b": drawn(3 * WIDTH),
    }  # fmt: skip
    nodes = [
        fused(
            "EmbedLayerNormalization", ["ids", "kinds", "words", "places", "segments", "g", "h", "mask"], "x", "n",
            epsilon=1e-5, mask_index_type=1,
        ),
        fused("Attention", ["x", "w", "b", "n"], num_heads=HEADS),
    ]  # fmt: skip
    compiled = assert_agrees(saved(tmp_path, nodes, constants, feeds), feeds, {"mask": (0, 1)}, 1e-3)
    assert {each.name: each.places for each in compiled.plan.inputs} == {"ids": WORDS, "kinds": 2, "mask": None}


def test_segments_that_are_the_same_for_every_row_of_an_open_batch(tmp_path: Path) -> None:
    """As onnxruntime's optimiser leaves a BERT's that has no input for them: expanded to the batch's size, and cast."""
    feeds = {"ids": RNG.integers(0, WORDS, (3, PLACES)).astype(np.int32)}
    constants = {
        "words": drawn(WORDS, WIDTH), "places": drawn(9, WIDTH), "segments": drawn(2, WIDTH), "g": drawn(WIDTH),
        "h": drawn(WIDTH), "kinds": np.arange(PLACES)[None] % 2,
    }  # fmt: skip
    nodes = [
        node("Shape", ["ids"], ["sizes"]),
        node("Expand", ["kinds", "sizes"], ["wide"], name="wide"),
        node("Cast", ["wide"], ["cast"], name="cast", to=TensorProto.INT32),
        fused(
            "EmbedLayerNormalization", ["ids", "cast", "words", "places", "segments", "g", "h"], "y", "", epsilon=1e-5
        ),
    ]
    compiled = assert_agrees(saved(tmp_path, nodes, constants, feeds), feeds, None, 1e-3)
    assert compiled.plan.wire[compiled.plan.inputs[0].wire].shape[0] == "batch"
    assert len([gate for gate in compiled.plan.gates if gate.kind in ("step", "onehot")]) == 1  # of the root


def test_rows_over_their_root_mean_square(tmp_path: Path) -> None:
    nodes = [
        node("SimplifiedLayerNormalization", ["x", "g"], ["s"], axis=-1, epsilon=1e-5),
        fused("SkipSimplifiedLayerNormalization", ["x", "s", "g"], "y", "", "", "z", epsilon=1e-5),
    ]
    constants = {"g": drawn(WIDTH) + 2}
    assert_agrees(saved(tmp_path, nodes, constants, {"x": X}), {"x": X}, {"x": (-1, 1)}, 2e-4)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [4, 2])
@pytest.mark.parametrize("ours", [True, False])
def test_rotary_embeddings(ours: bool, turned: int, interleaved: int, tmp_path: Path) -> None:
    """Of ONNX's opset 23 with heads apart, and of onnxruntime with heads joined."""
    angles = RNG.uniform(-4, 4, (9, turned // 2))
    constants = {
        "cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32),
        "at": np.array([[0, 1, 2, 3, 4]] if ours else [3]), "shape": np.array([0, 0, HEADS, -1]),
    }  # fmt: skip
    settings = {"interleaved": interleaved, "rotary_embedding_dim": turned if turned < 4 else 0}
    if ours:
        nodes = [
            node("Reshape", ["x", "shape"], ["r"]),
            node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3]),
            node("Expand", ["at", "number"], ["places"]),
            node("RotaryEmbedding", ["t", "cos", "sin", "places"], ["y"], **settings),
        ]
        constants["number"] = np.array([3, 1])
        feeds, del_batch = {"x": X}, True
    else:
        del constants["shape"]
        nodes = [fused("RotaryEmbedding", ["x", "at", "cos", "sin"], num_heads=HEADS, **settings)]
        feeds, del_batch = {"x": X}, False
    path = saved(tmp_path, nodes, constants, feeds, 23)
    if del_batch:
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
        onnx.save(model, path)
    assert_agrees(path, feeds, {"x": (-1, 1)}, 1e-4)


@pytest.mark.parametrize("secret", ["ids", "kinds", "at"])
def test_embeddings_of_what_the_model_holds_already(secret: str, tmp_path: Path) -> None:
    """Places that are a constant, as optimisers leave them, ended in a KeyError."""
    whole = {
        "ids": RNG.integers(0, WORDS, (1, PLACES)), "kinds": RNG.integers(0, 2, (1, PLACES)),
        "at": np.arange(PLACES)[None, ::-1], "mask": MASKS["places"][1:2],
    }  # fmt: skip
    given = {name: value.astype(np.int32) for name, value in whole.items()}
    feeds = {secret: given.pop(secret)}
    constants = given | {
        "words": drawn(WORDS, WIDTH), "places": drawn(9, WIDTH), "segments": drawn(2, WIDTH), "g": drawn(WIDTH),
        "h": drawn(WIDTH), "w": drawn(WIDTH, 3 * WIDTH), "b": drawn(3 * WIDTH),
    }  # fmt: skip
    reads = ["ids", "kinds", "words", "places", "segments", "g", "h", "mask", *["at"] * (secret != "kinds")]
    nodes = [
        fused("EmbedLayerNormalization", reads, "x", "n", epsilon=1e-5, mask_index_type=1),
        fused("Attention", ["x", "w", "b", "n"], num_heads=HEADS),
    ]
    assert_agrees(saved(tmp_path, nodes, constants, feeds), feeds, None, 1e-3)


@pytest.mark.parametrize("mask", ["places", "lengths"])
def test_a_mask_that_the_model_holds(mask: str, tmp_path: Path) -> None:
    feeds, held = {"x": X[:1]}, MASKS[mask][1:2]
    nodes = [fused("Attention", ["x", "w", "b", "mask"], num_heads=HEADS)]
    constants = {"w": 2 * drawn(WIDTH, 3 * WIDTH), "b": drawn(3 * WIDTH), "mask": held}
    assert_agrees(saved(tmp_path, nodes, constants, feeds), feeds, {"x": (-1, 1)}, 5e-4)
