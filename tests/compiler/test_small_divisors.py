"""Divisors that are small, or that counts leave: they keep their digits, and what is told of them is what happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import clear, plaintext

LARGEST = node("ReduceMax", ["x"], ["m"], name="largest", axes=[1], keepdims=1)


@pytest.mark.parametrize("reach", [1e-6, 1e-3, 1.0, 100.0])
def test_a_row_over_its_largest_whatever_its_range(reach: float, tmp_path: Path) -> None:
    """A maximum kept 16 fractional bits: of 0:0.001 places were off by 0.07, and 0:0.00001 was refused."""
    path = save_model(tmp_path, [LARGEST, node("Div", ["x", "m"], ["y"])], {}, ("batch", 6))
    compiled = compile_model(path, {"x": (0.0, reach)})
    x = (reach * np.random.default_rng(3).uniform(0, 1, (200, 6))).astype(np.float32)
    off = np.abs(clear(compiled, x) - plaintext(path, {"x": x})[0])
    assert off.max() < (1e-3 if reach < 1e-4 else 2e-4)
    assert np.sqrt(np.square(off).mean()) < 2 * compiled.errors["y"] < 0.01
    assert plan_cost(compiled.plan, 1).rounds <= 12


def test_a_row_of_small_numbers_over_its_largest(tmp_path: Path) -> None:
    """Of rows that are a thousandth of their range a tenth of the places were off by more than 1 %."""
    nodes = [LARGEST, node("Add", ["m", "c"], ["d"]), node("Div", ["x", "d"], ["y"], name="over")]
    path = save_model(tmp_path, nodes, {"c": np.float32(1e-7)}, ("batch", 6))
    compiled = compile_model(path, {"x": (0.0, 1.0)})
    rng = np.random.default_rng(3)
    x = (rng.uniform(0.5, 1, (200, 6)) * np.exp2(-rng.uniform(0, 10, (200, 1)))).astype(np.float32)
    assert np.abs(clear(compiled, x) - plaintext(path, {"x": x})[0]).max() < 0.002


@pytest.mark.parametrize("most", [1, 3])
def test_what_counts_leave_is_expected_to_be_what_it_is(most: int, tmp_path: Path) -> None:
    """Rows of which more than all is taken counted too: errors of millions were expected."""
    nodes = [node("Cast", ["x"], ["real"], to=TensorProto.FLOAT), node("Split", ["real"], ["n", "m"], axis=1)]
    nodes += [node("Div", ["n", "m"], ["share"]), node("Sub", ["one", "share"], ["left"])]
    nodes.append(node("Div", ["n", "left"], ["y"], name="over"))
    path = save_model(tmp_path, nodes, {"one": np.float32(1)}, ("batch", 2), element=TensorProto.INT64, opset=13)
    compiled = compile_model(path, {"x": ([0, 1], [8 * most, 8])})
    m = np.arange(1, 9).repeat(8)
    x = np.stack([np.arange(64) % 8, m], 1)[np.arange(64) % 8 < m]
    off = np.sqrt(np.square(clear(compiled, x) - plaintext(path, {"x": x})[0]).mean())
    assert off / 4 < compiled.errors["y"] < 20 * off
    assert any("each negative number" in text for text in compiled.notes)
