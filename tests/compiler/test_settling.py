"""What is known of single elements is let go once no rule reads it, and changes no plan; nor do weights stay twice."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from mpc.compiler import compile as compiling
from mpc.compiler import from_graph
from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.graph import Graph
from mpc.compiler.lowering import settling
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.onnx.load import load_model
from mpc.compiler.onnx.walk import import_model
from tests.support.graphs import save_model

WIDTH, LAYERS = 12, 36
DRAWN = np.random.default_rng(5)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deep network whose values have bounds of their own for each element."""
    nodes, weights, read = [], {}, "x"
    for layer in range(LAYERS):
        weights[f"w{layer}"] = DRAWN.normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32)
        weights[f"b{layer}"] = DRAWN.normal(0, 0.5, WIDTH).astype(np.float32)
        made = "y" if layer == LAYERS - 1 else f"h{layer}"
        nodes += [
            helper.make_node("MatMul", [read, f"w{layer}"], [f"m{layer}"]),
            helper.make_node("Add", [f"m{layer}", f"b{layer}"], [f"a{layer}"]),
            helper.make_node("Tanh" if layer % 3 else "Relu", [f"a{layer}"], [f"t{layer}"]),
            helper.make_node("Add", [f"t{layer}", read], [made]),
        ]
        read = made
    return save_model(tmp_path_factory.mktemp("deep"), nodes, weights, ("batch", WIDTH))


def test_no_plan_changes_by_it(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled() -> Compiled:
        return compile_model(deep, (-1.0, 1.0))

    plan = compiled().plan.canonical
    monkeypatch.setattr(settling, "last_reads", lambda graph, back: {})
    assert compiled().plan.canonical == plan


def test_of_values_that_no_rule_reads_any_more_no_arrays_are_left(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[int, int]] = []
    drop = Lowering.drop_unread

    def looked(state: Lowering) -> None:
        values = [
            *state.values.values(),
            *state.memo.values(),
            *(each for pair in state.whole.values() for each in pair),
        ]
        whole = sum(any(each.interval.low.strides) for each in values)  # none are left of what is alike for all
        held.append((whole, len(values)))
        drop(state)

    monkeypatch.setattr(Lowering, "drop_unread", looked)
    compile_model(deep, (-1.0, 1.0))
    [(whole, of)] = held
    assert 1 <= whole < of / 3, "those of the last layers"


def test_what_reads_a_value_last_is_looked_for_behind_its_readers(deep: Path) -> None:
    graph = import_model(load_model(deep), {"x": (-1.0, 1.0)}, {})
    at = {node.writes: number for number, node in enumerate(graph.nodes)}
    direct, beyond = settling.last_reads(graph, 0), settling.last_reads(graph, 3)
    first = graph.nodes[0]
    assert direct[first.writes] == max(at[node.writes] for node in graph.readers(first.writes))
    assert set(direct) == set(beyond) and all(beyond[name] >= direct[name] for name in direct)
    assert beyond[first.writes] > direct[first.writes]
    assert graph.outputs[0].value not in beyond


def test_weights_that_passes_have_replaced_are_let_go_before_bounds_are_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = DRAWN.normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "s"], ["y"]),
    ]
    scale = DRAWN.uniform(0.5, 2, WIDTH).astype(np.float32)
    path = save_model(tmp_path, nodes, {"w": weight, "s": scale}, ("batch", WIDTH))
    first: list[weakref.ref[Graph]] = []
    alive: list[bool] = []
    imports, lowers = compiling.import_model, from_graph.lower

    def imported(*given: object, **more: object) -> Graph:
        graph = imports(*given, **more)  # type: ignore[arg-type]
        first.append(weakref.ref(graph.nodes[0].attributes))
        return graph

    def lowered(graph: Graph, *given: object, **more: object) -> object:
        alive.append(first[0]() is not None)
        return lowers(graph, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(compiling, "import_model", imported)
    monkeypatch.setattr(from_graph, "lower", lowered)
    looks = gc.isenabled()
    gc.disable()  # what is left for it to find would stay for long in a large compilation
    try:
        compile_model(path, (-1.0, 1.0))
    finally:
        if looks:
            gc.enable()
    assert alive == [False]
