"""All parties of a cluster as a client calls them: side by side, each failure an error that names its party.

A call that waits for its answer holds no thread of this process: whoever needs the answer waits in a thread of
its own.  So any number of sessions, and of threads, may share one `Parties`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import grpc

from mpc.errors import MpcError, PeerError
from parties.client.consent.heads import Heads, place_of_heads
from parties.client.conversation import Conversation, unless_closed
from parties.client.running.entered import EnteredRuns, place_of
from parties.client.running.keeper import Keeper
from parties.client.together import GivenUpError, Together, given_up
from parties.config.models import ClusterConfig, Peer
from parties.pb import collect_pb2_grpc, consent_pb2_grpc, data_pb2_grpc, party_pb2, party_pb2_grpc
from parties.trust.identity import Identity
from parties.wire.open_call import OpenCall, when_over
from parties.wire.status import from_rpc, was_cancelled
from parties.wire.transport import connect

Request = TypeVar("Request")
Asked = TypeVar("Asked", contravariant=True)
Answer = TypeVar("Answer")
Found = TypeVar("Found", covariant=True)
Told = TypeVar("Told", bound=MpcError)


class OneReply(Protocol[Asked, Answer]):
    """A call of a stub that has one reply."""

    def future(self, request: Asked, /, timeout: float | None = None) -> grpc.Future[Answer]:
        """Begin the call; request: a message, or an iterator of them."""


class Stream(Protocol[Found]):
    """Replies of a call as gRPC gives them."""

    def __iter__(self) -> Iterator[Found]:
        """Wait for them, one after another."""

    def cancel(self) -> bool:
        """End the call."""


class ManyReplies(Protocol[Asked, Found]):
    """A call of a stub that has a stream of replies."""

    def __call__(self, request: Asked, /, timeout: float | None = None) -> Stream[Found]:
        """Begin the call."""


class PartyStubs(party_pb2_grpc.PartyStub):
    """All calls of a party: those of its service Party; `data` has those about data, `consent` owners' words,
    `collect` collections."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self.data = data_pb2_grpc.DataStub(channel)
        self.consent = consent_pb2_grpc.ConsentStub(channel)
        self.collect = collect_pb2_grpc.CollectStub(channel)


One = Callable[[PartyStubs], OneReply[Request, Answer]]
Many = Callable[[PartyStubs], ManyReplies[Request, Answer]]
"""Which call is meant: `lambda stub: stub.Prepare`, `lambda stub: stub.data.Begin`."""


class Awaited(Protocol[Found]):
    """An answer that will come."""

    def result(self) -> Found:
        """Wait for the answer; raise an `MpcError` if the call fails."""


class Reply(Generic[Answer]):
    """One answer of a call that is on its way.  Letting go of it cancels the call."""

    def __init__(self, party: PartyClient, future: grpc.Future[Answer]) -> None:
        self._party, self._future, self._given_up = party, future, False

    @property
    def name(self) -> str:
        """Name of the party that is called."""
        return self._party.name

    def give_up(self) -> None:
        """End the call: see `Together`."""
        self._given_up = True
        self._future.cancel()

    def result(self) -> Answer:
        """Wait for the answer.

        Raises:
            MpcError: why there is none; it names the party.
        """
        try:
            return self._future.result()
        except grpc.RpcError as error:
            raise self._party.explain(error) from None
        except grpc.FutureCancelledError:
            if self._given_up:
                raise given_up(self._party.name) from None
            raise PeerError(f"the call to {self._party.name} was cancelled", peer=self._party.name) from None

    @property
    def is_done(self) -> bool:
        """Whether there is an answer or an error."""
        return self._future.done()

    def when_done(self, tell: Callable[[], None]) -> None:
        """Have `tell` called, in a thread of gRPC's, once there is an answer or an error."""
        self._future.add_done_callback(lambda _: tell())


