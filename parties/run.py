"""One run at one party, from its correlations to its released outputs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from mpc.compiler.plan import Plan
from mpc.errors import SessionError
from mpc.interpret.party import PartyRun
from mpc.prg import Seed
from parties.pb.party_pb2 import Manifest as SignedManifest


@dataclass(frozen=True)
class Released:
    """An output after the barrier: z^, and this party's sub-seed of its mask for its recipients."""

    public: np.ndarray = field(repr=False)
    seed: Seed


@dataclass
class Run:
    """See the module.

    Args:
        held: bytes of memory it was granted.
        burnt, revealed: as in the ledger, where it came first.
        asked: input wires whose mask seeds their owner was given.
        started: handed to the worker; runs start in the order of their numbers.
        done: the outputs are revealed, or the session has ended.
    """

    number: int
    plan: Plan
    signed: SignedManifest
    held: int
    _party: PartyRun | None = field(repr=False)
    burnt: bool = False
    started: bool = False
    revealed: bool = False
    asked_at: float | None = None
    asked: set[str] = field(default_factory=set)
    given: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    outputs: dict[str, Released] = field(default_factory=dict)
    transcript: bytes = b""
    done: threading.Event = field(default_factory=threading.Event)
    online_seconds: float = 0.0
    cpu_seconds: float = 0.0
    rounds: int = 0
    sent_bytes: int = 0

    @property
    def party(self) -> PartyRun:
        """The evaluation; `SessionError` once the run is over and its memory given back."""
        if self._party is None:
            raise SessionError(f"run {self.number} is over")
        return self._party

    @property
    def complete(self) -> bool:
        """Is every input here?"""
        return len(self.given) == len(self.plan.inputs)

    def reveal(self) -> None:
        """Keep what recipients may fetch; the ledger says `revealed`."""
        for wire in dict.fromkeys(out.wire for out in self.plan.outputs):
            self.outputs[wire] = Released(self.party.output(wire), self.party.release(wire))
        self.transcript = self.party.transcript.digest
        self.revealed = True

    def shrink(self) -> int:
        """Let go of everything but the outputs; the bytes that are free now."""
        freed, self.held = self.held, 0
        self._party = None
        self.given = {}
        return freed
