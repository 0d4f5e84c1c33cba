"""Keep what one run leaves, from its last opening to the objects that exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sqlite3 import Connection

from mpc.encoding import digest
from mpc.errors import IntegrityError
from parties.agreed import manifest as dealt
from parties.agreed.keeps import Keep
from parties.agreed.objects import Manifest, Schema, contents_digest
from parties.agreed.signed import Endorsement, Signed
from parties.party.consent.decide import Allowed
from parties.party.link import Link, tell
from parties.party.run import Run
from parties.party.stock.files import sync
from parties.party.vault.keeps import KeptBlock, Making
from parties.party.vault.vault import Vault

DIGESTS, SIGNATURES, EXISTS = 1, 2, 3
"""Numbers of what the parties tell each other, see `Told` in the proto."""


@dataclass
class Unfinished:
    """One object while a session makes it.

    Args:
        before: the version that it is a refresh of.
        commitments, digests: by column, block after block: H(k_i) of each party, and BLAKE3 of x^.
    """

    keep: Keep
    making: Making
    before: Manifest | None
    commitments: list[list[list[bytes]]] = field(init=False)
    digests: list[list[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.commitments = [[] for _ in self.keep.outputs]
        self.digests = [[] for _ in self.keep.outputs]

    def write(self, run: Run, wires: Mapping[str, str], found: dealt.Manifest) -> Iterator[KeptBlock]:
        """Write z^ of a run's outputs, a block of each column, and yield each block.

        Args:
            wires: of the outputs.
            found: the provider's word on every party's part of the masks.
        """
        for place, output in enumerate(self.keep.outputs):
            wire = wires[output]
            number, seed = len(self.digests[place]), run.party.keep(wire)
            block = self.making.write(place, number, seed, run.party.output(wire))
            self.digests[place].append(block.digest)
            self.commitments[place].append([bytes.fromhex(each) for each in found.commitments[wire]])
            yield block

    def whole(self, schema: Schema, salt: bytes) -> Manifest:
        """Return the manifest of the object, once all blocks are here.

        salt: that the parties alone know.
        """
        names = [column.name for column in schema.columns]
        every = [each for column in self.digests for each in column]
        return Manifest.of(schema, dict(zip(names, self.commitments, strict=True)), contents_digest(salt, every))


class KeptRun:
    """Everything that is kept of one run; a context manager around the transaction that lists it, which deletes what
    was not listed.

    Args:
        objects: with the schema of each, as far as it is known.
        last: they are whole with this run.
        seconds: that a peer may take to tell something.
    """

    def __init__(
        self,
        vault: Vault,
        run: Run,
        links: Sequence[Link],
        objects: Sequence[tuple[Unfinished, Schema]],
        last: bool,
        seconds: float,
    ) -> None:
        self.vault, self._run, self._links, self._objects, self._last = vault, run, links, objects, last
        self._seconds = seconds
        self._blocks: list[list[KeptBlock]] = []
        self._whole: list[Manifest] = []

    def __enter__(self) -> KeptRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
            return
        for made, _schema in self._objects:
            made.making.listed()

    def discard(self) -> None:
        """Delete what was written, and is not listed."""
        for (made, _schema), blocks in zip(self._objects, self._blocks, strict=False):
            made.making.discard(blocks)

    def write(self, wires: Mapping[str, str], found: dealt.Manifest, key: bytes, session: bytes) -> None:
        """Write it to the disk, and compare with the other parties.

        Args:
            key: that the parties alone know: whoever knows the masks would test guesses of z^ against a digest without
                it.

        Raises:
            IntegrityError: they hold something else.
        """
        for made, _schema in self._objects:
            made.making.clear()
            self._blocks.append([])
            for block in made.write(self._run, wires, found):
                self._blocks[-1].append(block)  # so that whatever is on the disk is known if the next one fails
        sync(self.vault.folder)
        run = (session, self._run.number, self._run.batch)
        own = [
            digest("mpc/v1/kept", key, *run, made.keep.name, *(each.digest for each in blocks))
            for (made, _schema), blocks in zip(self._objects, self._blocks, strict=True)
        ]
        held = tell(self._links, self._run.number, DIGESTS, own, self._seconds)
        if any(list(each) != own for each in held):
            raise IntegrityError(
                "the parties do not hold the same of what is kept; nothing of it counts",
                cause="one of them deviates from the protocol, or its disk is failing",
                remedy="do not use this session's results; find out which party's software or disk was changed",
            )
        if self._last:
            salts = [digest("mpc/v1/keep-salt", key, session, made.keep.name) for made, _schema in self._objects]
            pairs = zip(self._objects, salts, strict=True)
            self._whole = [made.whole(schema, salt) for (made, schema), salt in pairs]

    def enter(self, database: Connection, allowed: Sequence[Allowed]) -> None:
        """List it, in the transaction that writes `revealed`.

        allowed: what the owners' words say of what the session reads.
        """
        grants = [(each.grant, each.part.owner, each.part.key) for each in allowed if each.grant is not None]
        for place, ((made, schema), blocks) in enumerate(zip(self._objects, self._blocks, strict=True)):
            row = made.making.enter(database, schema, blocks, grants)
            if self._last:
                made.making.receive(database, row, self._whole[place])

    def settle(self) -> None:
        """Sign what is whole, and let it exist once all parties have; erase what a refresh takes the place of.

        Raises:
            IntegrityError: a party has signed something else, or nothing.
        """
        if not self._last:
            return
        identity = self.vault.identity
        own = [whole.endorse(identity) for whole in self._whole]
        parts = [part for each in own for part in (each.signature, each.certificate)]
        told = tell(self._links, self._run.number, SIGNATURES, parts, self._seconds)
        theirs = {link.peer: each for link, each in zip(self._links, told, strict=True)}
        for place, (made, _schema) in enumerate(self._objects):
            whole = self._whole[place]
            joint = [
                Endorsement(*theirs[name][2 * place : 2 * place + 2]) if name in theirs else own[place]
                for name in whole.parties
            ]
            signed = Signed.joint(whole.content, joint)
            Manifest.verify(identity.trust, signed, self.vault.times.now)
            made.making.complete(whole, signed)
        self._replace()

    def _replace(self) -> None:
        """Erase old versions once the new ones exist at every party: until then these are what can be used."""
        refreshes = [made for made, _schema in self._objects if made.before is not None]
        if not refreshes:
            return
        tell(self._links, self._run.number, EXISTS, [], self._seconds)
        for whole, (made, _schema) in zip(self._whole, self._objects, strict=True):
            if made.before is not None:
                made.making.replace(whole, made.before)
