"""Attention of which several heads of queries share one of keys (GroupQueryAttention), beside onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node
from tests.support.models import assert_agrees

RNG = np.random.default_rng(12)
ROWS, PLACES, HEADS, SHARED, WIDTH = 2, 5, 4, 2, 16


def made(folder: Path, lengths: int = PLACES, **settings: Any) -> Path:
    widths = {"q": HEADS * WIDTH, "k": SHARED * WIDTH, "v": SHARED * WIDTH}
    constants = {
        **{name: RNG.uniform(-0.5, 0.5, (8, width)).astype(np.float32) for name, width in widths.items()},
        "lengths": np.full(ROWS, lengths - 1, np.int32), "total": np.array([PLACES], np.int32),
        **{name: RNG.uniform(-1, 1, (8, WIDTH // 2)).astype(np.float32) for name in ("cosines", "sines")},
    }  # fmt: skip
    reads = ["qx", "kx", "vx", "", "", "lengths", "total", *(["cosines", "sines"] if settings.get("do_rotary") else [])]
    nodes = [node("MatMul", ["x", name], [f"{name}x"], name=name) for name in widths]
    nodes.append(
        node(
            "GroupQueryAttention",
            reads,
            ["y", "keys", "values"],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=SHARED,
            **settings,
        )  # fmt: skip
    )
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "keys", "values")]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (ROWS, PLACES, 8))]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "grouped", given, outputs, stored)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    (path := folder / "model.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    )
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 0.5, "softcap": 2.0},
        {"local_window_size": 2},
        {"do_rotary": 1},
        {"do_rotary": 1, "rotary_interleaved": 1},
    ],
)
def test_heads_of_queries_share_one_of_keys(settings: dict[str, Any], tmp_path: Path) -> None:
    x = RNG.uniform(-2, 2, (ROWS, PLACES, 8)).astype(np.float32)
    assert_agrees(made(tmp_path, **settings), {"x": x}, {"x": (-2.0, 2.0)})


def test_rows_of_other_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="rows of other lengths than 5"):
        compile_model(made(tmp_path, lengths=3), {"x": (-2.0, 2.0)})
