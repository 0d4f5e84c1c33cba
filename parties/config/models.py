"""Configuration: frozen models, read from TOML with precedence flag > environment > file.

Every problem is a ConfigError that names the place (file, variable or flag), the key and a
fix.  Nothing here is secret: keys are named by path and never read by this module.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails, core_schema

from mpc.errors import ConfigError
from mpc.text import PROCESS_NAME

ANY = "any"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")

# --- values -----------------------------------------------------------------------------


class Endpoint(str):
    """`host:port` (IPv6 as `[::1]:port`), port 1 to 65535; a str, so gRPC takes it as it is."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
            raise ValueError("must be host:port with a port from 1 to 65535")
        if host.startswith("[") and host.endswith("]"):
            try:
                ipaddress.IPv6Address(host[1:-1])
            except ValueError:
                raise ValueError("the host in brackets must be an IPv6 address") from None
        elif not _HOST.fullmatch(host):
            raise ValueError("must be host:port; the host is a DNS name, an IPv4 address or [IPv6]")
        return super().__new__(cls, text)

    @property
    def host(self) -> str:
        """Without the brackets of IPv6."""
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def check_name(name: str) -> str:
    """A name that can be a certificate's CN and DNS name; ValueError otherwise."""
    if not PROCESS_NAME.fullmatch(name):
        raise ValueError("must be 1 to 63 letters, digits, '.', '_' or '-', starting and ending with a letter or digit")
    if name.lower() == ANY:
        raise ValueError(f"{name!r} is reserved: it means everyone in a policy")
    return name


def is_host_name(text: str) -> bool:
    """Can this be the DNS name of one host?  A dot may end it; no wildcard, and nothing that no host is called."""
    return _HOST.fullmatch(text.removesuffix(".")) is not None


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

