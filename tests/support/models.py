"""Compile a model, run it in the in-memory world, compare with the reference and with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from mpc.compiler.compile import Compiled, Ranges, compile_model
from mpc.field import P
from mpc.interpret import reference
from mpc.interpret.world import World
from mpc.plan.cost import plan_cost
from parties.client.cluster import check_feeds, read_output
from parties.client.running.feeds import to_integers
from tests.support.worlds import seed

Feeds = dict[str, np.ndarray]


def encrypted(compiled: Compiled, feeds: Feeds, parties: int = 2) -> list[Any]:
    """The world's outputs, read as a recipient reads them; bit for bit the reference's, at the predicted cost."""
    plan = compiled.plan
    batch = check_feeds(plan, feeds)
    integers = to_integers(plan, feeds, list(feeds))
    run = World(plan, compiled.weights, parties, seed(5)).run(integers, batch)
    bound = plan.bind(batch)
    expected = reference.evaluate(bound, {**compiled.weights, **integers}, lambda wire, _: run.public[wire])
    for wire, value in run.outputs.items():
        assert (value == expected[wire]).all(), f"{wire} differs from the reference"
    cost = plan_cost(plan, batch)
    assert (len(run.sent), sum(run.sent), run.dealt) == (cost.rounds, cost.sent, cost.dealt)
    return [read_output(out, bound, run.outputs[out.wire]) for out in bound.outputs]


def clear(compiled: Compiled, x: np.ndarray) -> np.ndarray:
    """The output of a model of one input and one output, on integers; `PlanError` if a value leaves a wire's bound."""
    plan = compiled.plan.bind(len(x))
    rng = np.random.default_rng(6)
    integers = to_integers(compiled.plan, {plan.inputs[0].name: x}, [plan.inputs[0].name])
    found = reference.evaluate(
        plan, {**compiled.weights, **integers}, lambda _, shape: rng.integers(0, P, shape, dtype=np.uint64)
    )
    return np.asarray(read_output(plan.outputs[0], plan, found[plan.outputs[0].wire]))


def plaintext(path: Path, feeds: Feeds) -> list[Any]:
    """onnxruntime's outputs."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)


def assert_agrees(path: Path, feeds: Feeds, ranges: Ranges | None = None, tolerance: float = 1e-3) -> Compiled:
    """Encrypted and plain outputs have the same types and labels, and values within the tolerance."""
    compiled = compile_model(path, ranges)
    for out, ours, theirs in zip(
        compiled.plan.outputs, encrypted(compiled, feeds), plaintext(path, feeds), strict=True
    ):
        if out.keys is not None:
            assert [list(row) for row in ours] == [list(row) for row in theirs]
            ours, theirs = (np.array([list(row.values()) for row in rows]) for rows in (ours, theirs))
        else:
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), out.name
        if ours.dtype.kind in "fc":
            assert np.abs(ours - theirs).max() <= tolerance, f"{out.name}: {np.abs(ours - theirs).max()}"
        else:
            assert (ours == theirs).all(), out.name
    return compiled
