"""Provenance of a kept object: the plan that made it, what that read, and whose data these are in the end.

Parties write it, from public bytes alone, and each later question about the object is judged by it: its use needs the
words of everybody whose data it came from, and what noised answers tell is charged to the datasets of the people in it.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mpc.plan.plan import Security
from mpc.wires import Frozen
from parties.agreed.fields import DatasetName, Digest, Process

MOST_ORIGINS = 256


class Origin(Frozen):
    """An object that its owner put, and that a kept one came from.

    Args:
        object: its id.
        owner, key: whose it is, by name and by the digest of the public key.
        first: the row of it that row 0 of the kept object stands for, if rows do.
        rows_per_person: the most rows that are one person's there.
        by_row: row i of the kept object depends on row first + i of this one alone.
    """

    object: Digest
    name: DatasetName
    owner: Process
    key: Digest
    first: Annotated[int, Field(ge=0, lt=1 << 41)]
    rows_per_person: Annotated[int, Field(ge=1, le=1 << 40)]
    by_row: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name.partition("/")[0] != self.owner:
            raise ValueError("an origin has the name of another owner")
        return self


class Provenance(Frozen):
    """All that a kept object came from.

    Args:
        plan, session: which computed it: a plan's digest, a session's id.
        objects: ids of what the session read, sorted.
        origins: what owners have put, and this came from; transitively, each once, in the order of ids and rows.
        refreshes: ids of earlier versions whose very values these are, the newest first.
        security: "active" if the session's runs were checked, and so were those that made what it read, back to what
            owners have put; what says nothing of it was not.
    """

    plan: Digest
    session: Digest
    objects: Annotated[tuple[Digest, ...], Field(max_length=MOST_ORIGINS)] = ()
    origins: Annotated[tuple[Origin, ...], Field(max_length=MOST_ORIGINS)] = ()
    refreshes: Annotated[tuple[Digest, ...], Field(max_length=1 << 12)] = ()
    security: Security = "passive"

    @model_serializer(mode="wrap")
    def _dump(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        if self.security == "passive":  # the bytes that it had before there were checks
            del content["security"]
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        keys = [(each.object, each.first) for each in self.origins]
        if keys != sorted({*keys}) or list(self.objects) != sorted({*self.objects}):
            raise ValueError("its objects and origins are sorted, each of them once")
        return self
