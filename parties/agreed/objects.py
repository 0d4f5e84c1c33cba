"""Data at rest, as owners, parties and the provider agree on it byte for byte: manifests, receipts, tombstones.

An object is a table.  A column is cut into blocks of at most 65,536 rows, and of a block each party holds
x^ = x + sum_i a_i in public and a_i as a seed k_i of its own.  The owner signs a manifest of it, which commits to every
k_i and, salted, to every x^; that of what the parties keep of a session all of them sign.  Its digest is the object's
id.  All that it says of the table is public to whoever may see the object; nothing in it is a function of the values
alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mpc.encoding import digest
from mpc.errors import InputError, IntegrityError, PlanError
from mpc.prg import Seed
from mpc.stored import BLOCK_ROWS, Layout
from mpc.text import check_distinct
from mpc.wires import Frozen
from parties.addresses import ANY
from parties.agreed.columns import MOST_ELEMENTS, Column
from parties.agreed.fields import (
    OBJECT_NAME,
    Cluster,
    Digest,
    Moment,
    Process,
    Prose,
    check_readers,
)
from parties.agreed.provenance import Provenance
from parties.agreed.signed import Endorsement, Signed, check_endorsements, dump, endorse, read
from parties.trust.chains import Clock, Trust
from parties.trust.identity import Identity

LARGEST = 1 << 24
"""Bytes of the largest manifest."""
LARGEST_SCHEMA = 1 << 20
SALT_BYTES = 32
MOST_SAMPLED = 1 << 15
"""Numbers in the rows that an owner publishes."""
_MOST_COLUMNS, _MOST_NAMES, _MOST_BLOCKS = 4096, 1024, 1 << 16
_MANIFEST, _KEPT = "mpc/v1/object", "mpc/v1/kept-object"
_LATER = frozenset({"lengths", "plan", "kept", "collection", "gathered", "unchecked"})
"""Fields that an object has only if something is said there: all others have the bytes that they always had."""
_HEX = re.compile(r"([0-9a-f]{64})+")


BlockRows = Annotated[int, Field(ge=1, le=BLOCK_ROWS)]


class Schema(Frozen):
    """All that an owner says of an object before anything of it is put.

    Args:
        name: "OWNER/NAME".
        version: 1, or one more than the newest version of that name.
        previous: the id of that version (hex), which need not be there any more.
        cluster: the cluster's id.
        parties: names in the roster's order.
        rows_per_person: the most rows that are one person's.
        lengths: rows of each block, where they are not 65,536 each and in the last one what is left: other rows were
            appended or taken out.  An object without them has the bytes that it had before there were any.
        visible: names of clients that may see this; ("any",) for everyone whom a party lets in. Its owner may always.
        created, expires: seconds since 1970; None never expires.
        sample: rows that the owner publishes, column -> their integers in C order; {} if there are none.
        plan: of a model's weights, which are its columns, the digest of the plan that they are for; see `models`.
        kept: what it came from, of an object that the parties keep of a session; None: its owner put it.
        collection: of one client's row of it, the collection's id; see `collecting`.
        gathered: of all rows of a collection, a block each, the collection's id.
        unchecked: its owner put it, and it keeps blocks of a version that is not checked: of a refresh, in the end.
    """

    format: Literal["mpc-object-1"] = "mpc-object-1"
    owner: Process
    name: str
    version: Annotated[int, Field(ge=1, lt=1 << 31)] = 1
    previous: Digest | None = None
    cluster: Cluster
    parties: Annotated[tuple[Process, ...], Field(min_length=2, max_length=256)]
    rows: Annotated[int, Field(ge=1, le=1 << 40)]
    rows_per_person: Annotated[int, Field(ge=1, le=1 << 40)] = 1
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=_MOST_COLUMNS)]
    description: Prose = ""
    visible: Annotated[tuple[str, ...], Field(max_length=_MOST_NAMES), AfterValidator(check_readers)] = ()
    created: Moment
    expires: Moment | None = None
    sample: dict[str, tuple[int, ...]] = {}
    lengths: Annotated[tuple[BlockRows, ...], Field(max_length=_MOST_BLOCKS)] = ()
    plan: Digest | None = None
    kept: Provenance | None = None
    collection: Digest | None = None
    gathered: Digest | None = None
    unchecked: bool = False

    @model_serializer(mode="wrap")
    def _plain(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name not in _LATER or value}

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.plan is not None and (self.rows != 1 or self.rows_per_person != 1 or self.sample or self.lengths):
            raise ValueError("a model has one row, and no sample")
        return self

    @model_validator(mode="after")
    def _check_collected(self) -> Self:
        if self.collection is None and self.gathered is None:
            return self
        if self.version != 1 or self.rows_per_person != 1 or self.sample or self.plan or self.kept:
            raise ValueError("what is collected has one version, a row a person, and no sample or plan")
        if self.collection is not None and (self.rows != 1 or self.gathered is not None or self.visible):
            raise ValueError("a contribution to a collection is one row, which nobody else sees")
        if self.gathered is not None and self.lengths != (1,) * self.rows:
            raise ValueError("what is gathered has a block for each row")
        return self

    @model_validator(mode="after")
    def _check_sample(self) -> Self:
        if not self.sample:
            return self
        if {column.name for column in self.columns} != set(self.sample):
            raise ValueError("its sample has other columns than its own")
        if sum(map(len, self.sample.values())) > MOST_SAMPLED:
            raise ValueError(f"its sample has more than {MOST_SAMPLED:,} numbers")
        counts = {divmod(len(self.sample[column.name]), prod(column.shape)) for column in self.columns}
        if len(counts) != 1 or any(rows < 1 or rest for rows, rest in counts):
            raise ValueError("its sample does not have equally many whole rows in each column")
        for column in self.columns:
            low, high = column.ends
            if any(not low <= integer <= high for integer in self.sample[column.name]):
                raise ValueError("its sample has a value outside of its column's range")
        return self

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        owner, _, rest = self.name.partition("/")
        if owner != self.owner or not OBJECT_NAME.fullmatch(rest):
            raise ValueError("its name is OWNER/NAME, NAME of 1 to 63 letters, digits, '.', '_' and '-'")
        if (self.version == 1) != (self.previous is None):
            raise ValueError("version 1 has no previous one, all others have")
        if len(set(self.parties)) != len(self.parties):
            raise ValueError("a party is named twice")
        if self.expires is not None and self.expires <= self.created:
            raise ValueError("it expires before it was made")
        names = [column.name for column in self.columns]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError("two columns have one name")
        try:
            check_distinct(names, "the column")
        except PlanError:
            raise ValueError("two columns have names that look alike") from None
        if any(column.missing_of is not None and column.missing_of not in names for column in self.columns):
            raise ValueError("a column marks the missing numbers of a column that is not there")
        if self.lengths and (sum(self.lengths) != self.rows or self.lengths == self._full_blocks):
            raise ValueError("its blocks do not have its rows, or are said to be as all are")
        longest = max(self.lengths, default=min(self.rows, BLOCK_ROWS))
        if any(column.elements(longest) > MOST_ELEMENTS for column in self.columns):
            raise ValueError(f"a block of {longest:,} rows of a column has more than 2^27 elements")
        return self

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a schema from its canonical bytes; raise InputError if they are malformed."""
        return read(cls, content, LARGEST_SCHEMA, "the object's schema")

    @property
    def content(self) -> bytes:
        """Canonical JSON."""
        return dump(self.model_dump(mode="json"))

    @property
    def _full_blocks(self) -> tuple[int, ...]:
        full, rest = divmod(self.rows, BLOCK_ROWS)
        return (BLOCK_ROWS,) * full + ((rest,) if rest else ())

    @property
    def layout(self) -> Layout:
        """Return which rows lie in which block, of every column."""
        return Layout(self.rows, self.lengths)

    @property
    def block_count(self) -> int:
        """Blocks of one column."""
        return self.layout.count

    def block_rows(self, block: int) -> int:
        """Count the rows of a block; `InputError` if there is no such block."""
        if not 0 <= block < self.block_count:
            raise InputError(f"{self.name} has {self.block_count} blocks a column, and no block {block}")
        return self.layout.rows_of(block)

    def column(self, name: str) -> Column:
        """Find a column; `InputError` if there is none of that name."""
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            raise InputError(f"{self.name} has no such column")
        return found

    def block_shape(self, column: str, block: int) -> tuple[int, ...]:
        """Give the shape of a block, its rows first; `InputError` if there is none."""
        return (self.block_rows(block), *self.column(column).shape)

    @property
    def elements(self) -> int:
        """Field elements of the whole object."""
        return sum(column.elements(self.rows) for column in self.columns)

    @property
    def aliases(self) -> frozenset[str]:
        """Ids (hex) of earlier versions that have the very values of this one."""
        return frozenset(self.kept.refreshes if self.kept is not None else ())

    @property
    def is_checked(self) -> bool:
        """Are these its owner's very values, or those of sessions whose runs were checked?"""
        return not self.unchecked and (self.kept is None or self.kept.security == "active")

    def seen_by(self, client: str) -> bool:
        """May a client of that name see the object, as its owner says?"""
        return client == self.owner or self.visible == (ANY,) or client in self.visible


