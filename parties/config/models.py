"""Configuration: frozen models, read from TOML with precedence flag > environment > file.

Every problem is a ConfigError that names the place (file, variable or flag), the key and a
fix.  Nothing here is secret: keys are named by path and never read by this module.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from parties import machine
from parties.addresses import ANY, Endpoint, check_name

_DIGEST = re.compile(r"[0-9a-f]{64}")
CLUSTER_BYTES = 16
"""Random bytes of a cluster's id, which is written in hex."""
_CLUSTER = re.compile(r"[0-9a-f]{32}")


def _check_allowed(names: tuple[str, ...]) -> tuple[str, ...]:
    if names == (ANY,):
        return names
    return tuple(check_name(name) for name in names)


def _check_plans(plans: tuple[str, ...]) -> tuple[str, ...]:
    if plans == (ANY,):
        return plans
    plans = tuple(plan.lower() for plan in plans)
    for plan in plans:
        if not _DIGEST.fullmatch(plan):
            raise ValueError('every entry must be a plan digest of 64 hex digits, or the list just ["any"]')
    return plans


def _check_cluster(text: str) -> str:
    if not _CLUSTER.fullmatch(text.lower()):
        raise ValueError("must be 32 hex digits, as 'mpc cert cluster' prints them")
    return text.lower()


def _resolve(path: Path, info: ValidationInfo) -> Path:
    path = path.expanduser()
    return path if not info.context else Path(os.path.abspath(info.context["folder"] / path))


