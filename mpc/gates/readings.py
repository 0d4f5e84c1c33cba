"""Define what a gate may ask while it is read: three protocols, which are the contract between gates and interpreters.

A gate never sees an interpreter.  Its `reference`, `deal`, `prepare` and `evaluate` are given one of
these, and name wires and correlations by the names that the gate itself declares; whatever else a gate
could ask would be something that its declarations (`openings`, `correlations`) do not tell, or that not
every party knows.  So a new interpreter has to offer no more than this, and a new gate can use no less.

    ClearReading   integers in the clear          mpc/interpret/reference.py
    DealReading    plain masks, at the provider   mpc/interpret/dealer.py
    PartyReading   x^ and shares, at a party      mpc/interpret/party.py

All arrays have the sizes of their bound wire or correlation.  Field elements are uint64 below p.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mpc.field import Room
from mpc.shares import BitShare, Lane, Masked, Share
from mpc.wires import Wire, Wires


class Reading(Protocol):
    """The part of every reading: the plan's public facts of its wires, bound to a batch size."""

    wires: Wires

    def wire(self, name: str) -> Wire:
        """Return a wire's shape, scale, bound and masking."""
        return self.wires[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a wire's sizes."""
        return self.wires[name].sizes


class ClearReading(Reading, Protocol):
    """Questions that `reference` may ask: the integers that parties must reconstruct, and the public rounding coins."""

    def given(self, name: str) -> np.ndarray:
        """Return the integers that the owner of an input entered, int64."""

    def value(self, name: str) -> np.ndarray:
        """Return a wire's integers, int64; the gate that writes it has been read."""

    def coin(self, name: str) -> np.ndarray:
        """Return the opened masked wire, field elements: what decides whether a truncation of it rounds up or down."""

    def words(self, gate: str, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        """Return uniform words of a gate that nobody knows in a run, a dealt one or a common one, by their name there.

        Raises:
            PlanError: whoever reads the plan has none, so what is drawn has no value.
        """

    def require_room(self, name: str, shift: int, units: int = 1) -> None:
        """Require |x| < 2^k - units 2^shift of a wire bounded by 2^k: a sign is read off the rounded value.

        Raises:
            PlanError: a value is larger.
        """

    def set(self, name: str, value: np.ndarray) -> None:
        """Write a wire's integers, once.

        Raises:
            PlanError: they leave the wire's shape or its proved bound.
        """


class DealReading(Reading, Protocol):
    """Questions that `deal` may ask: plain masks of the wires that the gate reads.

    The gate deals each of its declared correlations exactly once: a uniform one by `uniform` (or `draw_mask`), a
    dependent one by `dependent` or `others`.  It says the mask of each wire that it writes, unless the wire is not
    opened: by `draw_mask` or `derive_mask`.

    Raises, from all four that deal:
        LocalProtocolError: it was not declared so, was dealt before, or has another shape.
    """

    def uniform(self, name: str) -> np.ndarray:
        """Deal a uniform correlation: its plain value, the sum of what all parties will expand; costs no byte."""

    def dependent(self, name: str, plain: np.ndarray) -> None:
        """Deal a dependent correlation of this plain value: one party is sent a correction of its size."""

    def others(self, name: str) -> np.ndarray:
        """Deal a dependent correlation in place: the sum of all shares but the corrected party's.

        The gate turns the buffer into that party's share: into plain minus it, for bits plain xor it.
        """

    def draw_mask(self, wire: str) -> None:
        """Deal a written wire's mask as the uniform correlation that is named after it."""

    def derive_mask(self, wire: str, plain: np.ndarray) -> None:
        """Say a written wire's mask: a function of other masks and of uniform values."""

    def mask(self, wire: str) -> np.ndarray:
        """Return the plain mask of a wire that the gate reads, or of a weight; a public weight's is zero."""

    def stored_mask(self, wire: str) -> np.ndarray:
        """Return the plain mask of a stored input that the gate writes: the sum of what all parties' kept seeds expand
        to.
        """

    def state_mask(self, wire: str) -> np.ndarray:
        """Return the plain mask of a state that the gate reads: a wire's of the run that was dealt before."""

    def public(self, name: str) -> np.ndarray:
        """Return a public weight, as field elements; the provider knows no other value."""

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return something made of the session's masks or public weights, the first time; kept for its later runs."""

    @property
    def room(self) -> Room:
        """The room that is left for layouts of the session's weights."""


class PartyReading(Reading, Protocol):
    """Questions that `prepare` and `evaluate` may ask: what this party was dealt, and what is public among the parties.

    `prepare` runs before inputs exist: there are masks and correlations, the session's weights, but no wire of the
    run. It takes each correlation once, and returns
    a frozen record of what `evaluate` will need.
    """

    lane: Lane
    """How this party enters constants: nothing else tells parties apart."""

    def masked(self, name: str) -> Masked:
        """Return a wire that was written, or a weight: x^ and this party's share of its mask, if it has one."""

    def public(self, name: str) -> np.ndarray:
        """Return x^ of a wire that was written, or of a weight."""

    def share(self, name: str) -> Share:
        """Return [x] = x^ [1] - [a], or as it was computed if x is not opened.

        Raises:
            LocalProtocolError: the mask is derived.
        """

    def mask_share(self, name: str) -> Share:
        """Return this party's share of a wire's mask, which is there before the wire is.

        Raises:
            LocalProtocolError: the mask is derived; no party holds a share of it.
        """

    def has_mask(self, name: str) -> bool:
        """Does this party hold a share of the wire's mask?"""

    def needs_mask(self, name: str) -> bool:
        """Does a gate of this run need this party's share of the wire's mask?"""

    def take(self, name: str) -> Share:
        """Return a dealt field value, once.

        Raises:
            LocalProtocolError: the gate did not declare it.
            ReuseError: it was taken before.
            EncodingError: what was dealt is not the canonical encoding of anything.
        """

    def take_bits(self, name: str) -> BitShare:
        """Return dealt bits, once; raises as `take`."""

    def take_mask(self, wire: str) -> Share:
        """Return the drawn mask of a wire that the gate writes, once; raises as `take`."""

    def common(self, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        """Return uniform words of this gate and run that all parties know and nobody else, the provider neither; once.

        They follow from a key that is made of every party's fresh salt, and are public among the parties.

        Raises:
            LocalProtocolError: there is no such key.
            ReuseError: they were asked for before.
        """

    def stored_mask(self, wire: str) -> Share:
        """Return this party's share of the mask of a stored input that the gate writes: expanded from the seeds it
        keeps.
        """

    def state_mask(self, wire: str) -> Share:
        """Return this party's share of the mask of a state that the gate reads, prepared with the run before."""

    def given(self, wire: str) -> np.ndarray:
        """Return x^ as the owner of an input sent it, for this run or when it was stored, or as the run before left
        it; only in `evaluate`.
        """

    def set_mask(self, wire: str, mask: Share) -> None:
        """Say the mask of a wire that the gate writes: a public linear function of others."""

    def set(self, name: str, public: np.ndarray) -> None:
        """Write a masked wire, once.

        Raises:
            LocalProtocolError: it is written twice, in another shape, or is a wire that stays unopened.
        """

    def set_share(self, name: str, share: Share) -> None:
        """Write a wire that is not opened, once; raises as `set`."""

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return something made of the session's weights, the first time; kept for its later runs."""

    @property
    def room(self) -> Room:
        """The room that is left for layouts of the session's weights."""
