"""Connections to the other parties: those that stand later in the roster are dialled, and all greet each other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

import grpc

from mpc.errors import MpcError, PeerError
from parties.config.models import PartyConfig
from parties.party.link import Link
from parties.telemetry import logger, rationed
from parties.trust.identity import Identity
from parties.wire import frames
from parties.wire.direct import DIRECT
from parties.wire.direct_listener import HANDSHAKE_SECONDS, call, round_context
from parties.wire.status import from_rpc
from parties.wire.transport import connect, patience

_DIALLING = 0.8
"""Part of the connect deadline that dialling a peer may take: what it finds is to be known before that is over."""
_REACHING = 0.5
"""Part of what is left of it that connecting to a peer for rounds may take: the peer is to hear of it, too."""


class Peers:
    """Channels to the other parties, each of which carries the streams of all sessions."""

    def __init__(self, config: PartyConfig, identity: Identity) -> None:
        self._config, self._identity = config, identity
        self._rounds = round_context(config.tls, serves=False)
        self.ways: dict[str, str] = {}
        """How payloads of rounds went to a peer that was dialled last: directly, or why not."""
        self._addresses = {peer.name: peer.address for peer in config.peers}
        self._channels = {
            peer.name: connect(identity, peer.name, peer.address, _DIALLING * config.deadlines.connect)
            for peer in config.peers
            if peer.name != config.name
        }

    def meet(self, links: Mapping[str, Link]) -> None:
        """Dial the parties that stand later in the roster, and wait for all greetings.

        Args:
            links: of one session, by name.

        Raises:
            MpcError: a peer is not there in time, or disagrees.
        """
        roster = [*self._addresses]
        for name in roster[roster.index(self._config.name) + 1 :]:
            threading.Thread(target=self._dial, args=(links[name],), name=f"link-{name}", daemon=True).start()
        deadline = time.monotonic() + patience(self._config.deadlines.connect)
        for link in links.values():
            link.await_agreement(deadline)
        seconds = min(HANDSHAKE_SECONDS, _REACHING * max(0.0, deadline - time.monotonic()))
        for link in links.values():
            if link.offered is not None:
                given = (link, *link.offered, seconds)
                threading.Thread(target=self._reach, args=given, name=f"reach-{link.peer}", daemon=True).start()
        for link in links.values():
            link.await_way(deadline)

    def _reach(self, link: Link, port: int, token: bytes, seconds: float) -> None:
        """Connect to a peer for rounds, within so many seconds; the stream has them if that fails."""
        found, host = None, self._addresses[link.peer].host
        try:
            found = call(self._identity, self._rounds, link.peer, host, port, token, seconds)
            self.ways[link.peer] = DIRECT
        except MpcError as error:
            self.ways[link.peer] = f"port {port}: {error.cause or error.what}"
            fields = {"peer": link.peer, "port": port, "why": str(error)}
            rationed((link.peer,), logging.WARNING, "rounds travel through gRPC", **fields)
        except Exception as error:
            logger().error("unexpected error while a peer was dialled for rounds", exc_info=error)
        link.choose(found)

    def _dial(self, link: Link) -> None:
        incoming = frames.exchange(self._channels[link.peer], link.frames())
        link.receive(incoming, lambda error: self._lost(error, link.peer))

    def _lost(self, error: Exception, peer: str) -> MpcError:
        if isinstance(error, grpc.RpcError):
            return from_rpc(error, peer, self._addresses[peer], self._identity)
        logger().error("unexpected error on a link", exc_info=error)
        return PeerError(f"the connection to {peer} was lost", peer=peer)

    def close(self) -> None:
        """Hang up."""
        for channel in self._channels.values():
            channel.close()
