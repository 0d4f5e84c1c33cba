"""Objects at the parties as a client learns of them: all parties are asked, and none is believed alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress

from mpc.errors import InputError, IntegrityError, MpcError, PlanError, SessionError
from mpc.plan.plan import Plan
from parties.agreed.endorsements import read_endorsements
from parties.agreed.listed import Entry
from parties.agreed.models import read_model
from parties.agreed.objects import LARGEST, Manifest
from parties.agreed.receipts import Tombstone
from parties.agreed.signed import Signed
from parties.client.answering import Silent, ask_each
from parties.client.channels import Parties, PartyClient
from parties.pb import data_pb2
from parties.pb.data_pb2 import SignedStatement
from parties.wire.pieces import collect

_MOST_PAGES = 1 << 12


def describe(parties: Parties, name: str = "", object_id: bytes = b"") -> Manifest:
    """Return the manifest of an object that this client may see: the newest of a name, or the one of an id.

    The newest version is one that all parties have: what was cut off at its very end exists at some of them alone.

    Raises:
        SessionError: there is none, or the parties have different ones.
        IntegrityError: a party sent something that its owner has not signed.
    """
    request = data_pb2.DescribeObjectRequest(name=name, object=object_id)
    found = [*ask_each(parties.clients, lambda client: _described(parties, client, request)).values()]
    if len({each.id for each in found}) > 1 and name:
        common = [entry for entry in search(parties) if entry.name == name]
        if common:
            return describe(parties, object_id=max(common, key=lambda entry: entry.version).id)
    if len({each.id for each in found}) > 1:
        raise SessionError(
            "the parties do not have the same version of that object",
            cause="it is being put, or removed, just now",
            remedy="ask again; if that does not help, its owner puts it once more",
        )
    if found[0].parties != parties.names or found[0].cluster != parties.config.cluster:
        raise IntegrityError(f"{found[0].name} was put at other parties than those in your cluster file")
    if (object_id and found[0].id != object_id) or (not object_id and found[0].name != name):
        raise IntegrityError("the parties described another object than was asked for", peer=parties.names[0])
    return found[0]


def _described(parties: Parties, client: PartyClient, request: data_pb2.DescribeObjectRequest) -> Manifest:
    stream = iter(client.stream(lambda stub: stub.data.Describe, request, parties.config.deadlines.submit))
    first = next(stream, data_pb2.ManifestPart())
    if first.WhichOneof("part") != "header" or first.header.size > LARGEST:
        raise IntegrityError(f"{client.name} sent no manifest", peer=client.name)
    content = collect((part.chunk for part in stream), first.header.size, "the manifest", client.name)
    header = first.header
    joint = read_endorsements(header.endorsements)
    signed = Signed(bytes(content), header.signature, header.certificate, joint)
    return Manifest.verify(parties.identity.trust, signed, None)


def plan_of(parties: Parties, manifest: Manifest) -> Plan:
    """Return the plan that a model is for, as its owner put it; any party has it, and its digest is signed.

    Raises:
        IntegrityError: a party sent another.
    """
    client, seconds = parties.clients[0], parties.config.deadlines.submit
    stream = iter(client.stream(lambda stub: stub.data.Plan, data_pb2.PlanRequest(object=manifest.id), seconds))
    first = next(stream, data_pb2.PlanPart())
    if first.WhichOneof("part") != "size" or first.size > LARGEST:
        raise IntegrityError(f"{client.name} sent no plan", peer=client.name)
    content = collect((part.chunk for part in stream), first.size, "the plan", client.name)
    try:
        return read_model(manifest, bytes(content))
    except (PlanError, InputError) as error:
        raise IntegrityError(
            f"{client.name} sent another plan than {manifest.name} is for", cause=error.what, peer=client.name
        ) from None


def search(parties: Parties, words: str = "", silent: Silent | None = None) -> list[Entry]:
    """List the objects that this client may see at all parties, those with all these words if there are any.

    silent: takes the errors of parties that do not answer: what is listed then is what all others list.
    """
    found = [*ask_each(parties.clients, lambda client: list_of(parties, client, words), silent).values()]
    return [entry for key, entry in found[0].items() if all(other.get(key) == entry for other in found[1:])]


def newest(entries: Iterable[Entry]) -> list[Entry]:
    """Return the newest version of each name among these."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name not in found or found[entry.name].version < entry.version:
            found[entry.name] = entry
    return list(found.values())


def named(parties: Parties, ids: Collection[str]) -> dict[str, Entry]:
    """Find the versions of these ids (hex) that this client may see, or the ones that refresh them: id -> entry."""
    if not ids:
        return {}
    entries = search(parties)
    found = {each.id.hex(): each for each in entries if each.id.hex() in ids}
    for each in newest(entries):
        if set(ids) <= found.keys():
            break
        with suppress(MpcError):  # removed just now
            found |= dict.fromkeys(describe(parties, object_id=each.id).aliases & set(ids) - found.keys(), each)
    return found


def own(parties: Parties, name: str) -> list[Entry]:
    """List the versions of a name of this client's own that any party has: a put that was cut at its end is at some.

    Raises:
        IntegrityError: a party lists something else under that name than this client has signed.
    """
    found: dict[bytes, Entry] = {}
    lists = ask_each(parties.clients, lambda client: list_of(parties, client, ""))
    for client in parties.clients:
        for entry in lists[client.name].values():
            if entry.name != name or entry.id in found:
                continue
            whole = _described(parties, client, data_pb2.DescribeObjectRequest(object=entry.id))
            if (whole.id, whole.name) != (entry.id, name):
                raise IntegrityError(f"{client.name} lists another object as {name}", peer=client.name)
            found[entry.id] = entry
    return list(found.values())


def list_of(parties: Parties, client: PartyClient, words: str) -> dict[bytes, Entry]:
    """List what one party shows this client, page after page: id -> entry."""
    entries: dict[bytes, Entry] = {}
    after = ("", 0)
    for _ in range(_MOST_PAGES):
        request = data_pb2.ListRequest(words=words, after_name=after[0], after_version=after[1])
        page = list(client.stream(lambda stub: stub.data.List, request, parties.config.deadlines.submit))
        for each in page:
            about = (each.rows, each.expires or None, each.description, each.plan or None)
            entries[each.object] = Entry(each.object, each.owner, each.name, each.version, *about)
        if not page or (page[-1].name, page[-1].version) == after:
            break
        after = (page[-1].name, page[-1].version)
    return entries


def remove(parties: Parties, object_id: bytes) -> None:
    """Remove an object of this client's own, at all parties and for good; the name stays spent.

    Raises:
        SessionError: a party has no such object of this client; the others have removed theirs.
    """
    message = tombstone(parties, object_id)
    parties.each(lambda stub: stub.data.Remove, message, parties.config.deadlines.submit)


def tombstone(parties: Parties, object_id: bytes) -> SignedStatement:
    """Sign that an object of this client's own is to be removed."""
    config = parties.config
    stone = Tombstone(
        cluster=config.cluster or "0" * 32, owner=config.name, object=object_id.hex(), at=int(time.time())
    )
    signed = stone.sign(parties.identity)
    return SignedStatement(content=signed.content, signature=signed.signature, certificate=signed.certificate)
