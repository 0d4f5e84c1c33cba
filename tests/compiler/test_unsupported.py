"""A model with several faults: what no range or shape can mend is told first, and all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError

node = helper.make_node
SIZES = ("batch", "width", 64)


def model(nodes: list[Any], *inputs: tuple[str, Sequence[Any]], out: str = "y") -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refused(made: onnx.ModelProto, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        compile_model(made, **options)
    return caught.value


def test_all_operators_that_are_not_supported_are_named_at_once() -> None:
    """By the first node of each; what only shapes lead to is computed, and so no fault."""
    error = refused(
        model(
            [
                node("Shape", ["x"], ["s"]),
                node("ConstantOfShape", ["s"], ["zeros"]),
                node("NonZero", ["zeros"], ["public"]),
                node("Det", ["x"], ["d"], name="first"),
                node("Relu", ["d"], ["r"]),
                node("Acos", ["r"], ["n"], name="angle"),
                node("Det", ["x"], ["e"]),
                node("Bernoulli", ["e"], ["y"]),
            ],
            ("x", (2, 3, 3)),
        )
    )
    assert error.what == (
        "node 'first' (Det): this operator is not supported, and neither are Acos (node 'angle'), "
        "Bernoulli (node 'Bernoulli_7')"
    ) and (error.node, error.operator) == ("first", "Det")
    assert "replace them" in (error.remedy or "")


def test_they_are_named_before_what_a_shape_would_mend() -> None:
    error = refused(model([node("Relu", ["x"], ["r"]), node("Det", ["r"], ["y"])], ("x", SIZES)))
    assert error.what.startswith("node 'Det_1' (Det): this operator is not supported; besides, input 'x': dimension 1")
    assert "replace it" in (error.remedy or "") and "--shape x=batch,32,64" in (error.remedy or "")


def test_they_are_named_before_what_another_node_refuses() -> None:
    """A padding of an unknown kind comes first in the model, an operator without a handler later."""
    error = refused(
        model(
            [
                node("Relu", ["x"], ["r"]),
                node("LpPool", ["r"], ["p"], kernel_shape=[2, 2], p=3),
                node("Det", ["p"], ["y"]),
            ],
            ("x", ("batch", 1, 4, 4)),
        )
    )
    assert error.operator == "Det" and "besides, node 'LpPool_1' (LpPool): the norm of order 3" in error.what


def test_a_branch_that_is_not_taken_is_no_fault() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{operator}-out", TensorProto.FLOAT, None)
        return helper.make_graph([node(operator, ["x"], [f"{operator}-out"])], operator, [], [out])

    def chosen(condition: bool) -> onnx.ModelProto:
        value = helper.make_tensor("value", TensorProto.BOOL, [], [condition])
        branches = {"then_branch": branch("Relu"), "else_branch": branch("Det")}
        return model(
            [
                node("Constant", [], ["c"], value=value),
                node("If", ["c"], ["i"], **branches),
                node("Relu", ["i"], ["y"]),
            ],
            ("x", ("batch", 2, 2)),
        )

    assert compile_model(chosen(True)).plan.outputs
    assert refused(chosen(False)).what == "node 'Det_0' (Det): this operator is not supported"


def test_sizes_that_the_model_knows_stand_in_the_remedy() -> None:
    nodes = [node("Add", ["x", "z"], ["s"]), node("Add", ["s", "u"], ["y"])]
    inputs = [("x", ("batch", None, 48, 192)), ("z", (1, 3, "h", None)), ("u", ("batch", 3, 48, 192))]
    error = refused(model(nodes, *inputs))
    assert error.remedy == (
        "give its shape, for example --shape x=batch,32,48,192 --shape z=1,3,32,32, in Python "
        "shapes={'x': (None, 32, 48, 192), 'z': (1, 3, 32, 32)}"
    )
    error = refused(model(nodes, *inputs), shapes={"x": (None, 3, 48, 192), "z": (1, 3, 48, None)})
    assert error.remedy is not None and "--shape z=1,3,48,32, in Python shapes={'z': (1, 3, 48, 32)}" in error.remedy
    assert compile_model(
        model(nodes, *inputs), (-1, 1), shapes={"x": (None, 3, 48, 192), "z": (1, 3, 48, 192)}
    ).plan.inputs


def test_what_is_supported_is_refused_in_its_own_words() -> None:
    error = refused(model([node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=3)], ("x", ("batch", 1, 4, 4))))
    assert "this operator" not in error.what and np.all([word in error.what for word in ("LpPool", "order 3")])


def test_a_model_that_onnxruntime_laid_out_for_a_processor_is_to_be_optimised_less() -> None:
    """With ORT_ENABLE_ALL its optimiser writes blocks of channels, in a domain of its own."""
    blocks = "com.microsoft.nchwc"
    made = model([node("Conv", ["x", "w"], ["c"], domain=blocks), node("ReorderOutput", ["c"], ["y"], domain=blocks)],
                 ("x", (1, 8, 4, 4)))  # fmt: skip
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 8, 1, 1), np.float32), "w"))
    made.opset_import.append(helper.make_opsetid(blocks, 1))
    error = refused(made)
    assert "laid it out for one processor" in error.what and "ORT_ENABLE_EXTENDED" in (error.remedy or "")
