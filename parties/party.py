"""A party: the RPCs that clients and peers call, and the table of its sessions."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

import mpc
from mpc.compiler.plan import Plan
from mpc.encoding import digest
from mpc.errors import DeadlineError, HandshakeError, MpcError, PeerError, PlanError, PolicyError, SessionError
from parties import entropy, frames
from parties.certificates import Identity
from parties.config import PartyConfig
from parties.dealing import Dealings
from parties.frames import Piece
from parties.ledger import Ledger
from parties.limits import MemoryBudget, plan_memory
from parties.link import SALT_BYTES, Link
from parties.pb import party_pb2, party_pb2_grpc
from parties.pb.party_pb2 import Frame
from parties.policy import Policy
from parties.probe import probe_all
from parties.session import Session, encode_output
from parties.stock import Stocks
from parties.telemetry import Counters, logger
from parties.terms import NONCE_BYTES, Terms
from parties.transport import PROTOCOL, answers, caller, collect, connect, ends_within, from_rpc, pieces, streams

_MOST_PROPOSALS = 64
_MOST_ENDINGS = 64


@dataclass(frozen=True)
class Proposal:
    """A plan that this party's policy allows, and the nonce that stands for its consent to one session."""

    plan: Plan
    coordinator: str


class PartyNode:
    """What both services share: identity, ledger, policy, sessions.

    Args:
        draw: fresh random bytes.
    """

    def __init__(
        self,
        config: PartyConfig,
        identity: Identity,
        ledger: Ledger,
        counters: Counters,
        draw: Callable[[int], bytes] = entropy.token,
    ) -> None:
        self.config, self.identity, self.ledger, self.counters = config, identity, ledger, counters
        self.policy = Policy(config.policy)
        self.dealings = Dealings(config, identity)
        self.stocks = Stocks(config, identity, ledger, self.dealings)
        self.roster = tuple(peer.name for peer in config.peers)
        self._draw = draw
        self._budget = MemoryBudget(config.limits)
        self._addresses = {peer.name: peer.address for peer in config.peers}
        self._channels = {
            peer.name: connect(identity, peer.name, peer.address) for peer in config.peers if peer.name != config.name
        }
        self._proposals: OrderedDict[bytes, Proposal] = OrderedDict()
        self._sessions: dict[bytes, Session] = {}
        self._endings: OrderedDict[bytes, tuple[frozenset[str], MpcError]] = OrderedDict()
        self._changed = threading.Condition()

    # ----------------------------------------------------------------------- proposals

    def propose(self, plan_bytes: bytes, coordinator: str) -> bytes:
        """Check plan and policy; a nonce for one session."""
        self.policy.admit(coordinator)
        if len(plan_bytes) > self.config.limits.max_plan_bytes:
            raise PlanError("the plan is larger than this party accepts", remedy="raise limits.max_plan_bytes")
        plan = Plan.from_bytes(plan_bytes)
        plan_memory(plan, self.config.limits)
        self._allow(plan, coordinator)
        nonce = self._draw(NONCE_BYTES)
        with self._changed:
            self._proposals[nonce] = Proposal(plan, coordinator)
            while len(self._proposals) > _MOST_PROPOSALS:
                self._proposals.popitem(last=False)
        return nonce

    def _allow(self, plan: Plan, coordinator: str) -> None:
        """Does this party's policy allow it?"""
        try:
            self.policy.check_session(plan.digest, coordinator, plan.owners, plan.recipients)
        except PolicyError as refusal:
            logger().warning("refused by policy", caller=coordinator, why=str(refusal))
            # The remedy lists what this party allows: that is for its operator alone.
            raise PolicyError(
                refusal.what,
                remedy=f"ask the operator of {self.config.name}, its log has more; ranges and names are part of plans",
            ) from None

    def _claim(self, terms: Terms, coordinator: str) -> Proposal:
        """The proposal behind this party's nonce: used up, whatever comes of it."""
        mine = terms.nonces[terms.parties.index(self.config.name)]
        with self._changed:
            proposal = self._proposals.pop(mine, None)
        if proposal is None or proposal.coordinator != coordinator:
            raise SessionError("this party did not draw that nonce for you, or it was used", remedy="propose again")
        if proposal.plan.digest != terms.plan_digest:
            raise HandshakeError("the nonce was drawn for another plan")
        return proposal

    # ------------------------------------------------------------------------ sessions

    def order(self, terms: Terms, coordinator: str, batches: Sequence[int]) -> tuple[float, int]:
        """Begin to be dealt a session ahead; (the provider's seconds, bytes stored)."""
        self._require_roster(terms)
        return self.stocks.order(terms, self._claim(terms, coordinator).plan, coordinator, batches)

    def _require_roster(self, terms: Terms) -> None:
        if terms.parties != self.roster:
            raise HandshakeError(
                "the session's parties are not the ones in this party's config",
                cause=f"this party's roster is {', '.join(self.roster)}",
                remedy="make 'peers' the same, in the same order, in every config",
            )

    def open(self, terms: Terms, coordinator: str, stocked: bool = False) -> tuple[Session, int]:
        """Make the session, meet the peers, receive the weights' masks; (session, bytes received).

        stocked: with the correlations that were dealt ahead for it.  No byte that depends on them leaves before all
        peers have greeted with this session's id, which each of them can open once.
        """
        self._require_roster(terms)
        stock = self.stocks.take(terms, coordinator) if stocked else None
        plan = stock.plan if stock else self._claim(terms, coordinator).plan
        if stock is not None:
            self._allow(plan, coordinator)  # the policy may have changed since it was dealt
        with self._changed:
            if len(self._sessions) >= self.config.limits.max_sessions:
                raise SessionError(
                    f"this party has {len(self._sessions)} open sessions, as many as it allows",
                    remedy="close some (session.close()), or raise limits.max_sessions",
                )
            session = Session(
                self.config,
                terms,
                plan,
                coordinator,
                self.ledger,
                stock or self.dealings,
                self.counters,
                self._budget,
                self._draw(SALT_BYTES),
                self._drop,
            )
            if stock is not None:
                self.stocks.taken(session.id)
            self._sessions[session.id] = session
            self._changed.notify_all()
        try:
            self._meet(session)
            dealt = session.receive_weights_masks()
            session.opened()
        except Exception as error:
            known = error if isinstance(error, MpcError) else MpcError("an internal error while opening a session")
            session.abort(known)
            if known is not error:
                raise
            raise session.error or known from None
        self.counters.dealt_bytes.inc(dealt)
        return session, dealt

    def _meet(self, session: Session) -> None:
        """Dial the parties that stand later in the roster, wait for all greetings."""
        mine = self.roster.index(self.config.name)
        for name in self.roster[mine + 1 :]:
            link = session.links[name]
            threading.Thread(target=self._dial, args=(link,), name=f"link-{name}", daemon=True).start()
        deadline = time.monotonic() + self.config.deadlines.connect
        for link in session.links.values():
            link.await_agreement(deadline)

    def _dial(self, link: Link) -> None:
        address = self._addresses[link.peer]
        incoming = frames.exchange(self._channels[link.peer], link.frames())
        link.receive(incoming, lambda error: _lost(error, link.peer, address))

    def _drop(self, session: Session) -> None:
        with self._changed:
            self._sessions.pop(session.id, None)
            if session.error is not None:
                self._endings[session.id] = (session.members, session.error)
                while len(self._endings) > _MOST_ENDINGS:
                    self._endings.popitem(last=False)
        self.dealings.finish(session.id)
        self.stocks.remove(session.id)

    def session(self, session_id: bytes, client: str) -> Session:
        """An open session, for somebody who has a part in it; they are told what ended one of the last."""
        with self._changed:
            session = self._sessions.get(session_id)
            members, error = self._endings.get(session_id, (frozenset(), None))
        if session is None and error is not None and client in members:
            raise error
        if session is None:
            raise SessionError(
                "this party does not know that session",
                cause="it ended, was aborted, or the party was restarted",
                remedy="start a new session",
            )
        if client not in session.members:
            raise PolicyError(f"{client!r} has no part in this session")
        return session

    def await_session(self, session_id: bytes) -> Session:
        """The session a peer greets with; it may be a moment ahead of the coordinator's call."""
        deadline = time.monotonic() + self.config.deadlines.connect
        with self._changed:
            while session_id not in self._sessions:
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise SessionError("no session of that id was opened here")
            return self._sessions[session_id]

    def open_sessions(self) -> int:
        with self._changed:
            return len(self._sessions)

    def end_overdue(self) -> None:
        """Abort the sessions in which somebody has been silent for too long."""
        now = time.monotonic()
        with self._changed:
            sessions = list(self._sessions.values())
        for session in sessions:
            error = session.overdue(now)
            if error is not None:
                session.abort(error)
        self.stocks.drop_idle(now - self.config.deadlines.idle)

    def stop(self) -> None:
        """The process ends: no session survives it."""
        with self._changed:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.abort(SessionError(f"{self.config.name} was shut down", peer=self.config.name))
        self.stocks.stop()
        self.dealings.close()
        for channel in self._channels.values():
            channel.close()


