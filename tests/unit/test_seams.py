"""Tests reach the program through what is public: a field that begins with an underscore is its object's own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(path for path in TESTS.rglob("*.py") if "vectors" not in path.parts)
ALLOWED = {
    ("parties/test_launcher.py", "_psplatform"): "psutil has no other place where the machine's clock could be moved",
    ("parties/test_provider_machine.py", "_deal_parts"): "the deals of one machine wait or break, and no other's",
}
CHEATER = "a cheater is a party that runs another program: it is made by changing what is inside one"
ALLOWED |= {("support/cheating.py", name): CHEATER for name in ("_resume", "_specs", "_take")}
NARROW = "torchvision has no other place where a network's width could be said"
ALLOWED |= {
    ("support/exports.py", name): NARROW for name in ("_make_layer", "_mobilenet_v3_conf", "_efficientnet_conf")
}
PATCHING = {"setattr", "delattr", "getattr", "hasattr"}


def is_private(name: str) -> bool:
    """Names with an underscore at either end are protocols of others, such as notebooks'."""
    return name.startswith("_") and not name.startswith("__") and not name.endswith("_")


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of private fields of anything but self and cls, of private imports, of private names in patches."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, name.name) for name in node.names if is_private(name.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in PATCHING:
            texts = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
            parts = [part for text in texts if isinstance(text, str) for part in text.split(".")]
            yield from ((node.lineno, part) for part in parts if is_private(part))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("node._sessions[1]", ["_sessions"]),
        ("node.sessions, self._own, cls._own, node.__dict__, _local, table._repr_html_", []),
        ("self.node._lock", ["_lock"]),
        ("super()._take(1)", ["_take"]),
        ("from a.b import _c, d", ["_c"]),
        ("patch.setattr(module, '_LIMIT', 1)", ["_LIMIT"]),
        ("patch.setattr('a.b._LIMIT', 1)", ["_LIMIT"]),
        ("patch.setattr(module, 'LIMIT', '_x')", []),
    ],
)
def test_what_is_found(source: str, found: list[str]) -> None:
    assert [name for _, name in private_names(ast.parse(source))] == found


def test_no_test_reaches_into_private_fields() -> None:
    found = {
        (str(path.relative_to(TESTS)), name): f"{path.relative_to(TESTS)}:{line}: {name}"
        for path in FILES
        for line, name in private_names(ast.parse(path.read_text()))
    }
    assert len(FILES) > 150
    assert not [place for key, place in found.items() if key not in ALLOWED]
    assert set(ALLOWED) <= set(found)  # nothing stays allowed that is not there
