"""The compiler's front door: a model in, a verified plan and its owner's weights out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mpc.compiler.graph import Origin, Range
from mpc.compiler.lower import Roles
from mpc.compiler.onnx_import import import_model, load_model
from mpc.compiler.passes import run_passes
from mpc.compiler.plan import Plan
from mpc.compiler.rules import lower
from mpc.errors import ModelError

DEFAULT_RANGE = (-32.0, 32.0)

Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Args:
        plan: public; what the parties agree on.
        weights: int64 integers of each weight wire; the model owner's secret.
        origins: the model's node for each gate.
        errors: output -> expected (RMS) rounding error, in the model's units.
        undeclared: inputs that took the default range.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    origins: dict[str, Origin]
    errors: dict[str, float] = field(default_factory=dict)
    undeclared: tuple[str, ...] = ()


def compile_model(path: str | Path, ranges: Ranges | None = None, roles: Roles | None = None) -> Compiled:
    """Compile an ONNX file.

    Args:
        ranges: (low, high) in the model's units by input name, each end one number or one a
            column; they win over those the model declares in its metadata (`mpc.range.NAME`).
            Undeclared inputs take -32:32.

    Raises:
        ModelError: the file, a node, or a bound is refused.
    """
    graph = import_model(load_model(Path(path)), dict(ranges or {}))
    undeclared = tuple(given.name for given in graph.inputs if given.declared is None)
    graph.inputs = [replace(given, declared=given.declared or DEFAULT_RANGE) for given in graph.inputs]
    if not graph.inputs:
        raise ModelError("the model has no inputs", remedy="there is nothing to keep secret")
    lowered = lower(run_passes(graph), roles or Roles())
    return Compiled(lowered.plan, lowered.weights, lowered.origins, lowered.errors, undeclared)
