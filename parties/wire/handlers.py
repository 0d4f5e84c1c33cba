"""Answer a service's calls: who calls takes a place before anything is waited for, and hears of a failure in a status.

gRPC gives a call a thread as soon as it is there, before it has said anything.  So each call first shows who
calls, takes one of the few places that this caller has, and only then is waited for: for its message, for
others, for the disk.  Who has no part here, or has as many calls open as its share, is refused at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from mpc.errors import MpcError, PeerError, PolicyError
from mpc.text import shown
from parties import telemetry
from parties.alarms import ends_within
from parties.wire.desk import Desk
from parties.wire.status import to_detail
from parties.wire.transport import FRAME_BYTES, OVERHEAD, answered_in_time, caller

_STATUS = {2: grpc.StatusCode.INVALID_ARGUMENT, 4: grpc.StatusCode.PERMISSION_DENIED, 1: grpc.StatusCode.INTERNAL}

Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]
"""(reads a request, writes a reply)."""


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
