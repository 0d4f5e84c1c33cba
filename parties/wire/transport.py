"""gRPC under mutual TLS: channels to a named process, who is calling, and how long a call may take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import cast
from weakref import WeakKeyDictionary

import grpc

from mpc.errors import ConfigError, PeerError
from parties.addresses import Endpoint
from parties.trust.chains import is_loopback
from parties.trust.identity import Identity
from parties.wire.channels import Verified

FRAME_BYTES = 1 << 20
OVERHEAD = 1 << 16
WIRE = [("grpc.http2.max_frame_size", FRAME_BYTES)]
"""HTTP/2's own frames: as large as ours, a fifth less is spent on each byte than with the usual 16 KiB."""
# ------------------------------------------------------------------------------- bytes


# -------------------------------------------------------------------------- connections


def refuse_development_ca(identity: Identity, address: str) -> None:
    """Raise ConfigError if a certificate of the development CA would be used, or believed, beyond this machine."""
    if identity.trust.is_development and not is_loopback(Endpoint(address).host):
        raise ConfigError(
            f"{identity.name}'s CA is the development CA of a local cluster, and {address} is beyond this machine",
            cause="that CA's key lies in the cluster's folder: whoever reads it can become anyone",
            remedy="make a CA and certificates for several machines: mpc cert ca, mpc cert issue (docs/operating.md)",
        )


def connect(identity: Identity, name: str, address: str, seconds: float = 10.0) -> Verified:
    """Open a channel to the process that bears `name`; any other certificate fails before a call is made.

    seconds: that dialling may take; less where a call's own deadline is shorter.
    """
    refuse_development_ca(identity, address)

    def open_channel(believed: bytes, target: str) -> grpc.Channel:
        return grpc.secure_channel(
            target,
            grpc.ssl_channel_credentials(believed, identity.key_pem, identity.certificate_pem),
            options=[
                ("grpc.ssl_target_name_override", name),
                ("grpc.max_receive_message_length", FRAME_BYTES + OVERHEAD),
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_retries", 0),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),  # it is for the web, and would see who talks to whom
                *WIRE,
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )

    return Verified(identity, name, address, open_channel, seconds)


_answer_by: ContextVar[float | None] = ContextVar("answer_by", default=None)
_RESERVE, _LONGEST_RESERVE = 0.1, 2.0


def patience(seconds: float, context: grpc.ServicerContext | None = None) -> float:
    """Return the seconds that a wait inside a call may take: `seconds`, or less if the caller gives up before.

    So whoever waits for somebody else is the first to give up, and tells its own caller whom it waited for.

    Args:
        context: of a call with a stream of replies; a unary call's is known.
    """
    by = _answer_by.get() if context is None else _deadline(context)
    return seconds if by is None else max(0.0, min(seconds, by - time.monotonic()))


def _deadline(context: grpc.ServicerContext) -> float | None:
    """Return when a call has to be answered (monotonic seconds), some time before its caller gives up."""
    left = cast("float | None", context.time_remaining())  # None without a deadline, which gRPC's types leave out
    return None if left is None else _before(left)


def _before(left: float) -> float:
    return time.monotonic() + left - min(_RESERVE * left, _LONGEST_RESERVE)


def answered_in_time(context: grpc.ServicerContext) -> AbstractContextManager[None]:
    """Let `patience` know, in this block, when the call has to be answered."""
    return _answering(_deadline(context))


def answered_within(seconds: float) -> AbstractContextManager[None]:
    """Let `patience` know, in this block, for how long the caller waits for the answer to one of a call's messages.

    seconds: as the caller says; what is no time to wait, as 0, says nothing.
    """
    return _answering(_before(seconds) if 0 < seconds < math.inf else None)


@contextmanager
def _answering(by: float | None) -> Iterator[None]:
    token = _answer_by.set(by)
    try:
        yield
    finally:
        _answer_by.reset(token)


_SHOWN: WeakKeyDictionary[grpc.ServicerContext, Mapping[str, Sequence[bytes]]] = WeakKeyDictionary()
"""Keep what each call's TLS has shown: it is asked for several times a call, and gRPC makes it anew each time."""


def shown_by(context: grpc.ServicerContext, what: str) -> Sequence[bytes]:
    """Return what the caller's TLS has shown, by gRPC's name for it; nothing if it has shown none."""
    shown = _SHOWN.get(context)
    if shown is None:
        # gRPC's types say bytes, and it gives a list of them.
        shown = _SHOWN[context] = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    return shown.get(what, ())


def caller(context: grpc.ServicerContext) -> str:
    """Return the name in the caller's certificate, which its CA vouches for."""
    names = shown_by(context, "x509_common_name")
    if len(names) != 1:
        raise PeerError("the caller's certificate has no single name")
    return names[0].decode("utf-8", "replace")
