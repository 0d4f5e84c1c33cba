"""Read what an owner says of who may see a dataset, and until when it is there."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from mpc.errors import InputError, UsageError
from mpc.text import PROCESS_NAME, shown
from parties.addresses import ANY

_DURATION = re.compile(r"([1-9][0-9]{0,6})([hdwy])")
_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_SHORT = re.compile(r"([1-9][0-9]{0,6})([sm])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LAST = 1 << 40


def as_expiry(given: Any, now: float | None = None, what: str = "expires") -> int | None:
    """Read a duration ("90d", "2y"), a day ("2027-01-31"), or a date: seconds since 1970; None is never.

    Args:
        now: seconds since 1970; the clock's if None.
        what: the argument's name, for errors.

    Raises:
        UsageError: it is none of these.
        InputError: it has passed already.
    """
    if given is None or given == "never":
        return None
    present = time.time() if now is None else now
    found = _moment(given, present)
    if found is None or found >= _LAST:
        raise UsageError(
            f"{what} is no duration and no date",
            remedy="hours, days, weeks or years: '36h', '90d', '8w', '2y'; or '2027-01-31'; in Python a datetime, "
            "or None for never, too",
        )
    if found <= present:
        raise InputError("it would expire before it begins", remedy=f"{what}='2y'")
    return int(found)


def as_end(until: Any, now: float) -> int:
    """Read until when rows are entered: seconds from now, or a duration ("10m", "2h"), a day or a date.

    Args:
        now: seconds since 1970.

    Returns:
        Seconds since 1970.

    Raises:
        UsageError: it is none of these.
        InputError: it has passed already.
    """
    if isinstance(until, int | float) and not isinstance(until, bool) and until > 0:
        return int(now + until + 1)
    if isinstance(until, str) and (short := _SHORT.fullmatch(until.strip())):
        return int(now + int(short[1]) * (60 if short[2] == "m" else 1) + 1)
    with suppress(UsageError):
        if not isinstance(until, bool) and (found := as_expiry(until, now, "until")) is not None:
            return found
    raise UsageError(
        "until is no duration and no date",
        remedy="say when it is closed, in seconds, minutes, hours, days, weeks or years: '60s', '10m', '2h', '7d', "
        "'2w', '1y'; or '2027-01-31'",
    )


def _moment(given: Any, now: float) -> float | None:
    if isinstance(given, datetime.timedelta):
        return now + given.total_seconds()
    if isinstance(given, datetime.datetime):
        return given.timestamp()
    if isinstance(given, datetime.date):
        midnight = datetime.datetime(given.year, given.month, given.day, tzinfo=datetime.UTC)
        return midnight.timestamp()
    if not isinstance(given, str):
        return None
    if found := _DURATION.fullmatch(given.strip()):
        return now + int(found[1]) * _SECONDS[found[2]]
    if _DAY.fullmatch(given.strip()):
        try:
            return _moment(datetime.date.fromisoformat(given.strip()), now)
        except ValueError:
            return None
    return None


def as_readers(given: Any) -> tuple[str, ...]:
    """Read who may see a dataset: True for whoever a party lets in, False for its owner alone, or names of clients.

    Raises:
        UsageError: it is none of these, or no certificate can have such a name.
    """
    if given is True or given == ANY:
        return (ANY,)
    if given is False:
        return ()
    if isinstance(given, str) or not isinstance(given, Collection):
        raise UsageError("visible is True, False or names of clients", remedy="visible=['analyst']")
    for name in given:
        if not isinstance(name, str) or not PROCESS_NAME.fullmatch(name):
            raise UsageError(f"no client is named {shown(str(name)[:80])!r}", remedy="names are those of certificates")
    return tuple(given)


def full_name(me: str, name: str) -> str:
    """Complete NAME to OWNER/NAME, the owner being this client; UsageError if it is no text."""
    given: object = name
    if not isinstance(given, str) or not given:
        raise UsageError("a dataset's or model's name is a text", remedy="'hospital/diabetes', or 'diabetes' if yours")
    return name if "/" in name else f"{me}/{name}"


def own_name(me: str, name: str) -> str:
    """Return NAME of NAME or OWNER/NAME; UsageError if the owner is not this client."""
    owner, _, short = full_name(me, name).partition("/")
    if owner != me:
        raise UsageError(
            f"{shown(name)} would be {shown(owner)}'s, and you are {me}",
            remedy=f"name it {me}/{shown(short)}, or use that client's cluster file",
        )
    return short


def day(moment: int | None) -> str:
    """Write a moment for people, its day in UTC."""
    if moment is None:
        return "never"
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d")
