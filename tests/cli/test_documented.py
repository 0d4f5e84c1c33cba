"""Commands and snippets that documents show: README's Python runs, and every `mpc` command has these options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import click
import numpy as np
import pytest

from parties import Cluster
from parties.cli import cli
from tests.support.parties import InProcess
from tests.support.parties_commands import ROOT, mpc_here

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_readmes_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line for line, with parties in this process where it starts some: their answer is the model's."""
    [snippet] = blocks(ROOT / "README.md", "python")
    asked: list[int] = []
    with InProcess(tmp_path, 2) as running:

        def local(cls: type[Cluster], parties: int) -> Cluster:
            asked.append(parties)
            return cls(running.client().config)

        monkeypatch.setattr(Cluster, "local", classmethod(local))
        names: dict[str, object] = {}
        with chdir(ROOT):
            exec(compile(snippet, "README.md", "exec"), names)
        assert running.is_idle()
    truth = np.load(ROOT / "examples" / "breast_cancer_test.npz")["y"][:8]
    found = np.asarray(names["probability"])
    assert asked == [2] and found.shape == (8, 1)
    assert ((found.ravel() > 0.5) == truth).mean() >= 0.75


def test_the_readmes_first_command() -> None:
    """`mpc inspect`, as it is written there."""
    [command] = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines() if "inspect" in line]
    with chdir(ROOT):
        found = mpc_here(*shlex.split(command)[1:], folder=ROOT)
    assert found.returncode == 0 and "rounds        4" in found.stdout


def documented() -> Iterator[tuple[str, list[str]]]:
    """(document, words) of each command in a block or between backticks."""
    for path in DOCUMENTS:
        text = path.read_text()
        lines = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        lines += re.findall(r"`(mpc [^`]+)`", text.replace("\n", " "))
        for line in lines:
            if line.startswith("mpc "):
                yield path.name, shlex.split(re.split(r"\s{3,}", line)[0], comments=True)[1:]


def test_documented_commands_have_their_options() -> None:
    """Parsed as the command line parses them, without being run."""
    seen = 0
    for document, words in documented():
        command: click.Command = cli
        context = click.Context(cli)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            assert found is not None, (document, words)
            command, words = found, words[1:]
            context = click.Context(command, parent=context)
        try:
            command.make_parser(context).parse_args([*words])
        except click.NoSuchOption as error:
            raise AssertionError(f"{document}: mpc {command.name} {' '.join(words)}: {error.message}") from None
        except click.UsageError:  # a value is left out in running text
            pass
        seen += 1
    assert seen > 40
