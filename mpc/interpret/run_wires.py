"""Wires of one run at one party, held until nobody reads them any more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from mpc.errors import LocalProtocolError
from mpc.gates.base import Gate
from mpc.plan.lasting import Readers
from mpc.plan.plan import Plan
from mpc.shares import Masked, Share
from mpc.wires import Masking


@dataclass(repr=False)
class _Kept:
    """x^, this party's shares of masks, and those of what is not opened; by wire."""

    public: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, Share] = field(default_factory=dict)
    unopened: dict[str, Share] = field(default_factory=dict)


class RunWires:
    """Holds what one party has of the wires of a run, each written once.

    Args:
        wanted: wires that stay until the run is over, besides outputs and what the next run reads.
        replayed: x^ is read once more behind the evaluation, by a replay that says when it has (`replayed`).
    """

    def __init__(self, plan: Plan, wanted: Collection[str] = (), replayed: bool = False) -> None:
        self._plan = plan
        self._kept = _Kept()
        self._written: set[str] = set()
        ends = {*wanted, *plan.carried, *(output.wire for output in plan.outputs)}
        self._readers = Readers(plan.online, ends)
        self._replays = Readers(plan.online, ends) if replayed else None

    def __repr__(self) -> str:
        return f"<RunWires held={len(self._kept.public) + len(self._kept.unopened)}>"

    def __contains__(self, name: str) -> bool:
        return name in self._kept.public

    @property
    def held(self) -> frozenset[str]:
        """Wires of which there is something."""
        return frozenset({*self._kept.public, *self._kept.masks, *self._kept.unopened})

    def masked(self, name: str) -> Masked:
        """Return a wire that was written: x^, and this party's share of its mask if it has one."""
        return Masked(self._kept.public[name], self._kept.masks.get(name))

    def mask(self, name: str) -> Share | None:
        """Return this party's share of a wire's mask, if it has one."""
        return self._kept.masks.get(name)

    def unopened(self, name: str) -> Share:
        """Return this party's share of a wire that is not opened."""
        return self._kept.unopened[name]

    def set_mask(self, name: str, mask: Share) -> None:
        """Say the share of a wire's mask, once; before the wire is written."""
        if name in self._kept.masks:
            raise LocalProtocolError(f"the mask of wire {name} is set twice")
        self._kept.masks[name] = mask

    def set(self, name: str, public: np.ndarray) -> None:
        """Write a masked wire, once.

        Raises:
            LocalProtocolError: it is written twice, in another shape, or is a wire that stays unopened.
        """
        self._require_new(name, public.shape, unopened=False)
        self._kept.public[name] = public

    def set_share(self, name: str, share: Share) -> None:
        """Write a wire that is not opened, once; raises as `set`."""
        self._require_new(name, share.shape, unopened=True)
        self._kept.unopened[name] = share

    def _require_new(self, name: str, shape: tuple[int, ...], unopened: bool) -> None:
        wire = self._plan.wire[name]
        if name in self._written:
            raise LocalProtocolError(f"wire {name} written twice")
        if shape != wire.sizes:
            raise LocalProtocolError(f"wire {name} written with shape {shape}")
        if unopened != (wire.masking is Masking.UNOPENED):
            raise LocalProtocolError(f"wire {name} is {wire.masking}, and written otherwise")
        self._written.add(name)

    def over(self, gate: Gate) -> None:
        """Let go of what nobody reads any more, now that a gate is evaluated."""
        for name in self._readers.over(gate):
            self._kept.masks.pop(name, None)
            self._kept.unopened.pop(name, None)
            if self._replays is None:
                self._kept.public.pop(name, None)

    def replayed(self, gate: Gate) -> None:
        """Let go of x^ that nobody reads any more, now that a gate is replayed too."""
        if self._replays is None:
            raise LocalProtocolError("a run is replayed that was to be evaluated alone")
        for name in self._replays.over(gate):
            self._kept.public.pop(name, None)
