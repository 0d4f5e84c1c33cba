"""Files of sqlite that refuse a write, as a full disk would."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def refusing(path: Path, table: str) -> Iterator[None]:
    """In this block no row of a table can be changed, whoever has the file open."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"CREATE TRIGGER full BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        database.commit()
        try:
            yield
        finally:
            database.execute("DROP TRIGGER full")
            database.commit()
