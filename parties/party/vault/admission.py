"""Whether a party takes an object at all: asked of its schema, before anything is written."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Container, Iterable
from typing import Protocol

from mpc.encoding import field_size
from mpc.errors import HandshakeError, InputError, PolicyError, SessionError
from parties.agreed.objects import LARGEST, Schema
from parties.config.models import Limits, PartyConfig
from parties.party.collecting.contributions import require_free
from parties.party.vault import catalogue
from parties.party.vault.files import size_on_disk

MOST_SKEW = 86_400
"""Seconds between the time that an object says it was made and a party's clock."""
MOST_PUTS = 16
"""Objects that one owner may be putting at once."""
_LEAST = 1 << 20
"""Bytes that the smallest object is taken for, its rows in tables and what is kept of it in memory included."""


def manifest_size(schema: Schema) -> int:
    """Return the bytes that a schema's manifest has at most."""
    names = 8 * sum(len(column.name) for column in schema.columns)  # written in ASCII
    blocks = schema.block_count * len(schema.columns) * (64 * len(schema.parties) + 3)
    return len(schema.content) + blocks + names + 16 * len(schema.columns) + 256


def granted(schema: Schema, limits: Limits, kept: Container[int] = ()) -> int:
    """Return the bytes of disk that an object is granted, tables included; `InputError` if it is too large for one.

    Args:
        kept: blocks that are here already, as those of the version before.
    """
    tables = manifest_size(schema)
    if tables > LARGEST:
        raise InputError(
            f"the manifest of {schema.name} would be larger than {LARGEST >> 20} MiB",
            remedy="put its rows, or its columns, as several objects",
        )
    blocks = [block for block in range(schema.block_count) if block not in kept]
    plan = 0 if schema.plan is None else limits.max_plan_bytes
    return max(_LEAST, _size(schema, blocks) + 2 * tables + plan)


def _size(schema: Schema, blocks: Iterable[int]) -> int:
    """Return the bytes of disk that these blocks of every column take."""
    lengths = Counter(map(schema.block_rows, blocks))
    return sum(
        count * size_on_disk(field_size((rows, *column.shape)))
        for column in schema.columns
        for rows, count in lengths.items()
    )


def require_ours(config: PartyConfig, schema: Schema, client: str) -> None:
    """Require that an object is for this cluster, and under its owner's name; `HandshakeError`, `PolicyError`."""
    if config.cluster is None:
        raise HandshakeError(
            f"{config.name}'s config has no cluster id, so it keeps no data",
            remedy="make an id with mpc cert cluster, put it as 'cluster' into every config and restart the "
            "daemons; locally: mpc down, mpc up",
        )
    if schema.cluster != config.cluster or schema.parties != tuple(peer.name for peer in config.peers):
        raise HandshakeError(
            "the object is for another cluster than this party's",
            cause="the cluster's id, or the parties or their order, differ",
            remedy="make 'cluster' and the list of parties equal in every config",
        )
    if schema.owner != client:
        raise PolicyError(f"{client!r} puts nothing under the name of {schema.owner!r}", remedy="sign as yourself")


class Versioned(Protocol):
    """A version of a name: a schema's, or that of what is to be kept."""

    @property
    def name(self) -> str:
        """OWNER/NAME."""

    @property
    def version(self) -> int:
        """From 1 on."""

    @property
    def previous(self) -> str | None:
        """Id of the version before (hex)."""


def require_next(database: sqlite3.Connection, schema: Versioned, key: bytes) -> None:
    """Require that this is a newer version of its name, which is this key's and free; `PolicyError`, `SessionError`."""
    require_free(database, schema.name)
    require_version(database, schema, key)


def require_version(database: sqlite3.Connection, schema: Versioned, key: bytes) -> None:
    """Require that this is a newer version of its name, and the name this key's; `PolicyError`, `SessionError`.

    The next version names the one before.  One that leaves numbers out takes the place of versions that exist at other
    parties alone: a put that was cut at its very end, and that its owner has given up, holds no name.
    """
    known = catalogue.name_of(database, schema.name)
    if known is not None and known[0] != key:
        raise PolicyError(
            f"{schema.name} was put with another key of {schema.name.partition('/')[0]!r}",
            cause="a certificate that is issued again, with a new key, inherits nothing",
            remedy="choose another name",
        )
    version, newest = (known[1], known[2]) if known is not None else (0, None)
    if schema.version <= version or (schema.version == version + 1 and schema.previous != newest):
        raise SessionError(
            f"version {schema.version} of {schema.name} does not follow the newest one here, {version}",
            cause="it was put again meanwhile, or another process puts it; a name that was removed stays spent",
            remedy=f"put it as version {version + 1}, whose previous object is {newest}"
            if newest
            else "put it as version 1",
        )


def require_kind(database: sqlite3.Connection, schema: Schema) -> None:
    """Require that no model is put under a dataset's name, and the reverse, while that is here; `SessionError`."""
    kinds = {bool(json.loads(row.schema).get("plan")): row for row in catalogue.versions(database, schema.name)}
    if schema.plan is None and True in kinds:
        raise SessionError(f"{schema.name} is a model, and what is put now is a dataset", remedy="choose another name")
    if schema.plan is not None and False in kinds:
        raise SessionError(f"{schema.name} is a dataset, and what is put now is a model", remedy="choose another name")


def require_room(database: sqlite3.Connection, limits: Limits, schema: Schema, size: int) -> None:
    """Require that there is room for another object of one owner's, of so many bytes; `SessionError`."""
    every, own, open_ = catalogue.taken(database, schema.owner)
    _require_bytes(limits, schema, size, every, own)
    if open_ >= MOST_PUTS:
        raise SessionError(
            f"{schema.owner} is putting {open_} objects already, as many as one owner may",
            remedy="finish them; those that nobody goes on with are dropped after a day",
        )


def require_bytes(database: sqlite3.Connection, limits: Limits, schema: Schema, size: int) -> None:
    """Require that there is room for so many bytes more of one owner's; `SessionError`."""
    every, own, _ = catalogue.taken(database, schema.owner)
    _require_bytes(limits, schema, size, every, own)


def _require_bytes(limits: Limits, schema: Schema, size: int, every: int, own: int) -> None:
    for limit, held, which in (
        (limits.max_data_bytes, every, "max_data_bytes"),
        (limits.max_data_bytes_per_owner, own, "max_data_bytes_per_owner"),
    ):
        if limit is not None and held + size > limit:
            raise SessionError(
                f"{schema.name} needs {size:,} bytes of disk; {max(0, limit - held):,} of the {limit:,} that this "
                "party allows are left",
                remedy=f"remove other objects, or raise limits.{which}",
            )
