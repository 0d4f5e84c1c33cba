"""gRPC under mutual TLS: servers, channels, who is calling, and errors that cross the wire.

A failed call carries one JSON object, `{"code", "what", "cause", "remedy", "peer"}`, as its
status detail; the other side turns it back into the same error class.  Anything unexpected
becomes the code `internal` and nothing else.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mpc.errors import ConfigError, DeadlineError, MpcError, PeerError, PolicyError, by_code
from mpc.text import shown
from parties import telemetry
from parties.callers import Callers
from parties.certificates import Identity
from parties.channels import Unreachable, Verified
from parties.config import Endpoint
from parties.dialling import diagnose
from parties.trust import is_loopback

PROTOCOL = 2
"""Version of everything in protos/ and of what is signed; peers must be equal."""

FRAME_BYTES = 1 << 20
_OVERHEAD = 1 << 16
_WIRE = [("grpc.http2.max_frame_size", FRAME_BYTES)]
"""HTTP/2's own frames: as large as ours, a fifth less is spent on each byte than with the usual 16 KiB."""
_LONGEST_TEXT = 2000
_PATH = re.compile(r"(?<![\w.:/])/[\w.~-]")
"""The beginning of an absolute path."""
_STATUS = {2: grpc.StatusCode.INVALID_ARGUMENT, 4: grpc.StatusCode.PERMISSION_DENIED, 1: grpc.StatusCode.INTERNAL}

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


def serve(
    identity: Identity,
    address: Endpoint,
    register: Callable[[grpc.Server], None],
    largest: int,
    workers: int = 64,
) -> grpc.Server:
    """A started server that accepts only certificates of its own CA, and of these only those that `Callers` does.

    Args:
        register: adds the services.
        largest: bytes of the largest message it accepts.
        workers: calls answered at once; as many again may wait, more are turned away.

    Raises:
        ConfigError: the port is taken, or a development certificate would be shown to other machines.
    """
    refuse_development_ca(identity, address)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=workers, thread_name_prefix="rpc"),
        interceptors=[Callers(identity.trust, _refuse_caller)],
        maximum_concurrent_rpcs=2 * workers,
        options=[
            ("grpc.max_receive_message_length", largest + _OVERHEAD),
            ("grpc.max_send_message_length", largest + _OVERHEAD),
            ("grpc.so_reuseport", 0),
            *_WIRE,
        ],
    )
    register(server)
    status = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    credentials = grpc.ssl_server_credentials(
        [(identity.key_pem, identity.certificate_pem)], root_certificates=identity.ca_pem, require_client_auth=True
    )
    try:
        bound = server.add_secure_port(address, credentials)
    except RuntimeError:
        bound = 0
    if not bound:
        raise ConfigError(
            f"cannot listen on {address}",
            cause="the port is in use, or the address is not this machine's",
            remedy="stop what uses it, or set another listen address",
        )
    server.start()
    status.set("", health_pb2.HealthCheckResponse.SERVING)
    return server


def refuse_development_ca(identity: Identity, address: str) -> None:
    """ConfigError if a certificate of the development CA would be used, or believed, beyond this machine."""
    if identity.trust.is_development and not is_loopback(Endpoint(address).host):
        raise ConfigError(
            f"{identity.name}'s CA is the development CA of a local cluster, and {address} is beyond this machine",
            cause="that CA's key lies in the cluster's folder: whoever reads it can become anyone",
            remedy="make a CA and certificates for several machines: mpc cert ca, mpc cert issue (docs/operating.md)",
        )


def _refuse_caller(context: grpc.ServicerContext, name: str, fault: str) -> NoReturn:
    telemetry.logger().warning("refused a caller's certificate", caller=name, address=context.peer(), why=fault)
    error = PolicyError(
        f"the certificate of {name!r} {fault}", remedy="have the CA issue another one; docs/operating.md says what for"
    )
    context.abort(grpc.StatusCode.UNAUTHENTICATED, to_detail(error))


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
                ("grpc.max_receive_message_length", FRAME_BYTES + _OVERHEAD),
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_retries", 0),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),  # it is for the web, and would see who talks to whom
                *_WIRE,
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
def ends_within(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel the call if the block takes longer: a caller that opens a stream and is silent holds a thread."""
    timer = threading.Timer(seconds, context.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def caller(context: grpc.ServicerContext) -> str:
    """The name in the caller's certificate, which its CA vouches for."""
    names = context.auth_context().get("x509_common_name", [])
    if len(names) != 1:
        raise PeerError("the caller's certificate has no single name")
    return names[0].decode("utf-8", "replace")


# ------------------------------------------------------------------------------- errors


def answers(method: Callable[..., Reply]) -> Callable[..., Reply]:
    """Turn what a unary handler raises into a status; log what was unexpected, without values."""

    @functools.wraps(method)
    def wrapped(self: Any, request: Any, context: grpc.ServicerContext) -> Reply:
        token = _answer_by.set(_deadline(context))
        try:
            return method(self, request, context)
        except Exception as error:
            _fail(context, error)
        finally:
            _answer_by.reset(token)

    return wrapped


def streams(method: Callable[..., Iterator[Reply]]) -> Callable[..., Iterator[Reply]]:
    """The same for a handler that yields its replies."""

    @functools.wraps(method)
    def wrapped(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Reply]:
        try:
            yield from method(self, request, context)
        except Exception as error:
            _fail(context, error)

    return wrapped


def _fail(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    if not isinstance(error, MpcError):
        if context.code() is not None or not context.is_active():
            raise error  # the call has ended already
        telemetry.logger().error("unexpected error", exc_info=error)
        error = MpcError("an internal error; the process's own log has more")
    status = _STATUS.get(error.exit_code, grpc.StatusCode.FAILED_PRECONDITION)
    context.abort(status, to_detail(_discreet(error)))


def _discreet(error: MpcError) -> MpcError:
    """An error as callers are told it: one that names a path of this machine stays in this process's log."""
    if not any(_PATH.search(text) for text in error.lines()):
        return error
    telemetry.logger().error("an error that callers are not told", code=error.code, why=str(error))
    return type(error)(
        "a fault of its own disk or configuration",
        cause="the process's own log has more",
        remedy="ask its operator",
    )


def to_detail(error: MpcError) -> str:
    """The JSON object that travels."""
    fields = {key: getattr(error, key) for key in ("code", "what", "cause", "remedy", "peer")}
    return json.dumps({key: str(value)[:_LONGEST_TEXT] for key, value in fields.items() if value})


def from_rpc(error: grpc.RpcError, name: str, address: str, identity: Identity | None = None) -> MpcError:
    """The error that a failed call to `name` stands for.

    identity: ours; with it, a connection that was lost is tried once more, to say why it was.
    """
    if isinstance(error, Unreachable):
        return error.known
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
        texts = {key: fields[key] for key in ("what", "cause", "remedy", "peer") if key in fields}
        if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts.values()):
            raise ValueError
        texts = {key: shown(text) for key, text in texts.items()}
        cls = by_code(str(fields["code"]))
        error = cls(texts.pop("what", "failed"), cause=texts.get("cause"), remedy=texts.get("remedy"))
        error.peer = texts.get("peer", name)
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerError(f"the call to {name} failed", cause=shown(detail[:200]) or None, peer=name)
    if not re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-]|\.\w)", error.what):  # a path's part is no mention
        error.what = f"{name}: {error.what}"
    return error
