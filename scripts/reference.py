"""Writes the reference pages of the command line and of the settings, from the code that reads both.

.venv/bin/python scripts/reference.py            writes docs/reference/commands.md and docs/reference/settings.md
.venv/bin/python scripts/reference.py --check    says which of them is not current, and exits with 1
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from parties.addresses import Endpoint
from parties.cli import cli
from parties.config import models

ROOT = Path(__file__).resolve().parents[1]

FOLDER = ROOT / "docs" / "reference"
WRITTEN = "Written by `scripts/reference.py` from the code; do not edit.\n"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |\n" for row in cells
    )


# -------------------------------------------------------------------------------- commands


def commands() -> str:
    """The page of all commands: usage, help and options, as `--help` prints them."""
    parts = [
        "# Commands\n",
        WRITTEN,
        "Results go to stdout, everything else to stderr.\n",
    ]
    context = click.Context(cli, info_name="mpc")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    if isinstance(command, click.Group):
        yield f"{inspect.cleandoc(command.help or '')}\n"
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, info_name=name, parent=context))
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```\n{context.command_path} {usage}\n```\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    rows = [_option(one, context) for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if rows:
        yield table(("option", "meaning", "default"), rows)


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    metavar = "" if option.is_flag or option.count else f" `{option.make_metavar(context)}`"
    default = option.get_default(context)
    shown = (
        "" if option.is_flag or option.required or not isinstance(default, str | int | float | Path) else f"`{default}`"
    )
    several = " May be given several times." if option.multiple else ""
    return f"{names}{metavar}", f"{option.help or ''}{several}", "required" if option.required else shown


# -------------------------------------------------------------------------------- settings

FILES = {
    "A party: `mpc party serve --config F`": models.PartyConfig,
    "The provider: `mpc provider serve --config F`": models.ProviderConfig,
    "A client: `--cluster F`": models.ClusterConfig,
}


def settings() -> str:
    """The page of all settings: for each file its keys, their types, defaults and meanings."""
    parts = [
        "# Settings\n",
        WRITTEN,
        "Files are TOML. A flag goes before the environment, that before the file: `MPC_DEADLINES_STEP=5` stands for\n"
        "`step` under `[deadlines]`. Unknown keys are errors. Relative paths start at the file's folder.\n",
    ]
    for title, model in FILES.items():
        parts += [f"## {title}\n", table(("key", "value", "default", "meaning"), [*_keys(model, "")])]
    return "\n".join(parts)


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    said = _meanings(model)
    nested = []
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is not None:
            nested.append((inner, f"[[{name}]] " if _is_list(field.annotation) else f"[{name}] "))
            continue
        default = "required" if field.default is PydanticUndefined else _value(field.default)
        meaning = said.get(name, "")
        if not meaning:
            raise SystemExit(
                f"{model.__name__}.{name} has no meaning: write a string below it in parties/config/models.py"
            )
        yield f"{prefix}`{name}`", _kind(field.annotation), default, meaning
    for inner, place in nested:
        yield from _keys(inner, f"`{place.strip()}` ")


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The string that stands below each field, in the class and in those that it is made of."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not kind.__module__.startswith("parties."):
            continue
        [defined] = [node for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef)]
        for field, below in zip(defined.body, defined.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[ast.unparse(field.target)] = str(ast.literal_eval(below.value))
    return found


def _arguments(annotation: Any) -> list[Any]:
    return [one for one in typing.get_args(annotation) if one not in (type(None), Ellipsis)]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_model_of(one) for one in _arguments(annotation) if typing.get_origin(annotation) is not typing.Literal]
    return next((one for one in found if one is not None), None)


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple


_KINDS = {str: "text", int: "number", float: "seconds", Decimal: "number", Path: "path", Endpoint: "HOST:PORT"}


def _kind(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{one}`" for one in typing.get_args(annotation))
    if origin is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if origin in (types.UnionType, typing.Union):
        return _kind(_arguments(annotation)[0])
    return "list of texts" if origin is tuple else _KINDS[annotation]


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


PAGES = {"commands.md": commands, "settings.md": settings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is not current")
    check = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    old = []
    for name, make in PAGES.items():
        path = FOLDER / name
        text = make()
        if not path.exists() or path.read_text() != text:
            old.append(name)
            if not check:
                path.write_text(text)
    if check and old:
        sys.exit(f"not current: {', '.join(old)}; run .venv/bin/python scripts/reference.py")


if __name__ == "__main__":
    main()
