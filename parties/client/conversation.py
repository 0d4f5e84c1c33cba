"""A call to one party that stays open: one asks, and is answered, as often as one likes, in messages instead of calls.

See `parties/wire/open_call.py`; here each question has a time within which its answers come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import grpc

from mpc.errors import PeerError, SessionError
from parties.alarms import ALARMS
from parties.client.together import given_up
from parties.wire.open_call import OpenCall
from parties.wire.status import late, was_cancelled

if TYPE_CHECKING:
    from parties.client.channels import PartyClient

Asked = TypeVar("Asked")


class Ending(Protocol):
    """An answer that says whether it is the last one to what was asked."""

    ended: bool


Answer = TypeVar("Answer", bound=Ending)


@contextmanager
def unless_closed() -> Iterator[None]:
    """Raise SessionError where gRPC says that the channel is closed."""
    try:
        yield
    except ValueError:
        raise SessionError("this client's connection is closed", remedy="connect again") from None


class Conversation(Generic[Asked, Answer]):
    """A call to one party that is open.  Letting go of it cancels the call.

    Args:
        call: to that party.
    """

    def __init__(self, party: PartyClient, call: OpenCall[Asked, Answer]) -> None:
        self.party, self._call, self._given_up = party, call, False

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be asked: see `OpenCall`."""
        with unless_closed():
            return self._call.is_over

    def ask(self, part: Asked, seconds: float) -> Turn[Answer]:
        """Ask something, answered within so many seconds; what was asked before is answered first."""
        self._call.ask(part)
        return Turn(self, seconds)

    def finish(self) -> None:
        """Say that nothing more will be asked."""
        self._call.finish()

    def cancel(self) -> None:
        """End the call at once."""
        self._call.cancel()

    def give_up(self) -> None:
        """End the call since another party's has ended, and this one says nothing: see `Together`."""
        self._given_up = True
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
            return next(self._call)
        except StopIteration:
            raise PeerError(f"{self.party.name} ended a call before it answered", peer=self.party.name) from None
        except grpc.RpcError as error:
            if self._given_up and was_cancelled(error):
                error.__traceback__ = None
                raise given_up(self.party.name) from None
            if rang:
                error.__traceback__ = None  # gRPC keeps the call that it raises, and so its frames
                raise late(self.party.name, self.party.address) from None
            raise self.party.explain(error) from None  # in no local: its frames may lead here, in a circle
        finally:
            alarm.cancel()


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
