"""A call to one party that stays open: one asks, and is answered, as often as one likes, in messages instead of calls.

A thread of gRPC's sends what is asked; whoever waits for an answer reads it in a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import grpc

from mpc.errors import MpcError, PeerError
from parties.alarms import ALARMS
from parties.wire.status import late

if TYPE_CHECKING:
    from parties.client.channels import PartyClient

Asked = TypeVar("Asked")


class Ending(Protocol):
    """An answer that says whether it is the last one to what was asked."""

    ended: bool


Answer = TypeVar("Answer", bound=Ending)


class Conversation(Generic[Asked, Answer]):
    """A call that is open.  Letting go of it cancels the call.

    Args:
        begin: makes the call, of an iterator of what is asked.
        ended: called, in a thread of gRPC's, once the call is over.
    """

    def __init__(self, party: PartyClient, begin: Callable[[Iterator[Asked]], Any], ended: Callable[[], None]) -> None:
        self.party, self._asked, over = party, SimpleQueue[Asked | None](), list[bool]()
        self._call, self._over = begin(iter(self._asked.get, None)), over
        asked = self._asked

        def tell() -> None:
            over.append(True)
            asked.put(None)  # the thread that sends ends
            ended()

        if not self._call.add_callback(tell):
            tell()
        self._shown = party.shown()

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be asked: the call has ended, or the party's certificate has to be looked at again,
        as before each call."""
        shown = self.party.shown()
        return bool(self._over) or shown is None or shown is not self._shown

    def ask(self, part: Asked, seconds: float) -> Turn[Answer]:
        """Ask something, answered within so many seconds; what was asked before is answered first."""
        self._asked.put(part)
        return Turn(self, seconds)

    def finish(self) -> None:
        """Say that nothing more will be asked."""
        self._asked.put(None)

    def cancel(self) -> None:
        """End the call at once."""
        self._call.cancel()

    def next(self, by: float) -> Answer:
        """Wait for the next answer.

        Args:
            by: monotonic seconds.

        Raises:
            MpcError: what the call has ended with, or that nothing came in time; it names the party.
        """
        rang: list[bool] = []

        def ring() -> None:
            rang.append(True)
            self._call.cancel()

        alarm = ALARMS.set(max(0.0, by - time.monotonic()), ring)
        try:
            answer: Answer = next(self._call)
            return answer
        except StopIteration:
            raise PeerError(f"{self.party.name} ended a call before it answered", peer=self.party.name) from None
        except grpc.RpcError as error:
            raise self._explain(error, bool(rang)) from None
        finally:
            alarm.cancel()

    def _explain(self, error: grpc.RpcError, rang: bool) -> MpcError:
        found = self.party.explain(error)
        return late(self.party.name, self.party.address) if rang else found


class Turn(Iterator[Answer]):
    """Answers to one thing that was asked, as they come."""

    def __init__(self, conversation: Conversation[Any, Answer], seconds: float) -> None:
        self._conversation, self._by, self._ended = conversation, time.monotonic() + seconds, False

    def __next__(self) -> Answer:
        if self._ended:
            raise StopIteration
        answer = self._conversation.next(self._by)
        self._ended = answer.ended
        return answer
