"""Wires that outlive a run at one party: the session's weights, masked or public, and what is made of them once; and
state that runs hand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mpc import field as fp
from mpc.encoding import digest, view_field
from mpc.interpret.state_wires import StateWires
from mpc.plan.plan import Plan
from mpc.shares import Masked, Share
from mpc.wires import Wire


class SessionWires:
    """Values that outlive a run at one party: the weights, masked or public, what was made of them once, and state."""

    def __init__(self) -> None:
        self.masked: dict[str, Masked] = {}
        self.states = StateWires()
        self.room = fp.Room()
        self._memo: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<SessionWires weights={len(self.masked)}>"

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make()` gives the first time, that object afterwards."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def add(self, wire: Wire, values: np.ndarray, mask: Share | None = None) -> None:
        """Keep a weight as its owner sent it; a public one has no mask: everybody's share of it is zero."""
        nothing = np.broadcast_to(fp.zeros(()), wire.sizes)  # takes no memory
        self.masked[wire.name] = Masked(values, Share(nothing) if mask is None else mask)

    def begin(self, plan: Plan) -> None:
        """Set what the first run reads of each state: a weight, or zeros that everybody knows."""
        first = {}
        for state in plan.states:
            zeros = fp.zeros(plan.wire[state.in_].sizes)
            weight = None if state.init is None else self.masked[state.init]
            first[state.in_] = (zeros, Share(zeros)) if weight is None else (weight.public, weight.known_mask())
        self.states.begin(
            {name: public for name, (public, _) in first.items()}, {name: mask for name, (_, mask) in first.items()}
        )

    def public(self, plan: Plan) -> dict[str, np.ndarray]:
        """Return the weights that are public, in plan order."""
        return {gate.out: self.masked[gate.out].public for gate in plan.public_weights}

    def public_digest(self, plan: Plan) -> bytes:
        """Return the digest that parties and provider compare; empty if there are no public weights."""
        found: bytes = self.once("public digest", lambda: public_digest(self.public(plan)))
        return found

    def digest(self) -> bytes:
        """Digest every w^, once all are here."""

        def compute() -> bytes:
            parts = [part for name in sorted(self.masked) for part in (name, view_field(self.masked[name].public))]
            return digest("mpc/v1/weights", *parts)

        found: bytes = self.once("digest", compute)
        return found


def public_digest(weights: Mapping[str, np.ndarray]) -> bytes:
    """Digest public weights in plan order; empty if there are none."""
    parts = [part for name, values in weights.items() for part in (name, view_field(values))]
    return digest("mpc/v1/public-weights", *parts) if parts else b""
