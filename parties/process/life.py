"""A daemon's life: begin, serve, say so, and stop in good order on SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Protocol

import grpc

import mpc
from mpc import kernel_cache, kernels
from mpc.errors import ConfigError, EntropyError
from parties import entropy, telemetry
from parties.config.models import PartyConfig, ProviderConfig
from parties.disk import private_folder
from parties.process import lifeline, native
from parties.process.computing import use_cores
from parties.process.heap import Freed, keep_memory, kept_bytes, loading
from parties.process.private_memory import keep_private
from parties.process.watch import Watch
from parties.telemetry import Counters
from parties.trust.identity import Identity
from parties.wire.desk import Desk
from parties.wire.server import largest_message, serve

_GRACE = 2.0
TICK = 1.0
"""Seconds between two looks at what a daemon looks after."""


class Described(Protocol):
    """A daemon's part that tells callers what is wrong with it: `problem`, empty if nothing is."""

    problem: str


class Life:
    """A context that ends with a signal, or with the first failure of the random source: nothing may be drawn after
    that."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: EntropyError | None = None
        self.hangups: list[None] = []

    def draw(self, n: int) -> bytes:
        """Draw fresh random bytes."""
        if self.error is not None:
            raise self.error
        try:
            return entropy.token(n)
        except EntropyError as error:
            self.error = error
            self.stop.set()
            raise


def begin(config: PartyConfig | ProviderConfig, stack: ExitStack) -> Counters:
    """Make the process private, and its log, folder and counters ready; return the counters."""
    keep_private()
    lifeline.watch_parent()
    keep_memory(kept_bytes(config.limits.max_kept_bytes))
    telemetry.configure(config.name, config.log_level, native.capture(stack))
    threads = use_cores(config.threads)
    telemetry.logger().info("starting", version=mpc.__version__, address=config.listen, threads=threads)
    private_folder(config.data_dir)
    counters = Counters()
    if config.metrics is not None:
        stack.callback(counters.serve(config.metrics))
    return counters


def get_kernels(config: PartyConfig | ProviderConfig) -> None:
    """Load what was compiled, or compile: no run waits for either."""
    unused = kernels.EVALUATING if isinstance(config, ProviderConfig) else kernels.DEALING
    kept = kernel_cache.place()
    with loading():
        if kept.complete and kernels.load(unused):
            return
    from mpc.interpret import warmup  # the compiler's side: whoever has compiled kernels does without it

    telemetry.logger().info("compiling kernels, about a minute", folder=kept.folder, note=kept.note)
    warmup.warm_up()


def _hang_up(hangup: Callable[[], None] | None) -> None:
    if hangup is None:
        telemetry.logger().info("SIGHUP does nothing", fix="a changed config needs a restart, tls.crl does not")
        return
    with suppress(ConfigError):  # it has said so itself
        hangup()


def serve_until_told(
    config: PartyConfig | ProviderConfig,
    identity: Identity,
    described: Described,
    register: Callable[[grpc.Server], None],
    desks: Iterable[Desk],
    life: Life,
    watch: Watch,
    tick: Callable[[], None],
    stopping: Callable[[], None],
    hangup: Callable[[], None] | None = None,
) -> None:
    """Serve until a signal, or until the random source fails.

    Args:
        register: adds the daemon's services to the server.
        tick, watch: called once a second.
        stopping: called when no new call is let in, before open ones are cut.
        hangup: called after a SIGHUP; it raises ConfigError where it cannot do what it is for.  None does nothing.

    Raises:
        EntropyError: the random source failed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: life.stop.set())
    signal.signal(signal.SIGHUP, lambda *_: life.hangups.append(None))  # said below: a handler must not log
    get_kernels(config)
    server = serve(identity, config.listen, register, largest_message(config.limits), desks)
    lifeline.announce_ready(config.data_dir)
    telemetry.logger().info("serving", address=config.listen)
    freed = Freed(kept_bytes(config.limits.max_kept_bytes))
    while not life.stop.wait(TICK):
        freed.tick()
        tick()
        watch.tick()
        if watch.problem != described.problem:
            described.problem = watch.problem
            server.set_health(not watch.problem)
        if life.hangups:
            life.hangups.clear()
            _hang_up(hangup)
    server.drain()
    stopping()
    server.stop(_GRACE)
    if life.error is not None:
        raise life.error
    telemetry.logger().info("stopped")
