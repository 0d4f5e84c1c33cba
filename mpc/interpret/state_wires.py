"""State of a session: what a run leaves for the next one, at a party and at the provider.

A wire that is carried keeps its mask: x^ = x + a goes on as it is.  Masks are known as soon as a run is dealt or
prepared, x^ only once it is over; so run t + 1 is dealt and prepared while run t computes.  Each run reads what the run
just before it has left, once: no run is repeated, left out, or taken out of turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np

from mpc.errors import ReuseError
from mpc.shares import Share

Kept = TypeVar("Kept", np.ndarray, Share)


class Carried(Generic[Kept]):
    """One kind of things that runs leave for the next run, by the wire that reads them there; for one reader a run.

    Args:
        what: they are, in errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.held: dict[str, Kept] = {}
        self._left_by = 0
        self._read_by = 0

    def __repr__(self) -> str:
        return f"<Carried run={self._left_by}>"

    def begin(self, values: Mapping[str, Kept]) -> None:
        """Set what the first run reads, before any run."""
        if self._left_by or self._read_by:
            raise ReuseError(f"{self._what}: runs have begun, and state begins anew in another session only")
        self.held = dict(values)

    def read(self, run: int) -> dict[str, Kept]:
        """Return what the run before this one has left, once.

        Raises:
            ReuseError: that run has not left it yet, or this run, or a later one, has read it before.
        """
        if run != self._left_by + 1 or run == self._read_by:
            raise ReuseError(f"run {run} reads {self._what} that run {run - 1} does not hand on: runs never repeat")
        self._read_by = run
        return dict(self.held)

    def leave(self, run: int, values: Mapping[str, Kept]) -> None:
        """Keep what a run that has read leaves for the next one, and let go of what it read.

        Raises:
            ReuseError: the run has not read, or has left something before.
        """
        if run != self._read_by or run != self._left_by + 1:
            raise ReuseError(f"run {run} leaves {self._what} out of turn")
        self.held, self._left_by = dict(values), run

    def forget(self) -> None:
        """Let go of everything: the session is over."""
        self.held = {}


class StateWires:
    """State of one session at one party: x^ and its shares of the masks.

    Preparing a run touches `masks` alone, computing it `public` alone, and there is one thread for each: so nothing is
    locked.
    """

    def __init__(self) -> None:
        self.masks: Carried[Share] = Carried("shares of masks")
        self.public: Carried[np.ndarray] = Carried("masked state")

    def begin(self, public: Mapping[str, np.ndarray], masks: Mapping[str, Share]) -> None:
        """Set what the first run reads, by wire."""
        self.public.begin(public)
        self.masks.begin(masks)
