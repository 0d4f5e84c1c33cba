"""A daemon's server: threads for calls, every caller's share of them, and what it says of its health.

gRPC gives a call a thread as soon as it is there, before it has said anything.  So each call first shows who
calls, takes one of the few places that this caller has, and only then is waited for: for its message, for
others, for the disk.  Who has no part here, or has as many calls open as its share, is refused at once.

Calls of one kind share a desk, with threads of its own: the peers' streams, results that are waited for, health, and
all others never wait for each other.  A desk has `CALLERS` times the share of one caller, so one that takes all it can
leaves the others theirs.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2

from mpc.errors import ConfigError, MpcError, PeerError, PolicyError, SessionError
from mpc.text import shown
from parties import telemetry
from parties.addresses import Endpoint
from parties.alarms import ends_within
from parties.config.models import Limits
from parties.trust.identity import Identity
from parties.wire.callers import Callers
from parties.wire.status import to_detail
from parties.wire.transport import FRAME_BYTES, OVERHEAD, WIRE, answered_in_time, caller, refuse_development_ca

CALLERS = 4
"""Callers that may take all of their share at once before others wait."""
_STATUS = {2: grpc.StatusCode.INVALID_ARGUMENT, 4: grpc.StatusCode.PERMISSION_DENIED, 1: grpc.StatusCode.INTERNAL}
LASTING = frozenset({"/mpc.v1.Party/Coordinate", "/mpc.v1.Provider/Deals"})
"""Methods whose calls stay open and stand for many: who calls is looked at again behind each message."""
HEALTH_SHARE, HEALTH_SECONDS = 4, 10.0
"""Health checks of one caller that are answered at once, and what each may take to say what it asks."""
_RPCS_A_THREAD = 16
_STREAMS = 1 << 10
_PING_MS, _PING_TIMEOUT_MS = 60_000, 120_000
"""So that waiting calls of a machine that has vanished end; a slow link that is full may take that long to answer."""

Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]
"""(reads a request, writes a reply)."""


class Desk:
    """Threads for the calls of one kind, and each caller's share of them.  Thread-safe.

    Args:
        share: calls of one caller that are answered at once.
        callers: how many such shares there are threads for.
    """

    def __init__(self, name: str, share: int, callers: int = CALLERS) -> None:
        self.name, self.share = name, share
        self.threads = share * callers
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix=f"rpc-{name}")
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Take one of the caller's places, for the time of a call.

        Raises:
            SessionError: it has taken all of them.
        """
        with self._lock:
            if self._taken[client] >= self.share:
                raise SessionError(
                    f"{self.share} calls of {client} are being answered, as many as there are at once ({self.name})",
                    cause="it has more sessions at work than this process allows, or does not hang up",
                    remedy="wait for some to end, or raise limits.max_sessions",
                )
            self._taken[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[client] -= 1
                if not self._taken[client]:
                    del self._taken[client]

    def taken(self, client: str) -> int:
        """Count the places that a caller has now."""
        with self._lock:
            return self._taken[client]

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def register(
    server: grpc.Server,
    service: ServiceDescriptor,
    servicer: object,
    desk: Callable[[str], Desk],
    admit: Callable[[str, str], None],
    seconds: float,
    codecs: Mapping[str, Codec] | None = None,
) -> None:
    """Answer a service's calls with the methods of `servicer` that bear their names.

    Args:
        desk: for a method's name.
        admit: given a method and a caller; raises if this caller has no part in it.
        seconds: that a call's first message may take.
        codecs: by method, where they are not protobuf's own.
    """
    handlers = {}
    for method in service.methods:
        behaviour = getattr(servicer, method.name, None)
        if behaviour is not None:
            codec = (codecs or {}).get(method.name) or _codec(method)
            handlers[method.name] = _handler(method, behaviour, desk(method.name), admit, seconds, codec)
    server.add_registered_method_handlers(service.full_name, handlers)


class _TooLong:
    """A message that is longer than those of its method may be, unread."""


def _carries_plan(message: Descriptor, within: tuple[str, ...] = ()) -> bool:
    """Does it have a plan in it?  No other message is longer than a piece of an input."""
    return any(
        (field.name == "plan" and field.type == field.TYPE_BYTES)
        or (
            field.message_type is not None
            and field.message_type.full_name not in within
            and _carries_plan(field.message_type, (*within, message.full_name))
        )
        for field in message.fields
    )


def _held(method: MethodDescriptor, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Hold a method's messages to their length: the server's own limit is that of a plan."""
    if _carries_plan(method.input_type):
        return read
    return lambda data: read(data) if len(data) <= FRAME_BYTES + OVERHEAD else _TooLong()


def _codec(method: MethodDescriptor) -> Codec:
    return GetMessageClass(method.input_type).FromString, GetMessageClass(method.output_type).SerializeToString


def _handler(
    method: MethodDescriptor,
    behaviour: Callable[[Any, grpc.ServicerContext], Any],
    desk: Desk,
    admit: Callable[[str, str], None],
    seconds: float,
    codec: Codec,
) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler whose requests are a stream for gRPC, also where there is one: so nothing is waited for before a
    place is taken.  On the wire it makes no difference."""

    @contextmanager
    def answering(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        client = caller(context)
        admit(method.name, client)
        with desk.place(client):
            own = _until_hung_up(requests)
            yield own if method.client_streaming else _first(own, context, client, seconds)

    def one(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        try:
            with answering(requests, context) as request, answered_in_time(context):
                return behaviour(request, context)
        except Exception as error:
            failure = _failure(context, error, method.name)
        context.abort(*failure)

    def many(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            with answering(requests, context) as request:
                yield from behaviour(request, context)
            return
        except Exception as error:
            failure = _failure(context, error, method.name)
        context.abort(*failure)

    read, write = codec
    if method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(_Pooled(many, desk.pool), _held(method, read), write)
    return grpc.stream_unary_rpc_method_handler(_Pooled(one, desk.pool), _held(method, read), write)


class _Pooled:
    """A handler's behaviour, and the threads that gRPC runs it in: it looks for an attribute of that name."""

    def __init__(self, behaviour: Callable[[Iterator[Any], grpc.ServicerContext], Any], pool: ThreadPoolExecutor):
        self.behaviour, self.experimental_thread_pool = behaviour, pool

    def __call__(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return self.behaviour(requests, context)


class _HungUp(Exception):
    """An error of a call whose caller, or whose connection, is gone: nobody waits for an answer."""


def _until_hung_up(requests: Iterator[Any]) -> Iterator[Any]:
    """Pass on what the caller sends; raise an error of this process's own when the call is over.

    gRPC keeps the error that it raises here in the call's state, which that error's own frames hold: a circle.  With
    its traceback, whatever its frames hold - a link, a session's secrets - would stay until the collector comes round.
    """
    try:
        for request in requests:
            if isinstance(request, _TooLong):
                raise PeerError("the call brought a message that is longer than a piece of an input may be")
            yield request
    except grpc.RpcError as error:
        error.__traceback__ = None
        raise _HungUp from None


def _first(requests: Iterator[Any], context: grpc.ServicerContext, client: str, seconds: float) -> Any:
    with ends_within(context, seconds):
        for request in requests:
            return request
    raise PeerError("the call brought no message", peer=client)


def _failure(context: grpc.ServicerContext, error: Exception, method: str) -> tuple[grpc.StatusCode, str]:
    """Turn an error into the status that the caller is told, and log it: so many a minute for each caller.

    The log also has what only the operator is told: the cause of a refusal says which line of the policy would allow
    it. Unexpected errors are logged without values."""
    if isinstance(error, _HungUp):
        return grpc.StatusCode.CANCELLED, ""
    if not isinstance(error, MpcError):
        state: Any = context  # whose code gRPC's types leave out
        if state.code() is not None or not context.is_active():
            raise error  # the call has ended already
        telemetry.logger().error("unexpected error", exc_info=error)
        error = MpcError("an internal error; the process's own log has more")
    else:
        own = error.__cause__ if isinstance(error.__cause__, MpcError) else error
        client, level = shown_caller(context), logging.WARNING if isinstance(error, PolicyError) else logging.INFO
        event = "refused by policy" if isinstance(error, PolicyError) else "a call failed"
        fields = {"call": method, "caller": client, "address": context.peer(), "code": error.code, "why": str(own)}
        telemetry.rationed((client, error.code), level, event, **fields)
    return _STATUS.get(error.exit_code, grpc.StatusCode.FAILED_PRECONDITION), to_detail(discreet(error))


def shown_caller(context: grpc.ServicerContext) -> str:
    """Return the caller's name for the log; empty if its certificate has none."""
    try:
        return shown(caller(context))
    except MpcError:
        return ""


def discreet(error: MpcError) -> MpcError:
    """Return an error as callers are told it: one that names paths of this machine stays in this process's log."""
    if not error.local:
        return error
    return type(error)(
        "a fault of its own disk or configuration",
        cause="the process's own log has more",
        remedy="ask its operator",
    )


# -------------------------------------------------------------------------------- health


class _Health:
    """`grpc.health.v1.Health`, of which only `Check` is offered: what waits for a change holds memory."""

    def __init__(self, status: health.HealthServicer) -> None:
        self._status = status

    def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Any:
        return self._status.Check(request, context)


class Server:
    """A started server; see the module.

    Args:
        desks: that it closes with itself.
    """

    def __init__(self, server: grpc.Server, status: health.HealthServicer, desks: Iterable[Desk]) -> None:
        self._server, self._status, self._desks = server, status, tuple(desks)

    def set_health(self, well: bool) -> None:
        """Set the answer to health checks; once it drains, that stays NOT_SERVING."""
        states = health_pb2.HealthCheckResponse
        self._status.set("", states.SERVING if well else states.NOT_SERVING)

    def drain(self) -> None:
        """Say from now on that this process is on its way out."""
        self._status.enter_graceful_shutdown()

    def stop(self, grace: float) -> None:
        """Take no more calls, end those that go on after `grace` seconds; returns when all have ended."""
        self.drain()
        self._server.stop(grace).wait()
        for desk in self._desks:
            desk.close()


def largest_message(limits: Limits) -> int:
    """Return the bytes of the largest message that a daemon takes: a plan, or a piece of an input."""
    return max(limits.max_plan_bytes, FRAME_BYTES)


def serve(
    identity: Identity,
    address: Endpoint,
    register_all: Callable[[grpc.Server], None],
    largest: int,
    desks: Iterable[Desk] = (),
) -> Server:
    """Start a server that accepts only certificates of its own CA, and of these only those that `Callers` does.

    Args:
        register_all: adds the services.
        largest: bytes of the largest message it accepts.
        desks: of the services.

    Raises:
        ConfigError: the port is taken, or a development certificate would be shown to other machines.
    """
    refuse_development_ca(identity, address)
    control = Desk("health", HEALTH_SHARE)
    desks = (*desks, control)
    threads = sum(desk.threads for desk in desks)
    server = grpc.server(
        ThreadPoolExecutor(max_workers=64, thread_name_prefix="rpc"),
        interceptors=[Callers(identity.trust, _refuse_caller, lasting=LASTING)],
        maximum_concurrent_rpcs=_RPCS_A_THREAD * threads,
        options=[
            ("grpc.max_receive_message_length", largest + OVERHEAD),
            ("grpc.max_send_message_length", largest + OVERHEAD),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
            ("grpc.so_reuseport", 0),
            *WIRE,
        ],
    )
    register_all(server)
    status = health.HealthServicer()
    checks = health_pb2.DESCRIPTOR.services_by_name["Health"]
    register(server, checks, _Health(status), lambda _: control, lambda *_: None, HEALTH_SECONDS)
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
    started = Server(server, status, desks)
    started.set_health(True)
    return started


def _refuse_caller(context: grpc.ServicerContext, name: str, fault: str) -> NoReturn:
    fields = {"caller": shown(name), "address": context.peer(), "why": fault}
    telemetry.rationed((shown(name),), logging.WARNING, "refused a caller's certificate", **fields)
    error = PolicyError(
        f"the certificate of {name!r} {fault}", remedy="have the CA issue another one; docs/operating.md says what for"
    )
    context.abort(grpc.StatusCode.UNAUTHENTICATED, to_detail(error))
