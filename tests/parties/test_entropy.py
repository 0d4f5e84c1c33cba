"""Test 12 of security.md: an entropy failure stops, nothing weaker is used."""

from __future__ import annotations

import os

import pytest

from mpc.errors import EntropyError, LocalProtocolError
from parties import entropy


@pytest.fixture(autouse=True)
def what_was_drawn_last_is_no_other_tests() -> None:
    entropy.token()


def test_tokens_have_the_asked_length_and_differ() -> None:
    drawn = [entropy.token(n) for n in (16, 32, 32, 64)]
    assert [len(one) for one in drawn] == [16, 32, 32, 64]
    assert len(set(drawn)) == 4


def _broken(error: Exception):
    def urandom(n: int) -> bytes:
        raise error

    return urandom


@pytest.mark.parametrize(
    "urandom",
    [
        _broken(OSError("no device")),
        _broken(NotImplementedError()),
        lambda n: b"",
        lambda n: bytes(range(n - 1)),
        lambda n: bytes(n),
        lambda n: b"\xff" * n,
        lambda n: None,
    ],
)
def test_a_failing_source_raises(monkeypatch: pytest.MonkeyPatch, urandom) -> None:
    monkeypatch.setattr(os, "urandom", urandom)
    with pytest.raises(EntropyError):
        entropy.token(32)


def test_a_repeating_source_raises_whatever_the_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda n: bytes(range(n)))
    entropy.token(32)
    for n in (32, 48, 16):
        with pytest.raises(EntropyError, match="repeated"):
            entropy.token(n)


def test_the_error_and_the_module_keep_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    output = bytes(range(32))
    monkeypatch.setattr(os, "urandom", lambda n: output[:n])
    entropy.token(32)
    with pytest.raises(EntropyError) as caught:
        entropy.token(32)
    assert output not in vars(entropy).values()
    assert output.hex() not in str(caught.value)


@pytest.mark.parametrize("n", [0, 4, 15, -1, 1 << 20])
def test_short_seeds_and_absurd_lengths_are_refused(n: int) -> None:
    with pytest.raises(LocalProtocolError):
        entropy.token(n)