class Replies(Generic[Answer]):
    """Answers of a call that has begun, one after another.  Letting go of them cancels the call."""

    def __init__(self, party: PartyClient, call: Stream[Answer]) -> None:
        self._party, self._call, self._given_up = party, call, False

    def give_up(self) -> None:
        """End the call: see `Together`."""
        self._given_up = True
        self._call.cancel()

    def __iter__(self) -> Iterator[Answer]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            if self._given_up and was_cancelled(error):
                error.__traceback__ = None
                raise given_up(self._party.name) from None
            raise self._party.explain(error) from None


class PartyClient:
    """One party, as a client calls it."""

    def __init__(self, identity: Identity, peer: Peer) -> None:
        self.name, self.address = peer.name, peer.address
        self._identity = identity
        self._channel = connect(identity, peer.name, peer.address)
        self.stub = PartyStubs(self._channel)

    def begin(
        self, call: One[Request, Answer], request: Request, seconds: float, together: Together | None = None
    ) -> Reply[Answer]:
        """Begin a call with one reply, which may take so many seconds; request: a message, or an iterator of them."""
        with unless_closed():
            future = call(self.stub).future(request, timeout=seconds)
        reply = Reply(self, future)
        if together is not None:
            together.add(reply)
            future.add_done_callback(partial(together.ended, name=self.name))
        return reply

    def stream(
        self, call: Many[Request, Answer], request: Request, seconds: float, together: Together | None = None
    ) -> Replies[Answer]:
        """Begin a call with a stream of replies, the last of which comes within so many seconds."""
        with unless_closed():
            replies = call(self.stub)(request, timeout=seconds)
        found = Replies(self, replies)
        if together is not None:
            together.add(found)
            when_over(replies, partial(together.ended, name=self.name))
        return found

    def converse(
        self, call: Callable[[PartyStubs], Callable[[Iterator[Request]], object]], together: Together
    ) -> Conversation[Request, Any]:
        """Begin a call in which one asks, and is answered, until one of both ends it."""
        with unless_closed():
            opened: OpenCall[Request, Any] = OpenCall(
                self._channel, call(self.stub), partial(together.ended, name=self.name)
            )
        found = Conversation(self, opened)
        together.add(found)
        return found

    def explain(self, error: grpc.RpcError) -> MpcError:
        """Return the error that a failed call stands for."""
        return from_rpc(error, self.name, self.address, self._identity)

    def close(self) -> None:
        """End all calls; safe to call twice."""
        self._channel.close()


class Parties:
    """All parties of a cluster, called side by side.  Thread-safe."""

    def __init__(self, config: ClusterConfig, identity: Identity) -> None:
        self.config, self.identity = config, identity
        self.clients = [PartyClient(identity, peer) for peer in config.parties]
        self.names = tuple(client.name for client in self.clients)
        self.entered = EnteredRuns(place_of(config))
        self.heads = Heads(place_of_heads(config))
        self.keeper = Keeper(self)
        self._memory: list[int] | None = None

    def start(
        self, call: One[Request, Answer], request: Request, seconds: float, together: Together | None = None
    ) -> list[Reply[Answer]]:
        """Call every party at once, without waiting: `gather` has the answers.

        together: the calls are part of it: those that go on are given up in a while if one has failed.
        """
        return [client.begin(call, request, seconds, together) for client in self.clients]

    def each(
        self, call: One[Request, Answer], request: Request, seconds: float, together: Together | None = None
    ) -> list[Answer]:
        """Call every party at once, and return every party's answer; together: see `start`.

        Raises:
            MpcError: the most telling one, if any call failed.
        """
        return gather(self.start(call, request, seconds, together))

    def together(self) -> Together:
        """Return what calls of a session are part of that are made at once: each party knows why all of them end."""
        return Together.of_session(self.config.deadlines, len(self.clients))

    def each_or_none(
        self,
        call: One[Request, Answer],
        request: Request,
        seconds: float,
        failed: Callable[[], None],
        answered: Callable[[Answer], None] = lambda _: None,
    ) -> list[Answer]:
        """Call every party at once, and return every party's answer.

        failed: called once, as soon as a party fails of itself, to call off the others, which are on their way.  Where
            all that is said is about somebody else, the others are heard first, for as long as `Together` says: a liar
            would have an innocent party named.
        answered: called with each answer as soon as it comes, up to the first failure.

        Raises:
            MpcError: what a party failed with of itself, if that came first, since the others only heard of it; else
                what is the most telling.
        """
        replies = self.start(call, request, seconds, self.together())
        errors = _watch(replies, failed, answered)
        if not errors:
            return gather(replies)
        if _is_own(*errors[0]):
            raise errors[0][1].again()  # not the one that this frame keeps
        said = [error for _, error in errors]
        raise most_telling([error for error in said if error.peer != self.identity.name] or said).again()

    @property
    def memory(self) -> int | None:
        """Bytes that a client's sessions and runs may take together at each party; None if none says.  Asked once."""
        if self._memory is None:
            found = self.each(lambda stub: stub.Describe, party_pb2.DescribeRequest(), self.config.deadlines.connect)
            self._memory = [reply.client_memory for reply in found if reply.client_memory]
        return min(self._memory, default=None)

    def close(self) -> None:
        """End all calls, and ask for no session any more; safe to call twice."""
        for client in self.clients:
            client.close()
        self.keeper.close()
        self.entered.close()
        self.heads.close()


