"""The provider's sessions under any order of calls, by any party: nothing is dealt twice, and nothing is kept."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpc.entry import WEIGHTS, EntryId
from mpc.errors import EntropyError, HandshakeError, MpcError, PlanError, PolicyError, SessionError
from mpc.gates.matmul import Matmul
from mpc.gates.relu import Relu
from mpc.plan.plan import Plan
from mpc.wires import Masking
from parties.addresses import Endpoint
from parties.agreed.memory import deal_memory, plan_memory
from parties.agreed.terms import Terms
from parties.config.models import Deadlines, Limits, ProviderConfig
from parties.pb import provider_pb2
from parties.provider.service import ProviderService
from parties.telemetry import Counters
from parties.trust.identity import Identity
from parties.wire.frames import Chunk
from tests.support.authority import Issuer
from tests.support.effort import examples
from tests.support.parties import eventually
from tests.support.plans import Builder, wire


def network() -> Plan:
    """x -> matmul -> relu -> out, with secret weights."""
    b = Builder()
    b.enter("w", (2, 2), 10, 16, session=True)
    b.enter("x", ("batch", 2), 10, 16)
    b.gate(Matmul(name="a", x="x", weight="w", out="z"), wire("z", ("batch", 2), 24, 256, masking=Masking.DERIVED))
    b.gate(Relu(name="r", x="z", out="y", shift=4), wire("y", ("batch", 2), 20, 16))
    b.output("y")
    return b.build()


PLAN = network()
NAMES = ("party-0", "party-1", "party-2")
LIMITS = Limits(max_sessions=3, max_sessions_per_caller=2, max_batch=4)
DEADLINES = Deadlines(idle=100.0)
SESSIONS, PARTIES, BATCHES = st.integers(0, 5), st.sampled_from(NAMES), st.integers(1, 2)


def roster(number: int) -> tuple[str, ...]:
    """Who has a part in a session: the last one is among two of the parties."""
    return NAMES[:2] if number == 5 else NAMES


@pytest.fixture(scope="module", autouse=True)
def provider() -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="mpc-provider-"))
    Sessions.folder, Sessions.tls = folder, Issuer.root().leaf("provider", folder / "provider")
    yield
    shutil.rmtree(folder)


@dataclass(eq=False)
class Caller:
    """The context of a call by a party."""

    name: str
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return True

    def end(self) -> None:
        """The call has ended, one way or another."""
        while self.callbacks:
            self.callbacks.pop()()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_common_name": [self.name.encode()]}

    def time_remaining(self) -> float | None:
        return None


@dataclass
class Bundle:
    """As the model has it: who was given nothing of it yet, and what came of it."""

    batch: int
    held: int
    waiting: set[str]
    over: bool = True
    failed: bool = False


@dataclass
class Open:
    """As the model has a session of the provider."""

    opener: str
    used_at: float
    joined: set[str] = field(default_factory=set)
    due: EntryId = WEIGHTS
    read: int = 0
    bundles: dict[EntryId, Bundle] = field(default_factory=dict)


class Sessions(RuleBasedStateMachine):
    """A provider beside a model of its sessions.

    Its clock, its randomness and how long it deals are the machine's: while `gate` is shut, no deal ends.
    """

    folder: Path
    tls: Any

    def __init__(self) -> None:
        super().__init__()
        address = Endpoint("127.0.0.1:1")
        config = ProviderConfig(
            name="provider",
            listen=address,
            data_dir=self.folder,
            tls=self.tls,
            parties=NAMES,
            limits=LIMITS,
            deadlines=DEADLINES,
        )
        self.now, self.drawn, self.no_entropy, self.breaks = 0.0, 0, False, False
        self.service = ProviderService(
            config, Identity.load(self.tls), Counters(), clock=lambda: self.now, draw=self.draw
        )
        self.gate = threading.Event()
        self.gate.set()
        deal = self.service.dealing._deal_parts

        def dealing(*arguments: Any) -> None:
            breaks = self.breaks  # as it was when the deal began
            assert self.gate.wait(60)
            if breaks:
                raise ValueError("a mistake of this test's")
            deal(*arguments)

        self.service.dealing._deal_parts = dealing  # type: ignore[method-assign]
        self.nonces = 0
        self.terms = {number: self.fresh(number) for number in range(6)}
        self.open: dict[int, Open] = {}
        self.ended: dict[int, str] = {}
        self.under_way: list[tuple[Open, Bundle, Iterator[Any], Caller]] = []
        self.dealing: list[tuple[Open, Bundle]] = []
        self.seeds: set[bytes] = set()
        self.signed: dict[tuple[bytes, EntryId], bytes] = {}

    def teardown(self) -> None:
        self.go_on()
        for number in list(self.open):
            self.finish(number, roster(number)[0])
        assert eventually(lambda: self.service.budget.taken == 0)

    def draw(self, count: int) -> bytes:
        if self.no_entropy:
            raise EntropyError("the system's random source cannot be read")
        self.drawn += 1
        return self.drawn.to_bytes(count, "big")

    def fresh(self, number: int) -> Terms:
        self.nonces += 1
        nonces = tuple((10 * self.nonces + place).to_bytes(32, "big") for place in range(len(roster(number))))
        return Terms(PLAN.digest, "provider", roster(number), nonces)

    # -- what parties do

    @rule(number=SESSIONS, party=PARTIES)
    def open_or_join(self, number: int, party: str) -> None:
        """A party asks for the weights' masks; the first one opens the session."""
        self.ask(number, party, WEIGHTS, 1)

    @rule(number=SESSIONS, party=PARTIES, run=st.integers(1, 4), batch=BATCHES)
    def deal(self, number: int, party: str, run: int, batch: int) -> None:
        self.ask(number, party, EntryId(run), batch)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def go_forward(self, data: st.DataObject) -> None:
        """What is asked for in good order: chance alone seldom takes a session through several runs."""
        number = data.draw(st.sampled_from(sorted(self.open)))
        session = self.open[number]
        for entry, bundle in session.bundles.items():
            if bundle.waiting:
                self.ask(number, data.draw(st.sampled_from(sorted(bundle.waiting))), entry, bundle.batch)
                return
        batch = 1 if session.due.is_weights else data.draw(BATCHES)
        self.ask(number, data.draw(st.sampled_from(roster(number))), session.due, batch)

    @rule(number=SESSIONS, party=PARTIES, batch=st.sampled_from([2, 5]))
    def ask_for_a_wrong_batch(self, number: int, party: str, batch: int) -> None:
        """Weights have none, and no run has more rows than the provider allows."""
        session = self.open.get(number)
        self.ask(number, party, session.due if session else WEIGHTS, batch)

    @rule(number=SESSIONS, party=PARTIES)
    def finish(self, number: int, party: str) -> None:
        request = provider_pb2.FinishRequest(session_id=self.terms[number].session_id)
        self.service.Finish(request, Caller(party))  # type: ignore[arg-type]
        if number in self.open and party in roster(number):
            self.end(number, party)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def agree_anew(self, data: st.DataObject) -> None:
        """Parties make a new session, of other nonces; the one that has ended stays known."""
        number = data.draw(st.sampled_from(sorted(self.ended)))
        old, by = self.terms[number], self.ended.pop(number)
        self.terms[number] = self.fresh(number)
        for entry in (WEIGHTS, EntryId(1)):
            error = self.refused(self.request(old, entry, 1), old.parties[0])
            assert isinstance(error, SessionError) and error.peer == error.heard_from == (by or None)

    # -- what happens to the provider

    @rule(seconds=st.sampled_from([1.0, 60.0, 101.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.service.drop_idle()
        unused = {number for number, session in self.open.items() if self.now - session.used_at > DEADLINES.idle}
        for number in sorted(unused):
            if not self.open[number].read:
                self.end(number, "")

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        """A party ends a call in which it is sent something; what it was to read is lost."""
        place = data.draw(st.integers(0, len(self.under_way) - 1))
        session, _, _, caller = self.under_way.pop(place)
        self.call_ends(session, caller)

    @rule()
    def run_out_of_entropy(self) -> None:
        self.no_entropy = True

    @rule()
    def have_entropy(self) -> None:
        self.no_entropy = False

    @precondition(lambda self: self.gate.is_set())
    @rule(breaks=st.booleans())
    def slow_down(self, breaks: bool) -> None:
        """Deals that begin from now on do not end before `go_on`, and then fail if they are to."""
        self.gate.clear()
        self.breaks = breaks

    @rule()
    def go_on(self) -> None:
        self.gate.set()
        for session, bundle, parts, caller in self.under_way:
            self.receive(bundle, parts)
            self.call_ends(session, caller)
        self.under_way.clear()
        for session, bundle in self.dealing:
            bundle.over = True
            self.release(session)
        self.dealing.clear()
        self.breaks = False

    # -- what is always so

    @invariant()
    def those_that_are_open_are_found(self) -> None:
        found = {session.terms.session_id for session in self.service.sessions()}
        assert found == {self.terms[number].session_id for number in self.open}

    @invariant()
    def memory_is_what_is_open_and_what_is_dealt(self) -> None:
        granted = plan_memory(PLAN, LIMITS)
        bundles = [bundle for session in self.open.values() for bundle in session.bundles.values()]
        gone = {id(session): session for session, _ in self.dealing if session not in self.open.values()}
        bundles += [bundle for session in gone.values() for bundle in session.bundles.values()]
        expected = granted * (len(self.open) + len(gone)) + sum(bundle.held for bundle in bundles)
        assert eventually(lambda: self.service.budget.taken == expected), (self.service.budget.taken, expected)

    # -- the model

    def request(self, terms: Terms, entry: EntryId, batch: int) -> provider_pb2.DealRequest:
        request = provider_pb2.DealRequest(session_id=terms.session_id, run=entry.number, batch=batch)
        if entry.is_weights:
            request.terms.plan = PLAN.canonical
            request.terms.parties.extend(terms.parties)
            request.terms.nonces.extend(terms.nonces)
        return request

    def refused(self, request: provider_pb2.DealRequest, party: str) -> MpcError:
        caller = Caller(party)
        with pytest.raises(MpcError) as caught:
            next(self.service.deal(request, caller))  # type: ignore[arg-type]
        caller.end()
        return caught.value

    def call_ends(self, session: Open, caller: Caller) -> None:
        """A call has ended that was sent what is dealt of a session: from now on the session may be idle."""
        caller.end()
        session.read -= 1
        session.used_at = self.now

    def ask(self, number: int, party: str, entry: EntryId, batch: int) -> None:
        """Ask for a part of a bundle, and compare what is said or given with the model."""
        request = self.request(self.terms[number], entry, batch)
        expected = self.expected(number, party, entry, batch)
        if expected is not None:
            kind, text = expected
            error = self.refused(request, party)
            assert isinstance(error, kind) and text in str(error), (error, expected)
            if number in self.ended and party in roster(number):
                assert error.peer == error.heard_from == (self.ended[number] or None)
            return
        caller = Caller(party)
        parts = self.service.deal(request, caller)  # type: ignore[arg-type]
        first = next(parts)
        assert not isinstance(first, Chunk)
        assert first.header.seed not in self.seeds, "a seed was dealt twice"
        self.seeds.add(first.header.seed)
        session = self.open[number]
        bundle = self.given(session, number, party, entry, batch)
        session.read += 1
        if bundle.over:
            self.receive(bundle, parts)
            self.release(session)
            self.call_ends(session, caller)
        else:
            self.under_way.append((session, bundle, parts, caller))

    def expected(self, number: int, party: str, entry: EntryId, batch: int) -> tuple[type[MpcError], str] | None:
        """Which error a call gets; None if it is given its part."""
        session = self.open.get(number)
        if not entry.is_weights and session is None and number not in self.ended:
            return SessionError, "does not know this session"
        if entry.is_weights and party not in roster(number):
            return PolicyError, "not a party of this session"
        if number in self.ended:
            return SessionError, "this session is over"
        if session is None:
            mine = sum(each.opener == party for known, each in self.open.items() if not self.whole(known))
            whole = sum(map(self.whole, self.open))
            if mine >= 2 or whole + mine >= 2 * LIMITS.max_sessions:
                return SessionError, "open sessions"
            session = self.open[number] = Open(party, self.now)
        if party not in roster(number):
            return PolicyError, "not a party of this session"
        if entry.is_weights:
            session.joined.add(party)
        session.used_at = self.now
        if entry in session.bundles:
            bundle = session.bundles[entry]
            if bundle.batch != batch:
                return HandshakeError, "do not agree on this run's batch size"
            return None if party in bundle.waiting else (SessionError, "correlations are given once")
        if entry != session.due:
            return SessionError, "was dealt before, or comes too early"
        if any(not bundle.over for bundle in session.bundles.values()):
            return SessionError, "is still being dealt"
        if entry.is_weights and batch != 1:
            return PlanError, "no batch"
        if batch > LIMITS.max_batch:
            return PlanError, "are accepted"
        return (EntropyError, "random source") if self.no_entropy else None

    def whole(self, number: int) -> bool:
        return len(self.open[number].joined) == len(roster(number))

    def given(self, session: Open, number: int, party: str, entry: EntryId, batch: int) -> Bundle:
        """The party has its part of the bundle; the first that asked has it dealt."""
        if entry not in session.bundles:
            held = 0 if entry.is_weights else deal_memory(PLAN, batch, LIMITS)
            slow = not self.gate.is_set()
            made = Bundle(batch, held, set(roster(number)), over=not slow, failed=slow and self.breaks)
            session.bundles[entry], session.due = made, entry.following
            if slow:
                self.dealing.append((session, made))
        bundle = session.bundles[entry]
        bundle.waiting.discard(party)
        return bundle

    def receive(self, bundle: Bundle, parts: Iterator[Any]) -> None:
        """The rest of a deal, which has an end if it did not fail."""
        if bundle.failed:
            with pytest.raises(MpcError, match="internal error"):
                list(parts)
            return
        *corrections, last = parts
        assert last.end.manifest.signature and all(isinstance(part, Chunk) for part in corrections)

    def release(self, session: Open) -> None:
        """Forget the bundles that are dealt and fetched."""
        session.bundles = {
            entry: bundle for entry, bundle in session.bundles.items() if bundle.waiting or not bundle.over
        }

    def end(self, number: int, by: str) -> None:
        del self.open[number]
        self.ended[number] = by


Sessions.TestCase.settings = settings(examples(10), stateful_step_count=30, deadline=None)
TestSessions = Sessions.TestCase


def test_a_session_is_not_idle_while_a_segment_is_sent() -> None:
    """One segment may take longer to be read than a session may be idle; once the call has ended, it may not."""
    machine = Sessions()
    request = machine.request(machine.terms[0], WEIGHTS, 1)
    callers = [Caller(name) for name in roster(0)]
    parts = [machine.service.deal(request, caller) for caller in callers]  # type: ignore[arg-type]
    for each in parts:
        next(each)
    for _ in range(3):
        machine.now += 2 * DEADLINES.idle
        machine.service.drop_idle()
    assert machine.service.sessions()
    for each in parts:
        assert [part for part in each if not isinstance(part, Chunk)][-1].end.manifest.signature
    for caller in callers:
        caller.end()
    machine.now += DEADLINES.idle / 2
    machine.service.drop_idle()
    assert machine.service.sessions(), "it is idle from the end of the call on"
    machine.now += DEADLINES.idle
    machine.service.drop_idle()
    assert not machine.service.sessions()


def test_a_caller_that_is_gone_keeps_no_session() -> None:
    """Its call waits here for what nobody deals any more, and counts for nothing."""
    machine = Sessions()
    machine.gate.clear()
    caller = Caller("party-0")
    next(machine.service.deal(machine.request(machine.terms[0], WEIGHTS, 1), caller))  # type: ignore[arg-type]
    caller.end()
    machine.now += 2 * DEADLINES.idle
    machine.service.drop_idle()
    assert not machine.service.sessions()
    machine.go_on()
    assert eventually(lambda: machine.service.budget.taken == 0)
