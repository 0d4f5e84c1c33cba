"""Both packages say that they have types, in the tree and in what is installed."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["mpc", "parties"])
def test_types_are_shipped(package: str) -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in shipped[package] and files(package).joinpath("py.typed").is_file()
