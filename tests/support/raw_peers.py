"""A peer that a test plays, frame by frame, to one party that is told to open a session."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

import grpc

from mpc.errors import MpcError
from parties.agreed.terms import PROTOCOL, Terms, roster_digest
from parties.pb.party_pb2 import Frame, Hello, OpenReply
from tests.support.parties import CLUSTER, PATIENCE, InProcess, Script


class RawPeer:
    """party-0's end of a stream to party-1, frame by frame."""

    def __init__(self, cluster: InProcess, caller: str = "party-0") -> None:
        self.out: SimpleQueue[Frame | None] = SimpleQueue()
        self._call = cluster.peer(1, caller).Exchange(iter(self.out.get, None), timeout=PATIENCE)

    def send(self, *frames: Frame) -> RawPeer:
        for frame in frames:
            self.out.put(frame)
        return self

    def all(self) -> list[Frame]:
        """Every frame until party-1 ends the stream."""
        try:
            return list(self._call)
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED), error
            return []

    def first(self) -> Frame:
        return next(self._call)

    def end(self) -> None:
        self.out.put(None)


class Opening:
    """party-1 alone is told to open a session; the test is party-0."""

    def __init__(self, cluster: InProcess) -> None:
        self.script: Script = cluster.script()
        nonces = self.script.propose()
        terms = Terms(self.script.plan.digest, "provider", cluster.names, nonces)
        self.hello = Hello(
            protocol=PROTOCOL,
            session_id=terms.session_id,
            plan_digest=terms.plan_digest,
            field="2^61-1",
            roster=roster_digest("provider", cluster.names, CLUSTER),
            salt=bytes(range(32)),
            window=1 << 20,
        )
        self.id = terms.session_id
        self.outcome: OpenReply | MpcError | None = None
        self._thread = threading.Thread(target=self._open, args=(cluster, nonces))
        self._thread.start()

    def _open(self, cluster: InProcess, nonces: Sequence[bytes]) -> None:
        try:
            self.outcome = cluster.party(1).Open(self.script.opening(nonces))
        except MpcError as error:
            self.outcome = error

    def join(self) -> OpenReply | MpcError | None:
        self._thread.join(PATIENCE)
        return self.outcome
