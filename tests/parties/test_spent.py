"""What a client counts of collections that it enters: all of them together, once each, durably."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from mpc.errors import ConfigError, PolicyError
from mpc.privacy.facts import Loss
from parties.client.collections.spent import MIGRATIONS, Spent

MOST = Loss(Fraction(1), Fraction(1, 1000))


def enter(spent: Spent, number: int, epsilon: str = "1/10", delta: str = "1/1000000", most: Loss = MOST) -> None:
    loss = Loss(Fraction(epsilon), Fraction(delta))
    spent.spend(f"{number:064x}", f"lab/round-{number}", loss, most)


def test_ten_tenths_are_one(tmp_path: Path) -> None:
    """Sums are exact: with floats the tenth would be beyond or below."""
    spent = Spent(tmp_path / "me.spent.sqlite")
    for number in range(10):
        enter(spent, number)
    assert spent.loss == Loss(Fraction(1), Fraction(1, 100_000))
    with pytest.raises(PolicyError, match="would tell more than it allows.*epsilon 1 so far, 1e-09 more, 1 in all"):
        enter(spent, 10, "1/1000000000")
    assert spent.loss.epsilon == 1


def test_one_collection_counts_once_and_for_ever(tmp_path: Path) -> None:
    """What is entered again after it was interrupted is not counted again, and another process finds it."""
    path = tmp_path / "me.spent.sqlite"
    for _ in range(2):
        enter(Spent(path), 1, "1")
    with pytest.raises(PolicyError):
        enter(Spent(path), 2, "1/2")
    enter(Spent(path), 1, "1", most=Loss())


def test_deltas_count_too(tmp_path: Path) -> None:
    spent = Spent(tmp_path / "me.spent.sqlite")
    with pytest.raises(PolicyError, match="delta 0, 0.002, 0.001"):
        enter(spent, 1, "1/10", "1/500")
    assert spent.loss == Loss()


def test_a_list_that_cannot_be_kept_stops_everything(tmp_path: Path) -> None:
    path = tmp_path / "me.spent.sqlite"
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        enter(Spent(tmp_path / "nowhere" / "me.spent.sqlite"), 1)
    assert caught.value.local
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(ConfigError, match="a newer version of mpc"):
        enter(Spent(path), 1)
    path.write_bytes(b"no database " * 100)
    with pytest.raises(ConfigError, match="do not delete the list"):
        enter(Spent(path), 1)
