"""Codes are stable and unique: other processes and scripts read them."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpc import errors
from mpc.errors import MpcError

ROOT = Path(__file__).parents[2]
CODES = {
    "internal": 1, "local_protocol": 1, "reuse": 1, "entropy": 1, "usage": 2, "config": 3, "policy": 4,
    "private_data": 4, "waiting": 4, "plan": 5, "model": 5, "input": 5, "peer": 6, "deadline": 6, "encoding": 6,
    "handshake": 6, "session": 6, "integrity": 7,
}  # fmt: skip


def classes() -> list[type[MpcError]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MpcError)]


def test_codes_and_exit_statuses_are_the_known_ones() -> None:
    assert {c.code: c.exit_code for c in classes()} == CODES
    assert len({c.code for c in classes()}) == len(classes())


def test_of_one_failure_what_altered_data_is_told_before_what_only_follows() -> None:
    order = sorted(classes(), key=lambda cls: cls.telling)
    ranks = [[cls.exit_code for cls in order if cls.telling == rank] for rank in range(6)]
    assert [set(codes) for codes in ranks] == [{7}, {4}, {5}, {3}, {2, 6}, {1}]


@pytest.mark.parametrize("cls", classes())
def test_a_class_is_found_by_its_code(cls: type[MpcError]) -> None:
    assert errors.by_code(cls.code) is cls


def test_an_unknown_code_is_the_base() -> None:
    assert errors.by_code("from a later version") is MpcError


def test_lines_are_what_cause_and_remedy() -> None:
    error = errors.PeerError("it failed", cause="a cable", remedy="plug it in", peer="b")
    assert error.lines() == ["it failed", "cause: a cable", "fix: plug it in"] and error.peer == "b"
    assert str(errors.PlanError("only this")) == "only this"


def test_own_mistakes_and_peers_are_never_mixed() -> None:
    own = {c for c in classes() if issubclass(c, errors.LocalProtocolError)}
    assert not any(issubclass(c, errors.PeerError) for c in own)


def full(cls: type[MpcError]) -> MpcError:
    """An error of this class with a value of its own in each field, and a cause."""
    said = {name: True if name == "local" else f"its {name}" for name in cls.fields}
    try:
        raise cls(**said) from ValueError("beneath")  # type: ignore[arg-type]
    except MpcError as error:
        return error


@pytest.mark.parametrize("cls", classes())
def test_a_constructor_takes_every_field_and_no_others(cls: type[MpcError]) -> None:
    assert tuple(inspect.signature(cls).parameters)[0] == cls.fields[0] == "what"
    assert set(inspect.signature(cls).parameters) == set(cls.fields) == set(vars(full(cls)))


@pytest.mark.parametrize("cls", classes())
def test_copies_keep_class_code_exit_status_and_every_field(cls: type[MpcError]) -> None:
    error = full(cls)
    for made in (
        error.again(),
        error.with_(),
        copy.copy(error),
        copy.deepcopy(error),
        pickle.loads(pickle.dumps(error)),
    ):
        assert type(made) is cls and made is not error
        assert (made.code, made.exit_code, str(made), made.args) == (cls.code, cls.exit_code, str(error), error.args)
        assert vars(made) == vars(error)
        assert made.__traceback__ is None  # the frames that it passed, and what they hold, stay behind


@pytest.mark.parametrize("cls", classes())
def test_a_copy_with_a_change_says_all_else_as_before(cls: type[MpcError]) -> None:
    error = full(cls)
    for name in ("what", "cause", "remedy", "peer", "heard_from"):
        made = error.with_(**{name: "another"})  # type: ignore[misc]
        assert type(made) is cls and vars(made) == vars(error) | {name: "another"}
        assert made.lines()[0] == made.args[0] == made.what
    assert vars(error) == vars(full(cls))


def test_a_copy_with_a_change_has_the_cause_and_a_kept_copy_has_none() -> None:
    error = full(errors.PeerError)
    assert error.with_(peer="b").__cause__ is error.__cause__ is not None
    assert error.with_(peer="b").__suppress_context__
    assert error.again().__cause__ is None
    assert not MpcError("alone").with_(peer="b").__suppress_context__


@pytest.mark.parametrize("cls", classes())
def test_what_an_error_says_is_not_changed(cls: type[MpcError]) -> None:
    error = full(cls)
    for name in cls.fields:
        with pytest.raises(AttributeError, match=name):
            setattr(error, name, "another")
        with pytest.raises(AttributeError, match=name):
            delattr(error, name)
    assert vars(error) == vars(full(cls))
    error.__traceback__ = None  # what Python itself keeps with an error is another matter
    error.__cause__ = None


FIELDS = {name for cls in classes() for name in cls.fields} | {"code", "exit_code"}


def changes(tree: ast.AST) -> Iterator[str]:
    """Assignments to, and deletions of, attributes that errors have, of anything but `self`; `setattr` of them too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            if node.attr in FIELDS and ast.unparse(node.value) != "self":
                yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "setattr",
            "__setattr__",
            "delattr",
        ):
            if any(isinstance(each, ast.Constant) and each.value in FIELDS for each in node.args):
                yield f"{node.lineno}: {ast.unparse(node)}"


def test_shipped_code_changes_no_error() -> None:
    """Somebody may hold it already, in a session, a link or another thread: a copy says something else."""
    for text in (
        "error.peer = name",
        "error.what += more",
        "a, error.cause = pair",
        "error.remedy: str = text",
        "del error.peer",
        "for error.peer in names: pass",
        "setattr(error, 'peer', name)",
        "object.__setattr__(error, 'heard_from', name)",
    ):
        assert len(list(changes(ast.parse(text)))) == 1, text
    assert not list(changes(ast.parse("error = error.with_(peer=name); self.peer = peer; error.__traceback__ = None")))
    paths = [
        path for package in ("mpc", "parties") for path in (ROOT / package).rglob("*.py") if "pb" not in path.parts
    ]
    assert len(paths) > 200
    found = {str(path.relative_to(ROOT)): list(changes(ast.parse(path.read_text()))) for path in paths}
    assert not {path: lines for path, lines in found.items() if lines}
