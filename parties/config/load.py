"""Load a config: a flag goes before the environment, that before the file; each problem names its place and a fix."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mpc.errors import ConfigError
from parties.config.models import ClusterConfig, PartyConfig, ProviderConfig

Config = TypeVar("Config", bound=BaseModel)


Location = tuple[str | int, ...]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def load(
    cls: type[Config],
    path: Path | str,
    overrides: Mapping[str, Any] = _NOTHING,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Load `path` as a `cls`, with `MPC_<SECTION>_<KEY>` from `environ` and dotted `overrides` on top.

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


def dump_toml(model: BaseModel) -> str:
    """Write the model as TOML that `load` reads back; paths as they are, absent options left out."""
    import tomli_w  # only who makes a cluster writes any

    return tomli_w.dumps(model.model_dump(mode="json", exclude_none=True))