def _lost(error: Exception, peer: str, address: str) -> MpcError:
    if isinstance(error, grpc.RpcError):
        known = from_rpc(error, peer, address)
        if not isinstance(known, DeadlineError) and known.code == PeerError.code:
            known = PeerError(f"the connection to {peer} was lost", cause="it stopped, or the network did", peer=peer)
        return known
    logger().error("unexpected error on a link", exc_info=error)
    return PeerError(f"the connection to {peer} was lost", peer=peer)


class PartyService(party_pb2_grpc.PartyServicer):
    """For clients; see the proto for what each call is."""

    def __init__(self, node: PartyNode) -> None:
        self._node = node

    @answers
    def Describe(self, request: party_pb2.DescribeRequest, context: grpc.ServicerContext) -> party_pb2.DescribeReply:
        node = self._node
        totals = node.stocks.totals
        reply = party_pb2.DescribeReply(
            name=node.config.name,
            role="party",
            version=mpc.__version__,
            protocol=PROTOCOL,
            open_sessions=node.open_sessions(),
            clock=time.time(),
            ledger=f"{node.ledger.epoch.id[:8]}/{node.ledger.epoch.counter}",
            stocks=totals.stocks,
            stocked_runs=totals.runs,
            stock_bytes=totals.size,
            stock_limit=totals.limit,
        )
        if request.probe:
            targets = [(p.name, p.address) for p in (*node.config.peers, node.config.provider)]
            others = [target for target in targets if target[0] != node.config.name]
            reply.peers.extend(probe_all(node.identity, others, node.config.deadlines.connect))
        return reply

    @answers
    def Propose(self, request: party_pb2.ProposeRequest, context: grpc.ServicerContext) -> party_pb2.ProposeReply:
        return party_pb2.ProposeReply(nonce=self._node.propose(request.plan, caller(context)))

    @answers
    def Open(self, request: party_pb2.OpenRequest, context: grpc.ServicerContext) -> party_pb2.OpenReply:
        started = time.perf_counter()
        session, dealt = self._node.open(self._terms(request), caller(context), request.stocked)
        seconds = time.perf_counter() - started
        return party_pb2.OpenReply(session_id=session.id, setup_seconds=seconds, dealt_bytes=dealt)

    @answers
    def Prepare(self, request: party_pb2.PrepareRequest, context: grpc.ServicerContext) -> party_pb2.PrepareReply:
        session = self._coordinated(request.session_id, context)
        started = time.perf_counter()
        try:
            deal_seconds, dealt = session.prepare(request.run, request.batch, request.following)
        except PlanError:
            raise
        except MpcError as error:
            session.abort(error)
            raise session.error or error from None
        except Exception:
            session.abort(MpcError("an internal error while preparing a run"))
            raise
        return party_pb2.PrepareReply(
            deal_seconds=deal_seconds, prepare_seconds=time.perf_counter() - started, dealt_bytes=dealt
        )

    @answers
    def Status(self, request: party_pb2.StatusRequest, context: grpc.ServicerContext) -> party_pb2.StatusReply:
        latest, run = self._node.session(request.session_id, caller(context)).status(request.run)
        if run is None:
            return party_pb2.StatusReply(latest=latest)
        return party_pb2.StatusReply(
            latest=latest,
            batch=run.batch,
            following=run.following,
            entering=sorted(run.entering),
            unheard=sorted(run.unheard),
        )

    @answers
    def Masks(self, request: party_pb2.MasksRequest, context: grpc.ServicerContext) -> party_pb2.MasksReply:
        client = caller(context)
        seeds, signed = self._node.session(request.session_id, client).masks(request.run, client)
        parts = [party_pb2.WireSeed(wire=wire, seed=seed.secret) for wire, seed in seeds]
        return party_pb2.MasksReply(seeds=parts, manifest=signed)

    @answers
    def Submit(self, request: Iterator[party_pb2.SubmitPart], context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        client, deadlines = caller(context), self._node.config.deadlines
        self._node.policy.admit(client)
        with ends_within(context, deadlines.connect):
            first = next(request, party_pb2.SubmitPart())
        if first.WhichOneof("part") != "header":
            raise PeerError("the first message of a submission is its header", peer=client)
        header = first.header
        session = self._node.session(header.session_id, client)
        size = session.input_size(header.run, header.wire, client)
        with ends_within(context, deadlines.submit):
            data = collect((part.chunk for part in request), size, "the input", client)
        session.submit(header.run, header.wire, client, data)
        return party_pb2.SubmitReply()

    @answers
    def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        client, header = caller(context), request.header
        self._node.policy.admit(client)
        session = self._node.session(header.session_id, client)
        size = session.input_size(header.run, header.wire, client)
        session.submit(header.run, header.wire, client, collect([request.data], size, "the input", client))
        return party_pb2.SubmitReply()

    @streams
    def Result(self, request: party_pb2.ResultRequest, context: grpc.ServicerContext) -> Iterator[party_pb2.ResultPart]:
        client = caller(context)
        session = self._node.session(request.session_id, client)
        run = session.run(request.run)
        for _ in session.follow(run, context.is_active):
            of = len(run.party.schedule.steps)
            yield party_pb2.ResultPart(progress=party_pb2.Progress(rounds=run.rounds, of=of, sent_bytes=run.sent_bytes))
        released = session.released(session.result(run), client)
        outputs = [
            party_pb2.OutputSeed(wire=wire, seed=out.seed.secret, digest=_output_digest(out.public))
            for wire, out in released.items()
        ]
        header = party_pb2.ResultHeader(
            online_seconds=run.online_seconds,
            online_cpu_seconds=run.cpu_seconds,
            rounds=run.rounds,
            sent_bytes=run.sent_bytes,
            transcript=run.transcript,
            outputs=outputs,
            manifest=run.signed,
        )
        yield party_pb2.ResultPart(header=header)
        for wire, out in released.items() if request.values else ():
            for piece in pieces(encode_output(out.public)):
                yield party_pb2.ResultPart(chunk=party_pb2.OutputChunk(wire=wire, data=piece))
        run.heard.add(client)

    @answers
    def Close(self, request: party_pb2.CloseRequest, context: grpc.ServicerContext) -> party_pb2.CloseReply:
        self._coordinated(request.session_id, context).close()
        return party_pb2.CloseReply()

    # -- correlations dealt ahead

    @answers
    def Store(self, request: party_pb2.StoreRequest, context: grpc.ServicerContext) -> party_pb2.StoreReply:
        client, node = caller(context), self._node
        if request.run:
            node.policy.admit(client)
            seconds, size = node.stocks.store(request.session_id, request.run, client)
            return party_pb2.StoreReply(deal_seconds=seconds, size=size)
        terms = self._terms(request.terms)
        if terms.session_id != request.session_id:
            raise HandshakeError("the session id does not belong to these terms")
        seconds, size = node.order(terms, client, request.terms.batches)
        return party_pb2.StoreReply(deal_seconds=seconds, size=size)

    @answers
    def Keep(self, request: party_pb2.KeepRequest, context: grpc.ServicerContext) -> party_pb2.KeepReply:
        self._node.stocks.keep(request.session_id, caller(context))
        return party_pb2.KeepReply()

    @streams
    def Stocks(self, request: party_pb2.StocksRequest, context: grpc.ServicerContext) -> Iterator[party_pb2.Stock]:
        for stock in self._node.stocks.held(caller(context), request.plan_digest):
            given = stock.terms
            terms = party_pb2.StockTerms(
                plan_digest=given.plan_digest, parties=given.parties, nonces=given.nonces, batches=stock.batches
            )
            yield party_pb2.Stock(terms=terms, size=stock.size, made_at=stock.made_at)

    @answers
    def Drop(self, request: party_pb2.DropRequest, context: grpc.ServicerContext) -> party_pb2.DropReply:
        return party_pb2.DropReply(dropped=self._node.stocks.drop(request.session_id, caller(context)))

    def _terms(self, request: party_pb2.OpenRequest | party_pb2.StockTerms) -> Terms:
        """What a client says the parties agreed on, with the provider that this party trusts."""
        provider = self._node.config.provider.name
        terms = Terms(request.plan_digest, provider, tuple(request.parties), tuple(request.nonces))
        if self._node.config.name not in terms.parties:
            raise HandshakeError("this party is not among the session's")
        return terms

    def _coordinated(self, session_id: bytes, context: grpc.ServicerContext) -> Session:
        client = caller(context)
        session = self._node.session(session_id, client)
        if session.coordinator != client:
            raise PolicyError(f"{client!r} is not this session's coordinator")
        return session


def _output_digest(public: np.ndarray) -> bytes:
    return digest("mpc/v1/output", encode_output(public))


class PeerService:
    """For the other parties: accept the stream of a pair."""

    def __init__(self, node: PartyNode) -> None:
        self._node = node

    def register(self, server: grpc.Server) -> None:
        """Answer the peers' calls at this server."""
        frames.answer_exchange(server, self._exchange)

    def _exchange(self, request: Iterator[Frame | Piece], context: grpc.ServicerContext) -> Iterator[Frame | Piece]:
        try:
            link = self._accept(request, context)
        except MpcError as error:
            logger().warning("a peer's stream was refused", code=error.code)
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
