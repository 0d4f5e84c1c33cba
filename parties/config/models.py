"""Configuration: frozen models, read from TOML with precedence flag > environment > file.

Every problem is a ConfigError that names the place (file, variable or flag), the key and a
fix.  Nothing here is secret: keys are named by path and never read by this module.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from parties.addresses import ANY, Endpoint, check_name

_DIGEST = re.compile(r"[0-9a-f]{64}")


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


def _resolve(path: Path, info: ValidationInfo) -> Path:
    path = path.expanduser()
    return path if not info.context else Path(os.path.abspath(info.context["folder"] / path))


Name = Annotated[str, AfterValidator(check_name)]
AllowedNames = Annotated[tuple[str, ...], AfterValidator(_check_allowed)]
AllowedPlans = Annotated[tuple[str, ...], AfterValidator(_check_plans)]
ConfigPath = Annotated[Path, AfterValidator(_resolve)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
LogLevel = Literal["debug", "info", "warning", "error"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsConfig(_Model):
    """PEM files; relative paths start at the config file's folder.

    certificate: the leaf and, behind it, the intermediates that lead to the CA.
    crl: revocation lists; None to ask for none.
    """

    ca: ConfigPath
    certificate: ConfigPath
    key: ConfigPath
    crl: ConfigPath | None = None


class Deadlines(_Model):
    """Seconds until a silent peer ends the session.

    grace: after the last sign of life of a session's coordinator.
    """

    connect: Seconds = 10
    setup: Seconds = 60
    step: Seconds = 30
    submit: Seconds = 120
    idle: Seconds = 600
    grace: Seconds = 30


class Limits(_Model):
    """Limits of one process; in bytes where the name says so."""

    max_plan_bytes: Count = 1 << 20
    max_batch: Count = 4096
    max_sessions: Count = 16
    max_sessions_per_caller: Count | None = None
    max_memory_bytes: Count = 4 << 30
    max_stock_bytes: Count = 8 << 30
    max_kept_bytes: Annotated[int, Field(ge=0)] = 1 << 30

    @property
    def sessions_of_one(self) -> int:
        """Sessions that one caller may have at once."""
        return min(self.max_sessions, self.max_sessions_per_caller or self.max_sessions)


class PolicyConfig(_Model):
    """The policy of one party: an empty list refuses everyone, ["any"] refuses no one."""

    plans: AllowedPlans = ()
    coordinators: AllowedNames = ()
    owners: AllowedNames = ()
    recipients: AllowedNames = ()


class Peer(_Model):
    name: Name
    address: Endpoint


class ProviderPeer(Peer):
    pass


class _Daemon(_Model):
    name: Name
    listen: Endpoint
    data_dir: ConfigPath
    tls: TlsConfig
    deadlines: Deadlines = Deadlines()
    limits: Limits = Limits()
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    log_level: LogLevel = "info"
    metrics: Endpoint | None = None


class PartyConfig(_Daemon):
    """One party; `peers` is the whole roster in order, itself included."""

    provider: ProviderPeer
    peers: Annotated[tuple[Peer, ...], Field(min_length=2)]
    policy: PolicyConfig = PolicyConfig()

    @model_validator(mode="after")
    def _check_roster(self) -> Self:
        _check_peers("peers", self.peers, self.provider)
        if self.name not in {peer.name for peer in self.peers}:
            raise ValueError(f"peers must contain this party itself, {self.name!r}")
        for key in ("coordinators", "owners", "recipients"):
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
    """The provider; `parties` are the certificate names it may deal to."""

    parties: Annotated[tuple[Name, ...], Field(min_length=2)]

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
    tls: TlsConfig
    provider: ProviderPeer
    parties: Annotated[tuple[Peer, ...], Field(min_length=2)]
    entered: ConfigPath | None = None
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
