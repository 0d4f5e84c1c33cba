"""One run at one party, from its correlations to its released outputs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from mpc.errors import PeerError, SessionError
from mpc.plan.ends import PlanInput, PlanOutput
from mpc.plan.plan import Plan
from mpc.prg import Seed
from parties.party.delivery import Delivery
from parties.party.entry import Entry
from parties.party.evaluating import Evaluation


@dataclass(frozen=True)
class Released:
    """An output after the barrier: z^, and this party's sub-seed of its mask for its recipients."""

    public: np.ndarray = field(repr=False)
    seed: Seed


@dataclass(frozen=True)
class RunStatus:
    """How a run is doing, at one moment; as `Run` says it."""

    batch: int
    following: int
    entering: tuple[str, ...]
    unheard: tuple[str, ...]


@dataclass
class Run:
    """The state of one run at one party.

    Args:
        held: bytes of memory it was granted.
        following: rows of the same batch that later runs will bring, as the coordinator said.
        entry: what its owners enter.
        delivery: what it was dealt, of which some may be on its way.
        revealed: as in the ledger, where it came first.
        heard: who was told its result.
        waiting: who waits for it, and a token of the call in which it does.
        started: handed to the worker; runs start in the order of their numbers.
        done: the outputs are revealed, or the session has ended.
        head: of the party's audit chain behind the row that says `revealed`.
        steps: how many there are, known also when the run is over.
    """

    number: int
    batch: int
    following: int
    entry: Entry = field(repr=False)
    held: int
    _party: Evaluation | None = field(repr=False)
    delivery: Delivery | None = field(default=None, repr=False)
    started: bool = False
    revealed: bool = False
    heard: set[str] = field(default_factory=set)
    waiting: dict[str, object] = field(default_factory=dict)
    outputs: dict[str, Released] = field(default_factory=dict)
    transcript: bytes = b""
    head: bytes = b""
    done: threading.Event = field(default_factory=threading.Event)
    ended_at: float = 0.0
    online_seconds: float = 0.0
    cpu_seconds: float = 0.0
    rounds: int = 0
    sent_bytes: int = 0
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        self.steps = len(self.party.exchanges)

    @property
    def party(self) -> Evaluation:
        """The evaluation; `SessionError` once the run is over and its memory given back."""
        if self._party is None:
            raise SessionError(f"run {self.number} is over")
        return self._party

    @property
    def whole(self) -> bool:
        """Is all that it was dealt here and prepared, or is it over?"""
        return self._party is None or self._party.whole

    @property
    def plan(self) -> Plan:
        """The plan, bound to its batch."""
        return self.entry.plan

    @property
    def entering(self) -> dict[str, list[str]]:
        """Owner -> its inputs that are not here yet."""
        missing: dict[str, list[str]] = {}
        wires = set() if self.started else {*self.entry.missing}
        for given in self.plan.inputs:
            if wires & {*given.wires}:
                missing.setdefault(self.plan.wire[given.wire].holders[0], []).append(given.name)
        return missing

    @property
    def unheard(self) -> set[str]:
        """Owners and recipients that were not told the result yet."""
        ends: tuple[PlanInput | PlanOutput, ...] = (*self.plan.entered_inputs, *self.plan.outputs)
        return {name for end in ends for name in self.plan.wire[end.wire].holders} - self.heard

    @property
    def status(self) -> RunStatus:
        """For whoever has a part in it."""
        return RunStatus(self.batch, self.following, tuple(sorted(self.entering)), tuple(sorted(self.unheard)))

    def overdue(self) -> PeerError:
        """Make the error that names the owners whose inputs are missing."""
        missing = self.entering
        names = [repr(name) for inputs in missing.values() for name in inputs]
        what = f"input {names[0]} is" if len(names) == 1 else f"inputs {', '.join(names)} are"
        return PeerError(
            f"{' and '.join(missing)} did not submit in time: {what} missing from run {self.number}",
            remedy="start a new session; deadlines.submit in the parties' configs says how long they wait",
            peer=min(missing, default=None),
        )

    def reveal(self) -> None:
        """Keep what recipients may fetch; the ledger says `revealed`."""
        received = [out.wire for out in self.plan.outputs if self.plan.wire[out.wire].holders]
        for wire in dict.fromkeys(received):
            self.outputs[wire] = Released(self.party.output(wire), self.party.release(wire))
        self.transcript = self.party.transcript.digest
        self.revealed = True

    def shrink(self) -> int:
        """Let go of everything but the outputs; the bytes that are free now."""
        if self._party is None:
            return 0
        freed, self.held = self.held, 0
        if self.delivery is not None:
            self.delivery.give_up()
        self._party = self.delivery = None
        self.entry.shrink()
        return freed
