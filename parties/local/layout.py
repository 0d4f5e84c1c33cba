"""Folder of the local cluster: configs, certificates, ports.

    .mpc/ca/  provider/  party-0/ ... party-n-1/  coordinator/  cluster.toml
    .mpc/bob/  bob.toml                           each further client's

What is written here is what a real deployment writes by hand.  Who changes it keeps the change: `mpc up` writes again
what it decides itself, which is names, addresses, folders and certificates, and reads the rest from the file.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel

from mpc.errors import ConfigError, UsageError
from parties.addresses import Endpoint, check_name
from parties.config.load import dump_toml, load
from parties.config.models import (
    CLUSTER_BYTES,
    ClusterConfig,
    Deadlines,
    Limits,
    PartyConfig,
    Peer,
    PolicyConfig,
    ProviderConfig,
    ProviderPeer,
    Security,
    TlsConfig,
)
from parties.disk import DEFAULT_FOLDER, private_folder, write_atomic
from parties.entropy import token
from parties.local.ports import Ports
from parties.local.processes import DATA, is_frozen, let_go_on, running
from parties.machine import cores_each
from parties.trust.authority import issue, make_ca
from parties.trust.chains import DEVELOPMENT_CA
from parties.trust.identity import CA_CERTIFICATE, CERTIFICATE, KEY, Identity

Role = Literal["party", "provider"]
PROVIDER, COORDINATOR = "provider", "coordinator"
SLOW = Deadlines(connect=120, setup=1200, step=600, submit=1200, idle=3600, grace=600)
"""Behind a relay: what takes a second here may take minutes through a slow link."""
_TAKEN = re.compile(r"ca|cluster|coordinator|provider|party-\d+")
_HEADER = "# Written by `mpc up`. It writes names, addresses, folders and certificates again, and keeps the rest.\n"
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
        return self.folder / DATA

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
        threads: int | None = None,
        clients: Sequence[str] = (),
        relayed: bool = False,
        security: Security | None = None,
    ) -> Self:
        """Write (again) every config and missing certificate.

        Of an older layout ledgers, clients and the CA stay, and what was changed in its configs.

        base_port: the provider's port, the parties' follow; None takes any that are free.
        security: "active": the parties take no sessions of another one, and clients ask for that; "passive": they take
            both; None: as an older layout says, else both.
        threads: of each daemon, for new configs; None: as many as each of all has cores of this machine.
        relayed: for new configs; others reach each daemon through a relay, which may be slow: see `routes`.

        Raises:
            ConfigError: its daemons run, or a config was changed so that it cannot be read.
            UsageError: no such clients or parties can be.
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
        before = _clients(folder)
        clients = tuple(sorted({*before, *clients}))
        changed = _Changed(folder, (COORDINATOR, *before), (COORDINATOR, *clients))
        for name in (*names, COORDINATOR, *clients):
            _certify(folder, name)
        layout = cls(folder, members, clients, ports)
        threads = cores_each(len(names)) if threads is None else threads
        layout._write_configs(threads, _cluster_id(folder), changed, security)
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

    def _write_configs(self, threads: int, cluster: str, changed: _Changed, security: Security | None) -> None:
        provider = ProviderPeer(name=self.members[0].name, address=self.members[0].address)
        peers = tuple(Peer(name=member.name, address=member.address) for member in self.members[1:])
        deadlines = SLOW if self.routes else Deadlines()
        limits = Limits(max_memory_bytes=Limits().memory // len(self.members))  # one machine has them all
        for member in self.members:
            private_folder(member.data_dir)
            own: dict[str, Any] = {
                "name": member.name,
                "cluster": cluster,
                "listen": member.listen or member.address,
                "data_dir": member.data_dir.name,
                "tls": {"ca": CA_CERTIFICATE, "certificate": CERTIFICATE, "key": KEY},
            }
            at_first: dict[str, Any] = {"threads": threads, "deadlines": deadlines, "limits": limits}
            kind: type[PartyConfig | ProviderConfig] = ProviderConfig
            if member.role == "provider":
                own |= {"parties": [peer.name for peer in peers]}
            else:
                kind, own = PartyConfig, {**own, "provider": provider, "peers": peers}
                at_first |= {"policy": changed.policy_at_first()}
                at_first |= {} if self.routes else {"rounds_port": 0}  # a relay would not carry what goes past it
            found = {**at_first, **changed.kept(kind, member.config, own), **own}
            if member.role == "party" and security is not None:
                allowed = {"security": ("active",) if security == "active" else ("passive", "active")}
                found["policy"] = PolicyConfig.model_validate({**dict(found["policy"]), **allowed})
            config = kind.model_validate(found)
            _write_config(member.config, dump_toml(config))
        for name in (COORDINATOR, *self.clients):
            path = self.cluster_file if name == COORDINATOR else self.client_file(name)
            tls = TlsConfig(ca=Path(name, CA_CERTIFICATE), certificate=Path(name, CERTIFICATE), key=Path(name, KEY))
            mine = {"name": name, "cluster": cluster, "tls": tls, "provider": provider, "parties": peers}
            kept = changed.kept(ClusterConfig, path, mine) | ({} if security is None else {"security": security})
            _write_config(path, dump_toml(ClusterConfig.model_validate({"deadlines": deadlines, **kept, **mine})))


@dataclass(frozen=True)
class _Changed:
    """Configs of an older layout, which its operator may have changed: what is kept of them.

    before, now: the coordinator and the clients, as the older layout has them and as this one does.
    """

    folder: Path
    before: tuple[str, ...]
    now: tuple[str, ...]

    def policy_at_first(self) -> PolicyConfig:
        """Return the policy of a party that has none yet: everybody who belongs to this cluster may do everything."""
        return PolicyConfig(
            plans=("any",), coordinators=self.now, owners=self.now, recipients=self.now, data_owners=self.now
        )

    def kept(self, kind: type[BaseModel], path: Path, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a config file has besides `own`; raise ConfigError if it cannot be read."""
        if not path.exists():
            return {}
        load(kind, path, environ={})  # says what is wrong with it
        found = {key: value for key, value in tomllib.loads(path.read_text("utf-8")).items() if key not in own}
        if "policy" in found:
            people = {key: self._people(value) for key, value in found["policy"].items() if key != "security"}
            found["policy"] = {**found["policy"], **people}
        return found

    def _people(self, value: Any) -> Any:
        """Return a policy's list with the clients of now: new ones where all of before are, none that were deleted."""
        if not isinstance(value, list):
            return value
        left = [name for name in value if name in self.now or not (self.folder / name / CERTIFICATE).exists()]
        new = [name for name in self.now if name not in (*self.before, *left)] if {*self.before} <= {*value} else []
        return [*left, *new]


def _cluster_id(folder: Path) -> str:
    """Return the id of the cluster that an earlier `create` made here, else a fresh one: what parties keep names it."""
    with suppress(ConfigError):  # there is no cluster file, or one that cannot be read and is written again
        found = load(ClusterConfig, folder / "cluster.toml", environ={}).cluster
        if found is not None:
            return found
    return token(CLUSTER_BYTES).hex()


def _write_config(path: Path, text: str) -> None:
    write_atomic(path, f"{_HEADER}{text}".encode())


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


def is_left_in_part(layout: LocalLayout) -> bool:
    """Do some of its daemons run, and others not?"""
    return len({running(member.folder) is None for member in layout.members}) > 1


def refuse_running(layout: LocalLayout) -> None:
    """Raise ConfigError if any of its daemons runs."""
    alive = {member.name: pid for member in layout.members if (pid := running(member.folder))}
    if alive:
        where, parties = in_folder(layout.folder), sum(member.role == "party" for member in layout.members)
        frozen = {name: pid for name, pid in alive.items() if is_frozen(pid)}
        if frozen:
            remedy = f"let go on what is frozen: {let_go_on(*frozen.values())}; or mpc down{where} stops all"
        elif len(alive) == len(layout.members):
            remedy = f"use it, or stop it: mpc down{where}"
        else:
            remedy = (
                f"mpc up{where} --detach --parties {parties} starts those that have ended; mpc down{where} stops all"
            )
        raise ConfigError(
            f"the cluster in {layout.folder} is running already ({', '.join(alive)})",
            cause=f"a signal has frozen {' and '.join(frozen)}" if frozen else None,
            remedy=remedy,
            local=True,
        )
