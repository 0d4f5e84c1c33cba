"""`mpc cert`: a certificate authority of one's own, and certificates for parties, provider and clients."""

from __future__ import annotations

from pathlib import Path

import click

from mpc.errors import UsageError
from parties.cli.display import Display
from parties.config.models import CLUSTER_BYTES
from parties.entropy import token
from parties.trust.authority import LEAF_DAYS, issue, make_ca, revoke
from parties.trust.chains import DEVELOPMENT_CA

_PATH = click.Path(path_type=Path, file_okay=False)


@click.group()
def cert() -> None:
    """Make certificates for parties on different machines."""


@cert.command("ca")
@click.argument("folder", type=_PATH)
@click.option("--name", default="mpc-ca", show_default=True)
@click.pass_obj
def make(display: Display, folder: Path, name: str) -> None:
    """Make a certificate authority in FOLDER. Whoever holds its ca.key can become anyone: keep it offline."""
    if name == DEVELOPMENT_CA:
        raise UsageError(
            f"{name!r} is the CA of local clusters, which daemons do not accept beyond this machine",
            remedy="choose another --name",
        )
    display.result(str(make_ca(folder, name)))


@cert.command("cluster")
@click.pass_obj
def cluster_(display: Display) -> None:
    """Print a fresh id for a cluster: `cluster = "ID"` in the config of every party, the provider and every client.

    What is put at the parties names it, so it stays as long as the data do.
    """
    display.result(token(CLUSTER_BYTES).hex())


@cert.command("issue")
@click.argument("name")
@click.option("--ca", "ca_folder", required=True, type=_PATH, help="The folder that 'mpc cert ca' made.")
@click.option("-o", "--output", "folder", required=True, type=_PATH, help="Where key, certificate and CA go.")
@click.option("--host", "hosts", multiple=True, help="A DNS name or address that NAME is reached at; several.")
@click.option("--days", default=LEAF_DAYS, show_default=True, type=click.IntRange(1))
@click.option("--keep-key", is_flag=True, help="Renew the certificate of the key that is in the folder.")
@click.pass_obj
def issue_(
    display: Display, name: str, ca_folder: Path, folder: Path, hosts: tuple[str, ...], days: int, keep_key: bool
) -> None:
    """Issue (or renew) a key and certificate for NAME: a party, the provider, or a client.

    What a client has put at the parties belongs to its key: renew its certificate with --keep-key, as long as that
    key is nobody else's.
    """
    paths = issue(ca_folder, name, folder, hosts or ("localhost", "127.0.0.1"), days, keep_key=keep_key)
    display.result(str(paths.certificate))


@cert.command("revoke")
@click.argument("name")
@click.option("--ca", "ca_folder", required=True, type=_PATH, help="The folder that 'mpc cert ca' made.")
@click.pass_obj
def revoke_(display: Display, name: str, ca_folder: Path) -> None:
    """Take back every certificate that was issued to NAME; prints the revocation list, which everyone needs.

    Copy it to each party, the provider and the clients, whose configs name it: tls.crl. They read it again within a
    second. NAME can be issued a new certificate.
    """
    path, number = revoke(ca_folder, name)
    display.say(f"{number} certificates of {name!r} newly revoked")
    display.result(str(path))
