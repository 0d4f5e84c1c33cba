"""One line of a list of what lies at the parties: a party writes it, and a client reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One line of a list of objects; `describe` has an object's manifest, signed by its owner.

    Args:
        id: 32 bytes.
        expires: seconds since 1970, if it does.
        plan: of a model the digest of its plan (hex); None: it is a table.
    """

    id: bytes
    owner: str
    name: str
    version: int
    rows: int
    expires: int | None
    description: str
    plan: str | None = None
