"""Resize has onnxruntime's sizes and places to the last digit, for all modes: a sweep over sizes and scales."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.onnx.load import load_model
from mpc.compiler.onnx.walk import import_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, plaintext

NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners")
SCALES = (2.0, 3.0, 0.5, 0.25, 1.5, 0.1, 0.7, 1.364, 2.4)


def _model(
    folder: Path, size: int, scale: float | None, sizes: int | None, opset: int, kind: str, **settings: str
) -> Path:
    operator, reads, constants = "Resize" if opset > 9 else "Upsample", ["x", "s"], {}
    if sizes is not None:
        reads, constants = ["x", "", "", "n"], {"n": np.array([1, sizes])}
    else:
        constants["s"] = np.array([1, scale], np.float32)
        reads = reads if opset < 11 else ["x", "", "s"]
    return save_model(
        folder, [node(operator, reads, ["y"], mode=kind, **settings)], constants, shape=(1, size), opset=opset
    )


def _require_places(path: Path, size: int) -> None:
    """The graph in the clear against onnxruntime on 0, 1, 2, ...: each result says which element it is."""
    data = np.arange(size, dtype=np.float32)[None]
    [right] = plaintext(path, {"x": data})
    graph = import_model(load_model(path), {"x": (-256.0, 256.0)})
    found = {node.writes: value for node, value in evaluate(graph, {"x": data})}[graph.outputs[0].value]
    assert found.shape == right.shape
    np.testing.assert_allclose(found, right, atol=2e-4)


@pytest.mark.parametrize(
    ("size", "scale", "after"), [(10, 0.7, 7), (88, 1.364, 120), (30, 0.1, 3), (57, 2.4, 136), (7, 1.1, 7)]
)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", NEAREST)
def test_sizes_and_neighbours_that_a_last_digit_decides(
    tmp_path: Path, size: int, scale: float, after: int, coordinates: str, rounding: str
) -> None:
    settings = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    path = _model(tmp_path, size, scale, None, 19, "nearest", **settings)
    graph = import_model(load_model(path), {"x": (-1.0, 1.0)})
    assert graph.outputs[0].shape == (1, after)
    _require_places(path, size)


@pytest.mark.parametrize("seed", [*range(40), *(pytest.param(s, marks=pytest.mark.slow) for s in range(40, 1500))])
def test_any_resize(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        size, opset = rng.randrange(1, 120), rng.choice([9, 10, 13, 18, 19])
        scale = rng.choice([*SCALES, round(rng.uniform(0.1, 4), rng.choice([1, 2, 3]))])
        scale = max(scale, 1.0) if opset == 9 else scale
        sizes = rng.randrange(1, 200) if opset >= 13 and rng.random() < 0.4 else None
        kind, settings = rng.choice(["nearest", "linear"]), {}
        if opset >= 11:
            modes = [mode for mode in COORDINATES if opset == 19 or mode != "half_pixel_symmetric"]
            modes += ["tf_half_pixel_for_nn"] if kind == "nearest" else []
            settings["coordinate_transformation_mode"] = rng.choice(modes)
            if kind == "nearest":
                settings["nearest_mode"] = rng.choice(NEAREST)
        if int(np.float32(size) * np.float32(scale)) >= 1:
            _require_places(_model(tmp_path, size, scale, sizes, opset, kind, **settings), size)


def test_coordinates_that_are_not_possible_say_which_are(tmp_path: Path) -> None:
    settings = {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}
    with pytest.raises(ModelError) as caught:
        import_model(load_model(_model(tmp_path, 4, 2.0, None, 13, "linear", **settings)), {"x": (-1.0, 1.0)})
    assert caught.value.remedy is not None and "align_corners" in caught.value.remedy


def test_a_fine_value_between_whose_places_there_is_much(tmp_path: Path) -> None:
    """DeepLab and Depth Anything enlarge what a layer gives, which has more digits than factors have room beside."""
    rng = np.random.default_rng(8)
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Resize", ["c", "", "scales"], ["y"], mode="linear"),
    ]
    constants = {
        "w": (rng.standard_normal((2, 3, 2, 2)) / 5).astype(np.float32),
        "scales": np.array([1.0, 1.0, 16.0, 16.0], np.float32),
    }
    x = rng.uniform(-99, 99, (2, 3, 3, 3)).astype(np.float32)
    compiled = assert_agrees(
        save_model(tmp_path, nodes, constants, ("batch", 3, 3, 3)), {"x": x}, {"x": (-99, 99)}, 1e-3
    )
    assert sum(gate.kind == "truncate" for gate in compiled.plan.gates) <= 2
