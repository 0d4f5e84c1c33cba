"""`mpc party serve`, `mpc provider serve`: the daemons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from parties.config.load import load
from parties.config.models import PartyConfig, ProviderConfig
from parties.process import native
from parties.process.heap import loading

_CONFIG = click.option(
    "--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Its TOML configuration."
)
_LISTEN = click.option("--listen", metavar="HOST:PORT", help="Instead of the configured address.")
_LEVEL = click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))


def _overrides(listen: str | None, log_level: str | None) -> dict[str, Any]:
    return {"listen": listen, "log_level": log_level}


@click.group()
def party() -> None:
    """Run the party daemon."""


@party.command("serve")
@_CONFIG
@_LISTEN
@_LEVEL
def serve_party(config: Path, listen: str | None, log_level: str | None) -> None:
    """Serve as one party until SIGTERM or ctrl-C."""
    native.trace_handshakes()  # before gRPC is imported
    with loading():
        from parties.party.daemon import run_party

    def read() -> PartyConfig:
        return load(PartyConfig, config, _overrides(listen, log_level))

    run_party(read(), read)


@click.group()
def provider() -> None:
    """Run the crypto-provider daemon."""


@provider.command("serve")
@_CONFIG
@_LISTEN
@_LEVEL
def serve_provider(config: Path, listen: str | None, log_level: str | None) -> None:
    """Serve as the crypto-provider until SIGTERM or ctrl-C."""
    native.trace_handshakes()  # before gRPC is imported
    with loading():
        from parties.provider.daemon import run_provider

    run_provider(load(ProviderConfig, config, _overrides(listen, log_level)))
