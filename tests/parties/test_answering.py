"""Parties that are asked for what each knows by itself: all at once, and those that are silent hide nothing."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mpc.errors import IntegrityError, PeerError
from parties.client.answering import Silent, ask_each
from tests.support.effort import patient

CLIENTS: Any = [SimpleNamespace(name=f"party-{index}") for index in range(3)]


def test_all_are_asked_at_once() -> None:
    together = threading.Barrier(len(CLIENTS))

    def ask(client: Any) -> str:
        together.wait(patient(20))
        return client.name.upper()

    assert list(ask_each(CLIENTS, ask).items()) == [(f"party-{index}", f"PARTY-{index}") for index in range(3)]


def test_those_that_are_silent_are_told_of_in_the_order_of_parties() -> None:
    last = threading.Event()

    def ask(client: Any) -> int:
        if client.name == "party-2":
            last.set()
            raise PeerError("party-2 is gone", peer="party-2")
        last.wait(patient(20))
        if client.name == "party-0":
            raise PeerError("party-0 is gone", peer="party-0")
        return 1

    silent = Silent()
    assert ask_each(CLIENTS, ask, silent) == {"party-1": 1}
    assert [error.peer for error in silent] == ["party-0", "party-2"]
    with pytest.raises(PeerError, match="party-0 is gone"):
        ask_each(CLIENTS, ask)


def test_what_is_no_silence_is_raised() -> None:
    def ask(client: Any) -> int:
        if client.name == "party-1":
            raise IntegrityError("party-1 lies", peer="party-1")
        return 1

    with pytest.raises(IntegrityError, match="lies"):
        ask_each(CLIENTS, ask, Silent())