# --- models -----------------------------------------------------------------------------


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
    """What one process accepts; bytes where the name says so."""

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
    """What this party agrees to; an empty list refuses everyone, ["any"] refuses no one."""

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
    """What a client needs (cluster.toml); `name` is its own certificate's name.

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


# --- loading ----------------------------------------------------------------------------

Config = TypeVar("Config", bound=BaseModel)
Location = tuple[str | int, ...]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def load(
    cls: type[Config],
    path: Path | str,
    overrides: Mapping[str, Any] = _NOTHING,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """`path` as a `cls`, with `MPC_<SECTION>_<KEY>` from `environ` and dotted `overrides` on top.

    Overrides that are None count as not given.  Lists in a variable or a flag are comma-separated,
    peers `name=host:port`; relative paths there start at the working directory.  Raises ConfigError.
    """
    path = Path(path)
    data = _read_toml(path)
    origins: dict[Location, str] = {}
    known = {".".join(keys): keys for keys in _keys(cls)}
    variables = {_variable(keys): keys for keys in known.values()}
    _refuse_misspelt(variables, environ)
    given = [
        (f"environment variable {name}", keys, environ[name]) for name, keys in variables.items() if name in environ
    ]
    for dotted, value in overrides.items():
        if dotted not in known:
            raise ConfigError(f"there is no setting {dotted!r}", remedy=_suggest(dotted, known))
        if value is not None:
            given.append((f"flag {dotted}", known[dotted], value))
    for origin, keys, value in given:
        _put(data, keys, _from_text(cls, keys, value))
        origins[keys] = origin
    try:
        return cls.model_validate(data, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise _explain(cls, path, origins, error.errors(include_url=False)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"config file {path} does not exist",
            remedy="check the path, or make one: docs/operating.md (locally: mpc up)",
            local=True,
        ) from None
    except OSError as error:
        raise ConfigError(
            f"config file {path} cannot be read",
            cause=error.strerror,
            remedy=f"check its permissions: ls -l {path}",
            local=True,
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"config file {path} is not TOML", cause=str(error), remedy="correct that line", local=True
        ) from None


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _keys(cls: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in cls.model_fields.items():
        section = _section(field.annotation)
        yield from ((name, *rest) for rest in _keys(section)) if section else ((name,),)


def _variable(keys: tuple[str, ...]) -> str:
    return "_".join(("MPC", *keys)).upper()


def _refuse_misspelt(variables: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    # Other MPC_ variables may belong to other programs, so only a near miss of a setting is an error.
    everyone = {_variable(keys) for cls in (PartyConfig, ProviderConfig, ClusterConfig) for keys in _keys(cls)}
    for name in environ:
        if name.startswith("MPC_") and name not in everyone:
            close = difflib.get_close_matches(name, variables, 1, 0.85)
            if close:
                raise ConfigError(
                    f"environment variable {name} is not a setting",
                    remedy=f"did you mean {close[0]}? else unset {name}",
                )


def _from_text(cls: type[BaseModel], keys: tuple[str, ...], value: Any) -> Any:
    for key in keys[:-1]:
        cls = _section(cls.model_fields[key].annotation) or cls
    annotation = cls.model_fields[keys[-1]].annotation
    if Path in (annotation, *(getattr(part, "__origin__", None) for part in get_args(annotation))):
        return Path(value).expanduser().absolute()
    if get_origin(annotation) is not tuple or not isinstance(value, str):
        return value
    words = [word.strip() for word in value.split(",") if word.strip()]
    if _section(get_args(annotation)[0]) is None:
        return words
    return [dict(zip(("name", "address"), word.split("=", 1), strict=False)) for word in words]


def _put(data: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            return  # the file has a value where a section belongs; validation says so
        data = inner
    data[keys[-1]] = value


# --- what went wrong --------------------------------------------------------------------


def _explain(
    cls: type[BaseModel], path: Path, origins: dict[Location, str], problems: list[ErrorDetails]
) -> ConfigError:
    # Unknown keys first: a misspelt key also shows up as a missing one, and is the cause of it.
    problems = sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    whats, fixes = [], []
    for problem in problems[:5]:
        what, fix = _describe(cls, path, origins, problem)
        whats.append(what)
        fixes.append(fix)
    return ConfigError("; ".join(whats), remedy="; ".join(dict.fromkeys(fixes)), local=True)


def _describe(cls: type[BaseModel], path: Path, origins: dict[Location, str], problem: ErrorDetails) -> tuple[str, str]:
    location = problem["loc"]
    dotted = ".".join(str(part) for part in location)
    where = next((origin for keys, origin in origins.items() if keys and keys == location[: len(keys)]), str(path))
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key {dotted}", _suggest(str(location[-1]), _siblings(cls, location))
    if problem["type"] == "missing":
        return f"{where}: {dotted} is missing", f"add {dotted} to {path}"
    message = problem["msg"].removeprefix("Value error, ")
    got = problem["input"]
    shown = f" (got {str(got)[:80]!r})" if isinstance(got, str | int | float) else ""
    prefix = f"{dotted}: " if dotted else ""
    return f"{where}: {prefix}{message}{shown}", f"correct {dotted or 'it'} in {where}"


def _siblings(cls: type[BaseModel], location: Location) -> list[str]:
    for part in location[:-1]:
        if isinstance(part, str) and part in cls.model_fields:
            annotation = cls.model_fields[part].annotation
            cls = _section(annotation) or _section((get_args(annotation) or (None,))[0]) or cls
    return list(cls.model_fields)


def _suggest(word: str, known: list[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {close[0]}?" if close else f"remove it; known: {', '.join(sorted(known))}"


# --- writing ----------------------------------------------------------------------------


def dump_toml(model: BaseModel) -> str:
    """The model as TOML that `load` reads back; paths as they are, absent options left out."""
    return _table((), model.model_dump(mode="json", exclude_none=True)).lstrip("\n")


def _table(prefix: tuple[str, ...], values: dict[str, Any]) -> str:
    plain, sections = "", ""
    for key, value in values.items():
        name = (*prefix, key)
        if isinstance(value, dict):
            sections += f"\n[{'.'.join(name)}]\n{_table(name, value)}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            sections += "".join(f"\n[[{'.'.join(name)}]]\n{_table(name, entry)}" for entry in value)
        else:
            plain += f"{key} = {toml_value(value)}\n"
    return plain + sections


def toml_value(value: Any) -> str:
    """A bool, number, string or list of them in TOML's syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if " " <= c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` durably: after a crash there is the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # the umask may have taken bits away
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut too
    finally:
        os.close(folder)
