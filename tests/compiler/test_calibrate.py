"""Bounds from samples: the graph in the clear is the model, and a model too deep to be bounded runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mpc.compiler import from_graph
from mpc.compiler.compile import compile_model
from mpc.compiler.from_graph import CALIBRATED
from mpc.compiler.graph.calibrate import MARGIN, bounded_by, ranges_around
from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.graph.passes import run_passes
from mpc.compiler.lowering.lower import Lowered, lower
from mpc.compiler.onnx.load import load_model
from mpc.compiler.onnx.walk import import_model
from mpc.compiler.roles import Roles
from mpc.errors import InputError, ModelError
from tests.compiler.test_torch_networks import MODELS, RANGE, VECTORS, feeds_of
from tests.support.graphs import node, save_model
from tests.support.models import encrypted, plaintext


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_in_the_clear_is_the_model(name: str) -> None:
    path = VECTORS / name
    feeds = feeds_of(path, rows=3)
    graph = run_passes(import_model(load_model(path), dict.fromkeys(feeds, RANGE)))
    named = {out.value: out for out in graph.outputs}
    expected = {out.name: value for out, value in zip(graph.outputs, plaintext(path, feeds), strict=True)}
    for each, value in evaluate(graph, feeds):
        if each.writes in named:
            theirs = expected[named[each.writes].name]
            np.testing.assert_allclose(value.reshape(theirs.shape), theirs.astype(np.float64), atol=2e-5, rtol=1e-4)


def deep(folder: Path, layers: int = 32, width: int = 24) -> Path:
    """A chain that keeps the size of what passes through it, while its bound grows fivefold a layer."""
    rng = np.random.default_rng(2)
    weights = {
        f"w{i}": (rng.normal(size=(width, width)) * (2 / width) ** 0.5).astype(np.float32) for i in range(layers)
    }
    nodes, value = [], "x"
    for i in range(layers):
        nodes.append(node("MatMul", [value, f"w{i}"], [f"h{i}"], name=f"layer{i}"))
        value = f"r{i}" if i < layers - 1 else "y"
        nodes.append(node("Relu" if i < layers - 1 else "Identity", [f"h{i}"], [value], name=f"relu{i}"))
    return save_model(folder, nodes, weights, ("batch", width))


def test_too_deep_for_a_proof_is_refused_with_what_helps(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="too large") as refused:
        compile_model(deep(tmp_path), {"x": (-4.0, 4.0)})
    assert refused.value.node is not None and "--calibrate" in str(refused.value.remedy)


def test_samples_bound_it_and_a_note_says_so(tmp_path: Path) -> None:
    path = deep(tmp_path)
    rng = np.random.default_rng(3)
    samples, x = (np.clip(rng.standard_normal((rows, 24)), -4, 4).astype(np.float32) for rows in (70, 9))
    compiled = compile_model(path, {"x": (-4.0, 4.0)}, samples={"x": samples})
    assert any("samples" in note and f"{MARGIN:g}" in note for note in compiled.notes)
    [ours], [theirs] = encrypted(compiled, {"x": x}), plaintext(path, {"x": x})
    assert np.abs(ours - theirs).max() <= 1e-3


def test_what_can_be_proved_is_not_calibrated(tmp_path: Path) -> None:
    path = deep(tmp_path, layers=2)
    samples = {"x": np.zeros((3, 24), dtype=np.float32)}
    proved = compile_model(path, {"x": (-4.0, 4.0)})
    assert compile_model(path, {"x": (-4.0, 4.0)}, samples=samples).plan.digest == proved.plan.digest


def test_undeclared_ranges_are_a_power_of_two_around_the_samples(tmp_path: Path) -> None:
    samples = {"x": np.array([[0.3, -5.0], [1.0, 0.0]], dtype=np.float32)}
    assert ranges_around(samples) == {"x": (-8.0, 8.0)}
    assert ranges_around(samples, columns=True) == {"x": ((-1.0, -8.0), (1.0, 8.0))}
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])], shape=("batch", 2))
    compiled = compile_model(path, samples=samples)
    assert not compiled.undeclared
    assert [tuple(map(float, ends)) for ends in (compiled.plan.inputs[0].low, compiled.plan.inputs[0].high)] == [
        (-8.0,),
        (8.0,),
    ]


def test_columns_of_very_different_size_keep_the_digits_that_their_weights_need(tmp_path: Path) -> None:
    """One range for all columns, the largest's; and what small columns are rounded to is in the expected error."""
    rng = np.random.default_rng(3)
    sizes = np.array([2000.0, 10.0, 0.1, 0.002])
    weight = (rng.standard_normal((4, 3)) / sizes[:, None]).astype(np.float32)
    x = (sizes * rng.uniform(0.5, 1, (64, 4))).astype(np.float32)
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["h"]), node("Sigmoid", ["h"], ["y"])], {"w": weight})
    compiled = compile_model(path, samples={"x": x})
    [got], [want] = encrypted(compiled, {"x": x}), plaintext(path, {"x": x})
    off = float(np.sqrt(np.mean(np.square(got - want))))
    assert off < 1e-4 and off < 4 * compiled.errors["y"]


