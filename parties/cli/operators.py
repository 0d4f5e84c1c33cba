"""Operators of parties: each on its party's own machine, by its config, with the party's own certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from mpc.errors import UsageError
from parties.addresses import Endpoint
from parties.client.channels import PartyClient
from parties.config.load import load
from parties.config.models import PartyConfig, Peer
from parties.local.layout import LocalLayout
from parties.trust.identity import Identity

PARTY = click.option(
    "--party",
    "configs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A party's config, by its operator; several.",
)
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


def operator_of(path: Path) -> tuple[list[PartyClient], float]:
    """Call the party itself, on its own machine, with its own certificate."""
    config = load(PartyConfig, path)
    host = _ANYWHERE.get(config.listen.host)
    address = Endpoint(f"{host}:{config.listen.port}") if host else config.listen
    identity = Identity.load(config.tls, config.name, members=config.machines)
    return [PartyClient(identity, Peer(name=config.name, address=address))], config.deadlines.connect


@contextmanager
def operators(configs: Sequence[Path], folder: Path) -> Iterator[tuple[list[PartyClient], float]]:
    """Connect to parties as their operators: those of these configs, or of the local cluster that `mpc up` started.

    Yields:
        (a client for each, seconds to wait for an answer)
    """
    paths = [*configs] or local_configs(folder)
    clients: list[PartyClient] = []
    wait = 0.0
    try:
        for path in paths:
            found, seconds = operator_of(path)
            clients, wait = [*clients, *found], max(wait, seconds)
        yield clients, wait
    finally:
        for client in clients:
            client.close()


def local_configs(folder: Path) -> list[Path]:
    """List the configs of the local cluster's parties, whose operator is whoever started it."""
    if not (folder / "cluster.toml").is_file():
        raise UsageError("whose operator are you?", remedy="--party config.toml, the config of your party")
    return [member.config for member in LocalLayout.open(folder).members if member.role == "party"]
