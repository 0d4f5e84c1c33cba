"""Folder of the local cluster: configs, certificates, ports.

    .mpc/ca/  provider/  party-0/ ... party-n-1/  coordinator/  cluster.toml
    .mpc/bob/  bob.toml                           each further client's

What is written here is what a real deployment writes by hand.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from mpc.errors import ConfigError, UsageError
from parties.addresses import Endpoint, check_name
from parties.config.load import dump_toml, load
from parties.config.models import (
    CLUSTER_BYTES,
    ClusterConfig,
    Deadlines,
    PartyConfig,
    Peer,
    PolicyConfig,
    ProviderConfig,
    ProviderPeer,
    TlsConfig,
)
from parties.disk import DEFAULT_FOLDER, private_folder, write_atomic
from parties.entropy import token
from parties.local.ports import Ports
from parties.local.processes import running
from parties.trust.authority import issue, make_ca
from parties.trust.chains import DEVELOPMENT_CA
from parties.trust.identity import CA_CERTIFICATE, CERTIFICATE, KEY, Identity

Role = Literal["party", "provider"]
PROVIDER, COORDINATOR = "provider", "coordinator"
SLOW = Deadlines(connect=120, setup=1200, step=600, submit=1200, idle=3600, grace=600)
"""Behind a relay: what takes a second here may take minutes through a slow link."""
_TAKEN = re.compile(r"ca|cluster|coordinator|provider|party-\d+")
_RENEW_BEFORE = timedelta(days=7)


@dataclass(frozen=True)
class Member:
    """One daemon of the local cluster.

    listen: where it does, if others reach it elsewhere: through a relay at `address`.
    """

    name: str
    role: Role
    folder: Path
    address: Endpoint
    listen: Endpoint | None = None

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"


@dataclass(frozen=True)
class LocalLayout:
    """Files of a local cluster: the provider comes first, then the parties in the roster's order.

    clients: besides the coordinator; all of them may coordinate, own inputs and receive outputs.
    ports: what keeps the members' ports free until they listen; None in a layout that was there before.
    """

    folder: Path
    members: tuple[Member, ...]
    clients: tuple[str, ...] = ()
    ports: Ports | None = field(default=None, compare=False, repr=False)

    @property
    def cluster_file(self) -> Path:
        return self.folder / "cluster.toml"

    @property
    def routes(self) -> list[tuple[Endpoint, Endpoint]]:
        """Addresses that a relay listens to, and those that they lead to; none unless the layout was made `relayed`."""
        return [(member.address, member.listen) for member in self.members if member.listen]

    def client_file(self, name: str) -> Path:
        """Return the path of the cluster file of a further client; raise ConfigError if it was never made."""
        if name not in self.clients:
            where = in_folder(self.folder)
            raise ConfigError(
                f"this cluster has no client {name!r}",
                remedy=f"make one: mpc down{where}, mpc up{where} --client {name}",
                local=True,
            )
        return self.folder / f"{name}.toml"

    @classmethod
    def create(
        cls,
        folder: Path,
        parties: int = 3,
        base_port: int | None = None,
        threads: int = 1,
        clients: Sequence[str] = (),
        relayed: bool = False,
    ) -> Self:
        """Write (again) every config and missing certificate; ledgers, clients and the CA of an older layout stay.

        base_port: the provider's port, the parties' follow; None takes any that are free.
        relayed: others reach each daemon through a relay, which may be slow: see `routes`.
        """
        for client in clients:
            _check_client(client)
        if parties < 2:
            raise UsageError(f"a cluster has at least 2 parties, not {parties}", remedy="--parties 2 or more")
        folder = folder.absolute()
        if (folder / "cluster.toml").exists():
            refuse_running(cls.open(folder))
        names = [PROVIDER, *(f"party-{index}" for index in range(parties))]
        ports = Ports(len(names) * (1 + relayed), base_port)
        addresses = [Endpoint(f"127.0.0.1:{port}") for port in ports.numbers]
        behind = addresses[len(names) :] if relayed else [None] * len(names)
        members = tuple(
            Member(name, "provider" if name == PROVIDER else "party", folder / name, address, listen)
            for name, address, listen in zip(names, addresses[: len(names)], behind, strict=True)
        )
        if not (folder / "ca" / CA_CERTIFICATE).exists():
            make_ca(folder / "ca", DEVELOPMENT_CA)
        clients = tuple(sorted({*_clients(folder), *clients}))
        for name in (*names, COORDINATOR, *clients):
            _certify(folder, name)
        layout = cls(folder, members, clients, ports)
        layout._write_configs(threads, _cluster_id(folder))
        return layout

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the layout that an earlier `create` wrote; raise ConfigError if there is none."""
        folder = folder.absolute()
        cluster = load(ClusterConfig, folder / "cluster.toml", environ={})
        parties = (Member(peer.name, "party", folder / peer.name, peer.address) for peer in cluster.parties)
        provider = cluster.provider
        members = (Member(provider.name, "provider", folder / provider.name, provider.address), *parties)
        return cls(folder, members, _clients(folder))

    def _write_configs(self, threads: int, cluster: str) -> None:
        provider = ProviderPeer(name=self.members[0].name, address=self.members[0].address)
        peers = tuple(Peer(name=member.name, address=member.address) for member in self.members[1:])
        everyone = (COORDINATOR, *self.clients)
        policy = PolicyConfig(
            plans=("any",), coordinators=everyone, owners=everyone, recipients=everyone, data_owners=everyone
        )
        deadlines = SLOW if self.routes else Deadlines()
        for member in self.members:
            private_folder(member.data_dir)
            common = {
                "name": member.name,
                "cluster": cluster,
                "listen": member.listen or member.address,
                "data_dir": member.data_dir.name,
                "tls": {"ca": CA_CERTIFICATE, "certificate": CERTIFICATE, "key": KEY},
                "threads": threads,
                "deadlines": deadlines,
            }
            if member.role == "provider":
                text = dump_toml(ProviderConfig.model_validate({**common, "parties": [peer.name for peer in peers]}))
            else:
                text = dump_toml(
                    PartyConfig.model_validate({**common, "provider": provider, "peers": peers, "policy": policy})
                )
            _write_config(member.config, text)
        for name in everyone:
            own = Path(name)
            tls = TlsConfig(ca=own / CA_CERTIFICATE, certificate=own / CERTIFICATE, key=own / KEY)
            client = ClusterConfig(
                name=name, cluster=cluster, tls=tls, provider=provider, parties=peers, deadlines=deadlines
            )
            _write_config(self.cluster_file if name == COORDINATOR else self.client_file(name), dump_toml(client))


