"""gRPC under mutual TLS: channels, who is calling, and errors that cross the wire; `server` has the other end.

A failed call carries one JSON object, `{"code", "what", "cause", "remedy", "peer", "heard_from"}`, as its
status detail; the other side turns it back into the same error class.  Anything unexpected
becomes the code `internal` and nothing else.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import grpc
import numpy as np

from mpc.errors import ConfigError, DeadlineError, MpcError, PeerError, by_code
from mpc.text import shown
from parties.config.models import Endpoint
from parties.trust.chains import is_loopback
from parties.trust.identity import Identity
from parties.wire.channels import Unreachable, Verified
from parties.wire.dialling import diagnose

PROTOCOL = 2
"""Version of everything in protos/ and of what is signed; peers must be equal."""

FRAME_BYTES = 1 << 20
OVERHEAD = 1 << 16
WIRE = [("grpc.http2.max_frame_size", FRAME_BYTES)]
"""HTTP/2's own frames: as large as ours, a fifth less is spent on each byte than with the usual 16 KiB."""
_LONGEST_TEXT = 2000

Reply = TypeVar("Reply")


# ------------------------------------------------------------------------------- bytes


def slices(data: bytes | memoryview) -> Iterator[memoryview]:
    """data, a flat sequence of bytes, in pieces of at most 1 MiB: views of it."""
    view = memoryview(data)
    return (view[start : start + FRAME_BYTES] for start in range(0, len(view), FRAME_BYTES))


def pieces(data: bytes | memoryview) -> Iterator[bytes]:
    """The same, copied."""
    return map(bytes, slices(data))


def collect(parts: Iterable[bytes | memoryview], size: int, what: str, peer: str) -> memoryview:
    """Exactly `size` bytes from pieces; `PeerError` if fewer or more come, before more is held."""
    out, filled = room(size), 0
    for part in parts:
        if filled + len(part) > size:
            raise PeerError(f"{what}: more than the {size} bytes it should have", peer=peer)
        out[filled : filled + len(part)] = part
        filled += len(part)
    if filled != size:
        raise PeerError(f"{what}: {filled} of {size} bytes arrived", peer=peer)
    return out.toreadonly()


def room(size: int) -> memoryview:
    """So many bytes to be written; an array's, since that comes in large pages."""
    return np.empty(size, dtype=np.uint8).data


# -------------------------------------------------------------------------- connections


def refuse_development_ca(identity: Identity, address: str) -> None:
    """ConfigError if a certificate of the development CA would be used, or believed, beyond this machine."""
    if identity.trust.is_development and not is_loopback(Endpoint(address).host):
        raise ConfigError(
            f"{identity.name}'s CA is the development CA of a local cluster, and {address} is beyond this machine",
            cause="that CA's key lies in the cluster's folder: whoever reads it can become anyone",
            remedy="make a CA and certificates for several machines: mpc cert ca, mpc cert issue (docs/operating.md)",
        )


def connect(identity: Identity, name: str, address: str, seconds: float = 10.0) -> grpc.Channel:
    """A channel to the process that bears `name`; any other certificate fails before a call is made.

    seconds: that dialling may take; less where a call's own deadline is shorter.
    """
    refuse_development_ca(identity, address)

    def open_channel(believed: bytes) -> grpc.Channel:
        return grpc.secure_channel(
            address,
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
    """Seconds that a wait inside a call may take: `seconds`, or less if the caller gives up before.

    So whoever waits for somebody else is the first to give up, and tells its own caller whom it waited for.

    Args:
        context: of a call with a stream of replies; a unary call's is known.
    """
    by = _answer_by.get() if context is None else _deadline(context)
    return seconds if by is None else max(0.0, min(seconds, by - time.monotonic()))


def _deadline(context: grpc.ServicerContext) -> float | None:
    """When a call has to be answered (monotonic seconds), some time before its caller gives up."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left - min(_RESERVE * left, _LONGEST_RESERVE)


@contextmanager
def answered_in_time(context: grpc.ServicerContext) -> Iterator[None]:
    """In this block `patience` knows when the call has to be answered."""
    token = _answer_by.set(_deadline(context))
    try:
        yield
    finally:
        _answer_by.reset(token)


def caller(context: grpc.ServicerContext) -> str:
    """The name in the caller's certificate, which its CA vouches for."""
    names = context.auth_context().get("x509_common_name", [])
    if len(names) != 1:
        raise PeerError("the caller's certificate has no single name")
    return names[0].decode("utf-8", "replace")


# ------------------------------------------------------------------------------- errors


def to_detail(error: MpcError) -> str:
    """The JSON object that travels."""
    fields = {key: getattr(error, key) for key in ("code", "what", "cause", "remedy", "peer", "heard_from")}
    return json.dumps({key: str(value)[:_LONGEST_TEXT] for key, value in fields.items() if value})


def from_rpc(error: grpc.RpcError, name: str, address: str, identity: Identity | None = None) -> MpcError:
    """The error that a failed call to `name` stands for.

    identity: ours; with it, a connection that was lost is tried once more, to say why it was.
    """
    error.__traceback__ = None  # gRPC raises the call itself, which whoever made it keeps: its frames would stay
    if isinstance(error, Unreachable):
        return error.known.again()
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    detail = (error.details() if isinstance(error, grpc.Call) else "") or ""
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(
            f"{name} at {address} did not answer in time",
            cause="it is busy or stopped, or the network between is; it says so itself if it waits for somebody else",
            remedy="mpc doctor; deadlines are in the configs",
            peer=name,
        )
    if code == grpc.StatusCode.UNAVAILABLE:
        return diagnose(identity, name, address)
    if code == grpc.StatusCode.CANCELLED:
        return PeerError(f"the call to {name} was cancelled", peer=name)
    return _from_detail(detail, name)


def _from_detail(detail: str, name: str) -> MpcError:
    try:
        fields = json.loads(detail)
        texts = {key: fields[key] for key in ("what", "cause", "remedy", "peer", "heard_from") if key in fields}
        if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts.values()):
            raise ValueError
        texts = {key: shown(text) for key, text in texts.items()}
        cls = by_code(str(fields["code"]))
        error = cls(texts.pop("what", "failed"), cause=texts.get("cause"), remedy=texts.get("remedy"))
        error.peer, error.heard_from = texts.get("peer", name), texts.get("heard_from")
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerError(f"the call to {name} failed", cause=shown(detail[:200]) or None, peer=name)
    if not re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-]|\.\w)", error.what):  # a path's part is no mention
        error.what = f"{name}: {error.what}"
    return error
