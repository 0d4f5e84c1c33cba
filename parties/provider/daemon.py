"""The provider daemon: what it is made of."""

from __future__ import annotations

import os
from contextlib import ExitStack

from mpc.errors import ConfigError
from parties.config.models import ProviderConfig
from parties.process import lock
from parties.process.life import Life, begin, serve_until_told
from parties.process.watch import Watch
from parties.provider.service import ProviderService
from parties.trust.identity import Identity


def run_provider(config: ProviderConfig) -> None:
    """Serve as the crypto-provider until told to stop.

    Raises:
        ConfigError: certificates or port.
    """
    with ExitStack() as stack:
        counters = begin(config, stack)
        identity = Identity.load(config.tls, config.name, members=config.machines, serves=True)
        stack.callback(os.close, _taken(config))
        life = Life()
        service = ProviderService(config, identity, counters, draw=life.draw)
        watch = Watch(config.data_dir, identity, counters)
        serve_until_told(
            config, identity, service, service.register, service.desks, life, watch, service.drop_idle, lambda: None
        )


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
