"""A collection's calls, as clients make them: what is signed is read and checked before anything is believed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpc.errors import IntegrityError, SessionError
from parties.agreed.collecting import Collection
from parties.agreed.endorsements import write_endorsements
from parties.agreed.objects import Manifest
from parties.agreed.signed import Endorsement, Signed
from parties.client.at_rest import catalogue
from parties.client.channels import Parties, gather
from parties.pb import collect_pb2
from parties.pb.data_pb2 import SignedStatement


@dataclass(frozen=True)
class Standing:
    """Facts of how a collection stands.

    Args:
        entered: rows that every party says to have, at least: the fewest that one counts.
        closed: a party takes no more.
        object: id of what it became at all parties; b"" before.
        most: rows at the party that has the most.
        in_all: rows that are at all parties, which is told to whoever collects if it asks; else 0.
    """

    entered: int
    closed: bool
    object: bytes
    most: int = 0
    in_all: int = 0


def open_collection(parties: Parties, said: Collection) -> None:
    """Sign a collection, and open it at all parties; opened again, it changes nothing.

    Raises:
        PolicyError, SessionError, PeerError: a party refuses, or is lost.
    """
    signed = said.sign(parties.identity)
    message = SignedStatement(content=signed.content, signature=signed.signature, certificate=signed.certificate)
    parties.each(lambda stub: stub.collect.OpenCollection, message, parties.config.deadlines.submit)


def read(parties: Parties, name: str, listed: bool = False) -> tuple[Collection, Standing]:
    """Return what was signed of a collection, and how it stands.

    Args:
        listed: ask which rows are in, as whoever collects may.

    Raises:
        SessionError: there is none for this client.
        IntegrityError: the parties show different ones, or one that is for others, or that nobody has signed.
    """
    request = collect_pb2.StandingRequest(name=name, listed=listed)
    found = parties.each(lambda stub: stub.collect.Standing, request, parties.config.deadlines.submit)
    if len({each.collection.content for each in found}) > 1:
        raise IntegrityError(f"the parties show different collections as {name}", remedy="open another collection")
    shown, config = found[0].collection, parties.config
    signed = Signed(shown.content, shown.signature, shown.certificate)
    said = Collection.verify(parties.identity.trust, signed, config.cluster, time.time)
    if said.name != name or said.parties != parties.names or said.provider != config.provider.name:
        raise IntegrityError(f"{name} is for other parties, or another provider, than those in your cluster file")
    objects = {each.object for each in found}
    whole = bytes.fromhex(objects.pop()) if len(objects) == 1 else b""
    in_all = frozenset.intersection(*(frozenset(each.contributions) for each in found))
    counts = [each.entered for each in found]
    return said, Standing(min(counts), any(each.closed for each in found), whole, max(counts), len(in_all))


def gathered(parties: Parties, said: Collection) -> Manifest:
    """Close a collection, make one object of what all parties list, and return its manifest; goes on where it was.

    Raises:
        SessionError: its time is not over, or there are too few rows: then nothing is ever told.
        IntegrityError: a party has signed something else.
    """
    name, seconds = said.name, parties.config.deadlines.submit
    _, standing = read(parties, name, listed=True)
    if not standing.object:
        _require_whole(said, standing)
        request = collect_pb2.CollectionRequest(collection=said.id)
        lists = parties.each(lambda stub: stub.collect.CloseCollection, request, seconds)
        replies = [
            client.begin(lambda stub: stub.collect.Gather, _lists(said.id, lists), seconds)
            for client in parties.clients
        ]
        joint = Signed.joint(b"", [Endorsement(each.signature, each.certificate) for each in gather(replies)])
        done = collect_pb2.CompleteCollectionRequest(collection=said.id, endorsements=write_endorsements(joint))
        objects = {each.object for each in parties.each(lambda stub: stub.collect.CompleteCollection, done, seconds)}
        if len(objects) != 1:
            raise IntegrityError(f"the parties gathered different rows of {name}")
        standing = Standing(standing.entered, True, bytes.fromhex(objects.pop()))
    found = catalogue.describe(parties, object_id=standing.object)
    if found.gathered != said.id:
        raise IntegrityError(f"what the parties describe is not what {name} became", peer=parties.names[0])
    return found


def _require_whole(said: Collection, standing: Standing) -> None:
    """Require that no party would close it before its time while rows are not at all parties; `SessionError`.

    A party closes it when it has all rows that count, and signs its one list: one that others do not have is none.
    """
    left = said.until - time.time()
    if not standing.closed and left > 0 and standing.in_all < said.at_most <= standing.most:
        raise SessionError(
            f"{said.name} is open for {left:.0f} s more",
            cause=f"{standing.in_all:,} of {said.at_most:,} rows are in at all parties; clients were told until when",
            remedy="wait; or open collections for a shorter time, or that are full with fewer contributions",
        )


def _lists(collection: str, lists: Sequence[SignedStatement]) -> Iterator[collect_pb2.GatherPart]:
    yield collect_pb2.GatherPart(collection=collection)
    for each in lists:
        yield collect_pb2.GatherPart(list=each)
