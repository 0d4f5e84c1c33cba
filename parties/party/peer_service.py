"""Answer the calls of the other parties: the stream of each pair, of one session."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import grpc

from mpc.errors import HandshakeError, MpcError, PeerError, PolicyError
from parties.alarms import ends_within
from parties.party.desks import PartyDesks
from parties.party.link import Link
from parties.party.node import PartyNode
from parties.pb import party_pb2
from parties.pb.party_pb2 import Frame
from parties.telemetry import rationed
from parties.wire import frames
from parties.wire.frames import Piece
from parties.wire.handlers import register, shown_caller
from parties.wire.transport import caller


class PeerService:
    """For the other parties: accept the stream of a pair."""

    def __init__(self, node: PartyNode) -> None:
        self._node = node

    def register(self, server: grpc.Server, desks: PartyDesks) -> None:
        """Answer the peers' calls at this server."""
        service = party_pb2.DESCRIPTOR.services_by_name["Peer"]
        seconds = self._node.config.deadlines.connect
        register(server, service, self, lambda _: desks.peers, lambda *_: None, seconds, {"Exchange": frames.EXCHANGE})

    def Exchange(self, request: Iterator[Frame | Piece], context: grpc.ServicerContext) -> Iterator[Frame | Piece]:
        """Take the stream of a party that stands earlier in the roster, and send this side's frames."""
        try:
            link = self._accept(request, context)
        except MpcError as error:
            name = shown_caller(context)
            fields = {"caller": name, "address": context.peer(), "code": error.code, "why": str(error)}
            rationed((name, error.code), logging.WARNING, "a peer's stream was refused", **fields)
            yield Frame(abort=party_pb2.Abort(code=error.code))
            return
        reader = threading.Thread(
            target=link.receive,
            args=(request, lambda error: PeerError(f"the connection to {link.peer} was lost", peer=link.peer)),
            name=f"link-{link.peer}",
            daemon=True,
        )
        reader.start()
        context.add_callback(link.close)
        yield from link.frames()

    def _accept(self, request: Iterator[Frame | Piece], context: grpc.ServicerContext) -> Link:
        """The link that a peer's greeting is for."""
        roster, peer = self._node.roster, caller(context)
        if peer not in roster or roster.index(peer) >= roster.index(self._node.config.name):
            raise PolicyError(f"{peer!r} is not a party that dials this one")
        with ends_within(context, self._node.config.deadlines.connect):
            first = next(request, Frame())
        if isinstance(first, Piece) or first.WhichOneof("body") != "hello":
            raise HandshakeError("the first frame is a greeting", peer=peer)
        session = self._node.await_session(first.hello.session_id)
        link = session.links[peer]
        session.attach(peer)
        try:
            link.check(first.hello)
        except HandshakeError as error:
            session.abort(error)
            raise
        return link
