"""Loop and Scan beside onnxruntime: steps that are known are unrolled, those that data decide are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.compiler.operators import loops
from mpc.errors import ModelError
from tests.support.models import assert_agrees

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
X = np.random.default_rng(5).uniform(-1, 1, (3, 4)).astype(np.float32)
W = np.random.default_rng(6).normal(size=(4, 4)).astype(np.float32) / 3
Values = dict[str, int]


def graph(nodes: list[onnx.NodeProto], inputs: Values, outputs: Values, **constants: object) -> onnx.GraphProto:
    """A body; nothing says how large its reals are."""
    return helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(name, kind, None if kind == FLOAT else ()) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def save(
    folder: Path, nodes: list[onnx.NodeProto], outputs: list[str], shape: tuple[object, ...], **constants: object
) -> Path:
    made = helper.make_graph(
        nodes,
        "loops",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = folder / "model.onnx"
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def node(operator: str, reads: list[str], writes: list[str], name: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, reads, writes, name or operator.lower(), **attributes)


COUNTED: Values = {"i": INT64, "going": BOOL, "h": FLOAT}
STEP = [
    node("MatMul", ["h", "w"], ["m"]),  # of the model around it
    node("Cast", ["i"], ["f"], to=FLOAT),
    node("Add", ["m", "f"], ["n"]),
    node("Mul", ["n", "half"], ["next"]),
    node("ReduceSum", ["next", "last"], ["total"], keepdims=0),
]


def test_a_loop_of_a_known_number_of_steps(tmp_path: Path) -> None:
    """Its state, what it collects, its counter, and weights that lie outside."""
    body = graph(
        [*STEP, node("Identity", ["going"], ["on"])], COUNTED, {"on": BOOL, "next": FLOAT, "total": FLOAT},
        half=np.float32(0.5), last=np.array([1]),
    )  # fmt: skip
    loop = node("Loop", ["steps", "", "x"], ["y", "sums"], body=body)
    path = save(tmp_path, [loop], ["y"], ("batch", 4), steps=np.int64(3), w=W)
    assert_agrees(path, {"x": X}, {"x": (-1, 1)})
    path = save(tmp_path, [loop], ["y", "sums"], (3, 4), steps=np.int64(3), w=W)
    assert_agrees(path, {"x": X}, {"x": (-1, 1)})


def test_a_loop_that_a_known_condition_ends(tmp_path: Path) -> None:
    body = graph(
        [*STEP, node("Less", ["i", "two"], ["on"])], COUNTED, {"on": BOOL, "next": FLOAT, "total": FLOAT},
        half=np.float32(0.5), two=np.int64(2), last=np.array([1]),
    )  # fmt: skip
    loop = node("Loop", ["", "start", "x"], ["y", "sums"], body=body)
    path = save(tmp_path, [loop], ["y", "sums"], (3, 4), start=np.array(True), w=W)
    compiled = assert_agrees(path, {"x": X}, {"x": (-1, 1)})
    assert compiled.plan.outputs[1].shape == (3, 3)


def test_loops_in_loops(tmp_path: Path) -> None:
    """The inner one reads the state and the counter of the outer one; both call their values alike."""
    inner = graph(
        [
            node("Cast", ["outer_i"], ["f"], to=FLOAT),
            node("Mul", ["h", "half"], ["m"]),
            node("Add", ["m", "f"], ["next"]),
            node("Identity", ["going"], ["on"]),
        ],
        COUNTED, {"on": BOOL, "next": FLOAT}, half=np.float32(0.5),
    )  # fmt: skip
    outer = graph(
        [
            node("Loop", ["two", "", "s"], ["next"], "inner", body=inner),
            node("Identity", ["outer_going"], ["outer_on"]),
        ],
        {"outer_i": INT64, "outer_going": BOOL, "s": FLOAT}, {"outer_on": BOOL, "next": FLOAT}, two=np.int64(2),
    )  # fmt: skip
    path = save(
        tmp_path, [node("Loop", ["three", "", "x"], ["y"], "outer", body=outer)], ["y"], ("batch", 4), three=np.int64(3)
    )
    assert_agrees(path, {"x": X}, {"x": (-1, 1)})


def test_a_state_that_no_input_reaches_stays_public(tmp_path: Path) -> None:
    """A counter of its own, which is read as an index: nothing is compared."""
    body = graph(
        [
            node("Gather", ["x", "k"], ["row"], axis=1),
            node("Add", ["h", "row"], ["next"]),
            node("Add", ["k", "one"], ["after"], "count"),
            node("Identity", ["going"], ["on"]),
        ],
        {**COUNTED, "k": INT64}, {"on": BOOL, "next": FLOAT, "after": INT64}, one=np.int64(1),
    )  # fmt: skip
    loop = node("Loop", ["steps", "", "zero", "first"], ["y", "end"], body=body)
    path = save(
        tmp_path, [loop], ["y"], ("batch", 4), steps=np.int64(3), zero=np.zeros(1, np.float32), first=np.int64(1)
    )
    compiled = assert_agrees(path, {"x": X}, {"x": (-1, 1)})
    assert "step" not in {gate.kind for gate in compiled.plan.gates}


@pytest.mark.parametrize("backwards", [False, True])
def test_a_scan_is_a_recurrence(backwards: bool, tmp_path: Path) -> None:
    body = graph(
        [
            node("Mul", ["h", "half"], ["kept"]),
            node("Add", ["kept", "part"], ["next"]),
            node("Tanh", ["next"], ["seen"]),
        ],
        {"h": FLOAT, "part": FLOAT}, {"next": FLOAT, "seen": FLOAT}, half=np.float32(0.5),
    )  # fmt: skip
    scan = node(
        "Scan", ["zero", "x"], ["end", "y"], body=body, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
        scan_input_directions=[int(backwards)], scan_output_directions=[int(backwards)],
    )  # fmt: skip
    path = save(tmp_path, [scan], ["end", "y"], (3, 4), zero=np.zeros(3, np.float32))
    assert_agrees(path, {"x": X}, {"x": (-1, 1)})


def test_a_scan_over_data_and_constants(tmp_path: Path) -> None:
    body = graph(
        [node("Mul", ["part", "factor"], ["scaled"]), node("Add", ["h", "scaled"], ["next"])],
        {"h": FLOAT, "part": FLOAT, "factor": FLOAT}, {"next": FLOAT},
    )  # fmt: skip
    scan = node("Scan", ["zero", "x", "k"], ["y"], body=body, num_scan_inputs=2, scan_input_axes=[1, 0])
    path = save(tmp_path, [scan], ["y"], (3, 4), zero=np.zeros(3, np.float32), k=np.float32([1, -2, 0.5, 3]))
    assert_agrees(path, {"x": X}, {"x": (-1, 1)})


def test_a_loop_that_data_end_is_refused(tmp_path: Path) -> None:
    body = graph(
        [
            node("Mul", ["h", "half"], ["next"]),
            node("ReduceMax", ["next"], ["top"], keepdims=0),
            node("Less", ["top", "half"], ["on"]),
        ],
        COUNTED, {"on": BOOL, "next": FLOAT}, half=np.float32(0.5),
    )  # fmt: skip
    path = save(tmp_path, [node("Loop", ["five", "", "x"], ["y"], "until", body=body)], ["y"], (3, 4), five=np.int64(5))
    with pytest.raises(ModelError, match="'until'.*whether it goes on depends on the input") as caught:
        compile_model(path, {"x": (-1, 1)})
    assert "range(n)" in (caught.value.remedy or "")


@pytest.mark.parametrize(("steps", "problem"), [(33, "more than 32 steps"), (0, "no step at all")])
def test_numbers_of_steps_that_are_refused(
    steps: int, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With far fewer than the 4096 that there may be, each of which is unrolled."""
    monkeypatch.setattr(loops, "MOST_STEPS", 32)
    nodes = [node("Identity", ["h"], ["next"]), node("Identity", ["h"], ["seen"]), node("Identity", ["going"], ["on"])]
    body = graph(nodes, COUNTED, {"on": BOOL, "next": FLOAT, "seen": FLOAT})
    path = save(
        tmp_path, [node("Loop", ["n", "", "x"], ["y", "all"], body=body)], ["y", "all"], (3, 4), n=np.int64(steps)
    )
    with pytest.raises(ModelError, match=problem):
        compile_model(path, {"x": (-1, 1)})


