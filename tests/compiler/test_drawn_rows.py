"""Rows on which a plan is rehearsed are of the kinds that data are: what such rows are off by is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.graph import GraphInput
from mpc.compiler.rehearsal.drawing import KINDS, Draws, drawn_runs
from tests.support.graphs import node, save_model
from tests.support.models import clear, plaintext
from tests.support.tables import computed, save


def product_of_shares(folder: Path) -> Path:
    """The product of the logistic functions of many scores, computed by logarithms."""
    nodes = [node("Sigmoid", ["x"], ["p"]), node("Log", ["p"], ["l"])]
    nodes += [node("ReduceSum", ["l", "axis"], ["s"], keepdims=1), node("Exp", ["s"], ["y"])]
    return save_model(folder, nodes, {"axis": np.array([1])}, ("batch", 64))


def test_what_rows_of_one_sign_are_off_by_is_told(tmp_path: Path) -> None:
    """Rows of both signs give products that are all but 0, and seemed to be off by less than 1e-12."""
    path, rng = product_of_shares(tmp_path), np.random.default_rng(8)
    compiled, x = compile_model(path, (-8.0, 8.0)), rng.uniform(0, 8, (400, 64)).astype(np.float32)
    off = clear(compiled, x) - np.exp(-np.logaddexp(0, -x.astype(np.float64)).sum(axis=1, keepdims=True))
    assert compiled.errors["y"] > np.sqrt(np.square(off).mean()) / 4


@pytest.mark.parametrize("ends", [(-3.0, 5.0), (2.0, 6.0), (-4.0, -1.0)])
def test_rows_of_both_sides_are_drawn(ends: tuple[float, float]) -> None:
    """Above zero and below it, or above and below the middle of a range that has no zero."""
    given = GraphInput("x", ("batch", 9), "float32", ends)
    [feeds] = drawn_runs([given], 4 * KINDS, Draws())
    middle = 0.0 if ends[0] < 0 < ends[1] else sum(ends) / 2
    upper, lower = feeds["x"][3::KINDS], feeds["x"][4::KINDS]
    assert (upper > middle).all() and (lower < middle).all()
    assert upper.max() > middle + 0.7 * (ends[1] - middle) and lower.min() < middle - 0.7 * (middle - ends[0])


def test_what_an_average_by_small_weights_is_off_by_is_told(tmp_path: Path) -> None:
    """Weights were drawn as marks, or all over their range: of small ones as many digits fewer are left."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    halved (float[batch, 6] w, float[batch, 6] x) => (float[batch, 1] y)
    <float half = {0.5}, float small = {1e-3}, int64[1] axis = {1}>
    {
        p = Mul (w, x)
        s = ReduceSum <keepdims = 1> (p, axis)
        h = Mul (w, half)
        n = ReduceSum <keepdims = 1> (h, axis)
        d = Add (n, small)
        y = Div (s, d)
    }
    """
    path, rng = save(tmp_path, onnx.parser.parse_model(text)), np.random.default_rng(8)
    compiled = compile_model(path, {"w": (0.0, 1.0), "x": (-1000.0, 1000.0)})
    weights = rng.uniform(0, 1, (400, 6)) * np.exp(rng.uniform(-7, 0, (400, 1)))
    feeds = {"w": weights.astype(np.float32), "x": rng.uniform(-1e3, 1e3, (400, 6)).astype(np.float32)}
    [ours], [right] = computed(compiled, feeds), plaintext(path, feeds)
    assert compiled.errors["y"] > np.sqrt(np.square(ours - right).mean()) / 2
