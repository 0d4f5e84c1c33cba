"""Channels to processes whose certificates have been looked at, all of them, before the first byte of a call.

gRPC verifies a server's chain and finds the name that is dialled among its certificate's DNS names; it does not look
at the CN, nor at revocation lists, and tells nobody which certificate it saw.  So a channel here dials first with
Python's TLS (`parties/wire/dialling.py`), judges that certificate, and then gives gRPC nothing to believe in but that
very certificate: any other fails gRPC's own handshake, whoever issued it.  gRPC dials the very address, too: a host
name may lead to several servers, and a channel stays with the one that was looked at.

The certificate is looked at again after a failure, after some seconds without a call, and when a revocation list has
changed; so a process may be restarted with another one.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import grpc

from mpc.errors import PeerError
from parties.trust.identity import Identity
from parties.wire.dialling import Seen, look

_FRESH = 30.0
"""Seconds without a call after which a certificate is looked at again."""


class Unreachable(grpc.RpcError):
    """A call that was never made: `known` says why."""

    def __init__(self, known: PeerError) -> None:
        super().__init__(str(known))
        self.known = known


class Verified(grpc.Channel):
    """A channel to `name` at `address`.  Thread-safe.

    Its calls take what those of gRPC's own channels take; what `Unreachable` would say is raised as one.

    Args:
        open_channel: gRPC's own channel, that believes in one certificate (PEM) alone, to a target without a name.
        seconds: that dialling may take; less where a call's own deadline is shorter.
    """

    def __init__(
        self,
        identity: Identity,
        name: str,
        address: str,
        open_channel: Callable[[bytes, str], grpc.Channel],
        seconds: float,
    ) -> None:
        self._seconds = seconds
        self._identity, self._name, self._address, self._open = identity, name, address, open_channel
        self._lock = threading.Lock()
        self._inner: grpc.Channel | None = None
        self._outdated: list[grpc.Channel] = []  # calls may still be on their way in these
        self._seen: Seen | None = None
        self._looking: Future[grpc.Channel] | None = None
        self._used_at = 0.0
        self._revocations = 0
        self._suspect = self._closed = False

    # -- which channel

    def current(self) -> grpc.Channel | None:
        """Return the inner channel if its certificate needs no look now.

        Raises:
            ValueError: the channel is closed; as gRPC's.
        """
        with self._lock:
            if self._closed:
                raise ValueError("the channel is closed")
            now, used_at = time.monotonic(), self._used_at
            self._used_at = now
            changed = self._lists() != self._revocations
            return None if self._suspect or changed or now - used_at > _FRESH else self._inner

    def ready(self, timeout: float | None) -> grpc.Channel:
        """Return the inner channel, after a look at the certificate if it is time for one.

        Callers that come during a look wait for its outcome.

        Raises:
            Unreachable: why there is no connection, or no acceptable certificate.
        """
        inner = self.current()
        if inner is not None:
            return inner
        with self._lock:
            mine = self._looking is None
            looking = self._looking = self._looking or Future()
        if mine:
            self._look(looking, self._seconds if timeout is None else min(self._seconds, timeout))
        return looking.result()

    def _look(self, looking: Future[grpc.Channel], seconds: float) -> None:
        try:
            revocations = self._lists()
            before = "" if self._seen is None else self._seen.target
            seen = look(self._identity, self._name, self._address, seconds, before)
            with self._lock:
                if self._closed:
                    raise ValueError("the channel is closed")
                if self._inner is None or seen != self._seen:
                    self._outdated += [self._inner] if self._inner is not None else []
                    self._inner, self._seen = self._open(seen.certificate, seen.target), seen
                self._suspect, self._revocations = False, revocations
                inner = self._inner
        except PeerError as error:
            self._suspect = True  # the next call looks again
            self._end(looking).set_exception(Unreachable(error))
        except BaseException as error:
            self._end(looking).set_exception(error)
            raise
        else:
            self._end(looking).set_result(inner)

    def _end(self, looking: Future[grpc.Channel]) -> Future[grpc.Channel]:
        with self._lock:
            self._looking = None
            self._used_at = time.monotonic()
        return looking

    def _lists(self) -> int:
        revoked = self._identity.trust.revoked
        return 0 if revoked is None else revoked.refresh()

    def ended(self, code: grpc.StatusCode | None) -> None:
        """Note how a call ended: after a lost connection, the process may come back with another certificate."""
        if code is grpc.StatusCode.UNAVAILABLE:
            self._suspect = True

    # -- as gRPC has it

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return _OneReply(self, "unary_unary", method, arguments, options)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return _OneReply(self, "stream_unary", method, arguments, options)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return _Replies(self, "unary_stream", method, arguments, options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return _Replies(self, "stream_stream", method, arguments, options)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """Tell `callback` of gRPC's own connection; dials first if there is none."""
        self.ready(None).subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Undo `subscribe`."""
        if self._inner is not None:
            self._inner.unsubscribe(callback)

    def close(self) -> None:
        """End all calls; safe to call twice."""
        with self._lock:
            self._closed = True
            every, self._inner, self._outdated = [*self._outdated, self._inner], None, []
        for inner in every:
            if inner is not None:
                inner.close()

    def __enter__(self) -> Verified:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Method:
    """One method of a `Verified` channel, on whichever inner channel is current."""

    def __init__(
        self, channel: Verified, kind: str, method: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._channel, self._kind = channel, kind
        self._method, self._arguments, self._options = method, arguments, options
        self._made: tuple[grpc.Channel, Any] | None = None

    def _on(self, inner: grpc.Channel) -> Any:
        made = self._made
        if made is None or made[0] is not inner:
            call = getattr(inner, self._kind)(self._method, *self._arguments, **self._options)
            self._made = made = (inner, call)
        return made[1]

    def _ready(self, timeout: float | None) -> tuple[Any, float | None]:
        """(the inner channel's call, what is left of the timeout)."""
        started = time.monotonic()
        inner = self._channel.ready(timeout)
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
        return self._on(inner), left


class _OneReply(_Method):
    """A call with one reply."""

    def __call__(self, request: Any, timeout: float | None = None, **more: Any) -> Any:
        call, left = self._ready(timeout)
        try:
            return call(request, timeout=left, **more)
        except grpc.RpcError as error:
            self._channel.ended(error.code())
            raise

    def with_call(self, request: Any, timeout: float | None = None, **more: Any) -> Any:
        """The reply, and the call."""
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


class _Replies(_Method):
    """A call with a stream of replies."""

    def __call__(self, request: Any, timeout: float | None = None, **more: Any) -> Any:
        try:
            call, left = self._ready(timeout)
        except Unreachable as error:
            return _Failed(error)
        replies = call(request, timeout=left, **more)
        channel, held = self._channel, weakref.ref(replies)  # whoever lets go of the replies cancels the call

        def ended() -> None:
            if (call := held()) is not None:
                channel.ended(call.code())

        if not replies.add_callback(ended):
            ended()
        return replies


class _Failed(Iterator[Any]):
    """The replies of a call that could not be made."""

    def __init__(self, error: Unreachable) -> None:
        self._error = error

    def __next__(self) -> Any:
        raise self._error

    def cancel(self) -> bool:
        """There is nothing to cancel."""
        return False

    def add_callback(self, _callback: Callable[[], None]) -> bool:
        """It has ended already."""
        return False


class _Pending:
    """The future of a call that begins after a look at the certificate, in a thread that ends with that look."""

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
        """Wait for the end; what the call failed with, if it did."""
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
        """Is neither there yet?"""
        return not self.done()

    def cancelled(self) -> bool:
        """Was it cancelled?"""
        return self._cancelled

    def cancel(self) -> bool:
        """End the call, or do not begin it."""
        with self._changed:
            self._cancelled, inner = True, self._inner
        return inner is None or inner.cancel()

    def code(self) -> grpc.StatusCode | None:
        """The status, once there is one."""
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
