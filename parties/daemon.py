"""The two daemons' lives: load, serve, say so, and stop in good order on SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import grpc

from mpc import kernel_cache, warmup
from mpc.errors import EntropyError
from parties import entropy, launcher, telemetry
from parties.certificates import Identity, private_folder
from parties.config import PartyConfig, ProviderConfig
from parties.heap import keep_memory
from parties.ledger import Ledger
from parties.party import PartyNode
from parties.private_memory import keep_private
from parties.provider import ProviderService
from parties.server import Desk, largest_message, serve
from parties.services import PartyDesks, PartyService, PeerService
from parties.telemetry import Counters

_GRACE = 2.0
_TICK = 1.0


def run_party(config: PartyConfig) -> None:
    """Serve as a party until told to stop.

    Raises:
        ConfigError: certificates, ledger or port.
    """
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

        _serve(config, identity, register, desks.all, life, node.end_overdue, node.stop)


def run_provider(config: ProviderConfig) -> None:
    """Serve as the crypto-provider until told to stop.

    Raises:
        ConfigError: certificates or port.
    """
    with ExitStack() as stack:
        counters = _begin(config, stack)
        identity = Identity.load(config.tls, config.name, members=config.machines, serves=True)
        life = _Life()
        service = ProviderService(config, identity, counters, draw=life.draw)

        _serve(config, identity, service.register, service.desks, life, service.drop_idle, lambda: None)


class _Life:
    """Ends with a signal, or with the first failure of the random source: nothing may be drawn after that."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: EntropyError | None = None

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
    telemetry.configure(config.name, config.log_level)
    private_folder(config.data_dir)
    counters = Counters()
    if config.metrics is not None:
        stack.callback(counters.serve(config.metrics))
    return counters


def _serve(
    config: PartyConfig | ProviderConfig,
    identity: Identity,
    register: Callable[[grpc.Server], None],
    desks: Iterable[Desk],
    life: _Life,
    tick: Callable[[], None],
    stopping: Callable[[], None],
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: life.stop.set())
    if not (kernels := kernel_cache.place()).complete:
        telemetry.logger().info("compiling kernels, about a minute", folder=kernels.folder, note=kernels.note)
    warmup.warm_up()
    server = serve(identity, config.listen, register, largest_message(config.limits), desks)
    launcher.announce_ready(config.data_dir)
    telemetry.logger().info("serving", address=config.listen)
    while not life.stop.wait(_TICK):
        tick()
    server.drain()
    stopping()
    server.stop(_GRACE)
    if life.error is not None:
        raise life.error
    telemetry.logger().info("stopped")
