"""Both packages say that they have types, in the tree and in what is installed; and mypy sees every call."""

from __future__ import annotations

import ast
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["mpc", "parties"])
def test_types_are_shipped(package: str) -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in shipped[package] and files(package).joinpath("py.typed").is_file()


def calls_by_name(tree: ast.AST) -> list[int]:
    """Lines on which something is called that `getattr` has found by a computed name: mypy does not see its types."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            while isinstance(called, ast.Attribute):
                called = called.value
            if isinstance(called, ast.Call) and ast.unparse(called.func) == "getattr":
                found += [] if isinstance(called.args[1], ast.Constant) else [node.lineno]
    return found


def test_nothing_is_called_by_a_computed_name() -> None:
    assert calls_by_name(ast.parse("getattr(stub, method).future(request)")) == [1]
    assert calls_by_name(ast.parse("\ngetattr(logger(), level)(event)")) == [2]
    assert calls_by_name(ast.parse("getattr(gate, 'bias', None)")) == []
    modules = [
        path for package in ("mpc", "parties") for path in (ROOT / package).rglob("*.py") if "pb" not in path.parts
    ]
    assert len(modules) > 200
    assert not {str(path): found for path in modules if (found := calls_by_name(ast.parse(path.read_text())))}
