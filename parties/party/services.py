"""Answer the calls of clients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import grpc
import numpy as np

import mpc
from mpc.encoding import digest
from mpc.entry import EntryId
from mpc.errors import HandshakeError, MpcError, PeerError, PlanError, PolicyError
from parties.agreed.bindings import read_binding
from parties.agreed.keeps import read_keep
from parties.agreed.terms import PROTOCOL, Terms, roster_digest
from parties.alarms import ends_behind, ends_within
from parties.party.consent.answers import answers
from parties.party.coordinating import Ended, answer, session_of
from parties.party.desks import PartyDesks
from parties.party.node import PartyNode
from parties.party.session import PartySession, encode_output
from parties.party.vault.service import key
from parties.pb import party_pb2, party_pb2_grpc
from parties.wire.handlers import register
from parties.wire.pieces import collect, pieces, time_for
from parties.wire.probe import probe_all
from parties.wire.transport import caller

_COORDINATORS = frozenset({"Propose", "Open", "Prepare", "Coordinate", "Close", "Renew", "Store", "Keep"})
"""Calls that only coordinators make; their messages are not read for anybody else."""


class PartyService(party_pb2_grpc.PartyServicer):
    """For clients; see the proto for what each call is."""

    def __init__(self, node: PartyNode) -> None:
        self._node = node

    def register(self, server: grpc.Server, desks: PartyDesks) -> None:
        """Answer clients' calls at this server."""
        control = ("Describe", "Sessions", "End", "Renew")
        kinds = {"Result": desks.results, "Coordinate": desks.sessions, **dict.fromkeys(control, desks.control)}
        service = party_pb2.DESCRIPTOR.services_by_name["Party"]
        seconds = self._node.config.deadlines.connect
        register(server, service, self, lambda name: kinds.get(name, desks.calls), self._admit, seconds)

    def _admit(self, method: str, client: str) -> None:
        operator = client == self._node.config.name and method in ("Sessions", "End")
        if method != "Describe" and not operator:
            self._node.admit(client, method in _COORDINATORS)

    def Describe(self, request: party_pb2.DescribeRequest, context: grpc.ServicerContext) -> party_pb2.DescribeReply:
        """Say who this is and how it is; with `probe`, how far away its peers and the provider are."""
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
            certificate_days=node.identity.days_left(),
            problem=node.problem,
            client_memory=node.config.limits.memory_of_one,
            policy_stale=node.rules.problem is not None,
            clock_behind=node.vault.times.behind,
            roster_digest=roster_digest(node.config.provider.name, node.roster, node.config.cluster),
        )
        if request.probe:
            targets = [(p.name, p.address) for p in (*node.config.peers, node.config.provider)]
            others = [target for target in targets if target[0] != node.config.name]
            reply.peers.extend(probe_all(node.identity, others, node.config.deadlines.connect))
            for reach in reply.peers:
                reach.rounds = node.peers.ways.get(reach.name, "")
        return reply

    def Propose(self, request: party_pb2.ProposeRequest, context: grpc.ServicerContext) -> party_pb2.ProposeReply:
        """Answer with a nonce for one session, if no word is missing and there is a place for it."""
        bindings = [read_binding(each) for each in request.bindings]
        keeps = [read_keep(each) for each in request.keeps]
        found = self._node.propose(request.plan, caller(context), key(context), bindings, keeps, request.ahead)
        if isinstance(found, bytes):
            return party_pb2.ProposeReply(nonce=found)
        waiting = party_pb2.Waiting(request=found.request, answers=answers(found.missing, found.silent))
        return party_pb2.ProposeReply(waiting=waiting)

    def Open(self, request: party_pb2.OpenRequest, context: grpc.ServicerContext) -> party_pb2.OpenReply:
        """Open a session of these terms; returns once all peers have greeted and the weights' masks are here."""
        started = time.perf_counter()
        session, dealt = self._node.open(self._terms(request), caller(context), key(context), request.stocked)
        seconds = time.perf_counter() - started
        grace = self._node.config.deadlines.grace
        return party_pb2.OpenReply(session_id=session.id, setup_seconds=seconds, dealt_bytes=dealt, grace_seconds=grace)

    def Prepare(self, request: party_pb2.PrepareRequest, context: grpc.ServicerContext) -> party_pb2.PrepareReply:
        """Have the next run dealt, and prepare it; only for the session's coordinator.

        If it asks for them, its inputs' masks come with the answer, as `Masks` gives them: once, and burnt before.
        """
        session = self._coordinated(request.session_id, context)
        started = time.perf_counter()
        try:
            deal_seconds, dealt = session.prepare(request.run, request.batch, request.following)
        except PlanError:
            raise
        except MpcError as error:
            session.abort(error)
            raise session.life.told(error) from None
        except Exception:
            session.abort(MpcError("an internal error while preparing a run"))
            raise
        seconds, masks = time.perf_counter() - started, None
        if request.masks:
            masks = self.Masks(party_pb2.MasksRequest(session_id=request.session_id, run=request.run), context)
        return party_pb2.PrepareReply(
            deal_seconds=deal_seconds,
            prepare_seconds=seconds,
            dealt_bytes=dealt,
            streams=not session.runs.get(request.run).whole,
            masks=masks,
        )

    def Status(self, request: party_pb2.StatusRequest, context: grpc.ServicerContext) -> party_pb2.StatusReply:
        """Say how a run is doing, to whoever has a part in the session."""
        latest, run = self._node.session(request.session_id, caller(context)).status(request.run)
        if run is None:
            return party_pb2.StatusReply(latest=latest)
        return party_pb2.StatusReply(
            latest=latest,
            batch=run.batch,
            following=run.following,
            entering=run.entering,
            unheard=run.unheard,
        )

    def Masks(self, request: party_pb2.MasksRequest, context: grpc.ServicerContext) -> party_pb2.MasksReply:
        """Hand out the sub-seeds of the caller's own inputs, once; the run is burnt before."""
        client = caller(context)
        seeds, signed = self._node.session(request.session_id, client).entries.masks(EntryId(request.run), client)
        parts = [party_pb2.WireSeed(wire=wire, seed=seed.secret) for wire, seed in seeds]
        return party_pb2.MasksReply(seeds=parts, manifest=signed)

    def Submit(self, request: Iterator[party_pb2.SubmitPart], context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        """Take one input, x^, in pieces; the run starts with the last input."""
        client, deadlines = caller(context), self._node.config.deadlines
        with ends_within(context, deadlines.connect):
            first = next(request, party_pb2.SubmitPart())
        if first.WhichOneof("part") != "header":
            raise PeerError("the first message of a submission is its header", peer=client)
        header = first.header
        session = self._node.session(header.session_id, client)
        with session.entries.receiving(EntryId(header.run), header.wire, client) as size:
            with ends_within(context, time_for(deadlines.submit, size)):
                data = collect((part.chunk for part in request), size, "the input", client)
            session.entries.submit(EntryId(header.run), header.wire, client, data)
        return party_pb2.SubmitReply()

    def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        """Take one input that fits a message."""
        client, header = caller(context), request.header
        session = self._node.session(header.session_id, client)
        with session.entries.receiving(EntryId(header.run), header.wire, client) as size:
            session.entries.submit(
                EntryId(header.run), header.wire, client, collect([request.data], size, "the input", client)
            )
        return party_pb2.SubmitReply()

    def Result(self, request: party_pb2.ResultRequest, context: grpc.ServicerContext) -> Iterator[party_pb2.ResultPart]:
        """Wait for a run, then send its cost and, to recipients, sub-seeds of their outputs and z^ if asked for it."""
        tell = yield from self.result(request, context)
        tell()

    def result(self, request: party_pb2.ResultRequest, context: grpc.ServicerContext) -> Ended:
        """Yield what `Result` answers; return what notes that the caller was told, to be called once that has left."""
        client = caller(context)
        session = self._node.session(request.session_id, client)
        run = session.await_prepared(request.run, client, context.is_active)
        for _ in session.follow(run, client, context.is_active):
            if not request.values:
                continue
            progress = party_pb2.Progress(rounds=run.rounds, of=run.steps, sent_bytes=run.sent_bytes)
            yield party_pb2.ResultPart(progress=progress)
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
            manifest=run.entry.signed,
            head=run.head,
        )
        with ends_within(context, self._node.config.deadlines.submit):  # for one that does not read what it is sent
            yield party_pb2.ResultPart(header=header)
            for wire, out in released.items() if request.values else ():
                for piece in pieces(encode_output(out.public)):
                    yield party_pb2.ResultPart(chunk=party_pb2.OutputChunk(wire=wire, data=piece))
        return partial(session.tell, run, client)

    def Coordinate(
        self, request: Iterator[party_pb2.CoordinatePart], context: grpc.ServicerContext
    ) -> Iterator[party_pb2.CoordinateReply]:
        """Answer, one after another, what `Prepare`, `Masks`, `SubmitWhole` and `Result` would be asked by a session's
        coordinator."""
        client, deadlines = caller(context), self._node.config.deadlines
        with ends_within(context, deadlines.connect):
            part = next(request, party_pb2.CoordinatePart())
        session_id = session_of(part, client)
        life = self._coordinated(session_id, context).life
        with ends_behind(lambda: life.is_over, context, deadlines.connect):
            yield from answer(self, part, context, deadlines.submit)
            part.Clear()  # nothing of it is held while the caller thinks
            for part in request:
                self._admit("Coordinate", client)
                if session_of(part, client) != session_id:
                    raise PeerError("all parts of a call are about one session", peer=client)
                yield from answer(self, part, context, deadlines.submit)
                part.Clear()

    def Close(self, request: party_pb2.CloseRequest, context: grpc.ServicerContext) -> party_pb2.CloseReply:
        """End a session in good order, unless an error has ended it before; only for its coordinator."""
        if not self._node.has_failed(request.session_id, caller(context)):
            self._coordinated(request.session_id, context).close()
        return party_pb2.CloseReply()

    def Renew(self, request: party_pb2.RenewRequest, context: grpc.ServicerContext) -> party_pb2.RenewReply:
        """Take a sign of life of the coordinator of these sessions."""
        self._node.renew(request.session_ids, caller(context))
        return party_pb2.RenewReply()

    def Sessions(
        self, request: party_pb2.SessionsRequest, context: grpc.ServicerContext
    ) -> Iterator[party_pb2.OpenSession]:
        """List the open sessions that the caller coordinates, or all of them to this party's operator."""
        now = time.monotonic()
        for session in self._node.sessions(caller(context)):
            yield party_pb2.OpenSession(
                session_id=session.id,
                plan_digest=session.plan.digest,
                coordinator=session.coordinator,
                state=session.life.state,
                open_seconds=now - session.life.opened_at,
                silent_seconds=max(0.0, now - session.life.renewed_at),
                runs=session.runs.latest,
            )

    def End(self, request: party_pb2.EndRequest, context: grpc.ServicerContext) -> party_pb2.EndReply:
        """Abort a session, for its coordinator or this party's operator; or take back a proposal."""
        if request.nonce:
            self._node.proposals.withdraw(request.nonce, caller(context))
            return party_pb2.EndReply()
        self._node.end(request.session_id, caller(context))
        return party_pb2.EndReply()

    # -- correlations dealt ahead

    def Store(self, request: party_pb2.StoreRequest, context: grpc.ServicerContext) -> party_pb2.StoreReply:
        """Be dealt a session ahead: its weights' masks, with the terms, then one run after another."""
        client, node = caller(context), self._node
        entry = EntryId(request.run)
        if not entry.is_weights:
            seconds, size = node.orders.store(request.session_id, entry, client)
            return party_pb2.StoreReply(deal_seconds=seconds, size=size)
        terms = self._terms(request.terms)
        if terms.session_id != request.session_id:
            raise HandshakeError("the session id does not belong to these terms")
        seconds, size = node.order(terms, client, request.terms.batches)
        return party_pb2.StoreReply(deal_seconds=seconds, size=size)

    def Keep(self, request: party_pb2.KeepRequest, context: grpc.ServicerContext) -> party_pb2.KeepReply:
        """Enter a stock into the ledger, once all of it is on the disk."""
        self._node.orders.keep(request.session_id, caller(context))
        return party_pb2.KeepReply()

    def Stocks(self, request: party_pb2.StocksRequest, context: grpc.ServicerContext) -> Iterator[party_pb2.Stock]:
        """List the caller's stocks, of one plan if it names one."""
        for stock in self._node.stocks.held(caller(context), request.plan_digest):
            given = stock.terms
            terms = party_pb2.StockTerms(
                plan_digest=given.plan_digest, parties=given.parties, nonces=given.nonces, batches=stock.batches
            )
            yield party_pb2.Stock(terms=terms, size=stock.size, made_at=stock.made_at)

    def Drop(self, request: party_pb2.DropRequest, context: grpc.ServicerContext) -> party_pb2.DropReply:
        """Give up a stock of the caller's, whether it is complete or not."""
        client, node = caller(context), self._node
        dropped = node.orders.drop(request.session_id, client) or node.stocks.drop(request.session_id, client)
        return party_pb2.DropReply(dropped=dropped)

    def _terms(self, request: party_pb2.OpenRequest | party_pb2.StockTerms) -> Terms:
        """Read the terms that a client says the parties agreed on, with the provider that this party trusts."""
        provider = self._node.config.provider.name
        bindings = tuple(read_binding(each) for each in request.bindings)
        keeps = tuple(read_keep(each) for each in request.keeps) if isinstance(request, party_pb2.OpenRequest) else ()
        agreed = (tuple(request.parties), tuple(request.nonces), bindings, keeps)
        terms = Terms(request.plan_digest, provider, *agreed)
        if self._node.config.name not in terms.parties:
            raise HandshakeError("this party is not among the session's")
        return terms

    def _coordinated(self, session_id: bytes, context: grpc.ServicerContext) -> PartySession:
        client = caller(context)
        session = self._node.session(session_id, client)
        if session.coordinator != client:
            raise PolicyError(f"{client!r} is not this session's coordinator")
        return session


def _output_digest(public: np.ndarray) -> bytes:
    return digest("mpc/v1/output", encode_output(public))
