"""Codes are stable and unique: other processes and scripts read them."""

from __future__ import annotations

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
