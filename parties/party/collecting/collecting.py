"""Open, close, gather and complete collections, at one party.

A party signs one list of the contributions that it has, durably, and takes no other from then on.  Whoever collects
brings the lists of all parties to each of them; what stands in all, and nothing else, becomes one object, with a block
for each, under the seeds that the clients were given.  Fewer than the collection needs become nothing, for good.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mpc.errors import HandshakeError, IntegrityError, PolicyError, SessionError
from mpc.prg import SEED_BYTES, Seed
from parties.agreed.collecting import (
    Collection,
    ContributionList,
    collection_id,
    gathered_salt,
    gathered_schema,
    in_all,
)
from parties.agreed.objects import Manifest, Schema, contents_digest
from parties.agreed.signed import Endorsement, Signed, key_of
from parties.party.collecting import tables
from parties.party.collecting.contributions import salt_of, unknown_collection
from parties.party.consent import audit
from parties.party.rules import Rules
from parties.party.vault import catalogue
from parties.party.vault.admission import MOST_SKEW, granted, require_room, require_version
from parties.party.vault.blocks import seal_block, unseal_block
from parties.party.vault.catalogue import LIVING, RECEIVED, Row
from parties.party.vault.vault import Vault
from parties.party.vault.versions import add_kept
from parties.telemetry import logger

MOST_COLLECTIONS = 1 << 14
"""Collections that one client may ever have opened at a party: names stay spent."""


@dataclass(frozen=True)
class Standing:
    """Facts of how a collection stands at this party.

    Args:
        entered: contributions that exist here.
        closed: no more are taken.
        gathered: id (hex) of the object that it became; "" before.
        contributions: ids (hex) of those that are here, for whoever collects, if asked for.
    """

    signed: Signed
    entered: int
    closed: bool
    gathered: str
    contributions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Gathered:
    """An object that contributions become: the manifest, and blocks that are sealed under the new object's key."""

    schema: Schema
    whole: Manifest
    put: bytes
    own: Seed
    blocks: list[tuple[int, int, bytes, str]]


