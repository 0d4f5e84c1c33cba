"""Holds what a party was dealt of one bundle, segment by segment: on its way from the provider, or on the disk.

A segment may be computed with as it comes.  Nothing that was computed with it leaves this process before `check`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mpc.correlations import BundleId, Corrections
from mpc.errors import LocalProtocolError
from mpc.interpret.preparing import Arrivals
from mpc.plan.segments import Segment
from mpc.prg import SEED_BYTES, Seed
from parties.agreed import manifest
from parties.agreed.manifest import Manifest, check_corrections
from parties.agreed.segments import verify_segment
from parties.agreed.terms import Terms
from parties.pb import party_pb2
from parties.trust.chains import Trust


@dataclass(frozen=True)
class Receipt:
    """A bundle's manifest, which is checked, and what receiving it took.

    Args:
        deal_seconds: the provider's, for what has been checked so far.
        size: bytes of correlations of all segments, to this party.
    """

    manifest: Manifest
    signed: party_pb2.Manifest
    deal_seconds: float
    size: int


@dataclass(frozen=True)
class Statement:
    """Holds what the provider says behind one segment, as it came; nothing of it is believed before it is verified.

    Args:
        manifest: behind the first segment; behind others `content` and `signature`.
        found: digest of the corrections that came, or nothing if they went to another party.
    """

    manifest: party_pb2.Manifest | None = None
    content: bytes = b""
    signature: bytes = b""
    deal_seconds: float = 0.0
    found: bytes | None = None


@dataclass
class Signatures:
    """Follows what the provider signs of one bundle, from the manifest on.  One thread at a time asks it."""

    trust: Trust
    terms: Terms
    bundle: BundleId
    manifest: Manifest | None = field(default=None, init=False)
    signed: party_pb2.Manifest = field(default_factory=party_pb2.Manifest, init=False)
    followed: int = field(default=0, init=False)
    newest: bytes = field(default=b"", init=False)
    """Hold the content of the newest statement, which all before it follow from."""

    def follow(self, statement: Statement) -> None:
        """Verify the statement of the next segment; raise IntegrityError if it is not what came, or of another one."""
        if statement.manifest is not None:
            self.manifest = manifest.verify(self.trust, self.terms, self.bundle, statement.manifest)
            self.signed, said = statement.manifest, self.manifest.corrections
            self.newest = self.signed.content
        else:
            said = verify_segment(
                self.trust,
                self.terms,
                self.signed.certificate,
                self.newest,
                self.followed,
                statement.content,
                statement.signature,
            )
            self.newest = statement.content
        if statement.found is not None:
            check_corrections(said, statement.found)
        self.followed += 1


class Delivery(Corrections, Arrivals, ABC):
    """One party's part of one bundle.

    Args:
        seed: of this party.
        segments: of the bundle.
        mine: the corrections go to this party.
    """

    def __init__(self, seed: Seed, segments: tuple[Segment, ...], mine: bool, signatures: Signatures) -> None:
        self.seed, self.segments, self.mine = seed, segments, mine
        self._signatures = signatures
        self._seconds = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} segments={len(self.segments)}>"

    @property
    def size(self) -> int:
        """Bytes of all corrections that go to this party."""
        return self.segments[-1].stop if self.mine else 0

    @property
    def corrections(self) -> Corrections | None:
        """Return what this party is sent beside its seed, if that is anything."""
        return self if self.mine else None

    def check(self, number: int) -> None:
        """Wait until a segment, and all before it, is here, and hold it to what the provider signed."""
        while self._signatures.followed <= number:
            statement = self.statement(self._signatures.followed)
            self._signatures.follow(statement)
            self._seconds = statement.deal_seconds

    def check_all(self) -> None:
        """Check every segment; see `check`."""
        self.check(len(self.segments) - 1)

    @property
    def receipt(self) -> Receipt:
        """Return the manifest, once a segment is checked."""
        found = self._signatures.manifest
        if found is None:
            raise LocalProtocolError("a bundle's manifest is asked for before it was checked")
        return Receipt(found, self._signatures.signed, self._seconds, SEED_BYTES + self.size)

    @property
    def newest(self) -> bytes:
        """Return what the provider signed last of what was checked: it binds all before it."""
        return self._signatures.newest

    def segment_at(self, start: int) -> int:
        """Return which segment has the byte at this place."""
        return next(number for number, segment in enumerate(self.segments) if start < segment.stop)

    @abstractmethod
    def statement(self, number: int) -> Statement:
        """Return what the provider says behind a segment; wait until it, and all of the segment, is here."""

    @abstractmethod
    def give_up(self) -> None:
        """Let go of everything, from any thread: what is still to come is of no use."""


@contextmanager
def given_up(delivery: Delivery) -> Iterator[Delivery]:
    """Give a delivery up if the block fails."""
    try:
        yield delivery
    except BaseException:
        delivery.give_up()
        raise
