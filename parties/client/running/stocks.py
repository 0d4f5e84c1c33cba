"""Coordinator's side of stocks: have sessions dealt ahead, see what there is, find one for a session, drop some."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from mpc.entry import EntryId, entries
from mpc.errors import HandshakeError, MpcError, SessionError, WaitingError
from mpc.plan.plan import Plan
from mpc.plan.segments import segments
from parties.agreed.ahead import refuse_later_known
from parties.agreed.bindings import Binding, write_bindings
from parties.agreed.keeps import Keep, write_keeps
from parties.agreed.terms import Terms
from parties.client.answering import Silent, ask_each
from parties.client.channels import Parties, PartyClient, Reply, gather
from parties.client.consent.words import await_words, require_none
from parties.pb import party_pb2

Stored = Callable[[int, int], None]
"""(bundles stored, bundles in all)."""


@dataclass(frozen=True, repr=False)
class Stock:
    """Correlations that were dealt ahead for one session of this client.

    Args:
        batches: rows of its runs 1, 2, 3, ...
        size: bytes on disk, at the party with most.
        made_at: seconds since 1970.
        missing: parties that do not hold it; unless there are none it is of no use.
    """

    terms: Terms
    batches: tuple[int, ...]
    size: int
    made_at: float
    missing: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what it is, in a line: which session and plan, for how many runs of how many rows, and its size."""
        rows = "/".join(map(str, sorted(set(self.batches), reverse=True)))
        lacking = f", not at {', '.join(self.missing)}" if self.missing else ""
        made = datetime.fromtimestamp(self.made_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return (
            f"<Stock of session {self.terms.session_id.hex()[:16]}, plan {self.terms.plan_digest.hex()[:16]}: "
            f"{len(self.batches)} runs of {rows} rows, {self.size:,} bytes on disk, made {made}{lacking}>"
        )

    def calls(self, sizes: Sequence[int]) -> int:
        """Count the batches that it serves if each is split into runs of these sizes; 0 if it was dealt for others."""
        count, rest = divmod(len(self.batches), len(sizes))
        return 0 if rest or self.batches != tuple(sizes) * count else count


def propose(
    parties: Parties,
    plan: Plan,
    ahead: bool = False,
    bindings: Sequence[Binding] = (),
    keeps: Sequence[Keep] = (),
    wait: float = 0.0,
) -> Terms:
    """Ask every party to consent to the plan; return the terms of a new session, with a nonce of each party.

    The first party is asked before the others: so of many clients that ask at once all parties have room for the same.

    Args:
        ahead: for what is dealt now and opened later.
        bindings: of the plan's stored wires.
        keeps: objects that its kept outputs become.
        wait: seconds to wait for words that are missing.

    Raises:
        WaitingError: words are missing still.
    """
    until = time.monotonic() + wait
    while True:
        try:
            return _propose(parties, plan, ahead, bindings, keeps)
        except WaitingError:
            if time.monotonic() >= until or not await_words(parties, plan, bindings, keeps, until):
                raise


def _propose(parties: Parties, plan: Plan, ahead: bool, bindings: Sequence[Binding], keeps: Sequence[Keep]) -> Terms:
    request = party_pb2.ProposeRequest(
        plan=plan.canonical, ahead=ahead, bindings=write_bindings(bindings), keeps=write_keeps(keeps)
    )
    first, *others = parties.clients
    deadlines = parties.config.deadlines
    seconds = deadlines.connect + deadlines.setup * bool(bindings)  # what is read is proved first
    calls = [first.begin(lambda stub: stub.Propose, request, seconds)]
    try:
        gather(calls)
        calls += [party.begin(lambda stub: stub.Propose, request, seconds) for party in others]
        proposals = gather(calls)
        answered = zip(parties.names, proposals, strict=True)
        require_none({name: each.waiting for name, each in answered if each.HasField("waiting")})
    except MpcError:
        _withdraw(parties, calls)
        raise
    nonces = tuple(proposal.nonce for proposal in proposals)
    return Terms(plan.digest, parties.config.provider.name, parties.names, nonces, tuple(bindings), tuple(keeps))


def _withdraw(parties: Parties, calls: Sequence[Reply[party_pb2.ProposeReply]]) -> None:
    """Tell the parties that consented that another one did not, so that no place is kept for the session."""
    told = []
    for client, call in zip(parties.clients, calls, strict=False):
        with suppress(MpcError):
            if nonce := call.result().nonce:
                request = party_pb2.EndRequest(nonce=nonce)
                told.append(client.begin(lambda stub: stub.End, request, parties.config.deadlines.connect))
    for reply in told:
        with suppress(MpcError):
            reply.result()


def _count_segments(plan: Plan, entry: EntryId, batches: Sequence[int]) -> int:
    """Count the segments of a bundle, each of which may take its time to be stored."""
    bound = plan if entry.is_weights else plan.at(entry.number).bind(batches[entry.number - 1])
    return len(segments(bound, entry))


def order(parties: Parties, plan: Plan, batches: Sequence[int], stored: Stored = lambda done, of: None) -> Stock:
    """Have all correlations of one session dealt now: its weights' masks, and one run for each of `batches`.

    Raises:
        PolicyError: a party does not let this client open sessions of the plan.
        PlanError: it is more than a party keeps, or its weights are public.
    """
    refuse_later_known(plan)
    terms, seconds = propose(parties, plan, ahead=True), parties.config.deadlines.setup
    agreed = party_pb2.StockTerms(
        plan_digest=terms.plan_digest, parties=terms.parties, nonces=terms.nonces, batches=batches
    )
    sizes, give_up = [0] * len(parties.names), partial(_try_drop, parties, terms.session_id)
    try:
        # All parties store a bundle before the next is dealt: the provider never holds more than one.
        for done, entry in enumerate(entries(len(batches)), 1):
            request = party_pb2.StoreRequest(
                session_id=terms.session_id, run=entry.number, terms=agreed if entry.is_weights else None
            )
            whole = seconds * _count_segments(plan, entry, batches)
            replies = parties.each_or_none(lambda stub: stub.Store, request, whole, give_up)
            sizes = [size + reply.size for size, reply in zip(sizes, replies, strict=True)]
            stored(done, len(batches) + 1)
        keep = party_pb2.KeepRequest(session_id=terms.session_id)
        parties.each(lambda stub: stub.Keep, keep, seconds)
    except BaseException:
        give_up()
        raise
    return Stock(terms, tuple(batches), max(sizes), time.time())


def stocks(parties: Parties, plan: Plan | None = None, silent: Silent | None = None) -> list[Stock]:
    """List this client's stocks that no session has taken, the oldest first.

    silent: takes the errors of parties that do not answer; they are not missed from what the others hold.
    """
    request = party_pb2.StocksRequest(plan_digest=plan.digest if plan else b"")
    seconds = parties.config.deadlines.connect

    def ask(party: PartyClient) -> list[party_pb2.Stock]:
        return list(party.stream(lambda stub: stub.Stocks, request, seconds))

    lists = ask_each(parties.clients, ask, silent)
    found: dict[bytes, dict[str, Stock]] = {}
    for name, replies in lists.items():
        for reply in replies:
            stock = _read(parties, name, reply)
            found.setdefault(stock.terms.session_id, {})[name] = stock
    everyone = [_merge([*lists], held) for held in found.values()]
    return sorted(everyone, key=lambda stock: stock.made_at)


def _read(parties: Parties, party: str, reply: party_pb2.Stock) -> Stock:
    given = reply.terms
    provider, names = parties.config.provider.name, parties.names
    if tuple(given.parties) != names:
        raise HandshakeError(f"{party} holds a stock of other parties", remedy="mpc doctor", peer=party)
    terms = Terms(given.plan_digest, provider, names, tuple(given.nonces))
    return Stock(terms, tuple(given.batches), reply.size, reply.made_at)


def _merge(names: Sequence[str], held: dict[str, Stock]) -> Stock:
    """Merge what each of these parties holds of a stock; one that holds other runs of it than the first holds none."""
    first = next(iter(held.values()))
    same = {name: stock for name, stock in held.items() if stock.batches == first.batches}
    missing = tuple(name for name in names if name not in same)
    size = max(stock.size for stock in same.values())
    return Stock(first.terms, first.batches, size, min(stock.made_at for stock in same.values()), missing)


def find(parties: Parties, plan: Plan, sizes: Sequence[int], calls: int | None = None) -> Stock | None:
    """Find a stock for batches that are split into runs of `sizes`: the one with most of them, the oldest of these.

    Args:
        calls: for exactly so many batches; what a session leaves over is lost.
    """
    usable = [stock for stock in stocks(parties, plan) if not stock.missing and stock.calls(sizes)]
    fitting = [stock for stock in usable if calls in (None, stock.calls(sizes))]
    return max(fitting, key=lambda stock: stock.calls(sizes), default=None)


def drop(parties: Parties, stock: Stock) -> None:
    """Give a stock up at every party that holds it."""
    request = party_pb2.DropRequest(session_id=stock.terms.session_id)
    replies = parties.each(lambda stub: stub.Drop, request, parties.config.deadlines.connect)
    if not any(reply.dropped for reply in replies):
        raise SessionError("no party holds that stock", cause="a session has taken it, or it was dropped before")


def _try_drop(parties: Parties, session_id: bytes) -> None:
    request = party_pb2.DropRequest(session_id=session_id)
    try:
        parties.each(lambda stub: stub.Drop, request, parties.config.deadlines.connect)
    except (MpcError, RuntimeError):  # a party is gone, or this client's own threads are: idle orders end by themselves
        return
