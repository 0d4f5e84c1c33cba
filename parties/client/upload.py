"""Puts, an owner's half of them: mask every block with the parties' seeds, send x^ to all, sign, collect the receipts.

Memory stays with a few blocks, however long the table is.  An interrupted put goes on where it was: blocks that all
parties have are passed over, if the data are still what they were.  All others get fresh seeds: nothing is ever masked
twice with one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import blake3
import numpy as np
from pydantic import ValidationError

from mpc.encoding import view_field
from mpc.errors import ConfigError, InputError, IntegrityError, MpcError, SessionError
from mpc.prg import Seed
from mpc.stored import BLOCK_ROWS
from parties.agreed.manifest import read_seed
from parties.agreed.objects import Column, Manifest, Schema, contents_digest
from parties.agreed.receipts import Receipt
from parties.agreed.signed import Signed
from parties.client.channels import Parties, Reply, gather
from parties.client.masking import check_block, mask
from parties.client.putlog import PutLog, Sent, Unfinished, place_of
from parties.client.versions import next_version
from parties.pb import data_pb2
from parties.wire.pieces import pieces

Blocks = Iterable[Mapping[str, np.ndarray]]
"""Every 65,536 rows, and at last those that are left: column -> int64 integers, round(x * scale), (rows, *shape)."""
Progress = Callable[[int, int], None]
"""Told how many rows are at all parties, and how many there are."""
ON_THEIR_WAY, _AT_ONCE = 1 << 25, 4
"""Bytes of x^ that are sent at once, in so many blocks; one that is larger goes alone."""
_Held = dict[tuple[int, int], tuple[bytes, bytes]]
"""Blocks that a party has: (place of the column, block) -> (H(k_i), BLAKE3 of x^)."""
_DRAFT = "draft"
_RESUMED_FOR = 72_000
"""Seconds after its beginning in which an interrupted put goes on; parties drop it after a day."""


@dataclass(frozen=True)
class Described:
    """All that an owner says of an object, but for which version it is.

    Args:
        name: without the owner's.
        rows_per_person, visible, expires, description, sample: as in `Schema`.
    """

    name: str
    columns: tuple[Column, ...]
    rows: int
    rows_per_person: int = 1
    description: str = ""
    visible: tuple[str, ...] = ()
    expires: int | None = None
    sample: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


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
    if parties.config.cluster is None:
        raise ConfigError(
            "this cluster file has no cluster id, so no data are put with it",
            remedy="locally: mpc down, mpc up; else put 'cluster', as the parties' configs have it, into the file",
        )
    tell = progress or (lambda done, of: None)
    with closing(PutLog(place_of(parties.config), parties.identity)) as log:
        name = f"{parties.config.name}/{described.name}"
        found = log.find(name)
        if found is not None and found.signed is not None and _is_of(found.schema, described):
            signed = _Putting(parties, log, found, tell)
            if signed.begin():
                return signed.run(blocks)
            log.forget(found)  # a party has dropped it: what is put now takes its place
            found = None
        schema = _schema(parties, name, described)
        if found is None or not _goes_on(found, schema):
            found = log.begin(schema)
        putting = _Putting(parties, log, found, tell)
        if not putting.begin():
            log.forget(found)
            raise SessionError(f"the interrupted put of {name} cannot go on", remedy="put it again")
        return putting.run(blocks)


def _schema(parties: Parties, name: str, described: Described) -> Schema:
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
    fields = ("columns", "rows", "rows_per_person", "description", "visible", "expires")
    same = all(getattr(schema, name) == getattr(described, name) for name in fields)
    return same and schema.sample == dict(described.sample)


def _goes_on(found: Unfinished, schema: Schema) -> bool:
    """Is this the put that was interrupted, as far as is known before its data are?"""
    again = schema.model_copy(update={"created": found.schema.created})
    return found.signed is None and again == found.schema and schema.created - found.schema.created < _RESUMED_FOR


@dataclass
class _Pending:
    """A block on its way."""

    place: int
    block: int
    sent: Sent
    size: int
    replies: list[Reply[Any]]


class _Putting:
    """One put, from its schema to its receipts."""

    def __init__(self, parties: Parties, log: PutLog, begun: Unfinished, progress: Progress) -> None:
        self._parties, self._log, self._begun, self._progress = parties, log, begun, progress
        self._schema, self._seconds = begun.schema, parties.config.deadlines.submit
        self._pending: deque[_Pending] = deque()
        self._whole = False
        self._held: list[_Held] = [{} for _ in parties.names]

    def begin(self) -> bool:
        """Begin, or go on, at all parties; False if a party has dropped what others have as a whole.

        Raises:
            MpcError: a party refuses a put that it would have to begin.
        """
        request = data_pb2.BeginRequest(put=self._begun.put, schema=self._schema.content)
        try:
            replies = self._parties.each(lambda stub: stub.data.Begin, request, self._seconds)
        except (InputError, SessionError):
            if self._begun.signed is None:
                raise
            return False  # it is too old to be begun again, or another version is there by now
        states = [reply.state for reply in replies]
        self._whole = {*states} != {_DRAFT}
        if self._whole and self._begun.signed is None:
            return False
        if not self._begun.fresh:
            self._held = self._ask_held([state == _DRAFT for state in states])
        blocks = self._schema.block_count * len(self._schema.columns)
        lost = [len(held) < blocks for held, state in zip(self._held, states, strict=True) if state == _DRAFT]
        return not (self._whole and any(lost))

    def run(self, blocks: Blocks) -> Manifest:
        """Send the blocks that are not at all parties, sign, and have the object exist."""
        try:
            for block, values in self._checked(blocks):
                self._enter(block, values)
                self._progress(min(self._schema.rows, (block + 1) * BLOCK_ROWS), self._schema.rows)
            while self._pending:
                self._settle()
        except BaseException:
            with suppress(MpcError):  # what all parties have by now is not sent again
                while self._pending and all(reply.is_done for reply in self._pending[0].replies):
                    self._settle()
            raise
        return self._finish()

    def _ask_held(self, asked: Sequence[bool]) -> list[_Held]:
        """Ask those parties what they have."""
        request = data_pb2.HeldRequest(put=self._begun.put)
        streams = [
            client.stream(lambda stub: stub.data.Held, request, self._seconds) if ask else ()
            for client, ask in zip(self._parties.clients, asked, strict=True)
        ]
        return [{(each.place, each.block): (each.commitment, each.digest) for each in stream} for stream in streams]

    def _checked(self, blocks: Blocks) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        number = -1
        for number, values in enumerate(blocks):
            if number >= self._schema.block_count:
                raise InputError(f"there are more than the {self._schema.rows} rows that were said")
            if set(values) != {column.name for column in self._schema.columns}:
                raise InputError("a block has other columns than were said")
            for column in self._schema.columns:
                check_block(self._schema, column, number, values[column.name])
            yield number, values
        if number + 1 != self._schema.block_count:
            raise InputError(f"there are fewer than the {self._schema.rows} rows that were said")

    def _enter(self, block: int, values: Mapping[str, np.ndarray]) -> None:
        """Have all parties hold one block of every column: those of it that they do not have."""
        missing: list[tuple[int, bytes]] = []
        for place, column in enumerate(self._schema.columns):
            mark = self._log.mark(self._begun.put, np.ascontiguousarray(values[column.name]))
            sent = self._begun.blocks.get((place, block))
            if sent is None or sent.mark != mark or not (self._whole or _all_hold(self._held, place, block, sent)):
                missing.append((place, mark))
        if missing and self._begun.signed is not None and self._whole:
            self._log.forget(self._begun)
            raise InputError(
                f"the data are not those of the interrupted put of {self._schema.name}",
                remedy="put them again: that begins anew",
            )
        if not missing:
            return
        request = data_pb2.SeedsRequest(put=self._begun.put, block=block, places=[place for place, _ in missing])
        replies = self._parties.each(lambda stub: stub.data.Seeds, request, self._seconds)
        for number, (place, mark) in enumerate(missing):
            column = self._schema.columns[place]
            seeds = [
                self._read_seed(party, reply, number, len(missing))
                for party, reply in zip(self._parties.names, replies, strict=True)
            ]
            self._send(place, block, mark, mask(values[column.name], seeds), seeds)

    def _read_seed(self, party: str, reply: data_pb2.SeedsReply, number: int, count: int) -> Seed:
        if len(reply.seeds) != count:
            raise IntegrityError(f"{party} gave {len(reply.seeds)} seeds where {count} were asked for", peer=party)
        given = reply.seeds[number]
        seed = read_seed(given.seed, party)
        if seed.commitment() != given.commitment:
            raise IntegrityError(
                f"{party} commits to another seed than it gave",
                cause="that party deviates from the protocol, or its answer was altered",
                remedy="find out which software it runs; nothing of the object exists",
                peer=party,
            )
        return seed

    def _send(self, place: int, block: int, mark: bytes, masked: np.ndarray, seeds: Sequence[Seed]) -> None:
        data = view_field(masked)
        while self._pending and (
            len(self._pending) >= _AT_ONCE or sum(each.size for each in self._pending) + len(data) > ON_THEIR_WAY
        ):
            self._settle()
        commitments = [seed.commitment() for seed in seeds]
        sent = Sent(mark, blake3.blake3(data).digest(), b"".join(commitments))
        replies = [
            client.begin(
                lambda stub: stub.data.Block, _parts(self._begun.put, place, block, commitment, data), self._seconds
            )
            for client, commitment in zip(self._parties.clients, commitments, strict=True)
        ]
        self._pending.append(_Pending(place, block, sent, len(data), replies))

    def _settle(self) -> None:
        """Wait for the block that was sent first."""
        done = self._pending.popleft()
        for party, reply in zip(self._parties.names, gather(done.replies), strict=True):
            if reply.digest != done.sent.digest:
                raise IntegrityError(
                    f"{party} says that it received something else than was sent",
                    cause="that party deviates from the protocol",
                    remedy="find out which software it runs; nothing of the object exists",
                    peer=party,
                )
        self._log.sent(self._begun, done.place, done.block, done.sent)

    def _finish(self) -> Manifest:
        whole = self._manifest()
        signed = self._begun.signed
        if signed is None or signed.content != whole.content:
            signed = whole.sign(self._parties.identity)
            self._log.sign(self._begun, signed)
        request = _Commit(self._begun, signed)
        replies = [
            client.begin(lambda stub: stub.data.Commit, request.parts(), self._seconds)
            for client in self._parties.clients
        ]
        receipts = gather(replies)
        for party, each in zip(self._parties.names, receipts, strict=True):
            stated = Signed(each.content, each.signature, each.certificate)
            receipt = Receipt.verify(self._parties.identity.trust, stated, party, time.time)
            if (receipt.object, receipt.cluster) != (whole.id.hex(), whole.cluster):
                raise IntegrityError(f"{party} gave a receipt for something else", peer=party)
        completed = data_pb2.CompleteRequest(object=whole.id, receipts=receipts)
        self._parties.each(lambda stub: stub.data.Complete, completed, self._seconds)
        self._log.forget(self._begun)
        return whole

    def _manifest(self) -> Manifest:
        size, digests, commitments = 32, [], {}
        for place, column in enumerate(self._schema.columns):
            sent = [self._begun.blocks[place, block] for block in range(self._schema.block_count)]
            digests += [each.digest for each in sent]
            commitments[column.name] = [
                [each.commitments[start : start + size] for start in range(0, len(each.commitments), size)]
                for each in sent
            ]
        return Manifest.of(self._schema, commitments, contents_digest(self._begun.salt, digests))


@dataclass(frozen=True)
class _Commit:
    begun: Unfinished
    signed: Signed

    def parts(self) -> Iterator[data_pb2.CommitPart]:
        header = data_pb2.CommitHeader(
            put=self.begun.put,
            salt=self.begun.salt,
            signature=self.signed.signature,
            certificate=self.signed.certificate,
            size=len(self.signed.content),
        )
        yield data_pb2.CommitPart(header=header)
        for piece in pieces(self.signed.content):
            yield data_pb2.CommitPart(chunk=piece)


def _all_hold(held: Sequence[_Held], place: int, block: int, sent: Sent) -> bool:
    """Have all parties this block, under these seeds?"""
    each = len(sent.commitments) // len(held)
    expected = [(sent.commitments[i * each : (i + 1) * each], sent.digest) for i in range(len(held))]
    return [blocks.get((place, block)) for blocks in held] == expected


def _parts(put_id: bytes, place: int, block: int, commitment: bytes, data: memoryview) -> Iterator[data_pb2.BlockPart]:
    header = data_pb2.BlockHeader(put=put_id, place=place, block=block, commitment=commitment)
    yield data_pb2.BlockPart(header=header)
    for piece in pieces(data):
        yield data_pb2.BlockPart(chunk=piece)
