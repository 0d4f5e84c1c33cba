"""Rows of the ledger's file about consent: owners' words as they were signed, and what was spent.

Amounts are integers: epsilon in billionths, delta in units of 10^-18, both rounded up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from mpc.privacy.facts import CHARGE_UNIT, DELTA_UNIT, Loss
from parties.agreed.grants import Budget
from parties.agreed.signed import Signed


@dataclass(frozen=True)
class Amount:
    """Sum that was spent, or may be: epsilon in billionths, delta in units of 10^-18."""

    epsilon: int = 0
    delta: int = 0

    @classmethod
    def charged(cls, loss: Loss) -> Amount:
        """Return what a loss costs, rounded up."""
        return cls(loss.charge, -(-loss.delta * DELTA_UNIT // 1))

    @classmethod
    def allowed(cls, epsilon: Fraction, delta: Fraction) -> Amount:
        """Return what an owner allows, rounded down."""
        return cls(int(epsilon * CHARGE_UNIT // 1), int(delta * DELTA_UNIT // 1))

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.epsilon + other.epsilon, self.delta + other.delta)

    def within(self, limit: Amount) -> bool:
        """Is it at most that?"""
        return self.epsilon <= limit.epsilon and self.delta <= limit.delta


@dataclass(frozen=True)
class GrantRow:
    """A grant that a party keeps.

    Args:
        owner_key: digest of the key that signed it.
        revoked: its owner has taken it back.
    """

    id: str
    owner: str
    owner_key: bytes
    signed: Signed
    revoked: bool


@dataclass(frozen=True)
class Charge:
    """Price of one run through one dataset.

    Args:
        grant: id of the grant under which it ran.
        mechanism: "exact", or which noise.
    """

    session: str
    run: int
    dataset: str
    grant: str
    plan: str
    mechanism: str
    amount: Amount


_GRANT = "g.id, g.owner, g.owner_key, g.content, g.signature, g.certificate"
_REVOKED = (
    "EXISTS (SELECT 1 FROM consent_revocations r WHERE r.revoked = g.id AND r.owner = g.owner "
    "AND r.owner_key = g.owner_key)"
)


def grants_of(database: sqlite3.Connection, owner: str, key: bytes, datasets: Iterable[str]) -> list[GrantRow]:
    """List the grants that a key has signed of datasets, by their names or ids, in the order of the grants' ids."""
    found = []
    for dataset in datasets:
        rows = database.execute(
            f"SELECT {_GRANT}, {_REVOKED} FROM consent_grants g "  # noqa: S608 - no value of anybody's
            "WHERE g.dataset = ? AND g.owner = ? AND g.owner_key = ?",
            (dataset, owner, key),
        )
        found += [_grant(row) for row in rows]
    return sorted(found, key=lambda row: row.id)


def grants_about(database: sqlite3.Connection, client: str, key: bytes) -> list[str]:
    """List the ids of grants that a client has signed with that key, and of those that name it."""
    rows = database.execute(
        "SELECT g.id FROM consent_grants g WHERE g.owner = ?1 AND g.owner_key = ?2 OR EXISTS "
        "(SELECT 1 FROM consent_named n WHERE n.grant_id = g.id AND n.client = ?1) ORDER BY g.number",
        (client, key),
    )
    return [grant for (grant,) in rows]


def grant_of(database: sqlite3.Connection, grant: str) -> GrantRow | None:
    """Find a grant by its id."""
    query = f"SELECT {_GRANT}, {_REVOKED} FROM consent_grants g WHERE g.id = ?"  # noqa: S608 - no value of anybody's
    row = database.execute(query, (grant,)).fetchone()
    return None if row is None else _grant(row)


def is_named(database: sqlite3.Connection, client: str, dataset: str, key: bytes) -> bool:
    """Does a grant of this dataset, signed by its owner's key, name a client?"""
    query = (
        "SELECT 1 FROM consent_grants g JOIN consent_named n ON n.grant_id = g.id WHERE n.client = ? AND "
        "g.owner_key = ? AND (g.dataset = ? OR g.dataset IN (SELECT object FROM data_objects WHERE name = ?)) LIMIT 1"
    )
    return database.execute(query, (client, key, dataset, dataset)).fetchone() is not None


def _grant(row: tuple[str, str, bytes, bytes, bytes, bytes, int]) -> GrantRow:
    number, owner, key, content, signature, certificate, revoked = row
    return GrantRow(number, owner, key, Signed(content, signature, certificate), bool(revoked))


def count_grants(database: sqlite3.Connection, owner: str, dataset: str) -> tuple[int, int, int]:
    """Count (an owner's grants, those of them that are of one dataset, bytes of all)."""
    size = "length(content) + length(signature) + length(certificate)"
    query = (
        f"SELECT count(*), coalesce(sum(dataset = ?), 0), coalesce(sum({size}), 0) "  # noqa: S608 - no value of anybody's
        "FROM consent_grants WHERE owner = ?"
    )
    found: tuple[int, int, int] = database.execute(query, (dataset, owner)).fetchone()
    return found


