"""Puts, an owner's half of them: as which version an object is put, and whether an interrupted put goes on.

Memory stays with a few blocks, however long the table is.  An interrupted put goes on where it was: blocks that all
parties have are passed over, if the data are still what they were.  All others get fresh seeds: nothing is ever masked
twice with one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field

from pydantic import ValidationError

from mpc.errors import ConfigError, InputError, SessionError, UsageError, warn
from mpc.plan.plan import Plan
from parties.agreed.columns import Column
from parties.agreed.objects import Manifest, Schema
from parties.client.at_rest import catalogue
from parties.client.at_rest.putlog import PutLog, Unfinished, place_of
from parties.client.at_rest.sending import Blocks, Progress, Sending
from parties.client.at_rest.versions import next_version
from parties.client.channels import Parties

_RESUMED_FOR = 72_000
"""Seconds after its beginning in which an interrupted put goes on; parties drop it after a day."""


@dataclass(frozen=True)
class Described:
    """All that an owner says of an object, but for which version it is.

    Args:
        name: without the owner's.
        rows_per_person, visible, expires, description, sample, lengths: as in `Schema`.
        plan: that the columns are the weights of; None: they are a table.
        collection: id of the collection that it is a row of.
    """

    name: str
    columns: tuple[Column, ...]
    rows: int
    rows_per_person: int = 1
    description: str = ""
    visible: tuple[str, ...] = ()
    expires: int | None = None
    sample: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    plan: Plan | None = None
    collection: str | None = None

    @property
    def plan_digest(self) -> str | None:
        """Hex digest of the plan, as a schema has it."""
        return None if self.plan is None else self.plan.digest.hex()


@dataclass(frozen=True)
class Next:
    """A version that keeps blocks of the one before.

    Args:
        described: all of it.
        kept: block -> block of the version before.
        blocks: those that are not kept, in order.
        replaces: older versions are removed as soon as this one exists.
        notes: for whoever puts it.
    """

    described: Described
    kept: Mapping[int, int]
    blocks: Callable[[], Blocks]
    replaces: bool = False
    notes: tuple[str, ...] = ()


def put(parties: Parties, described: Described, blocks: Blocks, progress: Progress | None = None) -> Manifest:
    """Put an object at all parties, as the next version of its name; its manifest.

    Args:
        blocks: exactly the rows that are described.

    Raises:
        InputError: the data are not as described: which column, never a value.
        ConfigError: this client's cluster file has no cluster id.
        IntegrityError: a party lies about its seeds, or has something else than it was sent; it is named.
        PolicyError, SessionError, PeerError: a party refuses, or is lost; the put can be made again, and goes on.
    """
    tell = progress or (lambda done, of: None)
    with open_log(parties) as log:
        name = f"{parties.config.name}/{described.name}"
        found = log.find(name)
        found = None if found is None or found.base is not None else found
        if found is not None and found.signed is not None and _is_of(found.schema, described):
            signed = Sending(parties, log, found, tell)
            if signed.begin():
                return signed.run(blocks, described.plan)
            log.forget(found)  # a party has dropped it: what is put now takes its place
            found = None
        schema = schema_of(parties, name, described)
        if found is None or not _goes_on(found, schema):
            found = log.begin(schema)
        return _begun(Sending(parties, log, found, tell), log, found).run(blocks, described.plan)


def put_next(
    parties: Parties, log: PutLog, name: str, plan: Callable[[Manifest], Next], progress: Progress | None = None
) -> Manifest:
    """Put a version of an object that keeps blocks of its newest one; its manifest.

    An interrupted one goes on when it is made again, also if some parties have it as the newest already.

    Args:
        name: OWNER/NAME.
        plan: says what follows a version; it is asked again if the newest is another than the interrupted put's.

    Raises:
        InputError, IntegrityError, PolicyError, SessionError, PeerError: as `put`.
    """
    found, tell = log.find(name), progress or (lambda done, of: None)
    found = None if found is None or found.base is None else found
    if found is not None and found.base is not None and found.signed is not None:
        with suppress(InputError):  # what is asked now does not follow that version
            after = plan(found.base)
            signed = Sending(parties, log, found, tell, after.replaces)
            if found.kept == dict(after.kept) and _is_of(found.schema, after.described):
                if signed.begin():
                    return _run(signed, after)
                log.forget(found)  # a party has dropped it: what is put now takes its place
                found = None
    base = catalogue.describe(parties, name)
    if base.plan is not None:
        raise UsageError(
            f"{name} is a model, and has no rows", remedy="put it again: cluster.models.put, mpc model put"
        )
    after = plan(base)
    schema = schema_of(parties, name, after.described)
    schema = schema.model_copy(update={"unchecked": bool(after.kept) and not base.is_checked})
    if (schema.version, schema.previous) != (base.version + 1, base.id.hex()):
        raise SessionError(
            f"the newest version of {name} is not at all parties, so no other can keep blocks of it",
            cause="it was put again meanwhile, or a put was cut at its very end",
            remedy="make that put again; or put all of the table, which takes its place",
        )
    if found is None or found.kept != dict(after.kept) or found.base != base or not _goes_on(found, schema):
        found = log.begin(schema, base, after.kept)
    return _run(_begun(Sending(parties, log, found, tell, after.replaces), log, found), after)


def _begun(sending: Sending, log: PutLog, found: Unfinished) -> Sending:
    if not sending.begin():
        log.forget(found)
        raise SessionError(f"the interrupted put of {found.schema.name} cannot go on", remedy="put it again")
    return sending


def _run(sending: Sending, after: Next) -> Manifest:
    for note in after.notes:
        warn(note)
    return sending.run(after.blocks())


def open_log(parties: Parties) -> closing[PutLog]:
    """Open this client's list of what it puts.

    Raises:
        ConfigError: its cluster file has no cluster id, or the list cannot be used.
    """
    if parties.config.cluster is None:
        raise ConfigError(
            "this cluster file has no cluster id, so no data are put with it",
            remedy="locally: mpc down, mpc up; else put 'cluster', as the parties' configs have it, into the file",
        )
    return closing(PutLog(place_of(parties.config), parties.identity))


def schema_of(parties: Parties, name: str, described: Described) -> Schema:
    """Make the schema of the next version of a name, made now; `InputError` if what is said of it makes none."""
    config = parties.config
    version, previous = next_version(parties, name)
    try:
        return Schema(
            owner=config.name,
            name=name,
            version=version,
            previous=previous,
            cluster=config.cluster or "",
            parties=parties.names,
            rows=described.rows,
            rows_per_person=described.rows_per_person,
            columns=described.columns,
            description=described.description,
            visible=described.visible,
            created=int(time.time()),
            expires=described.expires,
            sample=dict(described.sample),
            lengths=described.lengths,
            plan=described.plan_digest,
            collection=described.collection,
        )
    except ValueError as error:
        raise InputError(f"{name} cannot be put: {_first_line(error)}", remedy="correct what is said of it") from None


def _first_line(error: ValueError) -> str:
    return (
        str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        if isinstance(error, ValidationError)
        else str(error)
    )


def _is_of(schema: Schema, described: Described) -> bool:
    """Does the schema say what the owner says now?  Then a party may have let the object exist already."""
    fields = ("columns", "rows", "rows_per_person", "description", "visible", "expires", "lengths")
    same = all(getattr(schema, name) == getattr(described, name) for name in fields)
    return same and schema.sample == dict(described.sample) and schema.plan == described.plan_digest


def _goes_on(found: Unfinished, schema: Schema) -> bool:
    """Is this the put that was interrupted, as far as is known before its data are?"""
    again = schema.model_copy(update={"created": found.schema.created})
    return found.signed is None and again == found.schema and schema.created - found.schema.created < _RESUMED_FOR