@pytest.mark.parametrize(
    ("reads", "constants"),
    [(["steps", "", "x"], {"steps": 0}), (["steps", "start", "x"], {"steps": 3, "start": False})],
)
def test_a_loop_of_no_step_leaves_its_states_as_they_are(
    reads: list[str], constants: dict[str, object], tmp_path: Path
) -> None:
    """It was refused for what it would collect, which nothing reads."""
    body = graph(
        [*STEP, node("Identity", ["going"], ["on"])], COUNTED, {"on": BOOL, "next": FLOAT, "total": FLOAT},
        half=np.float32(0.5), last=np.array([1]),
    )  # fmt: skip
    given = {name: np.array(value) for name, value in constants.items()}
    nodes = [node("Loop", reads, ["h", "sums"], body=body), node("Neg", ["h"], ["y"])]
    assert_agrees(save(tmp_path, nodes, ["y"], (3, 4), w=W, **given), {"x": X}, {"x": (-1, 1)})
    read = [*nodes[:1], node("ReduceSum", ["sums"], ["s"], keepdims=0), node("Add", ["h", "s"], ["y"])]
    with pytest.raises(ModelError, match="no step at all"):
        compile_model(save(tmp_path, read, ["y"], (3, 4), w=W, **given), {"x": (-1, 1)})
