"""Count what the collections that a client has entered tell of it together, which nobody else counts.

Each collection says what its sum tells of a client, at most; sums add up, and whoever collects may open one after
another.  So a client keeps this list, by itself: a collection stands in it, durably, before its row leaves, however it
is entered.  Where this client has said what it allows in all, as it does in Flower, none is entered that would bring
the sum above that.  What was entered stays counted, though nothing
may come of it: a row may have left, and a collection that is closed late tells it after all.

One sqlite file for each name, beside the key; several processes may use it at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

from mpc.errors import ConfigError, PolicyError
from mpc.privacy.facts import Loss
from parties.config.models import ClusterConfig
from parties.database import Migration, UnknownVersionError, connect, migrate, transaction

MIGRATIONS: tuple[Migration, ...] = (
    (
        """CREATE TABLE spent (
            collection TEXT PRIMARY KEY, name TEXT NOT NULL, epsilon TEXT NOT NULL, delta TEXT NOT NULL
        ) WITHOUT ROWID""",
    ),
)
"""Number k makes version k of version k - 1; what has been released stays as it is (see `parties/database.py`)."""


def place_of(config: ClusterConfig) -> Path:
    """Name the file of this client's list."""
    return config.tls.key.parent / f"{config.name}.spent.sqlite"


class Spent:
    """List of one client; the file is made when it is asked for the first time.

    Args:
        path: of the file, which only its owner may read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def loss(self) -> Loss:
        """Return what all collections in the list tell of this client, at most."""
        with self._writing() as database:
            return _sum(database)

    def spend(self, collection: str, name: str, loss: Loss, most: Loss | None = None) -> None:
        """List a collection, unless it is there already; it is on the disk when this returns.

        Args:
            collection: its id, which everything that was said of it follows from.
            loss: what it tells of this client, at most.
            most: that all collections of the list may tell together; None counts, and refuses nothing.

        Raises:
            PolicyError: with this one they would tell more.
            ConfigError: the file cannot be written.
        """
        with self._writing() as database:
            row = (collection, name, str(loss.epsilon), str(loss.delta))
            if database.execute("SELECT 1 FROM spent WHERE collection = ?", row[:1]).fetchone() is not None:
                return
            before = _sum(database)
            after = before + loss
            if most is not None and (after.epsilon > most.epsilon or after.delta > most.delta):
                raise PolicyError(
                    f"with {name} all collections that this client has entered would tell more than it allows",
                    cause=f"epsilon {float(before.epsilon):g} so far, {float(loss.epsilon):g} more, "
                    f"{float(most.epsilon):g} in all; delta {float(before.delta):g}, {float(loss.delta):g}, "
                    f"{float(most.delta):g}",
                    remedy="end the training here, or allow more in all",
                )
            database.execute("INSERT INTO spent VALUES (?, ?, ?, ?)", row)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            # No write-ahead log: this file alone is the list, and whoever moves it moves all of it.
            database = connect(self._path, "journal_mode = TRUNCATE", "synchronous = FULL", "fullfsync = ON")
            with closing(database), transaction(database):
                migrate(database, MIGRATIONS)
                yield database
        except (sqlite3.Error, OSError, UnknownVersionError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(
                f"this client's list of what collections tell of it, {self._path}, cannot be used: {why}",
                cause="its folder is missing, read-only or full, or the file is damaged, or of a newer version of mpc",
                remedy="make the folder writable; do not delete the list, nobody else counts what it has",
                local=True,
            ) from None


def _sum(database: sqlite3.Connection) -> Loss:
    rows = database.execute("SELECT epsilon, delta FROM spent").fetchall()
    return sum((Loss(Fraction(epsilon), Fraction(delta)) for epsilon, delta in rows), Loss())
