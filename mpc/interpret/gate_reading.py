"""Answers what one gate may ask of a run that it is evaluated in, and takes what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import LocalProtocolError
from mpc.field import Room
from mpc.gates.base import Gate, mask_name
from mpc.gates.readings import PartyReading
from mpc.shares import BitShare, Masked, Share
from mpc.wires import Masking, Wires

if TYPE_CHECKING:
    from mpc.interpret.party import PartyRun


class Party(PartyReading):
    """One gate's reading of the run, for its `prepare` and `evaluate`."""

    def __init__(self, run: PartyRun, gate: Gate) -> None:
        self._run = run
        self._gate = gate.name
        self.wires: Wires = run.plan.wire
        self.lane = run.lane

    def __repr__(self) -> str:
        return f"<Party gate={self._gate}>"

    def masked(self, name: str) -> Masked:
        """Return a wire that was written, or a weight."""
        return self._run.masked(name)

    def public(self, name: str) -> np.ndarray:
        """Return x^ of a wire."""
        return self.masked(name).public

    def mask_share(self, name: str) -> Share:
        """Return this party's share of a wire's mask, there before the wire is; an error if it is derived."""
        mask = self._run.mask_share(name)
        if mask is None:
            raise LocalProtocolError(f"the mask of wire {name} is derived; no party holds a share of it")
        return mask

    def has_mask(self, name: str) -> bool:
        """Does this party hold a share of the wire's mask?"""
        return self._run.mask_share(name) is not None

    def needs_mask(self, name: str) -> bool:
        """Does a gate need this party's share of the wire's mask?"""
        return name in self._run.shared_masks

    def share(self, name: str) -> Share:
        """Return [x] = x^ [1] - [a], or as it was computed if x is not opened."""
        if self.wires[name].masking is Masking.UNOPENED:
            return self._run.unopened(name)
        return self.masked(name).share(self.lane)

    def take(self, name: str) -> Share:
        """Return a dealt field value, once."""
        return self._run.bundle.take(self._gate, name)

    def take_bits(self, name: str) -> BitShare:
        """Return dealt bits, once."""
        return self._run.bundle.take_bits(self._gate, name)

    def take_mask(self, wire: str) -> Share:
        """Return the drawn mask of a wire this gate writes, once."""
        mask = self.take(mask_name(wire))
        self._run.set_mask(wire, mask)
        return mask

    def common(self, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        """Return words that all parties know and nobody else, once."""
        return self._run.common(self._gate, name, shape, width)

    def stored_mask(self, wire: str) -> Share:
        """Return this party's share of the mask of a stored input."""
        return self._run.stored_mask(wire)

    def state_mask(self, wire: str) -> Share:
        """Return this party's share of the mask of a state."""
        return self._run.state_mask(wire)

    def given(self, wire: str) -> np.ndarray:
        """Return x^ as an owner sent it, for this run or when it was stored, or as the run before left it."""
        return self._run.given_to(wire)

    def set_mask(self, wire: str, mask: Share) -> None:
        """Set the mask of a wire this gate writes, a public linear function of others."""
        self._run.set_mask(wire, mask)

    def set(self, name: str, public: np.ndarray) -> None:
        """Write a wire."""
        self._run.set(name, public)

    def set_share(self, name: str, share: Share) -> None:
        """Write a wire that is not opened."""
        self._run.set_share(name, share)

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return something made of the session's weights, the first time; kept for its later runs."""
        return self._run.session.once(key, make)

    @property
    def room(self) -> Room:
        """The room that is left for layouts of the session's weights."""
        return self._run.session.room
