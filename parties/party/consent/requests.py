"""Requests that wait for a word at one party, and what its operator has said of them.

A request is kept when no rule of the operator's policy covers what is asked, or when an owner's word is missing: the
operator, and the owners of the data, are shown it.  An approval is a rule for exactly that record and so many runs, in
this party's ledger alone; it stands for the operator's policy and for nobody's data.

What a client can make a party write down is bounded: so many requests, so many bytes, and each only once until it is
forgotten.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mpc.errors import SessionError, UsageError
from parties.agreed.requests import Request
from parties.party.consent import audit

WAITING, APPROVED, DENIED = "waiting", "approved", "denied"
MOST_OF_ONE, MOST = 32, 1024
"""Requests of one client that wait or were denied, and all that a party keeps."""
MOST_BYTES_OF_ONE, MOST_BYTES = 4 << 20, 64 << 20
"""Their bytes, plans included."""
KEPT = 7 * 86_400.0
"""Seconds after which a request that nobody has decided about is forgotten, and one that was denied may wait again."""
LONGEST = 366 * 86_400
"""Seconds that an approval may hold."""
MOST_USES = 1 << 31
LONGEST_REASON = 500
_ROW = "number, id, client, record, state, operator, made, expires, uses, used, reason"
Draw = Callable[[int], bytes]


@dataclass(frozen=True)
class Kept:
    """One request, as this party has it.

    Args:
        operator: no rule of the policy covered it when it was asked last.
        expires: seconds since 1970.
        uses, used: runs that the operator has approved, and those of them that told an answer.
        reason: why it was denied.
    """

    number: int
    id: str
    client: str
    record: bytes
    state: str
    operator: bool
    made: float
    expires: float
    uses: int
    used: int
    reason: str

    @property
    def is_approved(self) -> bool:
        """May another run be told under it?"""
        return self.state == APPROVED and self.used < self.uses


def find(database: sqlite3.Connection, request: str, now: float) -> Kept | None:
    """Find a request by its id; one that has expired is none."""
    query = f"SELECT {_ROW} FROM consent_requests WHERE id = ? AND expires > ?"  # noqa: S608 - no value of anybody's
    row = database.execute(query, (request, now)).fetchone()
    return None if row is None else _kept(row)


def by_number(database: sqlite3.Connection, number: int) -> Kept | None:
    """Find a request that was listed; None if it was forgotten meanwhile."""
    query = f"SELECT {_ROW} FROM consent_requests WHERE number = ?"  # noqa: S608 - no value of anybody's
    row = database.execute(query, (number,)).fetchone()
    return None if row is None else _kept(row)


def every(database: sqlite3.Connection, now: float) -> list[tuple[int, str]]:
    """List (number, id) of all of them, the oldest first."""
    return database.execute(
        "SELECT number, id FROM consent_requests WHERE expires > ? ORDER BY number", (now,)
    ).fetchall()


def about(database: sqlite3.Connection, client: str, key: bytes, now: float) -> list[tuple[int, str]]:
    """List those that a client has made, and those that read data of its key; the oldest first."""
    rows = database.execute(
        "SELECT number, id FROM consent_requests r WHERE expires > :now "
        "AND (client = :client AND client_key = :key OR EXISTS (SELECT 1 FROM consent_request_owners o "
        "WHERE o.number = r.number AND o.owner = :client AND o.owner_key = :key)) ORDER BY number",
        {"now": now, "client": client, "key": key},
    )
    return rows.fetchall()


def plan_of(database: sqlite3.Connection, number: int) -> bytes:
    """Return the canonical bytes of a request's plan; b"" if they are not kept any more."""
    query = "SELECT plan FROM consent_requests WHERE number = ?"
    return bytes(database.execute(query, (number,)).fetchone()[0])


def keep(
    database: sqlite3.Connection,
    draw: Draw,
    request: Request,
    plan: bytes,
    owners: Iterable[tuple[str, bytes]],
    operator: bool,
    now: float,
) -> Kept:
    """Keep a request; one that is here already stays as it is, so asking again writes nothing.

    Args:
        plan: canonical bytes.
        owners: (name, digest of the key) of those whose data it reads.
        operator: no rule of the policy covers it.

    Raises:
        SessionError: as many wait as may.
    """
    known = find(database, request.id, now)
    if known is not None and known.state != APPROVED:
        if operator and not known.operator:
            database.execute("UPDATE consent_requests SET operator = 1 WHERE number = ?", (known.number,))
        return known
    if known is not None and known.is_approved:
        return known
    drop(database, now, request.id)  # one that is used up, or has expired
    content, owners = request.content, {*owners}
    _require_room(database, request.coordinator, len(content) + len(plan))
    key = bytes.fromhex(request.key)
    values = (request.id, request.coordinator, key, content, plan, WAITING, operator, now, now + KEPT)
    done = database.execute(
        "INSERT INTO consent_requests (id, client, client_key, record, plan, state, operator, made, expires, uses, "
        "used, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '')",
        values,
    )
    rows = [(done.lastrowid, owner, own) for owner, own in owners]
    database.executemany("INSERT INTO consent_request_owners VALUES (?, ?, ?)", rows)
    facts = {"request": request.id, "plan": request.plan, "coordinator": request.coordinator}
    audit.append(database, draw, audit.REQUEST, now, _people(request), **facts)
    found = find(database, request.id, now)
    if found is None:
        raise sqlite3.IntegrityError("a row that was written is not there")
    return found


