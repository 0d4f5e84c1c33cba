"""The reference pages of commands and settings are what the code says now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "settings.md"])
def test_reference_pages_are_current(reference: ModuleType, name: str) -> None:
    found = (ROOT / "docs" / "reference" / name).read_text()
    assert found == reference.PAGES[name](), "run .venv/bin/python scripts/reference.py"


def test_every_setting_is_there(reference: ModuleType) -> None:
    text = reference.settings()
    assert "| `[deadlines]` `grace` | seconds | `30` |" in text
    assert "| `[[peers]]` `address` | HOST:PORT | required |" in text
    assert text.count("`entered`") == 1


def test_every_command_is_there(reference: ModuleType) -> None:
    text = reference.commands()
    for name in ("run", "inspect", "cert issue", "party serve", "provider serve", "doctor"):
        assert f"\n## mpc {name}\n" in text
    assert "| `--owner` `INPUT=NAME` |" in text
