"""Codes are stable and unique: other processes and scripts read them."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from mpc import errors
from mpc.errors import MpcError

CODES = {
    "internal": 1, "local_protocol": 1, "reuse": 1, "entropy": 1, "usage": 2, "config": 3, "policy": 4, "plan": 5,
    "model": 5, "input": 5, "peer": 6, "deadline": 6, "encoding": 6, "handshake": 6, "session": 6, "integrity": 7,
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
