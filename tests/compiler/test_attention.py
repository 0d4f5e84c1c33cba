"""Attention as one operator: as onnxruntime has it, and of places that it hides nothing is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

PLACES, WIDTH, HEADS, SHARED = 5, 8, 4, 2
SHAPE = ("batch", PLACES, WIDTH)
X = np.random.default_rng(7).uniform(-2, 2, (3, PLACES, WIDTH)).astype(np.float32)
RANGE = (-2.0, 2.0)
GROUPS = {"q_num_heads": HEADS, "kv_num_heads": SHARED}
SEEN = np.array([True, False, True, True, False])


def projected(**settings: object) -> list[NodeProto]:
    """Queries are the input; keys and values, of half as many heads, are made of it."""
    parts = [node("MatMul", ["x", f"to {name}"], [name], f"make {name}") for name in ("k", "v")]
    return [*parts, node("Attention", ["x", "k", "v", "mask"], ["y"], "attend", **settings)]


def weights(mask: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    drawn = {f"to {name}": rng.normal(0, 0.5, (WIDTH, WIDTH // 2)).astype(np.float32) for name in ("k", "v")}
    return {**drawn, "mask": mask}


MASKS = {
    "none": np.zeros((PLACES, PLACES), np.float32),
    "places": np.broadcast_to(SEEN, (PLACES, PLACES)),
    "numbers": np.linspace(-1, 1, PLACES * PLACES, dtype=np.float32).reshape(PLACES, PLACES),
}


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("name", MASKS)
def test_heads_that_share_keys(name: str, causal: int, tmp_path: Path) -> None:
    path = save_model(tmp_path, projected(is_causal=causal, **GROUPS), weights(MASKS[name]), SHAPE, opset=23)
    compiled = assert_agrees(path, {"x": X}, {"x": RANGE})
    hidden = np.triu(np.ones((PLACES, PLACES), bool), 1) & bool(causal) | (~SEEN if name == "places" else False)
    sizes = [compiled.plan.wire[gate.out].shape[1:] for gate in compiled.plan.gates if gate.kind == "fourier"]
    assert HEADS * int((~np.broadcast_to(hidden, (PLACES, PLACES))).sum()) in [np.prod(each) for each in sizes]


def test_scores_between_bounds(tmp_path: Path) -> None:
    settings = {"softcap": 1.5, "scale": 0.75, "is_causal": 1}
    path = save_model(tmp_path, projected(**settings, **GROUPS), weights(MASKS["none"]), SHAPE, opset=23)
    assert_agrees(path, {"x": X}, {"x": RANGE})


def test_lengths_that_rows_have_of_their_own_are_refused(tmp_path: Path) -> None:
    parts = projected(**GROUPS)
    parts[-1].input.extend(["", "", "lengths"])
    given = {**weights(MASKS["none"]), "lengths": np.array([5], np.int64)}
    path = save_model(tmp_path, parts, given, (1, PLACES, WIDTH), opset=24)
    with pytest.raises(ModelError, match="node 'attend'.*lengths of their own") as refused:
        compile_model(path, RANGE)
    assert "mask" in str(refused.value.remedy)
