"""One put on its way: every block masked with the parties' seeds and sent to all, the manifest signed, the receipts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import blake3
import numpy as np

from mpc.encoding import view_field
from mpc.errors import InputError, IntegrityError, MpcError, SessionError
from mpc.plan.plan import Plan
from mpc.prg import Seed
from parties.agreed.manifest import read_seed
from parties.agreed.objects import Manifest, contents_digest
from parties.agreed.receipts import Receipt
from parties.agreed.signed import Signed
from parties.client.at_rest import catalogue
from parties.client.at_rest.masking import check_block, mask
from parties.client.at_rest.putlog import PutLog, Sent, Unfinished
from parties.client.channels import Parties, Reply, gather
from parties.pb import data_pb2
from parties.pb.data_pb2 import SignedStatement
from parties.wire.pieces import pieces

Blocks = Iterable[Mapping[str, np.ndarray]]
"""Rows of one block after the other, 65,536 each and at last those that are left, unless other lengths are said: column
-> int64 integers, round(x * scale), (rows, *shape)."""
Progress = Callable[[int, int], None]
"""Told how many rows, of a model how many weights, are at all parties, and how many there are."""
ON_THEIR_WAY, _AT_ONCE = 1 << 25, 4
"""Bytes of x^ that are sent at once, in so many blocks; one that is larger goes alone."""
_Held = dict[tuple[int, int], tuple[bytes, bytes]]
"""Blocks that a party has: (place of the column, block) -> (H(k_i), BLAKE3 of x^)."""
_DRAFT = "draft"


@dataclass
class _Pending:
    """A block on its way."""

    place: int
    block: int
    sent: Sent
    size: int
    replies: list[Reply[Any]]


class Sending:
    """One put, from its schema to its receipts.

    Args:
        replaces: older versions are removed as soon as this one exists.
    """

    def __init__(
        self, parties: Parties, log: PutLog, begun: Unfinished, progress: Progress, replaces: bool = False
    ) -> None:
        self._parties, self._log, self._begun, self._progress = parties, log, begun, progress
        self._schema, self._seconds, self._replaces = begun.schema, parties.config.deadlines.submit, replaces
        self._pending: deque[_Pending] = deque()
        self._whole = False
        self._held: list[_Held] = [{} for _ in parties.names]

    def begin(self) -> bool:
        """Begin, or go on, at all parties; False if a party has dropped what others have as a whole.

        Raises:
            MpcError: a party refuses a put that it would have to begin.
            IntegrityError: a party does not keep a block of the version before as it was put.
        """
        kept = [data_pb2.KeptBlock(block=block, of=of) for block, of in self._begun.kept.items()]
        request = data_pb2.BeginRequest(put=self._begun.put, schema=self._schema.content, kept=kept)
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
        if kept or not self._begun.fresh:
            self._held = self._ask_held([bool(kept) or state == _DRAFT for state in states])
        blocks = self._schema.block_count * len(self._schema.columns)
        lost = [len(held) < blocks for held, state in zip(self._held, states, strict=True) if state == _DRAFT]
        if self._whole and any(lost):
            return False
        self._keep()
        return True

    def run(self, blocks: Blocks, plan: Plan | None = None) -> Manifest:
        """Send the blocks that are not at all parties, sign, and have the object exist; raises as `upload.put`.

        plan: of a model, that its columns are the weights of.
        """
        if plan is not None:
            said = data_pb2.PutPlanRequest(put=self._begun.put, plan=plan.canonical)
            self._parties.each(lambda stub: stub.data.PutPlan, said, self._seconds)
        try:
            done = sum(map(self._schema.block_rows, self._begun.kept))
            for block, values in self._checked(blocks):
                self._enter(block, values)
                done += self._schema.block_rows(block)
                if plan is None:
                    self._progress(done, self._schema.rows)
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

    def _keep(self) -> None:
        """Take what parties say of the blocks that are kept of the version before, which that one's manifest binds.

        Raises:
            IntegrityError: a party has another seed there, or not all have one x^.
        """
        base = self._begun.base
        for block, of in self._begun.kept.items() if base is not None else ():
            for place, column in enumerate(self._schema.columns):
                found = [each.get((place, block), (b"", b"")) for each in self._held]
                for party, (commitment, _) in zip(self._parties.names, found, strict=True):
                    if base is None or commitment != base.commitment(column.name, of, party):
                        raise IntegrityError(
                            f"{party} does not keep block {of} of version {self._schema.version - 1} of "
                            f"{self._schema.name} as it was put",
                            cause="that party deviates from the protocol, or its data were altered",
                            remedy="put all of the table",
                            peer=party,
                        )
                if len({digest for _, digest in found}) != 1:
                    raise IntegrityError(
                        f"the parties do not hold one block {of} of column {column.name!r} of {self._schema.name}",
                        cause="one of them deviates from the protocol, or its data were altered",
                        remedy="put all of the table",
                    )
                joined = b"".join(commitment for commitment, _ in found)
                self._begun.blocks[place, block] = Sent(b"", found[0][1], joined)

    def _checked(self, blocks: Blocks) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        wanted = iter([block for block in range(self._schema.block_count) if block not in self._begun.kept])
        for values in blocks:
            number = next(wanted, None)
            if number is None:
                raise InputError(f"there are more than the {self._schema.rows} rows that were said")
            if set(values) != {column.name for column in self._schema.columns}:
                raise InputError("a block has other columns than were said")
            for column in self._schema.columns:
                check_block(self._schema, column, number, values[column.name])
            yield number, values
        if next(wanted, None) is not None:
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
            once = self._schema.collection is not None
            if not once:
                self._log.forget(self._begun)
            raise InputError(
                f"the data are not those of the interrupted put of {self._schema.name}",
                cause="a party may have let it exist already, and one row counts of each client" if once else None,
                remedy="enter the row that it was" if once else "put them again: that begins anew",
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
            self.send(place, block, mark, mask(values[column.name], seeds), seeds)

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

    def send(self, place: int, block: int, mark: bytes, masked: np.ndarray, seeds: Sequence[Seed]) -> None:
        """Send x^ of a block to every party, beside what is on its way already."""
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
        if self._schema.plan is not None:
            self._progress(done.place + 1, len(self._schema.columns))

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
        completed = data_pb2.CompleteRequest(object=whole.id, receipts=receipts, tombstones=self._tombstones())
        self._parties.each(lambda stub: stub.data.Complete, completed, self._seconds)
        self._log.finish(self._begun, whole.id)
        return whole

    def _tombstones(self) -> list[SignedStatement]:
        """Sign the removal of the versions before, wherever one is, if this one takes their place."""
        if not self._replaces:
            return []
        found = catalogue.own(self._parties, self._schema.name)
        older = [each.id for each in found if each.version < self._schema.version]
        return [catalogue.tombstone(self._parties, each) for each in older]

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
