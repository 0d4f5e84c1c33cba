"""The two daemons' lives: load, serve, say so, and stop in good order on SIGTERM or SIGINT.

Each imports its own services only, and loads the kernels that its role uses.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc

import mpc
from mpc import kernel_cache, kernels
from mpc.errors import ConfigError, EntropyError
from parties import entropy, telemetry
from parties.config.models import PartyConfig, ProviderConfig
from parties.local import launcher
from parties.process import lock, native
from parties.process.heap import keep_memory, loading
from parties.process.private_memory import keep_private
from parties.process.watch import Watch
from parties.telemetry import Counters
from parties.trust.identity import Identity, private_folder
from parties.wire.server import Desk, largest_message, serve

if TYPE_CHECKING:
    from parties.party.node import PartyNode
    from parties.provider.service import ProviderService

_GRACE = 2.0
_TICK = 1.0


def run_party(config: PartyConfig) -> None:
    """Serve as a party until told to stop.

    Raises:
        ConfigError: certificates, ledger or port.
    """
    with loading():
        from parties.party.ledger.sessions import Ledger
        from parties.party.node import PartyNode
        from parties.party.services import PartyDesks, PartyService, PeerService

    with ExitStack() as stack:
        counters = _begin(config, stack)
        identity = Identity.load(config.tls, config.name, members=config.machines, serves=True)
        ledger = stack.enter_context(Ledger.open(config.data_dir))
        life = _Life()
        node = PartyNode(config, identity, ledger, counters, life.draw)
        stack.callback(node.stop)

        desks = PartyDesks(config)

        def register(server: grpc.Server) -> None:
            PartyService(node).register(server, desks)
            PeerService(node).register(server, desks)

        watch = Watch(config.data_dir, identity, counters, ledger.check_writable)
        _serve(config, identity, node, register, desks.all, life, watch, node.end_overdue, node.stop)


def run_provider(config: ProviderConfig) -> None:
    """Serve as the crypto-provider until told to stop.

    Raises:
        ConfigError: certificates or port.
    """
    with loading():
        from parties.provider.service import ProviderService

    with ExitStack() as stack:
        counters = _begin(config, stack)
        identity = Identity.load(config.tls, config.name, members=config.machines, serves=True)
        stack.callback(os.close, _taken(config))
        life = _Life()
        service = ProviderService(config, identity, counters, draw=life.draw)
        watch = Watch(config.data_dir, identity, counters)
        _serve(config, identity, service, service.register, service.desks, life, watch, service.drop_idle, lambda: None)


def _taken(config: ProviderConfig) -> int:
    try:
        return lock.take(config.data_dir)
    except OSError as error:
        raise ConfigError(
            f"data_dir {config.data_dir} cannot be used",
            cause=error.strerror,
            remedy="check the disk and its rights",
            local=True,
        ) from None


class _Life:
    """Ends with a signal, or with the first failure of the random source: nothing may be drawn after that."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: EntropyError | None = None
        self.hangups: list[None] = []

    def draw(self, n: int) -> bytes:
        """Fresh random bytes."""
        if self.error is not None:
            raise self.error
        try:
            return entropy.token(n)
        except EntropyError as error:
            self.error = error
            self.stop.set()
            raise


def _begin(config: PartyConfig | ProviderConfig, stack: ExitStack) -> Counters:
    keep_private()
    launcher.watch_parent()
    keep_memory(config.limits.max_kept_bytes)
    telemetry.configure(config.name, config.log_level, native.capture(stack))
    telemetry.logger().info("starting", version=mpc.__version__, address=config.listen)
    private_folder(config.data_dir)
    counters = Counters()
    if config.metrics is not None:
        stack.callback(counters.serve(config.metrics))
    return counters


def _get_kernels(config: PartyConfig | ProviderConfig) -> None:
    """Load what was compiled, or compile: no run waits for either."""
    unused = kernels.EVALUATING if isinstance(config, ProviderConfig) else kernels.DEALING
    kept = kernel_cache.place()
    with loading():
        if kept.complete and kernels.load(unused):
            return
    from mpc.interpret import warmup  # the compiler's side: whoever has compiled kernels does without it

    telemetry.logger().info("compiling kernels, about a minute", folder=kept.folder, note=kept.note)
    warmup.warm_up()


def _serve(
    config: PartyConfig | ProviderConfig,
    identity: Identity,
    described: PartyNode | ProviderService,
    register: Callable[[grpc.Server], None],
    desks: Iterable[Desk],
    life: _Life,
    watch: Watch,
    tick: Callable[[], None],
    stopping: Callable[[], None],
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: life.stop.set())
    signal.signal(signal.SIGHUP, lambda *_: life.hangups.append(None))  # said below: a handler must not log
    _get_kernels(config)
    server = serve(identity, config.listen, register, largest_message(config.limits), desks)
    launcher.announce_ready(config.data_dir)
    telemetry.logger().info("serving", address=config.listen)
    while not life.stop.wait(_TICK):
        tick()
        watch.tick()
        if watch.problem != described.problem:
            described.problem = watch.problem
            server.set_health(not watch.problem)
        if life.hangups:
            life.hangups.clear()
            telemetry.logger().info("SIGHUP does nothing", fix="a changed config needs a restart, tls.crl does not")
    server.drain()
    stopping()
    server.stop(_GRACE)
    if life.error is not None:
        raise life.error
    telemetry.logger().info("stopped")
