"""Calls about collections, as a party answers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import grpc

from mpc.errors import InputError, PeerError, PolicyError
from parties.agreed.endorsements import read_endorsements
from parties.agreed.signed import Signed
from parties.alarms import ends_within
from parties.party.collecting.collecting import Collecting
from parties.party.node import PartyNode
from parties.party.vault.service import from_message, key, to_message
from parties.pb import collect_pb2, collect_pb2_grpc, data_pb2
from parties.wire.desk import Desk
from parties.wire.handlers import register
from parties.wire.transport import caller

_PER_LIST_BYTE = 64
"""Bytes of memory for each byte of a list, its contributions' manifests and blocks included."""


class CollectService(collect_pb2_grpc.CollectServicer):
    """For whoever collects, and whoever enters; see the proto for what each call is."""

    def __init__(self, node: PartyNode) -> None:
        self._node, self._collecting = node, Collecting(node.vault, node.rules)

    def register(self, server: grpc.Server, desk: Desk) -> None:
        """Answer these calls at this server."""
        service = collect_pb2.DESCRIPTOR.services_by_name["Collect"]
        register(server, service, self, lambda _: desk, self._admit, self._node.config.deadlines.connect)

    def _admit(self, method: str, client: str) -> None:
        if method == "Standing":
            with suppress(PolicyError):
                self._node.rules.admit_data_owner(client)
                return
        self._node.admit(client, coordinates=method == "OpenCollection")

    def OpenCollection(
        self, request: data_pb2.SignedStatement, context: grpc.ServicerContext
    ) -> collect_pb2.OpenCollectionReply:
        """Keep a collection of the caller's."""
        found = self._collecting.open(from_message(request), caller(context), key(context))
        return collect_pb2.OpenCollectionReply(collection=found)

    def Standing(
        self, request: collect_pb2.StandingRequest, context: grpc.ServicerContext
    ) -> collect_pb2.StandingReply:
        """Say how a collection stands."""
        found = self._collecting.standing(request.name, caller(context), key(context), request.listed)
        return collect_pb2.StandingReply(
            collection=to_message(found.signed),
            entered=found.entered,
            closed=found.closed,
            object=found.gathered,
            contributions=[bytes.fromhex(each) for each in found.contributions],
        )

    def CloseCollection(
        self, request: collect_pb2.CollectionRequest, context: grpc.ServicerContext
    ) -> data_pb2.SignedStatement:
        """Close a collection of the caller's."""
        return to_message(self._collecting.close(request.collection, caller(context), key(context)))

    def Gather(self, request: Iterator[collect_pb2.GatherPart], context: grpc.ServicerContext) -> data_pb2.Endorsement:
        """Make one object of what all parties list."""
        client, deadlines, lists = caller(context), self._node.config.deadlines, list[Signed]()
        with ends_within(context, deadlines.connect):
            first = next(request, collect_pb2.GatherPart())
        if first.WhichOneof("part") != "collection":
            raise PeerError("the first message says which collection", peer=client)
        taken = 0
        try:
            with ends_within(context, deadlines.submit):
                for part in request:
                    if len(lists) == len(self._node.roster):
                        raise InputError("there are more lists than parties")
                    size = _PER_LIST_BYTE * len(part.list.content)
                    self._node.budget.take(size, client)
                    taken += size
                    lists.append(from_message(part.list))
            found = self._collecting.gather(first.collection, lists, client, key(context))
        finally:
            self._node.budget.give(taken, client)
        return data_pb2.Endorsement(signature=found.signature, certificate=found.certificate)

    def CompleteCollection(
        self, request: collect_pb2.CompleteCollectionRequest, context: grpc.ServicerContext
    ) -> collect_pb2.CompleteCollectionReply:
        """Let what was gathered exist."""
        endorsements = read_endorsements(request.endorsements)
        found = self._collecting.complete(request.collection, endorsements, caller(context), key(context))
        return collect_pb2.CompleteCollectionReply(object=found)
