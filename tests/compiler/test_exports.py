"""Transformers and vision models as PyTorch's two exporters write them; tests/support/exports.py has which.

A few are committed.  All others are made where torch, torchvision and transformers are, and skipped elsewhere.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import Compiled, compile_model
from tests.support import exports
from tests.support.exports import Export
from tests.support.models import encrypted, plaintext
from tests.vectors.exports.make import COMMITTED, HERE

THERE = all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "transformers", "onnxscript"))
needs_torch = pytest.mark.skipif(not THERE, reason="torch, torchvision, transformers or onnxscript is not installed")
BINARY = {"attention_mask": (0, 1), "token_type_ids": (0, 1)}
DEEP = {"resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet", "squeezenet", "llama"}
"""Too deep for bounds that are proved: what is refused says that samples bound it."""
PARTS = 1e-2
"""Of the largest number of an output, by which ours may differ."""


def assert_agrees(path: Path, export: Export) -> Compiled:
    rows = 2 if export.is_open else 1
    names = [given.name for given in onnx.load(path).graph.input]
    feeds, samples = (
        dict(zip(names, exports.feeds_of(export, n, seed).values(), strict=True))
        for n, seed in ((rows, 1), (4 * rows, 2))
    )
    ranges = {
        name: BINARY.get(name, (-3, 3)) for name, values in feeds.items() if name in BINARY or values.dtype.kind == "f"
    }
    compiled = compile_model(path, ranges, samples=samples if export.model in DEEP else None)
    for ours, theirs in zip(encrypted(compiled, feeds), plaintext(path, feeds), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= PARTS * np.abs(theirs).max()
    return compiled


def test_those_that_are_committed_are_here() -> None:
    assert sorted(f"{each.name}.onnx" for each in COMMITTED) == sorted(path.name for path in HERE.glob("*.onnx"))
    assert all(path.stat().st_size < 60_000 for path in HERE.glob("*.onnx"))


@pytest.mark.parametrize("export", COMMITTED, ids=lambda each: each.name)
def test_a_committed_export(export: Export) -> None:
    compiled = assert_agrees(HERE / f"{export.name}.onnx", export)
    [ids] = [given for given in compiled.plan.inputs if given.name in ("input_ids", "pixel_values")]
    assert ids.places == (exports.WORDS if ids.name == "input_ids" else None)


@needs_torch
@pytest.mark.parametrize(
    "export", [Export("distilbert", "script", "ids"), Export("resnet18", "script")], ids=lambda e: e.name
)
def test_an_export(export: Export, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exports.make(export).SerializeToString())
    assert_agrees(path, export)


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("export", exports.exports(), ids=lambda each: each.name)
def test_every_export(export: Export, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exports.make(export).SerializeToString())
    assert_agrees(path, export)
