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
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc

from mpc.errors import PeerError
from parties.trust.identity import Identity
from parties.wire.calls import OneReply, Replies, Unreachable
from parties.wire.dialling import Seen, look

FRESH = 30.0
"""Seconds without a call after which a certificate is looked at again."""


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
            now = time.monotonic()
            changed = self._identity.trust.lists != self._revocations
            if self._suspect or changed or now - self._used_at > FRESH:
                return None  # whoever asks next is told the same, until somebody has looked
            self._used_at = now
            return self._inner

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
        try:
            return looking.result()
        finally:
            del looking  # its error has this frame: a circle, with all that the callers hold

    def _look(self, looking: Future[grpc.Channel], seconds: float) -> None:
        try:
            revocations = self._identity.trust.lists
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
            self._end(looking).set_exception(Unreachable(error.again()))
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

    def ended(self, code: grpc.StatusCode | None) -> None:
        """Note how a call ended: after a lost connection, the process may come back with another certificate."""
        if code is grpc.StatusCode.UNAVAILABLE:
            self._suspect = True

    # -- as gRPC has it

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return OneReply(self, lambda inner: inner.unary_unary(method, *arguments, **options))

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return OneReply(self, lambda inner: inner.stream_unary(method, *arguments, **options))

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return Replies(self, lambda inner: inner.unary_stream(method, *arguments, **options))

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return a callable that makes the call."""
        return Replies(self, lambda inner: inner.stream_stream(method, *arguments, **options))

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
