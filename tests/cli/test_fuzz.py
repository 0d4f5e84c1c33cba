"""Whatever is typed: a documented exit code, one message, and never a traceback or an internal error."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties import cli
from tests.support.effort import FULL
from tests.support.parties import tiny_model
from tests.support.parties_commands import mpc_here as mpc

_STARTS = {"up", "bench", "party", "provider"}
"""They start processes, or serve."""
_LEFT_OUT = {"--parties", "--help", "--follow", "--folder", "--ca", "--version"}
"""The first starts processes, the third does not end; the others are about places."""
_CODES = {0, 2, 3, 4, 5, 6, 7}
_FILES = ["tiny.onnx", "x.npy", "x.csv", "two.npz", "text.onnx", "nothing", ".", "tiny.plan"]
_VALUES = [
    *_FILES,
    *("", "-", "--", "=", "x=", "=1", "x=0:1", "x=1:0", "x=nan:1", "0:1,0:2", "x=0:1,0:1,0:1", "x=inf:-inf", "1e999"),
    *("x=batch,3", "x=3", "x=batch", "x=-1,0", "x=" + "9" * 30, "batch,3", "x=tiny.onnx", "x=x.npy", "x=x.csv:y"),
    *(
        "0",
        "-1",
        "3",
        "1.5",
        "9" * 25,
        "bob",
        "x=bob",
        "y=carol",
        "x=x=x",
        "../..",
        "/",
        "~",
        "\u202e",
        "a b",
        "\x1b[2J",
    ),
    *("public", "secret", "active", "passive", "deadbeef", "localhost:1", "[::1]:0", "%s", "{}", "\N{SNOWMAN}"),
]


def commands() -> dict[tuple[str, ...], click.Command]:
    """Every command that ends by itself, by its words."""
    found: dict[tuple[str, ...], click.Command] = {}
    for name, (module, attribute, _) in cli.COMMANDS.items():
        command = getattr(importlib.import_module(module), attribute)
        if name in _STARTS:
            continue
        inner = command.commands.items() if isinstance(command, click.Group) else [(None, command)]
        found.update({(name, part) if part else (name,): each for part, each in inner})
    return found


COMMANDS = commands()


@st.composite
def lines(draw: st.DrawFn, words: tuple[str, ...]) -> list[str]:
    """A command with some of its options and arguments, sensible or not."""
    command, line = COMMANDS[words], list(words)
    options = [each for each in command.params if isinstance(each, click.Option) and not _LEFT_OUT & {*each.opts}]
    for _ in range(sum(isinstance(each, click.Argument) for each in command.params)):
        line += draw(st.lists(st.sampled_from(_FILES[:1] * 4 + _VALUES), max_size=2))
    for option in draw(st.lists(st.sampled_from(options), max_size=4)) if options else []:
        line.append(draw(st.sampled_from(option.opts)))
        if not option.is_flag and draw(st.integers(0, 9)):
            line.append(draw(st.sampled_from(_VALUES)))
    return line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fuzz")
    tiny_model(made / "tiny.onnx")
    x = np.zeros((2, 3), np.float32)
    np.save(made / "x.npy", x)
    np.savez(made / "two.npz", x=x, other=x)
    (made / "x.csv").write_text("a,b,c\n1,2,3\n4,,x\n")
    (made / "text.onnx").write_text("this is no model")
    assert mpc("compile", "tiny.onnx", "--output", "tiny.plan", folder=made).returncode == 0
    return made


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@settings(max_examples=400 if FULL else 25)
@given(data=st.data())
def test_whatever_is_typed(words: tuple[str, ...], folder: Path, data: st.DataObject) -> None:
    line = data.draw(lines(words))
    done = mpc(*line, folder=folder)
    said = done.stdout + done.stderr
    assert done.returncode in _CODES, (line, done.returncode, said)
    assert "Traceback" not in said and "internal error" not in said, (line, said)
    assert "\x1b[2J" not in said and "\u202e" not in said, line
    assert done.returncode == 0 or done.stderr.strip(), line
