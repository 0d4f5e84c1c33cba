"""A plan that was made here, with all that a session of it needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mpc.compiler.onnx.metadata import ModelMeta
from mpc.plan.plan import Plan


@dataclass(frozen=True)
class Prepared:
    """A plan of training, or of what was trained; a session is opened of it as of a compiled model.

    Args:
        weights: int64 integers of each weight wire that this client enters.
        messages: what this client should know.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    messages: list[str]
    meta: ModelMeta = field(default=ModelMeta(), repr=False)
