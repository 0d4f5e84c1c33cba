"""Compiling takes as long as a model is deep, and no longer."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from threadpoolctl import ThreadpoolController

from mpc.compiler import series
from mpc.compiler.compile import compile_model
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Node, Origin
from mpc.compiler.graph.rewriting import Rewriting
from mpc.compiler.lowering.intervals import Interval, bound_of
from mpc.compiler.lowering.rules.products import fraction_bits

NETWORKS = Path(__file__).resolve().parents[2] / "benchmarks" / "networks"


@pytest.fixture
def big(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that makes large networks; benchmarks/ is no package."""
    monkeypatch.syspath_prepend(str(NETWORKS))
    yield importlib.import_module("big")
    for name in ("big", "definitions"):
        sys.modules.pop(name, None)


def calls(model: onnx.ModelProto) -> int:
    """Count the calls, of Python and of C, that compiling takes."""
    count = 0

    def seen(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    compile_model(model)  # what is made once, as series are, is there afterwards
    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        compile_model(model)
    finally:
        sys.setprofile(before)
    return count


def test_twice_as_many_layers_take_twice_as_many_calls(big: ModuleType) -> None:
    few, some, many = (calls(big.make(big.Transformer(layers, 8, 2, 8, 2))) for layers in (1, 2, 4))
    assert some - few > 1000
    assert many - some < 2.2 * (some - few)


def node(op: str, writes: str, *reads: str) -> Node:
    return Node(op, reads, writes, ("batch", 2), Origin(writes, op))


def test_a_bound_is_the_largest_size_of_any_element() -> None:
    low = np.array([[-3.0, 1.0], [0.0, 2.0]])
    assert Interval(low, low + 1.5, np.zeros((2, 2))).bound == bound_of(low, low + 1.5) == 3.5
    assert bound_of(np.array([-4, 3])) == 4.0 and bound_of(np.zeros((0, 2))) == 0.0


@pytest.mark.parametrize("most", range(-1, 9))
@pytest.mark.parametrize("bits", [0, 3, 8, 9])
def test_fractional_bits_are_the_fewest_that_hold_all_of_a_weight(bits: int, most: int) -> None:
    weight = np.ones(10_000)
    weight[7_000] += 2.0**-bits
    naive = next((e for e in range(most + 1) if not (np.ldexp(weight, e) % 1).any()), None)
    assert fraction_bits(weight, most) == naive == (bits if bits <= most else None)


def test_nodes_are_replaced_and_taken_out_in_their_order() -> None:
    nodes = [node("relu", "a", "x"), node("relu", "b", "a"), node("relu", "c", "b"), node("sum", "d", "c", "c")]
    outputs = [GraphOutput(name, value, ("batch", 2), "float32") for name, value in (("y", "d"), ("z", "c"))]
    rewritten = Rewriting(Graph([GraphInput("x", ("batch", 2), "float32")], nodes, outputs))
    a, b, c, d = nodes
    assert rewritten.first is a and rewritten.behind(b) is c and rewritten.before(c) is b
    assert rewritten.next(a) is b and rewritten.previous(b) is a
    assert rewritten.sole_reader("c") is None  # an output too
    rewritten.bypass(c)
    assert rewritten.next(b) is None and [out.value for out in rewritten.graph.outputs] == ["d", "b"]
    rewritten.replace(node("sum", "d", "a"))
    rewritten.drop(rewritten.nodes["b"])
    assert rewritten.behind(a) is rewritten.nodes["d"] and rewritten.before(rewritten.nodes["d"]) is a
    assert [one.writes for one in rewritten.graph.nodes] == ["a", "d"] and rewritten.next(a) is rewritten.nodes["d"]
    rewritten.bypass(a)
    assert rewritten.first is not None and rewritten.first.reads == ("x",) and rewritten.first.writes == "d"


def test_fits_take_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of tiny decompositions: on a busy machine a thread more waits longer than it computes."""
    seen: list[int] = []
    fitted = series.fitted

    def watched(*given: Any) -> Iterator[series.Series]:
        seen.extend(each["num_threads"] for each in ThreadpoolController().info() if each["user_api"] == "blas")
        return fitted(*given)

    monkeypatch.setattr(series, "fitted", watched)
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        series.fit.__wrapped__("tanh", (), -3.0, 3.0, 1e-4, 2.0**-16)
        series.wide.__wrapped__("tanh", (), 16.0, 8, 3.0)
    assert set(seen) == {1}
