"""What owners take of a party's disk: sums that follow every change, and cost as much for many objects as for few."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from parties import entropy
from parties.party.ledger import schema
from parties.party.vault import catalogue

OWNERS = ("ann", "bob", "carol")
SCHEMA = b'{"name":"x","description":"","columns":[]}'
BY_LOOKING = (
    "SELECT coalesce(sum(size), 0), coalesce(sum(size * (owner = ?1)), 0), "
    "coalesce(sum(owner = ?1 AND state != 'living'), 0) FROM data_objects"
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    found = schema.connect(tmp_path / schema.DATABASE)
    found.execute("PRAGMA synchronous = OFF")
    found.execute("BEGIN")
    schema.bring_forward(found, tmp_path)
    catalogue.start(found)
    found.execute("COMMIT")
    yield found
    found.close()


def add(database: sqlite3.Connection, owner: str, size: int) -> int:
    """Begin to put an object; its number."""
    row = (entropy.token(16), catalogue.DRAFT, owner, b"k", f"{owner}/x", 1, SCHEMA, size, 0, b"w")
    found = database.execute(
        "INSERT INTO data_objects (put, state, owner, owner_key, name, version, schema, size, touched, key) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    ).lastrowid
    assert found is not None
    return found


def check(database: sqlite3.Connection) -> None:
    for owner in (*OWNERS, "nobody"):
        assert catalogue.taken(database, owner) == database.execute(BY_LOOKING, (owner,)).fetchone()


def change(database: sqlite3.Connection, rng: random.Random, numbers: list[int]) -> None:
    """Do one thing that changes what is taken, or does not."""
    what = rng.randrange(6)
    if what < 2 or not numbers:
        numbers.append(add(database, rng.choice(OWNERS), rng.randrange(1000)))
    elif what == 2:
        catalogue.grow(database, rng.choice(numbers), rng.randrange(5000))
    elif what == 3:
        database.execute("UPDATE data_objects SET state = 'living' WHERE number = ?", (rng.choice(numbers),))
    elif what == 4:
        database.execute("DELETE FROM data_objects WHERE number = ?", (numbers.pop(rng.randrange(len(numbers))),))
    else:
        catalogue.touch(database, rng.choice(numbers), 7.0)


@pytest.mark.parametrize("seed", range(3))
def test_sums_follow_every_change_and_every_change_that_is_taken_back(database: sqlite3.Connection, seed: int) -> None:
    rng, numbers = random.Random(seed), list[int]()
    for _ in range(30):
        before = list(numbers)
        database.execute("BEGIN")
        for _ in range(rng.randrange(1, 5)):
            change(database, rng, numbers)
            check(database)
        if rng.random() < 0.4:
            database.execute("ROLLBACK")
            numbers = before
        else:
            database.execute("COMMIT")
        check(database)
    catalogue.start(database)  # as at the next start
    check(database)


def test_many_objects_cost_no_more_than_few(database: sqlite3.Connection) -> None:
    """Counted: steps of SQLite's own machine."""

    def steps() -> int:
        done = list[None]()
        database.set_progress_handler(lambda: done.append(None), 1)
        catalogue.taken(database, "ann")
        database.set_progress_handler(None, 1)
        return len(done)

    add(database, "ann", 1)
    few = steps()
    database.execute("BEGIN")
    for number in range(1000):
        add(database, OWNERS[number % 3], number)
    assert 0 < few and steps() < few + 20
