"""Plans of commands for data at hand: declared ranges decide them, and rows only what has no proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.compiler.onnx.declared import indexing
from mpc.compiler.onnx.load import load_model
from mpc.compiler.roles import Roles
from parties.cli.compiling import compile_for_data
from parties.cli.display import Display
from tests.compiler.test_calibrate import deep
from tests.support.graphs import node, save_model


def wide(folder: Path, metadata: dict[str, str]) -> Path:
    """A scaler in front of a layer with a sigmoid, which is imprecise on a range of 1e8."""
    scaled = node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[13.0] * 4, scale=[1.2] * 4)
    nodes = [scaled, node("MatMul", ["s", "w"], ["h"]), node("Sigmoid", ["h"], ["y"])]
    return save_model(folder, nodes, {"w": np.full((4, 2), 0.3, np.float32)}, metadata=metadata)


@pytest.mark.parametrize("by_model", [False, True])
def test_rows_do_not_replace_bounds_that_are_proved(
    by_model: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run takes the plan that was inspected and dealt ahead for, however few digits its ranges leave."""
    path = wide(tmp_path, {"mpc.range.x": "0:1e8"} if by_model else {})
    declared = {} if by_model else {"x": (0.0, 1e8)}
    inspected = compile_model(path, declared)
    assert inspected.imprecision > 1
    rows = np.random.default_rng(1).uniform(11, 15, (20, 4)).astype(np.float32)
    compiled = compile_for_data(Display(), path, {"x": rows}, declared, {}, Roles())
    assert compiled.plan.digest == inspected.plan.digest
    said = capsys.readouterr().err
    assert "bounds rest on" not in said and "more precise" in said


def test_rows_bound_what_has_no_proof_and_a_note_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.clip(np.random.default_rng(3).standard_normal((40, 24)), -4, 4).astype(np.float32)
    compile_for_data(Display(), deep(tmp_path), {"x": rows}, {"x": (-4.0, 4.0)}, {}, Roles())
    said = " ".join(capsys.readouterr().err.split())
    assert "bounds rest on the rows that you enter" in said and "--calibrate" in said


def reading(folder: Path, mask: int = TensorProto.INT64) -> Path:
    """Sums over rows of a table that token ids choose, where a mask is 1; its type is chosen."""
    integers, real = TensorProto.INT64, TensorProto.FLOAT
    made = helper.make_tensor_value_info
    ends = [made("ids", integers, ["n", 3]), made("mask", mask, ["n", 3])], [made("y", real, ["n", 2])]
    table = numpy_helper.from_array(np.arange(80, dtype=np.float32).reshape(40, 2) / 80, "table")
    nodes = [
        helper.make_node("Cast", ["ids"], ["whole"], to=integers),
        helper.make_node("Gather", ["table", "whole"], ["rows"], axis=0),
        helper.make_node("Cast", ["mask"], ["weights"], to=real),
        helper.make_node("Unsqueeze", ["weights", "axis"], ["columns"]),
        helper.make_node("Mul", ["rows", "columns"], ["chosen"]),
        helper.make_node("ReduceSum", ["chosen", "one"], ["y"], keepdims=0),
    ]
    axes = [numpy_helper.from_array(np.array([axis]), name) for name, axis in (("axis", -1), ("one", 1))]
    graph = helper.make_graph(nodes, "reading", *ends, [table, *axes])
    path = folder / "reading.onnx"
    path.write_bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    return path


@pytest.mark.parametrize(("element", "dtype"), [(TensorProto.INT64, np.int64), (TensorProto.FLOAT, np.float32)])
def test_token_ids_have_the_tables_range_and_a_mask_beside_them_that_of_bits(
    element: int, dtype: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = reading(tmp_path, element)
    feeds = {"ids": np.array([[39, 0, 1]]), "mask": np.array([[1, 1, 0]], dtype)}
    assert indexing(load_model(path)) == {"ids"}
    plan = compile_for_data(Display(), path, feeds, {}, {}, Roles()).plan
    ids, mask = plan.inputs
    assert ids.places == 40 and (mask.low, mask.high) == ((0,), (1,))
    said = capsys.readouterr().err
    assert "input 'mask'" in said and "0:1" in said and "'ids'" not in said


def padded(folder: Path) -> Path:
    """Sums over rows of a table that token ids choose, where an id is not 0."""
    nodes = [
        node("Gather", ["table", "ids"], ["rows"]),
        node("Equal", ["ids", "zero"], ["padding"]),
        node("Unsqueeze", ["padding", "last"], ["beside"]),
        node("Where", ["beside", "nothing", "rows"], ["chosen"]),
        node("ReduceSum", ["chosen", "one"], ["y"], keepdims=0),
    ]
    constants = {
        "table": np.arange(80, dtype=np.float32).reshape(40, 2) / 80,
        "nothing": np.array(0, np.float32),
        "zero": np.array(0),
        "last": np.array([-1]),
        "one": np.array([1]),
    }
    made = helper.make_tensor_value_info
    ends = [made("ids", TensorProto.INT64, ["n", 3])], [made("y", TensorProto.FLOAT, ["n", 2])]
    tables = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    path = folder / "padded.onnx"
    graph = helper.make_graph(nodes, "padded", *ends, tables)
    path.write_bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    return path


def test_a_run_takes_the_inspected_plan_where_a_mask_is_made_of_the_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever ids there are: one beyond the table is refused where it is entered, as it is of any such table."""
    path = padded(tmp_path)
    inspected = compile_model(path, {}).plan
    assert inspected.inputs[0].places == 40
    for ids in ([39, 1, 0], [120, 5, 0]):
        feeds = {"ids": np.array([ids])}
        assert compile_for_data(Display(), path, feeds, {}, {}, Roles()).plan.digest == inspected.digest
    assert "no range is declared" not in capsys.readouterr().err
    below = {"ids": np.array([[-40, 1, 0]])}
    assert compile_for_data(Display(), path, below, {}, {}, Roles()).plan.digest != inspected.digest