def _require_room(database: sqlite3.Connection, client: str, size: int) -> None:
    query = (
        "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(mine), 0), coalesce(sum(size * mine), 0) FROM (SELECT "
        "length(record) + length(plan) AS size, client = ? AND state != ? AS mine FROM consent_requests)"
    )
    count, held, own, own_held = database.execute(query, (client, APPROVED)).fetchone()
    if own >= MOST_OF_ONE or own_held + size > MOST_BYTES_OF_ONE:
        raise SessionError(
            f"{own} requests of {client} wait here, as many as one client's may",
            remedy="ask the party's operator to decide about them; each is forgotten after a week",
        )
    if count >= MOST or held + size > MOST_BYTES:
        raise SessionError(
            "as many requests wait here as may", remedy="ask the party's operator to decide about them: mpc requests"
        )


def decide(
    database: sqlite3.Connection, draw: Draw, request: str, uses: int, seconds: float, reason: str, now: float
) -> bytes:
    """Write the operator's word about a request down; the new head of the audit chain.

    Args:
        uses: runs that are approved; 0: it is denied.
        seconds: that an approval holds.
        reason: of a denial, for who asked.

    Raises:
        UsageError: there is no such request, or that is no decision.
    """
    known = find(database, request, now)
    if known is None:
        raise UsageError("no request of that id waits here", remedy="mpc requests lists those that do")
    if uses < 0 or uses > MOST_USES or len(reason) > LONGEST_REASON:
        raise UsageError(
            "that is no decision", remedy=f"--uses 1 or more, a reason of {LONGEST_REASON} letters at most"
        )
    if uses and not 1 <= seconds <= LONGEST:
        raise UsageError("an approval holds for a second to a year", remedy="--expires 30d")
    state, expires = (APPROVED, now + seconds) if uses else (DENIED, now + KEPT)
    kept_plan = "plan" if uses else "x''"
    database.execute(
        f"UPDATE consent_requests SET state = ?, uses = ?, used = 0, expires = ?, reason = ?, plan = {kept_plan} "  # noqa: S608
        "WHERE number = ?",
        (state, uses, expires, reason, known.number),
    )
    found = Request.parse(known.record)
    facts = {"request": request, "plan": found.plan, "decision": state, "uses": uses, "expires": int(expires)}
    return audit.append(database, draw, audit.DECISION, now, _people(found), **facts)


def use(database: sqlite3.Connection, request: str, now: float) -> bool:
    """Count one run under an approval; False if there is none left."""
    done = database.execute(
        "UPDATE consent_requests SET used = used + 1 WHERE id = ? AND state = ? AND used < uses AND expires > ?",
        (request, APPROVED, now),
    )
    return done.rowcount == 1


def drop(database: sqlite3.Connection, now: float, request: str = "") -> None:
    """Forget the requests that have expired, and that one; the audit chain remembers them."""
    database.execute("DELETE FROM consent_requests WHERE expires <= ? OR id = ?", (now, request))


def count_from(database: sqlite3.Connection, latest: float, now: float) -> None:
    """Count from a time that is before the latest one that was shown, so that nothing holds for longer than it did.

    What has expired is forgotten, and what is left holds as long from `now` on as it did from `latest` on.
    """
    drop(database, latest)
    database.execute(
        "UPDATE consent_requests SET expires = expires - ?, made = min(made, ?)", (max(latest - now, 0.0), now)
    )


def forget(database: sqlite3.Connection, request: str) -> None:
    """Forget a request that waited, now that no word is missing; an operator's word about it stays."""
    database.execute("DELETE FROM consent_requests WHERE id = ? AND state = ?", (request, WAITING))


def has_waiting(database: sqlite3.Connection, client: str) -> bool:
    """Does a request of that client wait?"""
    query = "SELECT 1 FROM consent_requests WHERE client = ? AND state = ? LIMIT 1"
    return database.execute(query, (client, WAITING)).fetchone() is not None


def has_expired(database: sqlite3.Connection, now: float) -> bool:
    """Is there a request to forget?"""
    return database.execute("SELECT 1 FROM consent_requests WHERE expires <= ? LIMIT 1", (now,)).fetchone() is not None


def _people(request: Request) -> set[str]:
    return {request.coordinator, *request.owners}


def _kept(row: tuple[Any, ...]) -> Kept:
    number, request, client, record, state, operator, *rest = row
    return Kept(number, request, client, record, state, bool(operator), *rest)
