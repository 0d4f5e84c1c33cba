"""`mpc cert`: a certificate authority of one's own, and certificates for parties, provider and clients."""

from __future__ import annotations

from pathlib import Path

import click

from parties.certificates import LEAF_DAYS, issue, make_ca
from parties.cli.display import Display

_PATH = click.Path(path_type=Path, file_okay=False)


@click.group()
def cert() -> None:
    """Certificates for parties on different machines."""


@cert.command("ca")
@click.argument("folder", type=_PATH)
@click.option("--name", default="mpc-ca", show_default=True)
@click.pass_obj
def make(display: Display, folder: Path, name: str) -> None:
    """Make a certificate authority in FOLDER. Whoever holds its ca.key can become anyone: keep it offline."""
    display.result(str(make_ca(folder, name)))


@cert.command("issue")
@click.argument("name")
@click.option("--ca", "ca_folder", required=True, type=_PATH, help="The folder that 'mpc cert ca' made.")
@click.option("-o", "--output", "folder", required=True, type=_PATH, help="Where key, certificate and CA go.")
@click.option("--host", "hosts", multiple=True, help="A DNS name or address that NAME is reached at; several.")
@click.option("--days", default=LEAF_DAYS, show_default=True, type=click.IntRange(1))
@click.pass_obj
def issue_(display: Display, name: str, ca_folder: Path, folder: Path, hosts: tuple[str, ...], days: int) -> None:
    """Issue (or renew) a key and certificate for NAME: a party, the provider, or a client."""
    paths = issue(ca_folder, name, folder, hosts or ("localhost", "127.0.0.1"), days)
    display.result(str(paths.certificate))