def count_budgets(database: sqlite3.Connection, owner: str) -> int:
    """Count the budgets of an owner."""
    query = "SELECT count(*) FROM consent_budgets WHERE owner = ?"
    return int(database.execute(query, (owner,)).fetchone()[0])


def count_loose_revocations(database: sqlite3.Connection, owner: str) -> int:
    """Count an owner's revocations of what is not here: neither the grant, nor anything that was kept under it."""
    query = (
        "SELECT count(*) FROM consent_revocations WHERE owner = ? "
        "AND (revoked, owner, owner_key) NOT IN (SELECT id, owner, owner_key FROM consent_grants) "
        "AND (revoked, owner, owner_key) NOT IN (SELECT grant_id, owner, owner_key FROM data_grants)"
    )
    return int(database.execute(query, (owner,)).fetchone()[0])


def is_loose(database: sqlite3.Connection, grant: str, owner: str, key: bytes) -> bool:
    """Is neither a key's grant here, nor anything that was kept under it, nor its revocation?"""
    query = (
        "SELECT EXISTS (SELECT 1 FROM consent_grants WHERE id = ?1 AND owner = ?2 AND owner_key = ?3) "
        "OR EXISTS (SELECT 1 FROM consent_revocations WHERE revoked = ?1 AND owner = ?2 AND owner_key = ?3) "
        "OR EXISTS (SELECT 1 FROM data_grants WHERE grant_id = ?1 AND owner = ?2 AND owner_key = ?3)"
    )
    return not database.execute(query, (grant, owner, key)).fetchone()[0]


def has_grant(database: sqlite3.Connection, grant: str) -> bool:
    """Is a grant of that id here?"""
    return database.execute("SELECT 1 FROM consent_grants WHERE id = ?", (grant,)).fetchone() is not None


def add_grant(database: sqlite3.Connection, row: GrantRow, dataset: str, expires: int, named: Iterable[str]) -> None:
    """Keep a grant."""
    signed = row.signed
    database.execute(
        "INSERT INTO consent_grants (id, owner, owner_key, dataset, expires, content, signature, certificate) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.owner, row.owner_key, dataset, expires, signed.content, signed.signature, signed.certificate),
    )
    database.executemany("INSERT OR IGNORE INTO consent_named VALUES (?, ?)", [(row.id, name) for name in named])


def drop_expired(database: sqlite3.Connection, before: float) -> None:
    """Forget grants that expired before that time; what was charged under them stays, and so do their revocations.

    The clock may have been ahead, and its operator may accept an earlier time: then the grant is taken again.
    """
    database.execute("DELETE FROM consent_grants WHERE expires < ?", (before,))


def end_expired(database: sqlite3.Connection, latest: float) -> int:
    """End the grants that have expired by then, though it may be earlier again; how many.  Revocations stay."""
    return database.execute("DELETE FROM consent_grants WHERE expires <= ?", (latest,)).rowcount


def add_revocation(database: sqlite3.Connection, grant: str, owner: str, key: bytes, signed: Signed) -> bool:
    """Keep a revocation; False if there is one of that key already."""
    done = database.execute(
        "INSERT OR IGNORE INTO consent_revocations VALUES (?, ?, ?, ?, ?, ?)",
        (grant, owner, key, signed.content, signed.signature, signed.certificate),
    )
    return done.rowcount == 1


def budget_of(database: sqlite3.Connection, dataset: str, key: bytes) -> Signed | None:
    """Return the budget of a dataset that a key has signed last."""
    query = "SELECT content, signature, certificate FROM consent_budgets WHERE dataset = ? AND owner_key = ?"
    found = database.execute(query, (dataset, key)).fetchone()
    return None if found is None else Signed(*found)


def budgets_of(database: sqlite3.Connection, dataset: str, key: bytes) -> list[Signed]:
    """List the budgets that a key has signed last of a dataset: its own, and those of groups that it is in."""
    query = (
        "SELECT content, signature, certificate FROM consent_budgets "
        "WHERE owner_key = ? AND (dataset = ? OR instr(content, ?)) ORDER BY dataset"
    )
    rows = database.execute(query, (key, dataset, f'"{dataset}"'.encode()))
    found = [Signed(*row) for row in rows]
    return [signed for signed in found if dataset in Budget.parse(signed.content).datasets]


def tightest(database: sqlite3.Connection, dataset: str, key: bytes) -> tuple[Signed | None, Amount]:
    """Return (the budget of a dataset that has least left, what was spent of it)."""
    found: tuple[Signed | None, Amount] = (None, spent_on(database, dataset))
    least: Fraction | None = None
    for signed in budgets_of(database, dataset, key):
        budget = Budget.parse(signed.content)
        spent = spent_on_all(database, budget.datasets)
        left = budget.epsilon - Fraction(spent.epsilon, CHARGE_UNIT)
        if least is None or left < least:
            found, least = (signed, spent), left
    return found