class Manifest(Schema):
    """An object: its schema, and what binds every block of it.

    Args:
        commitments: column -> one text a block, H(k_i) of each party in the roster's order, 64 hex digits each.
        contents: a salted digest of all x^, see `contents_digest`.
    """

    commitments: dict[str, tuple[str, ...]]
    contents: Digest

    @model_validator(mode="after")
    def _check_manifest(self) -> Self:
        if {column.name for column in self.columns} != set(self.commitments):
            raise ValueError("it has commitments for other columns than its own")
        length = 64 * len(self.parties)
        every = [each for blocks in self.commitments.values() for each in blocks]
        if any(len(blocks) != self.block_count for blocks in self.commitments.values()):
            raise ValueError("it has more or fewer blocks than its rows have")
        if any(len(each) != length or not _HEX.fullmatch(each) for each in every):
            raise ValueError("a block has one commitment of 64 hex digits for each party")
        seen = {each[start : start + 64] for each in every for start in range(0, length, 64)}
        if len(seen) != len(every) * len(self.parties):
            raise ValueError("a commitment stands in it twice: two values would lie under one seed")
        return self

    @classmethod
    def of(cls, schema: Schema, commitments: Mapping[str, Sequence[Sequence[bytes]]], contents: bytes) -> Manifest:
        """Complete a schema; commitments: column -> block -> H(k_i) of each party."""
        joined = {name: tuple(b"".join(each).hex() for each in blocks) for name, blocks in commitments.items()}
        fields = {name: getattr(schema, name) for name in Schema.model_fields}
        return cls(**fields, commitments=joined, contents=contents.hex())

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a manifest from its canonical bytes; raise InputError if they are malformed."""
        return read(cls, content, LARGEST, "the object's manifest")

    @property
    def id(self) -> bytes:
        """Id of the object, 32 bytes."""
        return object_id(self.content)

    @property
    def schema_content(self) -> bytes:
        """Canonical bytes of the schema that this manifest completes."""
        return Schema(**{name: getattr(self, name) for name in Schema.model_fields}).content

    def commitment(self, column: str, block: int, party: str) -> bytes:
        """Return H(k_i) of a party's seed of a block, 32 bytes; `InputError` if there is no such block."""
        self.block_shape(column, block)
        start = 64 * self.parties.index(party)
        return bytes.fromhex(self.commitments[column][block][start : start + 64])

    def check_seed(self, column: str, block: int, party: str, seed: Seed) -> None:
        """Require that this is the seed that the party gave the owner for that block.

        Raises:
            IntegrityError: it is not; `peer` is the party.
        """
        if seed.commitment() != self.commitment(column, block, party):
            raise IntegrityError(
                f"{party} handed over a seed of column {column!r} of {self.name} that is not the one it was put with",
                cause="that party deviates from the protocol, or its data were altered",
                remedy="do not use this session's results; put the object again if the party's disk was damaged",
                peer=party,
            )

    def sign(self, identity: Identity) -> Signed:
        """Sign the manifest, as its owner."""
        return Signed.make(identity, _MANIFEST, self.content)

    def endorse(self, identity: Identity) -> Endorsement:
        """Sign the manifest of what is kept or gathered, as one of the parties that have it."""
        return endorse(identity, _KEPT, self.content)

    @classmethod
    def verify(cls, trust: Trust, signed: Signed, clock: Clock | None) -> Manifest:
        """Return the manifest, if its owner signed it, or of what is kept or gathered every party.

        Args:
            clock: when the owner's certificate has to be valid; None: when the manifest says it was made, for what
                parties have long kept, who looked at the clock when it was put.

        Raises:
            IntegrityError: another signer, or another signature.
            InputError: it is malformed.
        """
        found = cls.parse(signed.content)
        clock = clock or (lambda: float(found.created))
        if found.kept is None and found.gathered is None:
            signed.check(trust, _MANIFEST, found.owner, clock)
        else:
            check_endorsements(trust, _KEPT, signed, found.parties, clock)
        return found


def object_id(content: bytes) -> bytes:
    """Digest a manifest's canonical bytes: the id of the object, 32 bytes."""
    return digest("mpc/v1/object", content)


def contents_digest(salt: bytes, digests: Iterable[bytes]) -> bytes:
    """Digest what the parties hold of an object, 32 bytes.

    Args:
        salt: 32 bytes, which the owner and the parties know, and nobody else: who knows the masks would
            test guesses of a short block against a digest without it.
        digests: BLAKE3 of each block's x^, column after column in the manifest's order.
    """
    if len(salt) != SALT_BYTES:
        raise InputError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    return digest("mpc/v1/object-contents", salt, *digests)
