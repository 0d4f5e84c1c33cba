"""Answer calls about data at rest; their memory is asked of the sessions' budget before it is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from mpc.errors import InputError, PeerError, PlanError, PolicyError
from parties.agreed.endorsements import write_endorsements
from parties.agreed.memory import parsed_memory
from parties.agreed.signed import Signed, key_of
from parties.alarms import ends_within
from parties.party.node import PartyNode
from parties.party.vault.puts import Puts
from parties.pb import data_pb2, data_pb2_grpc
from parties.pb.data_pb2 import SignedStatement
from parties.wire.desk import Desk
from parties.wire.handlers import register
from parties.wire.pieces import collect, pieces
from parties.wire.transport import FRAME_BYTES, caller, shown_by

_PUTTING = frozenset({"Newest", "Begin", "PutPlan", "Held", "Seeds", "Block", "Commit", "Complete"})
"""Calls that only owners make whom the policy lets put data; their messages are not read for anybody else."""
_PER_BLOCK = 4 * FRAME_BYTES
"""Bytes that a block takes while it arrives, however large it is."""
_PER_KEPT = 1 << 10
"""Bytes that a block takes, of each column, while it is kept."""
_PER_SCHEMA_BYTE, _PER_MANIFEST_BYTE = 4, 8
"""Bytes of memory for each byte that is received and kept; one of them is parsed at a time."""


class DataService(data_pb2_grpc.DataServicer):
    """For owners, and for whoever asks what is here; see the proto for what each call is."""

    def __init__(self, node: PartyNode) -> None:
        self._node, self._vault = node, node.vault
        self._puts = Puts(node.vault)

    def register(self, server: grpc.Server, desk: Desk) -> None:
        """Answer these calls at this server."""
        service = data_pb2.DESCRIPTOR.services_by_name["Data"]
        register(server, service, self, lambda _: desk, self._admit, self._node.config.deadlines.connect)

    def _admit(self, method: str, client: str) -> None:
        if method in _PUTTING:
            self._node.rules.admit_data_owner(client)
        elif not self._vault.owns(client):  # who has something here may look after it, whatever the policy says now
            self._node.admit(client, coordinates=False)

    def _reader(self, context: grpc.ServicerContext) -> tuple[str, bytes]:
        """(name, digest of the key) of a caller who may ask what is here: not by the name of an owner alone."""
        client, own = caller(context), key(context)
        if not self._vault.owns(client, own):
            self._node.admit(client, coordinates=False)
        return client, own

    @contextmanager
    def _granted(self, count: int, client: str) -> Iterator[None]:
        budget = self._node.budget
        budget.take(count, client)
        try:
            yield
        finally:
            budget.give(count, client)

    def Newest(self, request: data_pb2.NewestRequest, context: grpc.ServicerContext) -> data_pb2.NewestReply:
        """Tell an owner the newest version of a name of its own."""
        version, newest = self._puts.newest(request.name, key(context))
        return data_pb2.NewestReply(version=version, object=bytes.fromhex(newest))

    def Begin(self, request: data_pb2.BeginRequest, context: grpc.ServicerContext) -> data_pb2.BeginReply:
        """Begin, or go on with, a put."""
        kept = {each.block: each.of for each in request.kept}
        if len(kept) != len(request.kept):
            raise InputError("a block is kept twice")
        with self._granted(_PER_SCHEMA_BYTE * len(request.schema) + _PER_KEPT * len(kept), caller(context)):
            state = self._puts.begin(request.put, request.schema, caller(context), key(context), kept)
        return data_pb2.BeginReply(state=state)

    def PutPlan(self, request: data_pb2.PutPlanRequest, context: grpc.ServicerContext) -> data_pb2.PutPlanReply:
        """Take the plan that a model is for."""
        most = self._node.config.limits.max_plan_bytes
        if len(request.plan) > most:
            what = f"a plan of {len(request.plan):,} bytes; this party accepts {most:,}"
            raise PlanError(what, remedy="raise limits.max_plan_bytes")
        with self._granted(parsed_memory(len(request.plan)), caller(context)):
            self._puts.plan(request.put, request.plan, key(context))
        return data_pb2.PutPlanReply()

    def Held(self, request: data_pb2.HeldRequest, context: grpc.ServicerContext) -> Iterator[data_pb2.HeldBlock]:
        """List the blocks of a put that are here."""
        for place, block, commitment, digest in self._puts.held(request.put, key(context)):
            yield data_pb2.HeldBlock(place=place, block=block, commitment=commitment, digest=digest)

    def Seeds(self, request: data_pb2.SeedsRequest, context: grpc.ServicerContext) -> data_pb2.SeedsReply:
        """Draw fresh seeds for one block of some columns."""
        if len(set(request.places)) != len(request.places):
            raise InputError("a column is asked for twice")
        seeds = self._puts.seeds(request.put, request.block, request.places, key(context))
        given = [data_pb2.BlockSeed(seed=seed.secret, commitment=seed.commitment()) for seed in seeds]
        return data_pb2.SeedsReply(seeds=given)

    def Block(self, request: Iterator[data_pb2.BlockPart], context: grpc.ServicerContext) -> data_pb2.BlockReply:
        """Take x^ of one block."""
        client, deadlines = caller(context), self._node.config.deadlines
        with ends_within(context, deadlines.connect):
            first = next(request, data_pb2.BlockPart())
        if first.WhichOneof("part") != "header":
            raise PeerError("the first message of a block is its header", peer=client)
        said = first.header
        with self._granted(_PER_BLOCK, caller(context)), ends_within(context, deadlines.submit):
            chunks = (part.chunk for part in request)
            digest = self._puts.receive(said.put, said.place, said.block, said.commitment, chunks, client, key(context))
        return data_pb2.BlockReply(digest=digest)

    def Commit(self, request: Iterator[data_pb2.CommitPart], context: grpc.ServicerContext) -> SignedStatement:
        """Take a manifest, and answer with this party's receipt."""
        client, deadlines = caller(context), self._node.config.deadlines
        with ends_within(context, deadlines.connect):
            first = next(request, data_pb2.CommitPart())
        if first.WhichOneof("part") != "header":
            raise PeerError("the first message of a manifest is its header", peer=client)
        said = first.header
        most = self._puts.manifest_size(said.put, key(context))
        if said.size > most:
            raise InputError(f"a manifest of {said.size:,} bytes; that of its schema has {most:,} at most")
        with self._granted(_PER_MANIFEST_BYTE * said.size, caller(context)):
            with ends_within(context, deadlines.submit):
                content = bytes(collect((part.chunk for part in request), said.size, "the manifest", client))
            signed = Signed(content, said.signature, said.certificate)
            receipt = self._puts.commit(said.put, signed, said.salt, client, key(context))
        return to_message(receipt)

    def Complete(self, request: data_pb2.CompleteRequest, context: grpc.ServicerContext) -> data_pb2.CompleteReply:
        """Let an object exist, now that all parties have given receipts for it."""
        receipts = [from_message(each) for each in request.receipts]
        stones = [from_message(each) for each in request.tombstones]
        self._puts.complete(request.object, receipts, caller(context), key(context), stones)
        return data_pb2.CompleteReply()

    def Describe(
        self, request: data_pb2.DescribeObjectRequest, context: grpc.ServicerContext
    ) -> Iterator[data_pb2.ManifestPart]:
        """Send the manifest of an object that the caller may see."""
        object_id, size = self._vault.seen(*self._reader(context), request.object, request.name)
        with self._granted(2 * size, caller(context)), ends_within(context, self._node.config.deadlines.submit):
            found = self._vault.signed(object_id)
            header = data_pb2.ManifestHeader(
                signature=found.signature,
                certificate=found.certificate,
                size=size,
                endorsements=write_endorsements(found),
            )
            yield data_pb2.ManifestPart(header=header)
            for piece in pieces(found.content):
                yield data_pb2.ManifestPart(chunk=piece)

    def Plan(self, request: data_pb2.PlanRequest, context: grpc.ServicerContext) -> Iterator[data_pb2.PlanPart]:
        """Send the plan of a model that the caller may see."""
        object_id, _ = self._vault.seen(*self._reader(context), request.object, "")
        found = self._vault.plan(object_id)
        with self._granted(2 * len(found), caller(context)), ends_within(context, self._node.config.deadlines.submit):
            yield data_pb2.PlanPart(size=len(found))
            for piece in pieces(found):
                yield data_pb2.PlanPart(chunk=piece)

    def List(self, request: data_pb2.ListRequest, context: grpc.ServicerContext) -> Iterator[data_pb2.ObjectEntry]:
        """List, or search, the objects that the caller may see."""
        after = (request.after_name, request.after_version)
        limits = {"limit": request.limit} if request.limit else {}
        client, own = self._reader(context)
        for entry in self._vault.entries(client, own, request.words, after, **limits):
            yield data_pb2.ObjectEntry(
                object=entry.id,
                owner=entry.owner,
                name=entry.name,
                version=entry.version,
                rows=entry.rows,
                expires=entry.expires or 0,
                description=entry.description,
                plan=entry.plan or "",
            )

    def Remove(self, request: SignedStatement, context: grpc.ServicerContext) -> data_pb2.RemoveReply:
        """Remove an object for good, as its owner has signed."""
        self._vault.ending.remove(from_message(request), caller(context), key(context))
        return data_pb2.RemoveReply()


def key(context: grpc.ServicerContext) -> bytes:
    """Digest the public key of the caller's certificate."""
    shown = shown_by(context, "x509_pem_cert")
    if len(shown) != 1:
        raise PolicyError("the caller shows no single certificate")
    return key_of(shown[0])


def to_message(signed: Signed) -> SignedStatement:
    """Encode a signed statement for its way."""
    return SignedStatement(content=signed.content, signature=signed.signature, certificate=signed.certificate)


def from_message(message: SignedStatement) -> Signed:
    """Read a signed statement; nothing of it is believed yet."""
    return Signed(message.content, message.signature, message.certificate)
