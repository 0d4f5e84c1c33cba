"""A model, its inputs and its outputs in different hands: real processes, each client under its own certificate."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import field as fp
from mpc.compiler.compile import Compiled, compile_model
from mpc.errors import (
    DeadlineError,
    InputError,
    IntegrityError,
    MpcError,
    PeerError,
    PlanError,
    PolicyError,
    SessionError,
    UsageError,
)
from mpc.plan.plan import Plan
from parties import Cluster, Guest, MpcWarning, Session
from parties.agreed.terms import Terms
from parties.agreed.ticket import Ticket
from parties.client.running import feeds
from parties.client.running.handed import HandedOver
from parties.client.running.participant import Participant
from parties.client.running.receiving import Receiver
from parties.client.running.roles import assign
from parties.config.load import dump_toml, load
from parties.config.models import ClusterConfig, Deadlines, PartyConfig
from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.party.services import PartyService
from parties.pb import party_pb2
from tests.support.effort import examples
from tests.support.graphs import node, save_model
from tests.support.parties import OWNER, RECIPIENT, InProcess, data, deadlines
from tests.support.people import RANGES, Together, shared_answers, shared_model

pytestmark = pytest.mark.timeout(90)
QUICK = deadlines(connect=10, setup=30, step=15, submit=5)
SUBMIT = QUICK.submit
OWNERS = {"x1": "bob", "x2": "dave"}
TOLERANCE = 1e-3


def with_deadlines(layout: LocalLayout, deadlines: Deadlines) -> None:
    """The same for every party and client."""
    clients = [layout.cluster_file, *map(layout.client_file, layout.clients)]
    for path, cls in [*((c, ClusterConfig) for c in clients), *((m.config, PartyConfig) for m in layout.members[1:])]:
        path.write_text(dump_toml(load(cls, path, environ={}).model_copy(update={"deadlines": deadlines})))


@dataclass
class People:
    """Everybody's own connection to one cluster of two parties."""

    alice: Cluster
    bob: Cluster
    carol: Cluster
    dave: Cluster
    eve: Cluster
    compiled: Compiled

    def session(self) -> Session:
        """bob enters x1, dave x2, carol receives y, alice p."""
        return self.alice.open(self.compiled)

    def guests(self, session: Session) -> tuple[Guest, Guest, Guest]:
        return self.bob.join(session.ticket), self.dave.join(session.ticket), self.carol.join(session.ticket)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    folder = tmp_path_factory.mktemp("people")
    layout = LocalLayout.create(folder / ".mpc", parties=2, clients=("bob", "carol", "dave", "eve"))
    with_deadlines(layout, QUICK)
    roles = assign("coordinator", OWNERS, {"y": "carol", "p": "coordinator"})
    compiled = compile_model(shared_model(folder / "shared.onnx"), RANGES, roles)
    launcher.start(layout)
    with ExitStack() as stack:
        stack.callback(launcher.stop, layout)
        files = [layout.cluster_file, *map(layout.client_file, ("bob", "carol", "dave", "eve"))]
        yield People(*(stack.enter_context(Cluster.connect(file)) for file in files), compiled)


X1, X2 = data(3, seed=1), data(3, seed=2)


def test_two_data_owners_a_model_owner_and_a_recipient(people: People) -> None:
    with people.session() as session:
        bob, dave, carol = people.guests(session)
        assert [guest.inputs for guest in (bob, dave, carol)] == [("x1",), ("x2",), ()]
        assert [guest.outputs for guest in (bob, dave, carol)] == [(), (), ("y",)]
        for first, second in ((X1, X2), (X2[:1], X1[:1])):
            done = Together(
                alice=lambda x=first: session.run(None, batch=len(x)),
                bob=lambda x=first: bob.run({"x1": x}),
                dave=lambda x=second: dave.run({"x2": x}),
                carol=carol.run,
            ).wait()
            y, p = shared_answers(first, second)
            assert (done["bob"], done["dave"]) == ([], [])
            [[mine], [hers]] = done["alice"], done["carol"]
            assert np.abs(mine - p).max() < TOLERANCE and np.abs(hers - y).max() < TOLERANCE
            assert hers.dtype == np.float32
        assert session.last_run is not None and session.last_run.recipients == ("carol", "coordinator")
    with pytest.raises(SessionError, match="does not know"):
        bob.run({"x1": X1})