Name = Annotated[str, AfterValidator(check_name)]
AllowedNames = Annotated[tuple[str, ...], AfterValidator(_check_allowed)]
AllowedPlans = Annotated[tuple[str, ...], AfterValidator(_check_plans)]
ClusterId = Annotated[str, AfterValidator(_check_cluster)]
ConfigPath = Annotated[Path, AfterValidator(_resolve)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
LogLevel = Literal["debug", "info", "warning", "error"]
Security = Literal["passive", "active"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsConfig(_Model):
    """PEM files of a process; relative paths start at the config file's folder.

    certificate: the leaf and, behind it, the intermediates that lead to the CA.
    crl: revocation lists; None to ask for none.
    """

    ca: ConfigPath
    """Certificates of the CAs that are believed, PEM."""
    certificate: ConfigPath
    """Own certificate, and behind it the intermediates that lead to the CA, PEM."""
    key: ConfigPath
    """Own key, PEM, readable by its owner only."""
    crl: ConfigPath | None = None
    """Revocation lists, PEM; read again when the file changes."""


class Deadlines(_Model):
    """Seconds until a silent peer ends the session.

    grace: after the last sign of life of a session's coordinator.
    """

    connect: Seconds = 10
    """Until a process that is dialled, or a peer's greeting, answers."""
    setup: Seconds = 60
    """Until a session is open, or a run is dealt and prepared; a second more for each MiB that comes before inputs."""
    step: Seconds = 30
    """Until a peer's payload of one round is here."""
    submit: Seconds = 120
    """Until owners have entered their inputs, of weights a second longer for each MiB; and how long outputs are kept
    for recipients."""
    idle: Seconds = 600
    """Until a session without runs ends."""
    grace: Seconds = 30
    """After the last sign of life of a session's coordinator, until the session ends."""


USUAL_MEMORY = 4 << 30
"""Bytes of memory that sessions and runs may take at a usual process, for who cannot ask it."""


class Limits(_Model):
    """Limits of one process; in bytes where the name says so."""

    max_plan_bytes: Count = 8 << 20
    """Bytes of the largest plan that is read."""
    max_batch: Count = 1 << 20
    """Rows of the largest run."""
    max_sessions: Count = 16
    """Sessions that are open at once."""
    max_sessions_per_caller: Count | None = None
    """Sessions of one coordinator; as many as there may be if it is not set."""
    max_memory_bytes: Count | None = None
    """Bytes of memory that all sessions and runs may take together; three quarters of the machine's, or of the
    container's, if it is not set."""
    max_memory_bytes_per_caller: Count | None = None
    """Bytes of memory of one client's sessions and runs at a party; as many as all may take if it is not set."""
    max_window_bytes: Count = 512 << 20
    """Bytes of one run's correlations that are held at a time; what a run needs beyond is dealt while it computes.  A
    checked run that needs no more than 3 GiB for what it is dealt is held whole."""
    max_stock_bytes: Count = 8 << 30
    """Bytes on disk that all stocks may take together."""
    max_data_bytes: Count = 16 << 30
    """Bytes on disk that all data at rest may take together."""
    max_data_bytes_per_owner: Count | None = None
    """Bytes of data at rest of one owner; as many as there may be if it is not set."""
    max_kept_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """Bytes of freed memory that stay with the process for its next run."""

    @property
    def memory(self) -> int:
        """Bytes of memory that all sessions and runs may take together."""
        return self.max_memory_bytes or machine.memory() * 3 // 4

    @property
    def memory_of_one(self) -> int:
        """Bytes of memory that one client's sessions and runs may take together."""
        return min(self.memory, self.max_memory_bytes_per_caller or self.memory)

    @property
    def sessions_of_one(self) -> int:
        """Sessions that one caller may have at once."""
        return min(self.max_sessions, self.max_sessions_per_caller or self.max_sessions)


class PolicyConfig(_Model):
    """Policy of one party: an empty list refuses everyone, ["any"] refuses no one."""

    plans: AllowedPlans = ()
    """Digests of plans that may run."""
    coordinators: AllowedNames = ()
    """Names of clients that may open sessions."""
    owners: AllowedNames = ()
    """Names of clients that may enter inputs and weights."""
    recipients: AllowedNames = ()
    """Names of clients that may learn outputs."""
    data_owners: AllowedNames = ()
    """Names of clients that may put data at the parties."""
    askers: AllowedNames = ()
    """Names of clients whose sessions wait for the operator's word (mpc requests) where no other line covers them."""
    security: Annotated[tuple[Security, ...], Field(min_length=1)] = ("passive", "active")
    """Kinds of sessions that may run: ["active"] refuses those whose runs are not checked, and all that such ones kept,
    whoever approves them."""
    max_epsilon: Annotated[Decimal, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    """The most epsilon that all noised answers about one dataset may spend, whatever its owner's budget says."""


class Peer(_Model):
    name: Name
    """The name in that process's certificate."""
    address: Endpoint
    """Where it listens."""


class ProviderPeer(Peer):
    pass


class _Daemon(_Model):
    name: Name
    """The name in this process's own certificate."""
    cluster: ClusterId | None = None
    """The cluster's id, equal in every config; without one the parties keep no data."""
    listen: Endpoint
    """Where it listens."""
    data_dir: ConfigPath
    """The folder that it keeps to itself: a party's ledger and stocks; the provider keeps nothing that lasts."""
    tls: TlsConfig
    deadlines: Deadlines = Deadlines()
    limits: Limits = Limits()
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads that compute at one time; as many as this process has cores if it is not set."""
    log_level: LogLevel = "info"
    """The least important lines that are written."""
    metrics: Endpoint | None = None
    """Where metrics for Prometheus are served; nowhere if it is not set."""


class PartyConfig(_Daemon):
    """A party's settings; `peers` is the whole roster in order, itself included."""

    provider: ProviderPeer
    peers: Annotated[tuple[Peer, ...], Field(min_length=2)]
    policy: PolicyConfig = PolicyConfig()
    data_key: ConfigPath | None = None
    """The file of the key that wraps all keys of data at rest; data_dir/vault/key if it is not set."""
    data_key_command: tuple[str, ...] = ()
    """The program, and its first words, that keeps that key instead of a file; see docs/operating.md."""
    data_key_seconds: Seconds = 30
    """Until that program has answered."""
    rounds_port: Annotated[int, Field(ge=0, le=0xFFFF)] | None = None
    """The port, at the host of `listen`, where other parties connect for the payloads of rounds; 0 for any that is
    free.  Unless both of a pair set it, and where it cannot be reached, these travel through gRPC, which takes more of
    the processor."""

    @model_validator(mode="after")
    def _check_roster(self) -> Self:
        _check_peers("peers", self.peers, self.provider)
        if self.name not in {peer.name for peer in self.peers}:
            raise ValueError(f"peers must contain this party itself, {self.name!r}")
        if self.rounds_port == self.listen.port:
            raise ValueError("rounds_port must be another port than that of listen")
        for key in ("coordinators", "owners", "recipients", "data_owners", "askers"):
            listed = sorted(self.machines.intersection(getattr(self.policy, key)))
            if listed:
                raise ValueError(
                    f"policy.{key}: {listed[0]!r} is a process of the cluster; its operator needs a client's "
                    "certificate of another name (mpc cert issue)"
                )
        return self

    @property
    def machines(self) -> frozenset[str]:
        """Names of the cluster's own processes."""
        return frozenset({self.provider.name, *(peer.name for peer in self.peers)})


class ProviderConfig(_Daemon):
    """A provider's settings; `parties` are the certificate names it may deal to."""

    parties: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Names of the only parties that it deals to."""

    @model_validator(mode="after")
    def _check_roster(self) -> Self:
        _check_distinct("parties", self.parties)
        if self.name in self.parties:
            raise ValueError("the provider must not be one of its parties: it knows every mask")
        return self

    @property
    def machines(self) -> frozenset[str]:
        """Names of the cluster's own processes."""
        return frozenset({self.name, *self.parties})


class ClusterConfig(_Model):
    """A client's settings (cluster.toml); `name` is its own certificate's name.

    entered: the durable file of the runs in which this client has entered something; None for one beside its key.
    """

    name: Name
    """The name in this client's own certificate."""
    cluster: ClusterId | None = None
    """The cluster's id, equal in every config; without one this client puts no data."""
    tls: TlsConfig
    provider: ProviderPeer
    parties: Annotated[tuple[Peer, ...], Field(min_length=2)]
    entered: ConfigPath | None = None
    """The durable list of runs in which this client has entered something; beside its key if it is not set."""
    security: Security = "passive"
    """The least that this client's sessions are: "active" if every run has to be checked before it is told."""
    deadlines: Deadlines = Deadlines()

    @model_validator(mode="after")
    def _check_roster(self) -> Self:
        _check_peers("parties", self.parties, self.provider)
        if self.name in {self.provider.name, *(party.name for party in self.parties)}:
            raise ValueError("name must not be a party's or the provider's: each role has its own certificate")
        return self

    @property
    def machines(self) -> frozenset[str]:
        """Names of the cluster's own processes."""
        return frozenset({self.provider.name, *(party.name for party in self.parties)})


def _check_peers(key: str, peers: tuple[Peer, ...], provider: Peer) -> None:
    _check_distinct(f"{key}.name", [peer.name for peer in peers])
    _check_distinct(f"{key}.name, in lower case,", [peer.name.lower() for peer in peers])
    _check_distinct(f"{key}.address", [*(peer.address for peer in peers), provider.address])
    if provider.name in {peer.name for peer in peers}:
        raise ValueError("the provider must not be one of the parties: it knows every mask")


def _check_distinct(key: str, values: list[Any] | tuple[Any, ...]) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{key}: {repeated[0]!r} is used twice")
