"""A daemon's server: who may call it at all, how much it takes, and what it says of its health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2

from mpc.errors import ConfigError, PolicyError
from mpc.text import shown
from parties import telemetry
from parties.addresses import Endpoint
from parties.config.models import Limits
from parties.trust.identity import Identity
from parties.wire.callers import Callers
from parties.wire.desk import Desk
from parties.wire.handlers import register
from parties.wire.status import to_detail
from parties.wire.transport import FRAME_BYTES, OVERHEAD, WIRE, refuse_development_ca

LASTING = frozenset({"/mpc.v1.Party/Coordinate", "/mpc.v1.Provider/Deals"})
"""Methods whose calls stay open and stand for many: who calls is looked at again behind each message."""
HEALTH_SHARE, HEALTH_SECONDS = 4, 10.0
"""Health checks of one caller that are answered at once, and what each may take to say what it asks."""
_RPCS_A_THREAD = 16
_STREAMS = 1 << 10
_PING_MS, _PING_TIMEOUT_MS = 60_000, 120_000
"""So that waiting calls of a machine that has vanished end; a slow link that is full may take that long to answer."""


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