def spent_on_all(database: sqlite3.Connection, datasets: Iterable[str]) -> Amount:
    """Return what all runs together spent through any of some datasets."""
    return sum((spent_on(database, name) for name in datasets), Amount())


def set_budget(database: sqlite3.Connection, dataset: str, owner: str, key: bytes, signed: Signed) -> None:
    """Keep a budget in the place of an older one."""
    values = (dataset, key, owner, signed.content, signed.signature, signed.certificate)
    database.execute("INSERT OR REPLACE INTO consent_budgets VALUES (?, ?, ?, ?, ?, ?)", values)


def charge(database: sqlite3.Connection, made: Charge, now: float) -> None:
    """Write down what a run spends."""
    values = (made.session, made.run, made.dataset, made.grant, made.plan, made.mechanism)
    spent = (made.amount.epsilon, made.amount.delta, now)
    database.execute("INSERT INTO consent_charges VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, *spent))


def is_charged(database: sqlite3.Connection, made: Charge) -> bool:
    """Has a run of that session been charged before, under that grant and for that dataset?"""
    query = "SELECT 1 FROM consent_charges WHERE session = ? AND dataset = ? AND grant_id = ? LIMIT 1"
    return database.execute(query, (made.session, made.dataset, made.grant)).fetchone() is not None


def spent_on(database: sqlite3.Connection, dataset: str) -> Amount:
    """Return what all runs together spent through a dataset, all versions of it."""
    query = "SELECT coalesce(sum(epsilon), 0), coalesce(sum(delta), 0) FROM consent_charges WHERE dataset = ?"
    return Amount(*database.execute(query, (dataset,)).fetchone())


def answers_of(database: sqlite3.Connection, dataset: str) -> tuple[int, int]:
    """Return how many (noised, exact) answers were given of a dataset."""
    query = (
        "SELECT coalesce(sum(mechanism != 'exact'), 0), coalesce(sum(mechanism = 'exact'), 0) "
        "FROM consent_charges WHERE dataset = ?"
    )
    found: tuple[int, int] = database.execute(query, (dataset,)).fetchone()
    return found


def spent_under(database: sqlite3.Connection, grant: str, besides: str | None = None) -> tuple[int, Amount]:
    """Return (runs, amount) that a grant was used for.

    besides: a session that does not count.
    """
    query = (
        "SELECT count(*), coalesce(sum(epsilon), 0), coalesce(sum(delta), 0) FROM consent_charges "
        "WHERE grant_id = ? AND session != ?"
    )
    runs, epsilon, delta = database.execute(query, (grant, besides or "")).fetchone()
    return runs, Amount(epsilon, delta)


def is_living(database: sqlite3.Connection, object_id: str, now: float) -> bool:
    """Is an object here that was neither removed nor has expired?"""
    query = "SELECT 1 FROM data_objects WHERE object = ? AND state = 'living' AND (expires IS NULL OR expires > ?)"
    return database.execute(query, (object_id, now)).fetchone() is not None


def keep_under(database: sqlite3.Connection, number: int, grants: Iterable[tuple[str, str, bytes]]) -> None:
    """Note the grants, each with its owner and key, under which an object was kept: it is read as long as they hold."""
    rows = [(number, *grant) for grant in grants]
    database.executemany("INSERT OR IGNORE INTO data_grants VALUES (?, ?, ?, ?)", rows)


def keep_under_those_of(database: sqlite3.Connection, number: int, objects: Iterable[str]) -> None:
    """Note the grants under which objects were kept that another one is made of: they have to hold for it too."""
    query = (
        "INSERT OR IGNORE INTO data_grants SELECT ?, d.grant_id, d.owner, d.owner_key FROM data_grants d "
        "JOIN data_objects o ON o.number = d.number WHERE o.object = ?"
    )
    database.executemany(query, [(number, each) for each in objects])


def is_lapsed(database: sqlite3.Connection, object_id: str) -> bool:
    """Was a grant revoked under which this object was kept?"""
    query = (
        "SELECT 1 FROM data_objects o JOIN data_grants d ON d.number = o.number "
        "JOIN consent_revocations r ON r.revoked = d.grant_id AND r.owner = d.owner AND r.owner_key = d.owner_key "
        "WHERE o.object = ? LIMIT 1"
    )
    return database.execute(query, (object_id,)).fetchone() is not None


def key_of_name(database: sqlite3.Connection, name: str) -> bytes | None:
    """Return the digest of the key that a dataset's name belongs to, if anything was ever put under it."""
    found = database.execute("SELECT owner_key FROM data_names WHERE name = ?", (name,)).fetchone()
    return None if found is None else bytes(found[0])
