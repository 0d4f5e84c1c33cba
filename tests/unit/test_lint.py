"""What git may run before a commit is what `scripts/lint` runs: the commands stand in two files."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ".venv/bin/"


def hooks(text: str) -> list[dict[str, str]]:
    """The hooks of a pre-commit configuration, as it is written here: one `key: value` a line."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        setting = re.fullmatch(r" {6}(- | {2})(\w+): (.*)", line)
        if setting is not None:
            new, key, value = setting.groups()
            found += [{}] if new == "- " else []
            found[-1][key] = value
    return found


def test_hooks_before_a_commit_are_the_commands_of_lint() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    checks = re.findall(r"^check (.*)$", (ROOT / "scripts" / "lint").read_text(), re.MULTILINE)
    assert len(checks) >= 4
    entries = [hook["entry"] for hook in hooks(text)]
    assert all(entry.startswith(TOOLS) for entry in entries)  # git's hooks do not have the environment in their path
    assert [entry.removeprefix(TOOLS) for entry in entries] == checks


def test_hooks_download_nothing_and_see_the_whole_project() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"- repo: (.*)", text) == ["local"]
    for hook in hooks(text):
        assert (hook["language"], hook["pass_filenames"]) == ("system", "false"), hook["id"]
    assert len({hook["id"] for hook in hooks(text)}) == len(hooks(text)) == text.count("- id:")
