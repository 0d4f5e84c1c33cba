"""LSTM, GRU and RNN beside onnxruntime: directions, states, lengths, peepholes, activations, layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.errors import ModelError
from mpc.plan.cost import plan_cost
from tests.support.effort import FULL
from tests.support.models import encrypted, plaintext

Draw = Callable[[st.SearchStrategy], object]
Arrays = dict[str, np.ndarray]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": ["y", "h", "c"], "GRU": ["y", "h"], "RNN": ["y", "h"]}
STEPS, ROWS, FEATURES, HIDDEN = 3, 2, 2, 3


def weights(operator: str, directions: int, seed: int, peepholes: bool = False) -> Arrays:
    rng = np.random.default_rng(seed)
    gates = GATES[operator] * HIDDEN
    shapes = {
        "w": (directions, gates, FEATURES),
        "r": (directions, gates, HIDDEN),
        "b": (directions, 2 * gates),
        **({"p": (directions, 3 * HIDDEN)} if peepholes else {}),
    }
    return {name: (rng.normal(size=shape) / 2).astype(np.float32) for name, shape in shapes.items()}


def save(
    folder: Path, operator: str, constants: Arrays, inputs: dict[str, tuple[int | str, ...]], **attributes: object
) -> Path:
    """A model of one layer; what is neither a constant nor an input is left out."""
    order = ["x", "w", "r", "b", "lengths", "h0", "c0", "p"]
    names = [name if name in constants or name in inputs else "" for name in order]
    while not names[-1]:
        names.pop()
    made = helper.make_node(operator, names, OUTPUTS[operator], "layer", hidden_size=HIDDEN, **attributes)
    graph = helper.make_graph(
        [made],
        "recurrent",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in OUTPUTS[operator]],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = folder / f"{operator}.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return path


def agree(path: Path, feeds: Arrays, tolerance: float = 1e-3) -> Compiled:
    compiled = compile_model(path, dict.fromkeys(feeds, (-2, 2)))
    for ours, theirs, out in zip(
        encrypted(compiled, feeds), plaintext(path, feeds), compiled.plan.outputs, strict=True
    ):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < tolerance, (out.name, np.abs(ours - theirs).max())
    return compiled


def sequence(seed: int, rows: int = ROWS, batch_first: bool = False) -> np.ndarray:
    shape = (rows, STEPS) if batch_first else (STEPS, rows)
    return np.random.default_rng(seed).uniform(-2, 2, (*shape, FEATURES)).astype(np.float32)


@st.composite
def layers(draw: Draw) -> tuple[str, Arrays, dict[str, object], list[str]]:
    """(operator, constants, attributes, states that are entered)"""
    operator = draw(st.sampled_from([*GATES]))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    directions = 1 + (direction == "bidirectional")
    attributes: dict[str, object] = {"direction": direction}
    peepholes = operator == "LSTM" and draw(st.booleans())
    constants = weights(operator, directions, draw(st.integers(0, 99)), peepholes)
    if draw(st.booleans()):
        del constants["b"]
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.5, 1.5]))
    if operator == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        constants["lengths"] = np.array(draw(st.sampled_from([[3, 3], [2, 2], [1, 3], [3, 2]])), np.int32)
    states = ["h0", "c0"] if operator == "LSTM" else ["h0"]
    kept = {name: draw(st.sampled_from(["none", "constant", "entered"])) for name in states}
    if operator == "LSTM" and "none" in kept.values():  # onnxruntime takes both or neither
        kept = dict.fromkeys(kept, "none")
    rng = np.random.default_rng(3)
    constants.update(
        (name, rng.uniform(-1, 1, (directions, ROWS, HIDDEN)).astype(np.float32))
        for name, how in kept.items()
        if how == "constant"
    )
    return operator, constants, attributes, [name for name, how in kept.items() if how == "entered"]


@settings(max_examples=60 if FULL else 8, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers(), st.integers(0, 99))
def test_layers(
    tmp_path_factory: pytest.TempPathFactory, layer: tuple[str, Arrays, dict[str, object], list[str]], seed: int
) -> None:
    operator, constants, attributes, entered = layer
    directions = len(constants["w"])
    inputs: dict[str, tuple[int | str, ...]] = {"x": (STEPS, ROWS, FEATURES)}
    inputs |= dict.fromkeys(entered, (directions, ROWS, HIDDEN))
    path = save(tmp_path_factory.mktemp("layer"), operator, constants, inputs, **attributes)
    feeds = {"x": sequence(seed)}
    feeds |= {name: np.random.default_rng(seed).uniform(-1, 1, inputs[name]).astype(np.float32) for name in entered}
    agree(path, feeds)


@pytest.mark.parametrize("lengths", [[0, 2], [3, 0], [0, 0]])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("operator", [*GATES])
def test_a_row_of_no_steps_is_zero_whatever_its_first_state(
    operator: str, direction: str, lengths: list[int], tmp_path: Path
) -> None:
    directions = 1 + (direction == "bidirectional")
    constants = weights(operator, directions, 7) | {"lengths": np.array(lengths, np.int32)}
    for name in ("h0", "c0")[: 1 + (operator == "LSTM")]:
        constants[name] = np.full((directions, ROWS, HIDDEN), 0.5, np.float32)
    path = save(tmp_path, operator, constants, {"x": (STEPS, ROWS, FEATURES)}, direction=direction)
    agree(path, {"x": sequence(5)})


ACTIVATIONS: dict[str, dict[str, object]] = {
    "Affine": {"activation_alpha": [0.5], "activation_beta": [0.25]},
    "ScaledTanh": {"activation_alpha": [0.75], "activation_beta": [0.5]},
    "HardSigmoid": {"activation_alpha": [0.3], "activation_beta": [0.4]},
    "LeakyRelu": {"activation_alpha": [0.2]},
    "ThresholdedRelu": {"activation_alpha": [0.125]},
    "Elu": {"activation_alpha": [0.75]},
    "Relu": {},
    "Softsign": {},
    "Softplus": {},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, tmp_path: Path) -> None:
    settings: dict[str, object] = {"activations": [name], **ACTIVATIONS[name]}
    path = save(tmp_path, "RNN", weights("RNN", 1, 4), {"x": (STEPS, ROWS, FEATURES)}, **settings)
    agree(path, {"x": sequence(5)})


def test_parameters_of_activations_are_listed_in_their_order(tmp_path: Path) -> None:
    """Sigmoid has none."""
    both = {"activations": ["Sigmoid", "ScaledTanh", "HardSigmoid", "HardSigmoid", "LeakyRelu", "Tanh"]}
    parameters = {"activation_alpha": [0.75, 0.3, 0.4, 0.5], "activation_beta": [0.5, 0.25, 0.125]}
    path = save(
        tmp_path, "LSTM", weights("LSTM", 2, 6), {"x": (STEPS, ROWS, FEATURES)}, direction="bidirectional",
        **both, **parameters,
    )  # fmt: skip
    agree(path, {"x": sequence(6)})


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_rows_may_be_many_and_come_first(operator: str, tmp_path: Path) -> None:
    """As exporters write `batch_first`: a transposition before, and states of zeros as long as the batch is."""
    path = save(tmp_path, operator, weights(operator, 1, 7), {"x": (STEPS, "batch", FEATURES)})
    model = onnx.load(path)
    graph = model.graph
    graph.input[0].type.CopyFrom(
        helper.make_tensor_type_proto(TensorProto.FLOAT, ("batch", STEPS, FEATURES)),
    )
    graph.node[0].input[0] = "turned"
    states = ["h0", "c0"] if operator == "LSTM" else ["h0"]
    graph.node[0].input.extend(["", *states])
    before = [
        helper.make_node("Transpose", ["x"], ["turned"], "turn", perm=[1, 0, 2]),
        helper.make_node("Shape", ["x"], ["rows"], "shape", start=0, end=1),
        helper.make_node("Concat", ["one", "rows", "hidden"], ["sizes"], "sizes", axis=0),
        *(helper.make_node("ConstantOfShape", ["sizes"], [name], name) for name in states),
    ]
    layer = [*graph.node, helper.make_node("Squeeze", ["y", "one"], ["all"], "squeeze"),
             helper.make_node("Transpose", ["all"], ["z"], "back", perm=[1, 0, 2])]  # fmt: skip
    del graph.node[:]
    graph.node.extend([*before, *layer])
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    graph.initializer.extend(
        numpy_helper.from_array(np.array([size], np.int64), name) for name, size in (("one", 1), ("hidden", HIDDEN))
    )
    onnx.save(model, path)
    for rows in (1, 5):
        x = sequence(8, rows, batch_first=True)
        compiled = agree(path, {"x": x})
    without = save(tmp_path, operator, weights(operator, 1, 7), {"x": (STEPS, 5, FEATURES)})
    assert plan_cost(compiled.plan, 1).rounds == plan_cost(compile_model(without, {"x": (-2, 2)}).plan, 1).rounds


def test_a_batch_first_layout_of_the_operator(tmp_path: Path) -> None:
    """onnxruntime has none, so the other layout says what is right."""
    constants = weights("GRU", 2, 9)
    inputs: dict[str, tuple[int | str, ...]] = {"x": (ROWS, STEPS, FEATURES), "h0": (ROWS, 2, HIDDEN)}
    first = save(tmp_path, "GRU", constants, inputs, direction="bidirectional", layout=1)
    x, h0 = sequence(9, batch_first=True), np.random.default_rng(1).uniform(-1, 1, (ROWS, 2, HIDDEN)).astype(np.float32)
    ours = encrypted(compile_model(first, {"x": (-2, 2), "h0": (-1, 1)}), {"x": x, "h0": h0})
    turned: dict[str, tuple[int | str, ...]] = {"x": (STEPS, ROWS, FEATURES), "h0": (2, ROWS, HIDDEN)}
    other = save(tmp_path, "GRU", constants, turned, direction="bidirectional")
    y, h = plaintext(other, {"x": x.transpose(1, 0, 2), "h0": h0.transpose(1, 0, 2)})
    assert np.abs(ours[0] - y.transpose(2, 0, 1, 3)).max() < 1e-3
    assert np.abs(ours[1] - h.transpose(1, 0, 2)).max() < 1e-3


def test_the_gates_of_a_step_share_rounds_and_so_do_directions(tmp_path: Path) -> None:
    rounds = {}
    for direction in ("forward", "bidirectional"):
        constants = weights("LSTM", 1 + (direction == "bidirectional"), 2)
        path = save(tmp_path, "LSTM", constants, {"x": (STEPS, ROWS, FEATURES)}, direction=direction)
        rounds[direction] = plan_cost(compile_model(path, {"x": (-2, 2)}).plan, 1).rounds
    assert rounds["forward"] == rounds["bidirectional"] <= 13 * STEPS


def test_a_long_gru_stays_within_one(tmp_path: Path) -> None:
    """Its state is a mean of numbers between -1 and 1, however long the sequence: bounds do not grow with it."""
    path = save(tmp_path, "GRU", weights("GRU", 1, 3), {"x": (24, 1, FEATURES)}, linear_before_reset=1)
    plan = compile_model(path, {"x": (-2, 2)}).plan
    bits = {wire.bits - wire.scale.numerator.bit_length() for wire in plan.wires}
    assert max(bits) < 8


REFUSED: dict[str, tuple[dict[str, object], dict[str, tuple[int | str, ...]], str, str]] = {
    "an open length": ({}, {"x": ("batch", 2, FEATURES)}, "the steps of a sequence", "--shape"),
    "no such direction": (
        {"direction": "sideways"},
        {"x": (STEPS, 2, FEATURES)},
        "direction 'sideways'",
        "bidirectional",
    ),
    "no such activation": ({"activations": ["Cube"]}, {"x": (STEPS, 2, FEATURES)}, "'cube'", "Tanh"),
    "too many activations": ({"activations": ["Tanh"] * 2}, {"x": (STEPS, 2, FEATURES)}, "2 activations", "name 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path) -> None:
    attributes, inputs, problem, remedy = REFUSED[name]
    path = save(tmp_path, "RNN", weights("RNN", 1, 4), inputs, **attributes)
    with pytest.raises(ModelError, match=problem) as caught:
        compile_model(path, {"x": (-2, 2)})
    assert remedy in (caught.value.remedy or "") and "layer" in caught.value.what