@pytest.mark.parametrize("last", ["Add", "Sub", "Concat"])
def test_what_is_far_too_large_is_refused_and_samples_bound_it(last: str, tmp_path: Path) -> None:
    """Five squarings of 32 reach 2^160: no gate's numbers hold that."""
    nodes = [node("Mul", [f"a{i}" if i else "x"] * 2, [f"a{i + 1}"], name=f"square{i}") for i in range(5)]
    axis = {"axis": 1} if last == "Concat" else {}
    nodes.append(node(last, ["a5", "x"], ["y"], name="last", **axis))
    path = save_model(tmp_path, nodes, {}, ("batch", 3))
    with pytest.raises(ModelError, match="large") as refused:
        compile_model(path, {"x": (-32.0, 32.0)})
    assert "--calibrate" in str(refused.value.remedy)
    samples = np.random.default_rng(4).uniform(-1, 1, (20, 3)).astype(np.float32)
    compiled = compile_model(path, {"x": (-32.0, 32.0)}, samples={"x": samples})
    assert np.abs(encrypted(compiled, {"x": samples})[0] - plaintext(path, {"x": samples})[0]).max() < 1e-3


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_samples_are_of_whole_runs_where_a_model_fixes_their_rows(rows: int, tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Mul", ["h", "h"], ["a"]), node("Reshape", ["a", "shape"], ["y"])]
    weights = {"w": np.full((3, 3), 0.5, np.float32), "shape": np.array([3, 2], np.int64)}
    path = save_model(tmp_path, nodes, weights, (2, 3))
    samples = {"x": np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)}
    if rows % 2:
        with pytest.raises(InputError, match=r"shape \(., 3\), and the model takes \(2, 3\)"):
            compile_model(path, samples=samples)
        return
    compiled = compile_model(path, samples=samples)
    [found], [expected] = encrypted(compiled, {"x": samples["x"][-2:]}), plaintext(path, {"x": samples["x"][-2:]})
    assert np.abs(found - expected).max() < 1e-3 * expected.max()
    bounded = bounded_by(run_passes(import_model(load_model(path), {"x": (-32.0, 32.0)})), samples)
    [square] = [each for each in bounded.nodes if each.op == "multiply"]
    assert square.attributes.known is not None
    assert square.attributes.known[1] >= MARGIN * expected.max()  # the last run's rows are the largest


def test_sums_of_several_elements_a_row_are_told_apart_by_what_samples_say_of_each(tmp_path: Path) -> None:
    """A weighted mean is found by comparing two sums, and what is known of either is an array."""
    nodes = [
        node("Split", ["x"], ["d", "v"], axis=2),
        node("Reciprocal", ["d"], ["w"]),
        node("Mul", ["w", "v"], ["p"]),
        node("ReduceSum", ["p", "axes"], ["above"], "above"),
        node("ReduceSum", ["w", "axes"], ["below"], "below"),
        node("Div", ["above", "below"], ["y"]),
    ]
    path = save_model(tmp_path, nodes, {"axes": np.array([2], np.int64)}, ("batch", 4, 6))
    ends = (0.01,) * 3 + (-4.0,) * 3, (100.0,) * 3 + (4.0,) * 3
    feeds = {"x": np.random.default_rng(9).uniform(0.5, 2, (20, 4, 6)).astype(np.float32)}
    graph = run_passes(import_model(load_model(path), {"x": ends}))
    lowered = lower(bounded_by(graph, feeds), Roles())
    assert {gate.kind for gate in lowered.plan.gates} >= {"fourier", "total"}


def test_samples_bound_what_rough_errors_say_nothing_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a tanh, say, both plans seem to be off by all that there is: then a rehearsal tells which has digits."""

    def lowered(*given: Any) -> Lowered:
        return replace(lower(*given), rough={"y": 0.5})

    model = onnx.load(deep(tmp_path, layers=16))
    last = model.graph.node[-1]
    last.op_type, last.input[:] = "Mul", [*last.input, "fifty"]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(50, np.float32), "fifty"))
    x = np.random.default_rng(1).standard_normal((32, 24)).clip(-4, 4).astype(np.float32)
    monkeypatch.setattr(from_graph, "lower", lowered)
    proved, bounded = (compile_model(model, {"x": (-4.0, 4.0)}, samples=s) for s in (None, {"x": x}))
    assert CALIBRATED in bounded.notes and CALIBRATED not in proved.notes
    assert 10 * bounded.errors["y"] < proved.errors["y"]
