"""The party daemon: what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import grpc

from parties.config.models import PartyConfig
from parties.party.collecting.service import CollectService
from parties.party.consent.service import ConsentService
from parties.party.desks import PartyDesks
from parties.party.ledger.sessions import Ledger
from parties.party.node import PartyNode
from parties.party.peer_service import PeerService
from parties.party.rules import Rules
from parties.party.services import PartyService
from parties.party.vault.service import DataService
from parties.process.life import Life, begin, serve_until_told
from parties.process.watch import Watch
from parties.trust.identity import Identity


def run_party(config: PartyConfig, read: Callable[[], PartyConfig] | None = None) -> None:
    """Serve as a party until told to stop.

    Args:
        read: reads the config again, for its policy; None where it came from no file.

    Raises:
        ConfigError: certificates, ledger or port.
    """
    with ExitStack() as stack:
        counters = begin(config, stack)
        identity = Identity.load(config.tls, config.name, members=config.machines, serves=True)
        ledger = stack.enter_context(Ledger.open(config.data_dir))
        life = Life()
        rules = Rules(config, read)
        node = PartyNode(config, identity, ledger, counters, life.draw, rules)
        stack.callback(node.stop)

        desks = PartyDesks(config)

        def register(server: grpc.Server) -> None:
            PartyService(node).register(server, desks)
            PeerService(node).register(server, desks)
            DataService(node).register(server, desks.data)
            ConsentService(node).register(server, desks.data)
            CollectService(node).register(server, desks.data)

        watch = Watch(config.data_dir, identity, counters, ledger.check_writable)
        serve_until_told(
            config, identity, node, register, desks.all, life, watch, node.end_overdue, node.stop, rules.reload
        )