def test_an_owner_who_also_receives_and_a_coordinator_who_does_not(people: People, tmp_path: Path) -> None:
    model = shared_model(tmp_path / "shared.onnx")
    with people.alice.session(model, RANGES, {"x2": "bob"}, ("carol", "bob")) as session:
        bob, carol = people.bob.join(session.ticket), people.carol.join(session.ticket)
        done = Together(
            alice=lambda: session.run(None, {"x1": X1}), bob=lambda: bob.run({"x2": X2}), carol=carol.run
        ).wait()
        assert done["alice"] == []
        for mine, hers, expected in zip(done["bob"], done["carol"], shared_answers(X1, X2), strict=True):
            assert np.array_equal(mine, hers) and np.abs(mine - expected).max() < TOLERANCE


@pytest.mark.filterwarnings("ignore:fixed point limits output:mpc.errors.MpcWarning")
def test_a_guest_is_told_of_columns_that_their_ranges_hardly_resolve(people: People, tmp_path: Path) -> None:
    """In the words that the owner of a session of its own hears, once, and nobody else."""
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": np.full((2, 1), 0.3, np.float32)}, (None, 2))
    x = np.random.Generator(np.random.PCG64(0)).uniform(0, [[1e9, 1e-4]], (16, 2)).astype(np.float32)
    with people.alice.session(path, {"x": (-(2.0**30), 2.0**30)}, {"x": "bob"}, "bob") as session:
        bob, told = people.bob.join(session.ticket), len(session.notes)
        alice = Together(alice=lambda: [session.run(None, batch=len(x)) for _ in range(2)])
        with pytest.warns(MpcWarning, match=r"column 1 .* of input 'x'") as caught:
            bob.run({"x": x})
            bob.submit(2, {"x": x})
            bob.receive(2)
        alice.wait()
        assert [str(each.message) for each in caught if each.category is MpcWarning] == bob.notes
        assert bob.notes == feeds.coarse_columns(session.plan, {"x": x}) and len(session.notes) == told


def test_what_is_not_yours_to_give_or_to_have(people: People) -> None:
    with people.session() as session:
        with pytest.raises(UsageError, match="carol receives it"):
            session.run(["y"], batch=1)
        with pytest.raises(UsageError, match="no output 'q'"):
            session.run(["q"], batch=1)
        with pytest.raises(InputError, match="bob enters it"):
            session.run(None, {"x1": X1})
        with pytest.raises(UsageError, match="how many rows"):
            session.run(None)
        with pytest.raises(UsageError, match="the batch cannot be 0"):
            session.run(None, batch=0)
        bob, _, carol = people.guests(session)
        with pytest.raises(InputError, match="dave enters it"):
            bob.run({"x1": X1, "x2": X2})
        with pytest.raises(UsageError, match="no input that carol enters"):
            carol.submit(1, {})
        with pytest.raises(UsageError, match="entered the model"):
            people.alice.join(session.ticket)


