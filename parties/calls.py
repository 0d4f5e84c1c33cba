"""All parties of a cluster as a client calls them: side by side, each failure an error that names its party."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import grpc

from mpc.errors import MpcError, PeerError
from parties.certificates import Identity
from parties.config import ClusterConfig, Peer
from parties.pb import party_pb2_grpc
from parties.transport import connect, from_rpc

Answer = TypeVar("Answer")
_RANK = {7: 0, 4: 1, 5: 2, 3: 3, 1: 5}


class PartyClient:
    """One party, as a client calls it."""

    def __init__(self, identity: Identity, peer: Peer) -> None:
        self.name, self.address = peer.name, peer.address
        self._channel = connect(identity, peer.name, peer.address)
        self._stub = party_pb2_grpc.PartyStub(self._channel)

    def call(self, method: str, request: object, seconds: float) -> object:
        """A call with one reply; any failure as an `MpcError` that names this party."""
        try:
            return getattr(self._stub, method)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc(error, self.name, self.address) from None

    def stream(self, method: str, request: object, seconds: float) -> Iterator:
        """A call with a stream of replies."""
        try:
            yield from getattr(self._stub, method)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc(error, self.name, self.address) from None

    def close(self) -> None:
        self._channel.close()


class Parties:
    """All parties of a cluster, called side by side."""

    def __init__(self, config: ClusterConfig, identity: Identity) -> None:
        self.config, self.identity = config, identity
        self.clients = [PartyClient(identity, peer) for peer in config.parties]
        self.names = tuple(client.name for client in self.clients)
        self._pool = ThreadPoolExecutor(max_workers=3 * len(self.clients), thread_name_prefix="client")

    def each(self, ask: Callable[[PartyClient], Answer]) -> list[Answer]:
        """`ask` every party at once; the most telling error if any failed."""
        return gather(self.start(ask))

    def start(self, ask: Callable[[PartyClient], Answer]) -> list[Future[Answer]]:
        """The same without waiting: `gather` has the answers."""
        return [self._pool.submit(ask, client) for client in self.clients]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self.clients:
            client.close()


def gather(futures: Sequence[Future[Answer]]) -> list[Answer]:
    """What every party answered; the most telling error if any failed."""
    answers, errors = [], []
    for future in futures:
        try:
            answers.append(future.result())
        except MpcError as error:
            errors.append(error)
    if errors:
        raise _most_telling(errors)
    return answers


def _most_telling(errors: list[MpcError]) -> MpcError:
    """Of what several parties say about one failure, the root: a refusal before a lost peer, and of
    lost peers the one that most of the others name."""
    blamed = [error.peer for error in errors if error.peer]

    def rank(error: MpcError) -> tuple[int, int, int]:
        votes = blamed.count(error.peer) if error.peer else 0
        return (_RANK.get(error.exit_code, 4), -votes, 0 if error.code == PeerError.code else 1)

    return min(errors, key=rank)
