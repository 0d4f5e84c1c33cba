"""A call that stays open on this side: what is asked in it, as long as it and the server's certificate are good.

A thread of gRPC's sends what is asked; whoever waits for an answer reads it in a thread of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from parties.wire.channels import Verified

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class OpenCall(Generic[Asked, Answer]):
    """A call with a stream of what is asked and one of answers.  Letting go of it cancels the call.

    Args:
        channel: that it is made on.
        begin: makes the call, of an iterator of what is asked.
        ended: called with gRPC's own call, in a thread of gRPC's, once that is over.
    """

    def __init__(
        self,
        channel: Verified,
        begin: Callable[[Iterator[Asked]], Any],
        ended: Callable[[Any], None] = lambda call: None,
    ) -> None:
        self._channel, self._asked, over = channel, SimpleQueue[Asked | None](), list[bool]()
        self._call, self._over = begin(iter(self._asked.get, None)), over
        asked = self._asked

        def tell(call: Any) -> None:
            over.append(True)
            asked.put(None)  # the thread that sends ends
            ended(call)

        when_over(self._call, tell)
        self._shown = channel.current()

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be asked: the call has ended, or the server's certificate has to be looked at again,
        as before each call.

        Raises:
            ValueError: the channel is closed; as gRPC's.
        """
        shown = self._channel.current()
        return bool(self._over) or shown is None or shown is not self._shown

    def ask(self, part: Asked) -> None:
        """Ask something; it is answered behind what was asked before."""
        self._asked.put(part)

    def finish(self) -> None:
        """Say that nothing more will be asked."""
        self._asked.put(None)

    def cancel(self) -> None:
        """End the call at once."""
        self._call.cancel()

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        """Wait for the next answer; raises what gRPC raises."""
        answer: Answer = next(self._call)
        return answer


def when_over(call: Any, tell: Callable[[Any], None]) -> None:
    """Have `tell` called with a stream of gRPC's once it is over, in a thread of gRPC's; it is not kept alive by that.

    Whoever lets go of a stream cancels it, and then None is told: nobody waits for it any more.
    """
    held = weakref.ref(call)
    if not call.add_callback(lambda: tell(held())):
        tell(call)