def _cluster_id(folder: Path) -> str:
    """Return the id of the cluster that an earlier `create` made here, else a fresh one: what parties keep names it."""
    with suppress(ConfigError):  # there is no cluster file, or one that cannot be read and is written again
        found = load(ClusterConfig, folder / "cluster.toml", environ={}).cluster
        if found is not None:
            return found
    return token(CLUSTER_BYTES).hex()


def _write_config(path: Path, text: str) -> None:
    write_atomic(path, f"# Written by `mpc up`, which will write it again.\n{text}".encode())


def _clients(folder: Path) -> tuple[str, ...]:
    """Name the clients that an earlier `create` made; deleting NAME.toml deletes the client."""
    files = sorted(folder.glob("*.toml"))
    return tuple(file.stem for file in files if not _TAKEN.fullmatch(file.stem) and (folder / file.stem).is_dir())


def _check_client(name: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(f"{name!r} cannot be a client's name", cause=str(error), remedy="--client bob") from None
    if _TAKEN.fullmatch(name):
        raise UsageError(f"a client cannot be called {name!r}: the cluster's own are", remedy="--client bob")


def _certify(folder: Path, name: str) -> None:
    own = folder / name
    tls = TlsConfig(ca=own / CA_CERTIFICATE, certificate=own / CERTIFICATE, key=own / KEY)
    same_ca = tls.ca.is_file() and tls.ca.read_bytes() == (folder / "ca" / CA_CERTIFICATE).read_bytes()
    with suppress(ConfigError):  # missing, expired, of another CA: whatever it is, a new one is the answer
        identity = Identity.load(tls, name)
        if same_ca and identity.not_after - datetime.now(UTC) > _RENEW_BEFORE:
            return
    with suppress(ConfigError):  # renewed, if the key is there: what was put at the parties is that key's
        if same_ca:
            issue(folder / "ca", name, own, keep_key=True)
            return
    issue(folder / "ca", name, own)


def in_folder(folder: Path) -> str:
    """Return the option that names a local cluster's folder, for commands in messages; empty if none is needed."""
    usual = Path(os.environ.get("MPC_DIR") or DEFAULT_FOLDER)
    if folder.absolute() == usual.absolute():
        return ""
    near = folder.absolute().is_relative_to(Path.cwd())
    return f" --dir {shlex.quote(str(folder.absolute().relative_to(Path.cwd()) if near else folder))}"


def refuse_running(layout: LocalLayout) -> None:
    """Raise ConfigError if any of its daemons runs."""
    alive = [member.name for member in layout.members if running(member.folder)]
    if alive:
        where = in_folder(layout.folder)
        raise ConfigError(
            f"the cluster in {layout.folder} is running already ({', '.join(alive)})",
            remedy=f"use it, or stop it: mpc down{where}"
            if len(alive) == len(layout.members)
            else f"mpc down{where}, then mpc up{where} again",
            local=True,
        )