def _watch(
    replies: Sequence[Reply[Answer]], failed: Callable[[], None], answered: Callable[[Answer], None]
) -> list[tuple[str, MpcError]]:
    """Wait for all replies in the order in which they come; return the errors, each with the party that it is from."""
    done: SimpleQueue[Reply[Answer]] = SimpleQueue()
    for reply in replies:
        reply.when_done(lambda reply=reply: done.put(reply))  # type: ignore[misc]
    errors: list[tuple[str, MpcError]] = []
    is_over = False
    for _ in replies:
        reply = done.get()
        try:
            answer = reply.result()
        except MpcError as error:
            errors.append((reply.name, error.again()))
            if not is_over and _is_own(reply.name, error):
                is_over = True
                failed()
            continue
        if not errors:
            answered(answer)
    if errors and not is_over:
        failed()
    return errors


def _is_own(name: str, error: MpcError) -> bool:
    """Say whether a party's error is about itself, or about nobody: what it says of others needs a second voice."""
    return error.heard_from is None and error.peer in (None, name)


def gather(answers: Sequence[Awaited[Answer]]) -> list[Answer]:
    """Wait for every party's answer; raise the most telling error if any failed."""
    found, errors = [], []
    for answer in answers:
        try:
            found.append(answer.result())
        except MpcError as error:
            errors.append(error.again())
    if errors:
        raise most_telling(errors).again()
    return found


def most_telling(errors: Sequence[Told]) -> Told:
    """Choose the error that is nearest to the root, of those that parties tell of one failure: a refusal before a lost
    peer, one that a party found before one that it heard of, and of lost peers the one that most others name.

    What a party says of another one, even that it cheats, tells no more than a lost peer: it may be a lie, and others
    outvote it.  Own voices go first, what others repeat decides between as many, and who was given up has none.
    """
    spoken = [error for error in errors if not isinstance(error, GivenUpError)]
    repeated = Counter(error.peer for error in spoken)
    voices = Counter(peer for peer, _ in {(each.peer, each.heard_from or each.said_by or id(each)) for each in spoken})

    def rank(error: MpcError) -> tuple[int, bool, int, int, int, bool]:
        telling = max(error.telling, PeerError.telling) if error.is_about_another else error.telling
        votes = (voices[error.peer], repeated[error.peer]) if error.peer else (0, 0)
        return (telling, bool(error.heard_from), -votes[0], -votes[1], error.telling, error.code != PeerError.code)

    return min(errors, key=rank)
