"""Calls of a channel whose inner channel may change: each goes to the one that is current when it begins.

They take what the calls of gRPC's own channels take.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc

from mpc.errors import PeerError


class Unreachable(grpc.RpcError):
    """A call that was never made: `known` says why."""

    def __init__(self, known: PeerError) -> None:
        super().__init__(str(known))
        self.known = known


class Changing(Protocol):
    """A channel whose inner channel may change: `parties.wire.channels.Verified`."""

    def current(self) -> grpc.Channel | None:
        """Return the inner channel if it can be used at once."""

    def ready(self, timeout: float | None) -> grpc.Channel:
        """Return the inner channel, once it can be used."""

    def ended(self, code: grpc.StatusCode | None) -> None:
        """Note how a call ended."""


class _Method:
    """One method of a channel, on whichever inner channel is current.

    Args:
        make: the method's callable on an inner channel, one of gRPC's.
    """

    def __init__(self, channel: Changing, make: Callable[[grpc.Channel], Any]) -> None:
        self._channel, self._make = channel, make
        self._made: tuple[grpc.Channel, Any] | None = None

    def _on(self, inner: grpc.Channel) -> Any:
        made = self._made
        if made is None or made[0] is not inner:
            self._made = made = (inner, self._make(inner))
        return made[1]

    def _ready(self, timeout: float | None) -> tuple[Any, float | None]:
        """Return the inner channel's call, and what is left of the timeout."""
        started = time.monotonic()
        inner = self._channel.ready(timeout)
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
        return self._on(inner), left


class OneReply(_Method):
    """A call with one reply."""

    def __call__(self, request: Any, timeout: float | None = None, **more: Any) -> Any:
        call, left = self._ready(timeout)
        try:
            return call(request, timeout=left, **more)
        except grpc.RpcError as error:
            self._channel.ended(error.code())
            raise

    def with_call(self, request: Any, timeout: float | None = None, **more: Any) -> Any:
        """Make the call; return the reply and the call."""
        call, left = self._ready(timeout)
        return call.with_call(request, timeout=left, **more)

    def future(self, request: Any, timeout: float | None = None, **more: Any) -> Any:
        """Begin the call and return at once: a future, which fails with what the call would raise."""
        inner = self._channel.current()
        if inner is None:
            return _Pending(lambda: self._begin(*self._ready(timeout), request, more))
        return self._begin(self._on(inner), timeout, request, more)

    def _begin(self, call: Any, left: float | None, request: Any, more: dict[str, Any]) -> Any:
        future = call.future(request, timeout=left, **more)
        future.add_done_callback(lambda done: self._channel.ended(done.code()))
        return future


class Replies(_Method):
    """A call with a stream of replies."""

    def __call__(self, request: Any, timeout: float | None = None, **more: Any) -> Any:
        try:
            call, left = self._ready(timeout)
        except Unreachable as error:
            return _Failed(error.with_traceback(None))  # whoever reads these may be held by the frames that it passed
        replies = call(request, timeout=left, **more)
        channel, held = self._channel, weakref.ref(replies)  # whoever lets go of the replies cancels the call

        def ended() -> None:
            if (call := held()) is not None:
                channel.ended(call.code())

        if not replies.add_callback(ended):
            ended()
        return replies


class _Failed(Iterator[Any]):
    """Replies of a call that could not be made."""

    def __init__(self, error: Unreachable) -> None:
        self._error = error

    def __next__(self) -> Any:
        raise self._error

    def cancel(self) -> bool:
        """Return False: there is nothing to cancel."""
        return False

    def add_callback(self, _callback: Callable[[], None]) -> bool:
        """Return False: the call has ended already."""
        return False


class _Pending:
    """A future of a call that begins after a look at the certificate, in a thread that ends with that look."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        self._changed = threading.Condition()
        self._inner: Any = None
        self._error: Exception | None = None
        self._cancelled = False
        self._waiting: list[Callable[[Any], None]] = []
        threading.Thread(target=self._start, args=(begin,), name="dial", daemon=True).start()

    def _start(self, begin: Callable[[], Any]) -> None:
        inner: Any = None
        error: Exception | None = None
        try:
            inner = begin()
        except ValueError:  # the channel was closed meanwhile
            error = grpc.FutureCancelledError()
        except Exception as failed:  # told to whoever waits
            error = failed
        with self._changed:
            self._inner, self._error = inner, error
            waiting, self._waiting = self._waiting, []
            cancelled = self._cancelled
            self._changed.notify_all()
        if cancelled and inner is not None:
            inner.cancel()
        for tell in waiting:
            self.add_done_callback(tell)

    def _begun(self, timeout: float | None) -> Any:
        with self._changed:
            if not self._changed.wait_for(lambda: self._inner is not None or self._error is not None, timeout):
                raise grpc.FutureTimeoutError
            if self._cancelled:
                raise grpc.FutureCancelledError
            if self._error is not None:
                raise self._error
            return self._inner

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the reply."""
        return self._begun(timeout).result(timeout)

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait for the end; return what the call failed with, if it did."""
        try:
            error: Exception | None = self._begun(timeout).exception(timeout)
            return error
        except grpc.RpcError as failed:
            return failed

    def done(self) -> bool:
        """Is there a reply, or an error?"""
        with self._changed:
            return self._error is not None or (self._inner is not None and self._inner.done())

    def running(self) -> bool:
        """Has the call neither a reply nor an error yet?"""
        return not self.done()

    def cancelled(self) -> bool:
        """Was the call cancelled?"""
        return self._cancelled

    def cancel(self) -> bool:
        """End the call, or do not begin it."""
        with self._changed:
            self._cancelled, inner = True, self._inner
        return inner is None or inner.cancel()

    def code(self) -> grpc.StatusCode | None:
        """Return the status, once there is one."""
        with self._changed:
            return self._inner.code() if self._inner is not None else None

    def add_done_callback(self, tell: Callable[[Any], None]) -> None:
        """Call `tell` with a future once that is done: with this one, or the call's own."""
        with self._changed:
            inner, error = self._inner, self._error
            if inner is None and error is None:
                self._waiting.append(tell)
                return
        if error is not None:
            tell(self)
        else:
            inner.add_done_callback(tell)