def test_a_batch_is_split_alike_by_everyone(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BLOCK_ROWS", 2)
    x1, x2 = data(5, seed=3), data(5, seed=4)
    with people.session() as session:
        bob, dave, carol = people.guests(session)
        done = Together(
            alice=lambda: session.run(None, batch=5),
            bob=lambda: bob.run({"x1": x1}),
            dave=lambda: dave.run({"x2": x2}),
            carol=carol.run,  # who is not told the size, but by the parties
        ).wait()
        y, p = shared_answers(x1, x2)
        assert np.abs(done["carol"][0] - y).max() < TOLERANCE and np.abs(done["alice"][0] - p).max() < TOLERANCE
        assert session.last_run is not None and session.last_run.batch == 5


def test_who_is_not_named_is_refused(people: People) -> None:
    with people.session() as session:
        with pytest.raises(UsageError, match="no part for eve"):
            people.eve.join(session.ticket)
        ticket = Ticket.parse(session.ticket)
        eve = Participant(people.eve.parties, ticket.plan, ticket.terms)
        run = Together(alice=lambda: session.run(None, batch=1))
        bob, dave, carol = people.guests(session)
        bob.submit(1, {"x1": X1[:1]})
        for attempt in (eve.status, lambda: eve.receive(1), lambda: asks_for_masks(eve)):
            with pytest.raises(PolicyError, match="has no part"):
                attempt()
        dave.run({"x2": X2[:1]})
        assert (bob.receive(1), len(carol.receive(1))) == ([], 1)
        [p] = run.wait()["alice"]
        assert np.abs(p - shared_answers(X1[:1], X2[:1])[1]).max() < TOLERANCE


def asks_for_masks(who: Participant) -> None:
    """Of everything, as if it were theirs."""
    who.submitter.me = "bob"
    who.enter(1, 1, {given.wire: np.zeros((1, 3), np.int64) for given in who.plan.inputs})


def test_mistakes_of_a_guest_are_typed_and_end_nothing(people: People) -> None:
    with people.session() as session:
        bob, dave, carol = people.guests(session)
        run = Together(alice=lambda: session.run(None, batch=3))
        with pytest.raises(InputError, match="shape"):
            bob.submit(1, {"x1": X1[:, :2]})
        with pytest.raises(InputError, match="outside the plan's range"):
            bob.submit(1, {"x1": X1 + 100})
        with pytest.raises(InputError, match="has 3 rows, and the inputs given have 2"):
            bob.submit(1, {"x1": X1[:2]})
        with pytest.raises(InputError, match="has 3 rows"):
            bob.run({"x1": X1[:2]})
        with pytest.raises(UsageError, match="the number of a run cannot be 0"):
            bob.submit(0, {"x1": X1})
        bob.submit(1, {"x1": X1})
        for again in (bob, people.bob.join(session.ticket)):
            with pytest.raises(InputError, match="submitted before"):
                again.submit(1, {"x1": X1})
        dave.run({"x2": X2})
        assert bob.receive(1) == []
        assert np.abs(carol.receive(1)[0] - shared_answers(X1, X2)[0]).max() < TOLERANCE
        run.wait()


def test_a_run_that_is_never_prepared(people: People) -> None:
    with people.session() as session:
        bob = people.bob.join(session.ticket)
        started = time.monotonic()
        with pytest.raises(DeadlineError, match="run 1 was not prepared"):
            bob.run({"x1": X1})
        assert SUBMIT <= time.monotonic() - started < SUBMIT + 10


def test_a_guest_who_took_its_masks_and_lost_them(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process cannot have them again."""
    with people.session() as session:
        run = Together(alice=lambda: session.run(None, batch=3))
        lost = people.bob.join(session.ticket)
        with monkeypatch.context() as patched, pytest.raises(KeyError):
            patched.setattr(fp, "add", lambda *_: (_ for _ in ()).throw(KeyError("crash")))  # while it masks
            lost.submit(1, {"x1": X1})
        with pytest.raises(SessionError, match="were given to bob before"):
            people.bob.join(session.ticket).submit(1, {"x1": X1})
        session.abandon()
        assert isinstance(run.wait()["alice"], SessionError)


def test_nobody_but_the_recipient_can_unmask(people: People) -> None:
    with people.session() as session:
        bob, dave, carol = people.guests(session)
        Together(
            alice=lambda: session.run(None, batch=3), bob=lambda: bob.run({"x1": X1}), dave=lambda: dave.run({"x2": X2})
        ).wait()
        ticket = Ticket.parse(session.ticket)
        [y, p] = [out.wire for out in ticket.plan.outputs]
        for cluster, theirs in ((people.alice, {p}), (people.bob, set()), (people.dave, set()), (people.carol, {y})):
            who = Participant(cluster.parties, ticket.plan, ticket.terms)
            result = who.receive(1)
            assert set(result.outputs) == theirs
            assert {out.wire for header in result.headers for out in header.outputs} == theirs

            class Greedy(Receiver):
                def received(self, run: int) -> list[str]:
                    return [y, p]

            handed = HandedOver(cluster.parties, ticket.terms)
            greedy = Greedy(cluster.parties, ticket.plan, ticket.terms.session_id, cluster.config.name, handed)
            with pytest.raises((IntegrityError, PeerError)):
                greedy.receive(1)
        assert np.abs(carol.receive(1)[0] - shared_answers(X1, X2)[0]).max() < TOLERANCE


def test_an_owner_who_does_not_come_ends_the_run_everywhere(people: People) -> None:
    session = people.session()
    bob, _, carol = people.guests(session)
    started = time.monotonic()
    done = Together(alice=lambda: session.run(None, batch=3), bob=lambda: bob.run({"x1": X1}), carol=carol.run).wait()
    assert SUBMIT <= time.monotonic() - started < SUBMIT + 8
    for error in done.values():
        assert type(error) is PeerError and error.peer == "dave", error
        assert "dave did not submit in time: input 'x2' is missing from run 1" in str(error)
    with pytest.raises(SessionError, match="closed"):
        session.run(None, batch=3)


def test_a_recipient_who_does_not_come_is_named_and_the_answer_is_kept(people: People) -> None:
    session = people.session()
    bob, dave, _ = people.guests(session)
    done = Together(
        alice=lambda: session.run(None, batch=3), bob=lambda: bob.run({"x1": X1}), dave=lambda: dave.run({"x2": X2})
    ).wait()
    assert np.abs(done["alice"][0] - shared_answers(X1, X2)[1]).max() < TOLERANCE
    with pytest.raises(PeerError, match="carol did not take the outputs") as caught:
        session.close()
    assert caught.value.peer == "carol"
    session.close()
    with pytest.raises(SessionError):
        people.carol.join(session.ticket).run()


def test_leaving_by_an_error_waits_for_nobody(people: People) -> None:
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError), people.session() as session:
        bob, dave, _ = people.guests(session)
        Together(
            alice=lambda: session.run(None, batch=1),
            bob=lambda: bob.run({"x1": X1[:1]}),
            dave=lambda: dave.run({"x2": X2[:1]}),
        ).wait()
        raise ZeroDivisionError
    assert time.monotonic() - started < SUBMIT


def test_a_session_that_is_dropped_lives_until_others_have_their_outputs(people: People) -> None:
    def coordinate() -> Guest:
        session = people.session()
        bob, dave, carol = people.guests(session)
        Together(
            alice=lambda: session.run(None, batch=3), bob=lambda: bob.run({"x1": X1}), dave=lambda: dave.run({"x2": X2})
        ).wait()
        dropped.append(weakref.ref(session))
        return carol

    dropped: list[weakref.ref[Session]] = []
    carol = coordinate()
    gc.collect()
    assert dropped[0]() is None
    assert np.abs(carol.run()[0] - shared_answers(X1, X2)[0]).max() < TOLERANCE


# ----------------------------------------------------------------------------- tickets


def test_a_ticket_that_was_tampered_with(people: People) -> None:
    with people.session() as session:
        ticket = Ticket.parse(session.ticket)
        terms = ticket.terms
        honest = session.ticket
        assert ticket.text == honest and honest.isascii() and "\n" not in honest
        for old, new in (
            (terms.nonces[0].hex(), "00" * 32),
            ('"provider":"provider"', '"provider":"eve"'),
            ("party-0", "party-9"),
            (terms.plan_digest.hex(), "00" * 32),
            ('"carol"', '"bob"'),
            ('"format"', '"formal"'),
            ("}", "} "),
            ('"nonces":[', '"nonces":[null,'),
        ):
            assert old in honest
            with pytest.raises(PlanError):
                people.bob.join(honest.replace(old, new, 1))
        for text in ("", "{}", "[]", "[" * 100_000, "null", honest[:-1], honest * 2):
            with pytest.raises(PlanError, match="not a ticket"):
                people.bob.join(text)
        # Whole again, with everything recomputed: now it is the parties that know no such session.
        forged = Ticket(ticket.plan, Terms(terms.plan_digest, terms.provider, terms.parties, terms.nonces[::-1]))
        with pytest.raises(SessionError, match="does not know"):
            people.bob.join(forged.text).run({"x1": X1})
        other = assign("coordinator", OWNERS, {"y": "bob", "p": "bob"})
        plan = compile_model(shared_model_of(people), RANGES, other).plan
        forged = Ticket(plan, Terms(plan.digest, terms.provider, terms.parties, terms.nonces))
        with pytest.raises(SessionError, match="does not know"):
            people.bob.join(forged.text).run({"x1": X1})


def shared_model_of(people: People) -> Path:
    return people.alice.config.tls.ca.parents[2] / "shared.onnx"


def test_one_letter_of_a_ticket(people: People) -> None:
    honest = shared_ticket(people.compiled.plan)

    @examples(200)
    @given(place=st.integers(0, len(honest) - 1), letter=st.characters(max_codepoint=126))
    def attempt(place: int, letter: str) -> None:
        text = honest[:place] + letter + honest[place + 1 :]
        try:
            assert Ticket.parse(text).text == honest == text.strip()
        except PlanError as error:
            assert text != honest and error.remedy

    attempt()


def shared_ticket(plan: Plan) -> str:
    return Ticket(plan, Terms(plan.digest, "provider", ("a", "b"), (b"1" * 32, b"2" * 32))).text


def test_a_ticket_for_other_parties_or_another_plan(people: People) -> None:
    with people.session() as session:
        ticket = Ticket.parse(session.ticket)
        terms = ticket.terms
        for changed in (
            Terms(terms.plan_digest, terms.provider, terms.parties[::-1], terms.nonces),
            Terms(terms.plan_digest, "another", terms.parties, terms.nonces),
        ):
            with pytest.raises(PeerError, match="other parties") as caught:
                people.bob.join(Ticket(ticket.plan, changed).text)
            assert caught.value.code == "handshake"
        with pytest.raises(PlanError, match="another plan than the one that you accept"):
            people.bob.join(session.ticket, plan="00" * 32)
        assert people.bob.join(session.ticket, plan=session.plan.digest.hex().upper()).inputs == ("x1",)


def test_roles_that_make_no_sense(people: People, tmp_path: Path) -> None:
    model = shared_model(tmp_path / "shared.onnx")
    for owners, recipients, error, match in (
        ({"x9": "bob"}, None, PlanError, "no input 'x9'"),
        (None, {"q": "bob"}, PlanError, "no output 'q'"),
        ({"x1": "any"}, None, UsageError, "certificate name"),
        (None, (), UsageError, "no recipient"),
        ({"x1": "party-0"}, None, UsageError, "is a process of the cluster"),
        (None, "provider", UsageError, "is a process of the cluster"),
        ({"x1": "mallory"}, None, PolicyError, "does not allow the input owner 'mallory'"),
        (None, "mallory", PolicyError, "does not allow the output recipient 'mallory'"),
    ):
        with pytest.raises(error, match=match) as caught:
            people.alice.session(model, RANGES, owners, recipients)
        assert caught.value.remedy
    assert assign("a", None, ("c", "b")) == assign("a", None, ["b", "c", "b"])


# ------------------------------------------------------------------------------ parties


def test_a_session_outlives_the_submit_deadline_of_its_first_runs(tmp_path: Path) -> None:
    """Runs that are over miss no input, whatever of them was given back."""
    with InProcess(tmp_path, 2) as cluster:
        script = cluster.script().started()
        script.finish()
        script.prepare(2)
        script.enter(2, script.integers(data(1)), OWNER)
        script.finish(2)
        much_later = time.monotonic() + 2 * cluster.deadlines.submit
        for index in range(2):
            assert cluster.of(index, script.id).overdue(much_later) is None


def test_the_status_of_a_run(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        script = cluster.script().open().enter_weights()
        owner = Participant(cluster.client(OWNER), script.plan, script.terms)
        assert [(s.latest, s.batch) for s in owner.status()] == [(0, 0)] * 2
        script.prepare(1, batch=2)
        for status in owner.status(1):
            seen: list[Any] = [status.latest, status.batch, list(status.entering), list(status.unheard)]
            assert seen == [1, 2, ["data-owner"], ["data-owner", "recipient"]]
        script.enter(1, script.integers(data(2)), OWNER, 2)
        script.finish()
        assert [list(s.unheard) for s in owner.status()] == [["data-owner"]] * 2
        assert [s.batch for s in owner.status(2)] == [0, 0]
        with pytest.raises(MpcError):
            Participant(cluster.client("stranger"), script.plan, script.terms).status()


def test_a_recipient_takes_the_batch_from_the_provider_and_from_nobody_else(tmp_path: Path) -> None:
    """A party that hands over another run's manifest, of another batch, is named."""
    manifests = []

    class Replaying(PartyService):
        def Result(self, request: party_pb2.ResultRequest, context: Any) -> Iterator[party_pb2.ResultPart]:
            for part in super().Result(request, context):
                if part.WhichOneof("part") == "header":
                    manifests.append(part.header.manifest)
                    part.header.manifest.CopyFrom(manifests[0])
                yield part

    with InProcess(tmp_path, 2, services={1: Replaying}) as cluster:
        script = cluster.script().started(batch=2)
        carol = Participant(cluster.client(RECIPIENT), script.plan, script.terms)
        assert carol.receive(1).batch == 2
        script.prepare(2, batch=3)
        script.enter(2, script.integers(data(3)), OWNER, 3)
        with pytest.raises(IntegrityError, match="false manifest") as caught:
            carol.receive(2)
        assert caught.value.peer == "party-1"
