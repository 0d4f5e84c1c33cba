"""Coordinate a session in one open call to each party, where nobody else enters or receives anything.

A run then takes two messages to each party, where it took three calls: have it prepared, and be handed masks; then
enter x^ and wait for the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from parties.client.channels import Parties
from parties.client.conversation import Conversation, Turn
from parties.client.together import Together
from parties.pb.party_pb2 import (
    CoordinatePart,
    CoordinateReply,
    MasksReply,
    MasksRequest,
    PrepareReply,
    PrepareRequest,
    ResultPart,
    ResultRequest,
    SubmitHeader,
    WholeInput,
)
from parties.wire.transport import FRAME_BYTES

Found = TypeVar("Found")
_ROOM = 1 << 10
"""Bytes of a message beside an input: its header, and what else is asked."""


@dataclass(frozen=True)
class _Awaited(Generic[Found]):
    """One party's answer to one thing that was asked; read once, in the order in which all of them were asked."""

    turn: Turn[CoordinateReply]
    read: Callable[[CoordinateReply], Found]

    def result(self) -> Found:
        return self.read(next(self.turn))


class Conversing:
    """The open calls of one session to all parties.  One thread at a time uses it.

    Args:
        session: the session's id.
    """

    def __init__(self, parties: Parties, session: bytes) -> None:
        self._parties, self._id = parties, session
        self._open: list[Conversation[CoordinatePart, CoordinateReply]] = []
        self._together: Together | None = None
        self._held = list[WholeInput]()

    def prepare(self, request: PrepareRequest, seconds: float) -> list[_Awaited[PrepareReply]]:
        """Have every party prepare a run."""
        turns = self._ask(CoordinatePart(prepare=request, seconds=seconds), seconds)
        return [_Awaited(turn, lambda reply: reply.prepared) for turn in turns]

    def masks(self, run: int, seconds: float) -> list[_Awaited[MasksReply]]:
        """Ask every party for the masks of a run's inputs."""
        request = MasksRequest(session_id=self._id, run=run)
        turns = self._ask(CoordinatePart(masks=request, seconds=seconds), seconds)
        return [_Awaited(turn, lambda reply: reply.masks) for turn in turns]

    def fits(self, size: int) -> bool:
        """Does an input of so many bytes fit a message?"""
        return size + _ROOM <= FRAME_BYTES

    def enter(self, header: SubmitHeader, data: bytes, seconds: float) -> list[_Awaited[None]]:
        """Take an input that goes along with what is asked next; return the answers to those before, if they had to go
        alone."""
        sent: list[_Awaited[None]] = []
        if self._held and not self.fits(sum(len(each.data) + _ROOM for each in self._held) + len(data)):
            turns = self._ask(CoordinatePart(inputs=self._taken(), seconds=seconds), seconds)
            sent = [_Awaited(turn, lambda _: None) for turn in turns]
        self._held.append(WholeInput(header=header, data=data))
        return sent

    def results(self, run: int, seconds: float) -> list[Iterator[ResultPart]]:
        """Enter what was taken, and wait at every party for the run's end; z^ comes from the first one."""
        inputs, found = self._taken(), list[Iterator[ResultPart]]()
        for number, conversation in enumerate(self._conversations()):
            asked = ResultRequest(session_id=self._id, run=run, values=not number)
            part = CoordinatePart(inputs=inputs, result=asked, seconds=seconds)
            found.append(_parts(conversation.ask(part, seconds)))
        return found

    @property
    def calls(self) -> Sequence[Conversation[CoordinatePart, CoordinateReply]]:
        """Return the calls that are open, or have ended since they were used last."""
        return tuple(self._open)

    @property
    def together(self) -> Together | None:
        """All of its open calls; None before the first one."""
        return self._together

    def finish(self) -> None:
        """Say that nothing more will be asked; `forget` ends what still goes on."""
        for conversation in self._open:
            conversation.finish()

    def forget(self) -> None:
        """Let go of all calls, which cancels those that go on."""
        self._open, self._held = [], []

    def _ask(self, part: CoordinatePart, seconds: float) -> list[Turn[CoordinateReply]]:
        return [conversation.ask(part, seconds) for conversation in self._conversations()]

    def _taken(self) -> list[WholeInput]:
        taken, self._held = self._held, []
        return taken

    def _conversations(self) -> list[Conversation[CoordinatePart, CoordinateReply]]:
        """Return the open calls, or new ones if one has ended meanwhile: then the parties say why."""
        if not self._open or any(each.is_over for each in self._open):
            self._together = together = self._parties.together()
            self._open = [party.converse(lambda stub: stub.Coordinate, together) for party in self._parties.clients]
        return self._open


def _parts(turn: Turn[CoordinateReply]) -> Iterator[ResultPart]:
    for reply in turn:
        yield from reply.result
