"""One entry at one party: masks that owners are given for it, and x^ as it comes.

The weights of a session are an entry, and so are the inputs of each run.  They differ in what becomes of x^ (`keep`),
and in what the ledger knows of them: the session's row stands for its weights, so these count as burnt from the start.
An entry that nobody enters in a session, since the parties hold x^ and their seeds of the masks already, would be
complete from the start: all of it given, and nothing to be asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mpc.correlations import Bundle
from mpc.encoding import decode_field, field_size
from mpc.entry import EntryId
from mpc.errors import InputError, PolicyError, SessionError
from mpc.gates.input import Input
from mpc.interpret.party import Buffer
from mpc.plan.plan import Plan
from mpc.prg import Seed
from parties.pb.party_pb2 import Manifest as SignedManifest


def _ignore(gate: Input, public: np.ndarray) -> None:
    """Leave x^ where it was put: in `given`."""


@dataclass
class Entry:
    """Weights, or a run's inputs, as owners enter them under the masks of one bundle; guarded by its session's lock.

    Args:
        plan: bound to the run's batch.
        bundle: its correlations, None once it is over.
        signed: the bundle's manifest.
        keep: called with each gate and its x^ as it comes.
        burnt: as in the ledger, where it came first; `burning` is held meanwhile.
        asked: wires whose mask seeds their owner was given.
        asked_at: since when somebody waits for what is missing: asked for masks, or for a run's result.
        arriving: wires that are being received.
        given: x^ by wire.
    """

    id: EntryId
    plan: Plan
    bundle: Bundle | None = field(repr=False)
    signed: SignedManifest = field(repr=False)
    keep: Callable[[Input, np.ndarray], None] = field(default=_ignore, repr=False)
    burnt: bool = False
    burning: threading.Lock = field(default_factory=threading.Lock, repr=False)
    asked: set[str] = field(default_factory=set)
    asked_at: float | None = None
    arriving: set[str] = field(default_factory=set)
    given: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    gates: dict[str, Input] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.gates = {gate.out: gate for gate in self.plan.entered_in(self.id)}

    @property
    def missing(self) -> list[str]:
        """Wires that are not here yet, in plan order."""
        return [wire for wire in self.gates if wire not in self.given]

    @property
    def complete(self) -> bool:
        """Is all of it here?"""
        return not self.missing

    def owned(self, owner: str) -> list[str]:
        """Return the wires that this owner masks; `PolicyError` if there are none."""
        wires = self.plan.wire
        masked = [name for name, gate in self.gates.items() if not gate.is_public(wires)]
        owned = [name for name in masked if wires[name].holders == (owner,)]
        if not owned:
            raise PolicyError(f"{owner!r} owns no input of {self.id} that is masked")
        return owned

    def hand_out(self, owner: str) -> list[tuple[str, Seed]]:
        """Give the owner its masks' sub-seeds, once; the entry is burnt."""
        self.wait()
        bundle, owned = self._bundle(), self.owned(owner)
        self.asked.update(owned)
        return [(wire, bundle.mask_seed(wire)) for wire in owned]

    def _bundle(self) -> Bundle:
        if self.bundle is None:
            raise SessionError(f"{self.id} is over")
        return self.bundle

    def wait(self) -> None:
        """Somebody waits for what is missing, from now on if nobody did before."""
        self.asked_at = self.asked_at or time.monotonic()

    def size(self, wire: str, owner: str) -> int:
        """Return the bytes of one input; refuse a wire that the caller does not own, or may not send now."""
        gate = self.gates.get(wire)
        if gate is None:
            raise InputError(f"there is no input wire of that name in {self.id}")
        if self.plan.wire[wire].holders != (owner,):
            raise PolicyError(f"{owner!r} does not own the input wire {wire}")
        if wire in self.given:
            raise InputError(f"the input wire {wire} was submitted before")
        if not gate.is_public(self.plan.wire) and wire not in self.asked:
            raise SessionError(f"the input wire {wire} was submitted before its mask was asked for")
        return field_size(self.plan.wire[wire].sizes)

    def take(self, wire: str, data: Buffer) -> None:
        """Take x^ of one input."""
        public = decode_field(data, self.plan.wire[wire].sizes)
        self.keep(self.gates[wire], public)
        self.given[wire] = public

    def shrink(self) -> None:
        """Let go of correlations and inputs: it is over."""
        self.bundle, self.given = None, {}
