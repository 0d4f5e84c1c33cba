"""Start a cluster of one's own on this machine, in a folder that goes with it, and take it down again."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from mpc.errors import UsageError
from mpc.plan.link import Link
from parties.client.running.feeds import read_count
from parties.client.running.roles import PASSIVE, read_security
from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.local.relay import Relay


def start(
    parties: int,
    threads: int | None,
    clients: Sequence[str],
    link: Link | None,
    say: Callable[[str], None] | None,
    security: str = PASSIVE,
) -> tuple[LocalLayout, Relay | None]:
    """Start a provider and `parties` parties as processes; return their places, and what lies between them.

    Raises:
        UsageError: an argument makes no sense.
        ConfigError: a daemon does not start; nothing is left of the others.
    """
    parties = read_count(parties, "the number of parties", 2)
    threads = None if threads is None else read_count(threads, "the number of threads")
    if isinstance(clients, str) or not isinstance(clients, Sequence | Set):
        raise UsageError("clients are a list of names", remedy="clients=('bob', 'carol')")
    if link is not None and not isinstance(link, Link):
        raise UsageError("a link is made from its text", remedy="link=Link.parse('wan'), from mpc.plan.link")
    asked = read_security(security, PASSIVE)
    folder = Path(tempfile.mkdtemp(prefix="mpc-"))
    layout = relay = None
    try:
        layout = LocalLayout.create(
            folder, parties, threads=threads, clients=clients, relayed=link is not None, security=asked
        )
        relay = Relay(layout.routes, link) if link else None
        launcher.start(layout, say=say or _say)
    except BaseException:
        if layout is not None:
            tear_down(layout, relay)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return layout, relay


def tear_down(layout: LocalLayout, relay: Relay | None) -> None:
    """Stop a cluster of our own and remove its folder, keys and all; safe to call twice, and at exit."""
    launcher.stop(layout)
    if relay is not None:
        relay.close()
    shutil.rmtree(layout.folder, ignore_errors=True)


def _say(text: str) -> None:
    sys.stderr.write(f"mpc: {text}\n")
