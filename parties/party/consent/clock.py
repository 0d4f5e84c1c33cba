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
from parties.party.vault.times import BEHIND, Times
from parties.telemetry import logger


@dataclass(frozen=True)
class Ended:
    """How many grants and objects ended, since they had expired by the latest time."""

    grants: int = 0
    objects: int = 0


def accept(consent: Consent, at: float) -> Ended:
    """Go on from what the clock says now, durably; a row of the audit chain says so to all who may read the chain.

    Args:
        at: what the operator's clock says, in seconds since 1970.

    Raises:
        SessionError: the clock is not behind, or the operator's says something else.
    """
    vault, times = consent.vault, consent.vault.times
    latest, now = _require_behind(times, at)
    grants = 0

    def end(database: sqlite3.Connection) -> list[Row]:
        nonlocal latest, now, grants
        latest, now = _require_behind(times, at)  # somebody may have accepted it since
        consent.note(database, audit.CLOCK, set(), latest=int(latest), accepted=int(now))
        grants = tables.end_expired(database, latest)
        requests.count_from(database, latest, now)
        database.execute("UPDATE sessions SET opened_at = ? WHERE opened_at > ?", (now, now))
        database.execute("UPDATE data_objects SET touched = ? WHERE touched > ?", (now, now))
        return catalogue.expired(database, latest)

    rows = vault.ending.erase(end, accepted=lambda: now)
    for row in rows:
        logger().info("an object has expired", name=row.name, version=row.version, owner=row.owner)
    logger().warning("the operator accepted the clock", latest=int(latest), accepted=int(now), grants=grants)
    return Ended(grants, len(rows))


def _require_behind(times: Times, at: float) -> tuple[float, float]:
    """Require that the clock is behind, and right; return (the latest time, the one to accept).  Raises as `accept`."""
    latest, behind, now = times.latest, times.behind, times.clock()
    if not behind:
        raise SessionError("this party's clock is not behind, so there is nothing to accept")
    if not abs(now - at) <= BEHIND:
        raise SessionError(
            f"this party's clock is {abs(now - at):.0f} seconds apart from its operator's",
            remedy="set both clocks by NTP, and accept then",
        )
    return latest, now
