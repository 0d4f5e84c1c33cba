"""The steps that one peer sends, in order, and what else it says of a run.

A peer cannot know step t + 1 before it has this party's step t, so at any moment the only acceptable frames are pieces
of the step that is awaited and of the one after what was sent last.  Everything else - a past step with other bytes, a
future one, a piece too many - ends the session.  A peer that is a run ahead is held back by not reading on, which
fills its stream's window: nothing is buffered without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from mpc.errors import DeadlineError, IntegrityError, MpcError, PeerError
from parties.wire.inflow import Inflow
from parties.wire.pieces import room

_LARGEST_TOLD = 1 << 20
"""Bytes of the largest frame about outputs that are kept: signatures and certificates of up to 256 objects."""


def over_at(peer: str, coordinator: str) -> PeerError:
    """Make the error of a session that has ended in good order at a peer, as that says, and not here.

    Any peer can close a stream so by itself: nothing that is seen here shows whether the coordinator did.
    """
    return PeerError(
        f"{peer} closed its end of the session",
        cause=f"as {peer} says, {coordinator}, who coordinates the session, ended it at {peer} and not here; "
        f"{peer} may have closed it by itself, too, or was cut off",
        remedy="start a new session",
        peer=peer,
    )


class Inbox:
    """The steps of one peer, in order.  Thread-safe: one thread puts, another takes.

    Args:
        coordinator: of the session; it may have ended it at a peer whose stream ends in good order.
    """

    def __init__(self, peer: str, coordinator: str) -> None:
        self._peer, self._coordinator = peer, coordinator
        self._inflow = Inflow()
        self._run = 0
        self._sizes: tuple[int, ...] = ()
        self._buffers: dict[int, memoryview] = {}
        self._filled: dict[int, int] = {}
        self._repeated: dict[int, int] = {}
        self._entered: tuple[bytes, ...] | None = None
        self._told: dict[int, tuple[bytes, ...]] = {}
        self._tells = 0
        self._allowed = -1

    def begin(self, run: int, sizes: Sequence[int], tells: int = 0) -> None:
        """A run starts here: bytes of each of its steps, and how often the peer tells something behind them."""
        with self._inflow.lock:
            self._run, self._sizes, self._tells = run, tuple(sizes), tells
            self._buffers, self._filled, self._repeated, self._entered, self._told = {}, {}, {}, None, {}
            self._allowed = -1
            self._allow(0)
            self._inflow.arrived()

    def allow(self, step: int) -> None:
        """This party sends step - 1 now, so the peer may send up to `step`."""
        with self._inflow.lock:
            self._allow(step)

    def _allow(self, step: int) -> None:
        for number in range(self._allowed + 1, min(step + 1, len(self._sizes))):
            self._buffers[number] = room(self._sizes[number])
            self._filled[number] = 0
        self._allowed = max(self._allowed, step)

    def put(self, run: int, step: int, data: bytes | memoryview) -> None:
        """A piece arrived.

        Raises:
            PeerError: it belongs to no step that is possible now, or differs from what came before.
        """
        with self._inflow.lock:
            self._inflow.hold_back(lambda: run == self._run + 1)  # its stream's window fills: nothing is buffered
            if run != self._run or step > self._allowed or step not in self._buffers:
                raise PeerError(f"{self._peer} sent step {step} of run {run} out of turn", peer=self._peer)
            buffer, filled = self._buffers[step], self._filled[step]
            if filled == len(buffer):
                self._repeat(step, data)
                return
            if filled + len(data) > len(buffer) or not data:
                raise PeerError(f"{self._peer} sent too many bytes in step {step}", peer=self._peer)
            buffer[filled : filled + len(data)] = data
            self._filled[step] = filled + len(data)
            if self._filled[step] == len(buffer):
                self._inflow.arrived()

    def _repeat(self, step: int, data: bytes | memoryview) -> None:
        """Ignore bytes that came before, and refuse other ones: they are equivocation."""
        start = self._repeated.get(step, 0)
        if not data or bytes(self._buffers[step][start : start + len(data)]) != bytes(data):
            raise PeerError(f"{self._peer} sent step {step} twice with different bytes", peer=self._peer)
        self._repeated[step] = (start + len(data)) % len(self._buffers[step])

    def take(self, step: int, deadline: float) -> memoryview:
        """All bytes of a step; waits until `deadline` (monotonic seconds).

        Raises:
            DeadlineError: they did not come in time.
            MpcError: whatever ended the link.
        """
        with self._inflow.lock:
            self._await(lambda: self._is_here(step), deadline, f"did not send step {step} in time")
            self._buffers.pop(step - 1, None)
            return self._buffers[step]

    def has(self, step: int) -> bool:
        """Are all bytes of a step here?"""
        with self._inflow.lock:
            return self._filled[step] == len(self._buffers[step])

    def check(self, step: int) -> None:
        """Raise what has ended the link, or what says that this step will not come."""
        with self._inflow.lock:
            self._require_going(step)

    def await_end(self, step: int, deadline: float, late: Callable[[], MpcError]) -> NoReturn:
        """Raise what ends the link, since the step will not come any more, or what `late` makes if nothing does until
        `deadline` (monotonic seconds)."""
        with self._inflow.lock:
            self._inflow.wait(lambda: self._require_going(step), deadline, late)
        raise over_at(self._peer, self._coordinator)

    @property
    def held_back(self) -> bool:
        """The peer is a run ahead, and its stream is not read on; or somebody waits for a step."""
        return self._inflow.waiting > 0

    def put_entered(self, run: int, digests: Sequence[bytes]) -> None:
        """The peer found that it was not sent what others were, and says what it was sent, owner by owner."""
        with self._inflow.lock:
            if run != self._run or self._entered is not None:
                raise PeerError(f"{self._peer} sent a frame out of turn", peer=self._peer)
            self._entered = tuple(digests)
            self._inflow.arrived()

    def take_entered(self, count: int, deadline: float) -> tuple[bytes, ...]:
        """These digests, `count` of them; raises as `take`."""
        with self._inflow.lock:
            self._await(lambda: self._entered is not None, deadline, "did not say what it was sent")
            entered = self._entered or ()
            if len(entered) != count:
                raise PeerError(f"{self._peer} sent a malformed frame", peer=self._peer)
            return entered

    def put_told(self, run: int, number: int, parts: Sequence[bytes]) -> None:
        """The peer tells something of what is kept of a run."""
        with self._inflow.lock:
            new = 1 <= number <= self._tells and number not in self._told
            if run != self._run or not new or sum(map(len, parts)) > _LARGEST_TOLD:
                raise PeerError(f"{self._peer} sent a frame out of turn", peer=self._peer)
            self._told[number] = tuple(parts)
            self._inflow.arrived()

    def take_told(self, number: int, count: int, deadline: float) -> tuple[bytes, ...]:
        """Return the `count` parts that the peer tells; raises as `take`."""
        with self._inflow.lock:
            self._await(lambda: number in self._told, deadline, "did not say what it keeps")
            parts = self._told[number]
            if len(parts) != count:
                raise PeerError(f"{self._peer} sent a malformed frame", peer=self._peer)
            return parts

    def _is_here(self, step: int) -> bool:
        if self._filled[step] == len(self._buffers[step]):
            return True
        if not self._inflow.over:
            self._require_going(step)
        return False

    def _require_going(self, step: int) -> bool:
        """Raise what has ended the link; the peer disagrees about what was entered if it says so, and this party does
        not.  Returns False, as nothing has come by that."""
        self._inflow.check()
        if self._inflow.over:
            raise over_at(self._peer, self._coordinator)
        if self._entered is not None and step:
            raise IntegrityError(
                f"{self._peer} says that parties were not sent the same, and nothing of it is seen here",
                cause=f"somebody sent {self._peer} something else than the others, a party or an owner, or it lies",
                remedy="do not use this session's results; find out which party's software or disk was changed",
                peer=self._peer,
            )
        return False

    def _await(self, ready: Callable[[], bool], deadline: float, late: str) -> None:
        if not self._inflow.wait(ready, deadline, lambda: DeadlineError(f"{self._peer} {late}", peer=self._peer)):
            raise over_at(self._peer, self._coordinator)

    def fail(self, error: MpcError) -> None:
        """Nothing more will come: whoever waits gets this error."""
        self._inflow.fail(error)

    def end(self) -> None:
        """The peer closed its side in good order."""
        self._inflow.close()
