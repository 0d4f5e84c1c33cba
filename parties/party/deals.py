"""A session's open call to the provider: it is asked for one bundle after another.

Of one bundle at a time something is on its way.  Whoever gives that up ends the call, since what is still to come of it
cannot be told from what follows; nothing else of such a session is dealt.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from parties.pb.provider_pb2 import DealPart, DealRequest
from parties.wire import frames
from parties.wire.channels import Verified
from parties.wire.frames import Chunk
from parties.wire.open_call import OpenCall

Part = DealPart | Chunk


class OneBundle(Iterator[Part]):
    """Parts of one bundle, as the provider sends them: they end behind so many statements, or with the call."""

    def __init__(self, call: OpenCall[DealRequest, Part], statements: int) -> None:
        self._call, self._left = call, statements

    def __next__(self) -> Part:
        if not self._left:
            raise StopIteration
        part = next(self._call)
        if not isinstance(part, Chunk) and part.WhichOneof("part") in ("end", "segment"):
            self._left -= 1
        return part

    def cancel(self) -> None:
        """End the call, unless all of the bundle has come."""
        if self._left:
            self._call.cancel()


class Deals:
    """The open calls of all sessions to the provider.  Thread-safe.

    Args:
        channel: to the provider.
    """

    def __init__(self, channel: Verified) -> None:
        self._channel = channel
        self._open: dict[bytes, OpenCall[DealRequest, Part]] = {}
        self._lock = threading.Lock()

    def ask(self, request: DealRequest, statements: int) -> OneBundle:
        """Ask for a bundle, behind which so many statements come; the one before it has come, or is given up."""
        with self._lock:
            call = self._open.get(request.session_id)
        if call is None or call.is_over:
            call = OpenCall(self._channel, lambda requests: frames.deals(self._channel, requests))
            with self._lock:
                self._open[request.session_id] = call
        call.ask(request)
        return OneBundle(call, statements)

    def finish(self, session_id: bytes) -> None:
        """End the call of a session that is over."""
        with self._lock:
            call = self._open.pop(session_id, None)
        if call is not None:
            call.cancel()
