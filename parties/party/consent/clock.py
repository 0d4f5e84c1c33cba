"""Accept a party's clock that is behind what it has shown before, as its operator says that it is right now.

A party cannot tell a clock that was ahead for a while from one that is set back, and gives nothing that may have
expired until the clock has caught up.  Its operator can tell.  Nothing comes to life again by that word, even a wrong
one: what had expired by the latest time ends for good, approvals hold no longer than they did, and what was spent,
charged or revoked has no time and stays as it is.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from mpc.errors import SessionError
from parties.party.consent import audit, requests, tables
from parties.party.consent.consent import Consent
from parties.party.vault import catalogue
from parties.party.vault.catalogue import Row
from parties.party.vault.times import BEHIND
from parties.telemetry import logger


@dataclass(frozen=True)
class Ended:
    """How many grants and objects ended, since they had expired by the latest time."""

    grants: int = 0
    objects: int = 0


def accept(consent: Consent, at: float) -> Ended:
    """Go on from what the clock says now, durably; a row of the audit chain says so to all whom it is about.

    Args:
        at: what the operator's clock says, in seconds since 1970.

    Raises:
        SessionError: the clock is not behind, or the operator's says something else.
    """
    vault, times = consent.vault, consent.vault.times
    latest, behind, now = times.latest, times.behind, times.clock()
    if not behind:
        raise SessionError("this party's clock is not behind, so there is nothing to accept")
    if not abs(now - at) <= BEHIND:
        raise SessionError(
            f"this party's clock is {abs(now - at):.0f} seconds apart from its operator's",
            remedy="set both clocks by NTP, and accept then",
        )
    grants = 0

    def end(database: sqlite3.Connection) -> list[Row]:
        nonlocal grants
        consent.note(database, audit.CLOCK, _people(database), latest=int(latest), accepted=int(now))
        grants = tables.end_expired(database, latest)
        requests.count_from(database, latest, now)
        database.execute("UPDATE sessions SET opened_at = ? WHERE opened_at > ?", (now, now))
        database.execute("UPDATE data_objects SET touched = ? WHERE touched > ?", (now, now))
        return catalogue.expired(database, latest)

    rows = vault.ending.erase(end, accepted=now)
    for row in rows:
        logger().info("an object has expired", name=row.name, version=row.version, owner=row.owner)
    logger().warning("the operator accepted the clock", latest=int(latest), accepted=int(now), grants=grants)
    return Ended(grants, len(rows))


def _people(database: sqlite3.Connection) -> set[str]:
    """List whose objects, grants and requests are here."""
    query = (
        "SELECT owner FROM data_objects UNION SELECT owner FROM consent_grants UNION SELECT client FROM consent_named "
        "UNION SELECT client FROM consent_requests"
    )
    return {name for (name,) in database.execute(query)}
