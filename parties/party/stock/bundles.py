"""A bundle's file in a stock: corrections, segment by segment, and behind them what the provider signed of each.

    MAGIC, corrections, a `StoredBundle`, its length in 4 bytes

What is signed comes last, as it is dealt: so neither writing a file nor reading it holds more than a segment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mpc.correlations import CorrectionsDigest
from mpc.errors import IntegrityError
from mpc.plan.segments import Segment
from mpc.prg import Seed
from parties.agreed import manifest
from parties.party.delivery import Delivery, Signatures, Statement
from parties.party.stock.files import naming, open_file
from parties.pb.party_pb2 import StoredBundle, StoredSegment
from parties.wire.pieces import room

MAGIC = b"mpc-bundle-3\n"
LENGTH_BYTES = 4
_A_SEGMENT = 2048
_MOST_END = manifest.LARGEST + (1 << 16)


def parts_of(delivery: Delivery) -> Iterator[bytes | memoryview]:
    """Yield a bundle's file as the bundle arrives; each segment is checked, and then let go of."""
    yield MAGIC
    words: list[StoredSegment] = []
    for number, segment in enumerate(delivery.segments):
        if delivery.mine and segment.dealt:
            yield delivery.read(segment.start, segment.stop)
        delivery.check(number)
        if number:
            said = delivery.statement(number)
            words.append(StoredSegment(content=said.content, signature=said.signature))
        delivery.release(number)
    receipt = delivery.receipt
    end = StoredBundle(
        seed=delivery.seed.secret, manifest=receipt.signed, corrections=delivery.size, segments=words
    ).SerializeToString()
    yield end
    yield len(end).to_bytes(LENGTH_BYTES, "big")


class BundleFile:
    """A bundle's file, open.

    Args:
        corrections: bytes of them that there have to be.
        segments: that the bundle has.

    Raises:
        IntegrityError: it is no such file.
    """

    def __init__(self, path: Path, corrections: int, segments: int) -> None:
        self.path, self._file = path, open_file(path)
        try:
            self.end = self._read_end(corrections, segments)
        except BaseException:
            self._file.close()
            raise

    def _read_end(self, corrections: int, segments: int) -> StoredBundle:
        size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(len(MAGIC))
        self._file.seek(max(0, size - LENGTH_BYTES))
        length = int.from_bytes(self._file.read(LENGTH_BYTES), "big")
        whole = len(MAGIC) + corrections + length + LENGTH_BYTES
        if start != MAGIC or length > _MOST_END + segments * _A_SEGMENT or size != whole:
            raise IntegrityError("it is longer or shorter than it should be")
        self._file.seek(len(MAGIC) + corrections)
        end = StoredBundle.FromString(self._file.read(length))
        if end.corrections != corrections or len(end.segments) != segments - 1:
            raise IntegrityError("it holds more or less than the plan says")
        return end

    def read(self, start: int, stop: int) -> memoryview:
        """Return some of the corrections; raise IntegrityError if they are not there any more."""
        data = room(stop - start)
        self._file.seek(len(MAGIC) + start)
        if self._file.readinto(data) != len(data):
            raise IntegrityError("it was cut short while it was read")
        return data.toreadonly()

    def close(self) -> None:
        """Let go of the file; of one whose name is gone nothing is left then."""
        self._file.close()


class Stored(Delivery):
    """A bundle that was dealt ahead, read segment by segment; each is checked as soon as it is read.

    One thread at a time asks it.

    Args:
        key: of the digests of corrections.
    """

    def __init__(
        self,
        seed: Seed,
        segments: tuple[Segment, ...],
        mine: bool,
        signatures: Signatures,
        key: Seed,
        file: BundleFile,
    ) -> None:
        super().__init__(seed, segments, mine, signatures)
        self._key, self._file = key, file
        self._buffers: dict[int, memoryview] = {}

    def read(self, start: int, stop: int) -> memoryview:
        """Return corrections of a segment, which is what was dealt: it is checked before any of it is returned."""
        number = self.segment_at(start)
        self.check(number)
        if number not in self._buffers:
            raise IntegrityError("corrections are asked for that were let go of")
        place = self.segments[number].start
        return self._buffers[number][start - place : stop - place]

    def statement(self, number: int) -> Statement:
        """Read a segment, and return what the provider says of it."""
        segment, found = self.segments[number], None
        if self.mine:
            self._buffers[number] = data = self._file.read(segment.start, segment.stop)
            digest = CorrectionsDigest(self._key, segment.dealt, number)
            digest.update(data)
            found = digest.value
        if number == len(self.segments) - 1:
            self._file.close()
        if number:
            said = self._file.end.segments[number - 1]
            return Statement(None, said.content, said.signature, found=found)
        return Statement(self._file.end.manifest, found=found)

    def check(self, number: int) -> None:
        """Read a segment, and all before it, and hold it to what the provider signed."""
        with naming(self._file.path):
            super().check(number)

    def release(self, number: int) -> None:
        """Let go of a segment."""
        self._buffers.pop(number, None)

    def give_up(self) -> None:
        """Let go of the file."""
        self._file.close()