class Collecting:
    """Collections at one party.  Thread-safe.

    Every call names its caller: a client, and the digest of the public key in its certificate.
    """

    def __init__(self, vault: Vault, rules: Rules) -> None:
        self._vault, self._config, self._ledger, self._rules = vault, vault.config, vault.ledger, rules
        self._trust = vault.identity.trust
        self._roster = tuple(peer.name for peer in vault.config.peers)

    def open(self, signed: Signed, client: str, key: bytes) -> str:
        """Keep a collection of the caller's; its id.

        Raises:
            IntegrityError, InputError: it is not the caller's, malformed or another cluster's.
            HandshakeError: it is for other parties or another provider.
            PolicyError: its sum would tell more of a client than the operator allows.
            SessionError: its name is spent, its time is over, or there are too many.
        """
        now = self._vault.times.now()
        found = Collection.verify(self._trust, signed, self._config.cluster, lambda: now)
        if found.owner != client or key_of(signed.certificate) != key:
            raise IntegrityError(f"{client} brings a collection of {found.owner}'s, or of another key", peer=client)
        if (found.parties, found.provider) != (self._roster, self._config.provider.name):
            raise HandshakeError(f"{found.name} is for other parties, or another provider, than this party's")
        if abs(found.created - now) > MOST_SKEW or found.until <= now:
            raise SessionError(f"{found.name} was not made now, or is over", remedy="look at the clocks: mpc doctor")
        most = self._rules.most_epsilon
        if most is not None and found.epsilon > most:
            raise PolicyError(
                f"a sum of epsilon {float(found.epsilon):g} is more than {self._config.name} lets anybody be told",
                remedy=f"open it with epsilon {float(most):g} or less, or ask its operator: policy.max_epsilon",
            )
        kept = tables.Kept(collection_id(signed.content), client, key, signed, None, None)
        with self._ledger.writing(durable=True) as database:
            here = tables.named(database, found.name)
            if here is not None and here.signed.content == signed.content:
                return here.id
            taken = catalogue.name_of(database, found.name) or catalogue.unfinished(database, found.name)
            if here is not None or taken:
                raise SessionError(f"{found.name} is a name that is spent", remedy="choose another name")
            if tables.count(database, client) >= MOST_COLLECTIONS:
                raise SessionError(
                    f"{client} has opened {MOST_COLLECTIONS:,} collections here, as many as there may be"
                )
            tables.add(database, kept, found.name)
            self._note(database, audit.GRANT, found, client)
        logger().info("a collection was opened", name=found.name, owner=client, at_least=found.at_least)
        return kept.id

    def standing(self, name: str, client: str, key: bytes, listed: bool = False) -> Standing:
        """Say how a collection stands, to whoever may enter, collects or learns the sum; `SessionError` to others.

        listed: say to whoever collects which contributions are here.
        """
        with self._ledger.reading() as database:
            kept = tables.named(database, name)
            if kept is None:
                raise unknown_collection()
            collection = Collection.parse(kept.signed.content)
            own = (kept.owner, kept.owner_key) == (client, key)
            if not own and client not in collection.recipients and not collection.takes(client):
                raise unknown_collection()
            here = tuple(tables.contributions(database, kept.id)) if own and listed else ()
            entered = tables.count_contributions(database, kept.id)
            row = None if kept.gathered is None else catalogue.by_id(database, kept.gathered)
            whole = kept.gathered or "" if row is not None and row.state == LIVING else ""
        return Standing(kept.signed, entered, kept.contributions is not None, whole, here)

    def close(self, collection: str, client: str, key: bytes) -> Signed:
        """Sign the list of the contributions that are here, once and for good.

        Raises:
            SessionError: there is no such collection of the caller's, or its time is not over.
        """
        now = self._vault.times.now()
        with self._ledger.writing(counted=True) as database:
            kept = self._own(database, collection, client, key)
            if kept.contributions is not None:
                return kept.contributions
            said = Collection.parse(kept.signed.content)
            here = tables.contributions(database, collection)
            if now < said.until and len(here) < said.at_most:
                raise SessionError(
                    f"{said.name} is open for {said.until - now:.0f} s more",
                    cause="clients were told that they may enter until then",
                    remedy="wait; or open collections for a shorter time, or that are full with fewer contributions",
                )
            stated = ContributionList(
                cluster=said.cluster, party=self._config.name, collection=collection, contributions=here
            )
            signed = stated.sign(self._vault.identity)
            tables.close(database, collection, signed)
            self._note(database, audit.KEEP, said, client, contributions=len(here))
        logger().info("a collection was closed", name=said.name, contributions=len(here))
        return signed

    def gather(self, collection: str, lists: Sequence[Signed], client: str, key: bytes) -> Endorsement:
        """Make one object of what all parties list, and sign it; one that was dropped unfinished is made once more.

        Raises:
            IntegrityError: a list is not its party's, or not the one that this party has signed.
            SessionError: it is not closed here, or there are fewer contributions than it needs.
        """
        now = self._vault.times.now()
        with self._ledger.reading() as database:
            kept = self._own(database, collection, client, key)
        said = Collection.parse(kept.signed.content)
        if kept.contributions is None:
            raise SessionError(f"{said.name} is not closed", remedy="close it first")
        if len(lists) != len(self._roster):
            raise IntegrityError(f"{len(lists)} lists, and there are {len(self._roster)} parties", peer=client)
        if lists[self._roster.index(self._config.name)].content != kept.contributions.content:
            raise IntegrityError(f"{client} shows another list than {self._config.name} has signed", peer=client)
        read = [
            ContributionList.verify(self._trust, signed, party, said, lambda: now)
            for party, signed in zip(self._roster, lists, strict=True)
        ]
        contributions = in_all(said, read)
        if kept.gathered is not None:
            with self._ledger.reading() as database:
                row = catalogue.by_id(database, kept.gathered)
                content = None if row is None else catalogue.signed_of(database, row.number).content
            if content is not None:
                return Manifest.parse(content).endorse(self._vault.identity)
        made = self._made(said, contributions)
        if kept.gathered not in (None, made.whole.id.hex()):
            raise IntegrityError(f"{client} shows other lists than this party has gathered {said.name} of", peer=client)
        with self._ledger.writing(counted=True) as database:
            self._list(database, made, kept)
            self._vault.times.store(database)
        return made.whole.endorse(self._vault.identity)

    def complete(self, collection: str, endorsements: Sequence[Endorsement], client: str, key: bytes) -> str:
        """Let what was gathered exist, now that all parties have signed it, and erase the contributions; its id (hex).

        Raises:
            IntegrityError: a party has not signed it.
            SessionError: there is nothing of it here.
        """
        now = self._vault.times.now()
        with self._ledger.reading() as database:
            kept = self._own(database, collection, client, key)
            row = None if kept.gathered is None else catalogue.by_id(database, kept.gathered)
            if row is None:
                raise SessionError("that collection was not gathered here", remedy="gather it at all parties first")
            if row.state == LIVING:
                return str(row.object)
            content = catalogue.signed_of(database, row.number).content
        signed = Signed.joint(content, endorsements)
        Manifest.verify(self._trust, signed, lambda: now)

        def live(database: sqlite3.Connection) -> list[Row]:
            found = catalogue.by_id(database, str(row.object))
            if found is None:
                raise SessionError("what was gathered was removed meanwhile")
            if found.state != LIVING:
                catalogue.endorse(database, found.number, endorsements)
                catalogue.bring_to_life(database, found)
                self._vault.ending.note(database, audit.KEEP, found)
            contributions = [catalogue.by_id(database, each) for each in tables.contributions(database, collection)]
            return [each for each in contributions if each is not None]

        self._vault.ending.erase(live)
        logger().info("a collection was gathered", name=row.name, object=row.object, owner=client)
        return str(row.object)

    # -- rows

    def _own(self, database: sqlite3.Connection, collection: str, client: str, key: bytes) -> tables.Kept:
        kept = tables.find(database, collection)
        if kept is None or (kept.owner, kept.owner_key) != (client, key):
            raise unknown_collection()
        return kept

    def _made(self, said: Collection, contributions: Iterable[str]) -> _Gathered:
        """Seal each contribution's block under a new object's key, and make the manifest."""
        put, own, column = self._vault.draw(16), Seed(self._vault.draw(SEED_BYTES)), said.column.name
        blocks, salts, digests, commitments = [], [], [], []
        with self._ledger.reading() as database:
            for number, contribution in enumerate(contributions):
                row = self._contribution(database, contribution)
                key = self._vault.keys.unwrap(row.put, row.wrapped)
                [(place, block, sealed)] = catalogue.blocks_of(database, row.number)
                opened = unseal_block(row.put, key, place, block, sealed)
                anew = seal_block(put, own, 0, number, opened.keep(), self._vault.draw)
                blocks.append((0, number, anew, opened.name))
                salts.append(salt_of(database, row, key))
                digests.append(opened.digest)
                listed = Manifest.parse(catalogue.signed_of(database, row.number).content)
                commitments.append([listed.commitment(column, 0, party) for party in self._roster])
        schema = gathered_schema(said, len(blocks))
        contents = contents_digest(gathered_salt(salts), digests)
        return _Gathered(schema, Manifest.of(schema, {column: commitments}, contents), put, own, blocks)

    def _contribution(self, database: sqlite3.Connection, object_id: str) -> Row:
        row = catalogue.by_id(database, object_id)
        if row is None or row.state != LIVING:
            raise SessionError(
                "a contribution that this party has listed is here no more", remedy="open another collection"
            )
        return row

    def _list(self, database: sqlite3.Connection, made: _Gathered, kept: tables.Kept) -> None:
        """Enter what was gathered into the catalogue; it exists once all have signed it."""
        whole, limits = made.whole, self._config.limits
        found = tables.find(database, kept.id)
        if found is None or found.gathered != kept.gathered or catalogue.by_id(database, whole.id.hex()) is not None:
            raise SessionError(f"{whole.name} is being gathered already", remedy="try again")
        require_version(database, whole, kept.owner_key)
        size = granted(whole, limits)
        require_room(database, limits, whole, size)
        wrapped = self._vault.keys.wrap(made.put, made.own)
        row = catalogue.insert(database, made.put, kept.owner_key, made.schema, size, wrapped, RECEIVED)
        add_kept(database, row.number, made.blocks)
        catalogue.receive(database, row.number, whole.id.hex(), Signed(whole.content, b"", b""))
        catalogue.touch(database, row.number, self._vault.times.shown())
        tables.gather(database, kept.id, whole.id.hex())

    def _note(self, database: sqlite3.Connection, kind: str, said: Collection, client: str, **facts: object) -> None:
        about = {client, *said.recipients}
        known = {"collection": said.id, "name": said.name, "owner": said.owner}
        audit.append(database, self._vault.draw, kind, self._vault.times.shown(), sorted(about), **known, **facts)
