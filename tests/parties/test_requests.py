"""The waiting queue: what no rule covers waits, is shown alike at every party, and runs once words have been said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import InputError, IntegrityError, PolicyError, SessionError, UsageError, WaitingError
from mpc.plan.ends import Missing
from mpc.plan.plan import Plan
from mpc.plan.program import Told
from parties.agreed.bindings import Binding
from parties.agreed.keeps import Keep
from parties.agreed.requests import Request, make_request, request_id
from parties.agreed.terms import Terms
from parties.client.consent import granting, words
from parties.client.consent.requests import Requested, choose, commands, decide, list_requests, plan_of
from parties.client.datasets import Datasets
from parties.client.running.coordinated import CoordinatedSession
from parties.client.session import Session
from parties.config.models import PolicyConfig
from parties.party.consent import audit, requests
from parties.pb import consent_pb2, party_pb2
from parties.wire import pieces
from tests.support.asking import AGES, ANALYST, HOSPITAL, ROWS, Kept, above, noised_sum
from tests.support.grants import budget, dp
from tests.support.objects import AGE, described, put
from tests.support.parties import EVERYONE, PATIENCE, RECIPIENT, InProcess, data, eventually, tiny_answer
from tests.support.plans import with_parts
from tests.support.programs import PROGRAM, STEPS, learning

STRICT = PolicyConfig(data_owners=("any",), recipients=(ANALYST,), askers=(ANALYST, "coordinator"))
"""Nothing runs that its operator has not approved."""
BOTH = {0: STRICT, 1: STRICT}


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with InProcess(tmp_path, 2, policies=BOTH) as cluster:
        yield Kept(cluster)


def operator(cluster: InProcess, index: int) -> Any:
    """One party as its operator calls it."""
    name = cluster.names[index]
    return next(client for client in cluster.client_of_party(name) if client.name == name)


def listed(cluster: InProcess, index: int) -> list[Requested]:
    return list_requests([operator(cluster, index)], 30)


def approve(cluster: InProcess, request: str, uses: int = 1, seconds: int = 3600, only: int | None = None) -> None:
    for index in range(len(cluster.names)) if only is None else [only]:
        decide(operator(cluster, index), request, uses, seconds, "", 30)


def waits(kept: Kept, plan: Any, bindings: tuple[Binding, ...] | None = None) -> str:
    """Ask, and be told to wait; the request's id."""
    with pytest.raises(WaitingError) as caught:
        kept.open(plan, bindings)
    assert caught.value.exit_code == 4 and caught.value.request is not None
    return caught.value.request


# --- what is shown ------------------------------------------------------------------------------


def test_every_party_and_owner_is_shown_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by each of three parties by itself; the digest of what is shown is the id that operators compare."""
    with InProcess(tmp_path, 3, policies=dict.fromkeys(range(3), STRICT)) as cluster:
        kept = Kept(cluster)
        request = waits(kept, noised_sum())
        records, shown = set(), set()
        for index in range(3):
            asked = consent_pb2.RequestsRequest()
            for caller in (cluster.names[index], HOSPITAL, ANALYST):
                [entry] = cluster.consent(index, caller).Requests(asked)
                records.add(entry.record)
            [found] = listed(cluster, index)
            shown.add(found.request.lines)
        [record], [lines] = records, shown
        assert request == request_id(record) == Request.parse(record).id
        for size in (pieces.FRAME_BYTES, 100):  # a long one comes in several
            monkeypatch.setattr(pieces, "FRAME_BYTES", size)
            assert plan_of([operator(cluster, 2)], Request.parse(record), 30) == noised_sum().canonical
        text = "\n".join(lines)
        for said in (
            request,
            noised_sum().digest.hex(),
            "asked by  analyst",
            "party-0, party-1, party-2; provider provider",
            "hospital/patients, version 1",
            "age; rows 0 to 4 of 5",
            "learns    analyst: output 'z'",
            "epsilon 0.5, delta ",
            kept.manifest.id.hex()[:16],
        ):
            assert said in text, said


def test_whatever_tells_sessions_apart_is_another_request(kept: Kept) -> None:
    """All that terms have, but for the nonces, and who asks: an approval is of nothing else."""
    plan = noised_sum()
    terms = Terms(plan.digest, "provider", ("a", "b"), (b"1" * 32, b"2" * 32), kept.binding())
    manifests = {kept.manifest.id: kept.manifest}

    def made(terms: Terms = terms, **changes: Any) -> str:
        said: dict[str, Any] = {
            "cluster": "c" * 32, "coordinator": ANALYST, "key": b"k" * 32, "manifests": manifests, "proves": (),
        }  # fmt: skip
        return make_request(changes.pop("plan", plan), terms, **{**said, **changes}).id

    same = made()
    assert made(replace(terms, nonces=(b"3" * 32, b"4" * 32))) == same
    other = {
        "plan_digest": b"p" * 32,
        "provider": "other",
        "parties": ("b", "a"),
        "bindings": kept.binding(rows=4),
        "keeps": (Keep("analyst/scores", ("z",), 1, None, 5),),
    }
    assert {each.name for each in fields(Terms)} == {*other, "nonces"}
    changed = {made(replace(terms, **{name: value})) for name, value in other.items()}
    changed |= {made(terms, cluster="d" * 32), made(coordinator="bob"), made(key=b"j" * 32)}
    changed |= {made(replace(terms, bindings=kept.binding(first=1))), made(plan=above(), terms=terms)}
    for keep in (
        Keep("analyst/others", ("z",), 1, None, 5),
        Keep("analyst/scores", ("z", "y"), 1, None, 5),
        Keep("analyst/scores", ("z",), 1, None, 5, visible=("bob",)),
    ):
        changed.add(made(replace(terms, keeps=(keep,))))
    again = Keep("analyst/scores", ("z",), 2, "ab" * 32, 9, 99)  # the next version, on another day
    assert made(replace(terms, keeps=(again,))) in changed
    assert len(changed) == 13 and same not in changed


def test_marks_of_missing_numbers_are_shown_as_their_inputs_and_not_as_weights(kept: Kept) -> None:
    plan = noised_sum()
    [given] = plan.inputs
    marked = given.model_copy(update={"missing": Missing(columns=(0,), wire="marks")})
    bindings = (*kept.binding(), replace(kept.binding()[0], wire="marks"))
    terms = Terms(plan.digest, "provider", ("a", "b"), (b"1" * 32, b"2" * 32), bindings)
    manifests = {kept.manifest.id: kept.manifest}
    made = make_request(with_parts(plan, inputs=[marked]), terms, "c" * 32, ANALYST, b"k" * 32, manifests, ())
    assert [each.input for each in made.reads] == [given.name, given.name]
    assert not any("a weight" in line for line in made.lines)


def test_states_and_the_program_are_in_the_record_in_words(kept: Kept) -> None:
    """What runs hand on, what it begins with, and which output is told when: another program is another request."""

    def made(plan: Plan) -> Request:
        terms = Terms(plan.digest, "provider", ("a", "b"), (b"1" * 32, b"2" * 32))
        return make_request(plan, terms, "c" * 32, ANALYST, b"k" * 32, {}, ())

    request = made(learning())
    assert "hands on  state 'w' (3, 1) to the next run; it begins with zeros" in request.lines
    assert "          output 'w_final' is told in run 13 alone" in request.lines
    [said] = [line for line in request.lines if line.startswith("program")]
    assert said.startswith("program   12 runs update it, each reads 4 rows, in an order that everybody knows")
    assert Request.parse(request.content) == request
    sooner = PROGRAM.model_copy(
        update={"told": (Told(output="w_final", first=STEPS + 1), Told(output="loss", first=1))}
    )
    assert made(learning().with_program(sooner)).program != request.program
    plain = made(noised_sum())
    assert not {"states", "program"} & plain.model_dump(mode="json").keys()  # their bytes are as they were
    assert Request.parse(plain.content) == plain


def test_a_record_that_is_none_is_refused(kept: Kept) -> None:
    waits(kept, noised_sum())
    with kept.cluster.ledgers[1].writing() as database:
        database.execute("UPDATE consent_requests SET record = CAST(replace(CAST(record AS TEXT), '{', '{ ') AS BLOB)")
    with pytest.raises(IntegrityError, match="party-1 shows a request that is none"):
        Datasets(kept.cluster.client(HOSPITAL)).requests()
    with pytest.raises(InputError):
        Request.parse(b"{}")


def test_parties_that_describe_it_differently_are_named(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = [node.consent.operator for node in kept.cluster.nodes]
    real = operators[1].request
    lying = lambda asked: real(asked).model_copy(update={"coordinator": "nobody"})  # noqa: E731
    monkeypatch.setattr(operators[1], "request", lying)
    with pytest.raises(IntegrityError, match="do not describe what was asked alike"):
        kept.open(noised_sum())


# --- waiting, approvals, denials ----------------------------------------------------------------


def test_what_no_rule_covers_runs_once_all_have_approved_it(kept: Kept) -> None:
    kept.allow(2, 2)
    request = waits(kept, noised_sum())
    assert waits(kept, noised_sum()) == request  # asked again, it is one
    assert [len(listed(kept.cluster, index)) for index in range(2)] == [1, 1]
    approve(kept.cluster, request, only=0)
    with pytest.raises(WaitingError, match=r"waits for the word of the operator of party-1;") as caught:
        kept.open(noised_sum())
    assert f"mpc approve {request[:16]} --party config.toml;" in (caught.value.remedy or "")
    approve(kept.cluster, request, only=1)
    assert kept.ask(noised_sum()).size == 1 and kept.spent() == 500_000_000
    assert waits(kept, noised_sum()) == request  # it was of one run
    assert [each.standings[0].text for each in listed(kept.cluster, 0)] == ["waits for its operator"]


def test_an_approval_counts_runs_not_sessions(kept: Kept) -> None:
    kept.allow(4, 4)
    request = waits(kept, noised_sum())
    approve(kept.cluster, request, uses=2)
    session = kept.open(noised_sum())
    other = kept.open(noised_sum())  # which may be opened while a run is left
    session.run({}, ROWS, lambda: 0.0)
    session.run({}, ROWS, lambda: 0.0)
    assert [each.standings[0].text for each in listed(kept.cluster, 0)] == ["approved, 2 of 2 used"]
    with pytest.raises(PolicyError, match="does not cover this any more, or its operator's approval is used up"):
        other.run({}, ROWS, lambda: 0.0)
    assert kept.revealed() == 2 and kept.spent() == 1_000_000_000
    assert waits(kept, noised_sum()) == request


def test_an_approval_is_of_exactly_that(kept: Kept) -> None:
    kept.allow(9, 9)
    approve(kept.cluster, waits(kept, noised_sum()))
    other = kept.put("others")
    kept.say(budget(dataset="hospital/others"))
    kept.grant(question=dp(1), dataset="hospital/others")
    newer = kept.put()
    for bindings in (kept.binding(rows=4), kept.binding(first=1, rows=4), kept.binding(other), kept.binding(newer)):
        waits(kept, noised_sum(), bindings)
    waits(kept, noised_sum(epsilon=Fraction(1, 4)))
    kept.cluster.renew(ANALYST)  # another key of that name is another asker
    waits(kept, noised_sum())
    assert kept.revealed() == 0


def test_what_was_approved_for_one_is_opened_for_nothing_else(kept: Kept) -> None:
    """The nonce stands for a proposal; what is opened is judged by what it reads itself."""
    kept.allow(9, 9)
    approve(kept.cluster, waits(kept, noised_sum()))
    plan, other = noised_sum(), kept.put()
    request = party_pb2.ProposeRequest(plan=plan.canonical, bindings=_messages(kept.binding()))
    nonces = [kept.cluster.party(index, ANALYST).Propose(request).nonce for index in range(2)]
    assert all(len(nonce) == 32 for nonce in nonces)
    opening = party_pb2.OpenRequest(
        plan_digest=plan.digest, parties=kept.cluster.names, nonces=nonces, bindings=_messages(kept.binding(other))
    )
    with pytest.raises(PolicyError, match="has not approved request"):
        kept.cluster.party(0, ANALYST).Open(opening)


def _messages(bindings: tuple[Binding, ...]) -> list[party_pb2.Binding]:
    return [
        party_pb2.Binding(wire=b.wire, object=b.object, columns=b.columns, first=b.first, rows=b.rows) for b in bindings
    ]


def test_an_approval_never_stands_for_an_owner(kept: Kept) -> None:
    request = waits(kept, noised_sum())
    approve(kept.cluster, request, uses=5)
    with pytest.raises(WaitingError, match="hospital has granted analyst nothing of it") as caught:
        kept.open(noised_sum())
    assert "mpc grant add hospital/patients" in (caught.value.remedy or "")
    assert caught.value.request == request
    kept.allow()
    kept.ask(noised_sum())


def test_nor_does_a_grant_stand_for_the_operator(kept: Kept) -> None:
    kept.allow(9, 9)
    waits(kept, noised_sum())
    assert kept.revealed() == 0


def test_an_operators_no_is_told_with_its_reason_and_may_be_taken_back(kept: Kept) -> None:
    kept.allow()
    request = waits(kept, noised_sum())
    approve(kept.cluster, request)
    decide(operator(kept.cluster, 1), request, 0, 0, "ask the board first", 30)
    with pytest.raises(PolicyError, match="the operator of party-1 denied request .*: ask the board first") as caught:
        kept.open(noised_sum())
    assert not isinstance(caught.value, WaitingError) and caught.value.exit_code == 4
    with pytest.raises(PolicyError, match="denied request"):
        words.await_words(kept.cluster.client(ANALYST), noised_sum(), kept.binding(), (), time.monotonic() + 600)
    approve(kept.cluster, request)
    kept.ask(noised_sum())


def test_an_approval_that_was_taken_back_meanwhile_tells_nothing(kept: Kept) -> None:
    kept.allow()
    request = waits(kept, noised_sum())
    approve(kept.cluster, request)
    session = kept.open(noised_sum())
    decide(operator(kept.cluster, 0), request, 0, 0, "", 30)
    with pytest.raises(PolicyError, match="does not cover this any more"):
        session.run({}, ROWS, lambda: 0.0)
    assert kept.revealed(0) == 0 and kept.spent(0) == 0


def test_approvals_end(kept: Kept) -> None:
    kept.allow()
    request = waits(kept, noised_sum())
    approve(kept.cluster, request, seconds=1000)
    for node in kept.cluster.nodes:
        node.vault.times.clock = lambda: time.time() + 1001
    assert waits(kept, noised_sum()) == request


def test_a_plan_that_reads_nothing_at_rest_waits_too(tmp_path: Path) -> None:
    """And whoever has a part in what was approved is let in for it."""
    policy = PolicyConfig(askers=("coordinator",))
    with InProcess(tmp_path, 2, policies={0: policy, 1: policy}) as cluster:
        client = cluster.client("coordinator")
        compiled = cluster.compiled(Roles("coordinator", "coordinator", (RECIPIENT,)))
        with pytest.raises(WaitingError) as caught:
            CoordinatedSession(client, compiled.plan, compiled.weights)
        status = party_pb2.StatusRequest(session_id=bytes(32))
        with pytest.raises(PolicyError, match="no part for 'recipient'"):
            cluster.party(0, RECIPIENT).Status(status)
        [found] = list_requests([operator(cluster, 0)], 30)
        assert found.request.reads == found.request.proves == () and found.request.weighs[0].owner == "coordinator"
        approve(cluster, caught.value.request or "")
        session = CoordinatedSession(client, compiled.plan, compiled.weights)
        with pytest.raises(SessionError):  # let in, it is told of no session but its own
            cluster.party(0, RECIPIENT).Status(status)
        assert cluster.party(0, RECIPIENT).Status(party_pb2.StatusRequest(session_id=session.id)).latest == 0
        session.close()


def test_an_asker_may_wait_and_the_same_call_runs(kept: Kept) -> None:
    kept.allow()
    client, answers = kept.cluster.client(ANALYST), []

    def ask() -> None:
        session = CoordinatedSession(client, noised_sum(), {}, bindings=kept.binding(), wait=600)
        answers.append(session.run({}, ROWS, lambda: 0.0))
        session.close()

    thread = threading.Thread(target=ask)
    thread.start()
    assert eventually(lambda: all(listed(kept.cluster, index) for index in range(2)))
    approve(kept.cluster, listed(kept.cluster, 0)[0].id)
    thread.join(PATIENCE)
    assert len(answers) == 1
    with pytest.raises(WaitingError):
        CoordinatedSession(client, noised_sum(), {}, bindings=kept.binding(), wait=0.5)


def test_waiting_looks_less_and_less_often(kept: Kept) -> None:
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    waits(kept, noised_sum())
    done = words.await_words(
        kept.cluster.client(ANALYST), noised_sum(), kept.binding(), (), 20.0, lambda: now[0], sleep
    )
    assert not done and sum(slept) == 20.0 and slept[:3] == [0.25, 0.5, 1.0] and max(slept) == 5.0


# --- who may ----------------------------------------------------------------------------------


def test_who_is_no_asker_is_refused_and_leaves_nothing(kept: Kept) -> None:
    for who in ("stranger", "recipient"):
        with pytest.raises(PolicyError) as caught:
            kept.open(noised_sum(who), coordinator=who)
        assert not isinstance(caught.value, WaitingError)
    assert listed(kept.cluster, 0) == []


def test_a_process_of_the_cluster_is_approved_by_nobody(kept: Kept) -> None:
    with pytest.raises(PolicyError, match="is a process of the cluster"):
        kept.open(noised_sum("party-1"))
    assert listed(kept.cluster, 0) == []


def test_what_an_asker_may_not_see_is_not_there(kept: Kept) -> None:
    """Neither is it written down: an owner is told of nobody's guesses."""
    hidden = kept.put("hidden", visible=())
    told = set()
    for bindings in (kept.binding(hidden), kept.binding(object=b"7" * 32)):
        with pytest.raises(SessionError) as caught:
            kept.open(noised_sum(), bindings)
        told.add(caught.value.what)
        [answer] = granting.ask(kept.cluster.client(ANALYST), noised_sum(), bindings)[:1]
        told.add(answer.why)
    assert len({text.partition(": ")[2] or text for text in told}) == 1
    assert listed(kept.cluster, 0) == []
    waits(kept, noised_sum())  # of what it may see, that is said


@pytest.mark.parametrize("changes", [{"rows": 1000}, {"columns": ("weight",)}, {"first": 3}])
def test_nor_is_anything_told_of_it_by_what_does_not_fit(kept: Kept, changes: dict[str, Any]) -> None:
    """Who knows an object's id, say of a time when it was visible, learns neither its name nor its rows by it."""
    hidden = kept.put("hidden", visible=())
    told = set()
    for bindings in (kept.binding(hidden, **changes), kept.binding(object=b"7" * 32)):
        with pytest.raises(SessionError) as caught:
            kept.open(noised_sum(), bindings)
        told.add(str(caught.value))
    assert len(told) == 1 and "hidden" not in told.pop()
    with pytest.raises(InputError, match="hospital/patients"):  # of what it may see that is said, and nothing kept
        kept.open(noised_sum(), kept.binding(**changes))
    assert listed(kept.cluster, 0) == []


def test_only_the_partys_own_operator_decides(kept: Kept) -> None:
    kept.allow()
    request = waits(kept, noised_sum())
    said = consent_pb2.DecideRequest(id=request, approve=True, uses=1, seconds=60)
    for who in (ANALYST, HOSPITAL, "party-1", "provider"):
        with pytest.raises(PolicyError):
            kept.cluster.consent(0, who).Decide(said)
    with pytest.raises(PolicyError):
        kept.cluster.consent(0, "party-1").Requests(consent_pb2.RequestsRequest())
    for wrong in ({"uses": 0}, {"seconds": 0}, {"seconds": 1 << 40}, {"uses": 1 << 40}, {"id": "ab" * 32}):
        changed = consent_pb2.DecideRequest(**{"id": request, "approve": True, "uses": 1, "seconds": 60, **wrong})
        with pytest.raises((InputError, UsageError)):
            kept.cluster.consent(0, "party-0").Decide(changed)
    waits(kept, noised_sum())


def test_requests_are_shown_to_those_they_concern(kept: Kept) -> None:
    other = put(kept.cluster.client("clinic"), described("patients", ROWS, (AGE,)), {"age": AGES.reshape(ROWS)})
    first = waits(kept, noised_sum())
    second = waits(kept, noised_sum(owner="clinic"), kept.binding(other))
    shown = {who: {each.id for each in Datasets(kept.cluster.client(who)).requests()} for who in (HOSPITAL, "clinic")}
    assert shown == {HOSPITAL: {first}, "clinic": {second}}
    assert {each.id for each in Datasets(kept.cluster.client(ANALYST)).requests()} == {first, second}
    for name in (HOSPITAL, ANALYST):  # a certificate of that name with another key is somebody else
        kept.cluster.renew(name)
    for name in (HOSPITAL, ANALYST):
        asked = consent_pb2.RequestsRequest()
        try:
            assert kept.cluster.consent(0, name).Requests(asked) == []
        except PolicyError:
            assert name == HOSPITAL  # who has no part any more
    with pytest.raises(UsageError):
        choose([], first)


def test_an_owner_is_shown_what_is_asked_and_the_command_that_allows_it(tmp_path: Path) -> None:
    """Where the operators' policies cover it: then it waits for the owner alone."""
    with InProcess(tmp_path, 2) as cluster:
        kept = Kept(cluster)
        kept.say(budget(2))
        with pytest.raises(WaitingError, match="nothing of it") as caught:
            kept.open(noised_sum())
        [found] = Datasets(cluster.client(HOSPITAL)).requests()
        assert (
            found.id == caught.value.request and [each.text for each in found.standings] == ["waits for the owner"] * 2
        )
        assert found.grants(HOSPITAL) == [
            "mpc grant add hospital/patients --coordinator analyst --recipient analyst --epsilon 0.5 "
            "--epsilon-each 0.5 --uses 1"
        ]
        used_up = [replace(each, state="approved", uses=1, used=1) for each in found.standings]
        assert replace(found, standings=tuple(used_up)).grants(HOSPITAL) == []
        kept.grant(question=dp(Fraction(1, 2)), uses=1)
        kept.ask(noised_sum())
        assert not Datasets(cluster.client(HOSPITAL)).requests()  # or its owner would be asked to pay twice
        with pytest.raises(WaitingError):
            kept.open(noised_sum())
        assert [each.id for each in Datasets(cluster.client(HOSPITAL)).requests()] == [found.id]
        with pytest.raises(WaitingError):
            kept.open(above())
        exact = next(each for each in Datasets(cluster.client(HOSPITAL)).requests() if each.id != found.id)
        [command] = exact.grants(HOSPITAL)
        assert "--plan request-" in command and "--data x=hospital/patients:age --uses 1" in command
        assert "nothing is proved" in "\n".join(exact.lines)
        with pytest.raises(WaitingError):
            kept.open(above(), kept.binding(rows=4))
        part = next(each for each in Datasets(cluster.client(HOSPITAL)).requests() if "0 to 3 of 5" in str(each.lines))
        assert part.grants(HOSPITAL) == []  # no command grants some of the rows


# --- bounds -----------------------------------------------------------------------------------


def test_nothing_that_a_client_floods_fills_a_ledger(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MOST_OF_ONE", 4)
    for epsilon in range(1, 5):
        waits(kept, noised_sum(epsilon=Fraction(epsilon, 8)))
    with pytest.raises(SessionError, match="4 requests of analyst wait here, as many as one client's may"):
        kept.open(noised_sum(epsilon=Fraction(5, 8)))
    before = [(_rows(kept, index), _audited(kept, index)) for index in range(2)]
    assert before == [(4, 4)] * 2
    for _ in range(5):
        waits(kept, noised_sum(epsilon=Fraction(1, 8)))
        with pytest.raises(SessionError):
            kept.open(noised_sum(epsilon=Fraction(5, 8)))
    assert [(_rows(kept, index), _audited(kept, index)) for index in range(2)] == before
    decide(operator(kept.cluster, 0), listed(kept.cluster, 0)[0].id, 0, 0, "no", 30)
    with pytest.raises(SessionError):  # a denial makes no room: else asking again and again would
        kept.open(noised_sum(epsilon=Fraction(5, 8)))
    for node in kept.cluster.nodes:
        node.vault.times.clock = lambda: time.time() + requests.KEPT + 60
        node.consent.operator.tick()
    assert [_rows(kept, index) for index in range(2)] == [0, 0]
    waits(kept, noised_sum(epsilon=Fraction(5, 8)))


def test_an_owner_is_shown_the_budget_that_is_needed_besides(tmp_path: Path) -> None:
    """None is set, or too little of it is left; a budget that several datasets share stays shared."""
    grant = (
        "mpc grant add hospital/patients --coordinator analyst --recipient analyst --epsilon 0.5 --epsilon-each 0.5 "
        "--uses 1"
    )
    with InProcess(tmp_path, 2) as cluster:
        kept = Kept(cluster)
        owner = cluster.client(HOSPITAL)

        def shown() -> list[str]:
            with pytest.raises(WaitingError):
                kept.open(noised_sum())
            [found] = Datasets(owner).requests()
            return commands(owner, found, HOSPITAL)

        set_one = "mpc budget set hospital/patients --epsilon"
        assert shown() == [grant, f"{set_one} 0.5"]
        kept.say(budget(Fraction(3, 4), delta=Fraction(1, 10**6)))
        assert shown() == [grant]
        kept.grant(question=dp(Fraction(1, 2)), uses=1)
        kept.ask(noised_sum())
        assert shown() == [grant, f"{set_one} 1"]
        put(owner, described("visits", ROWS, (AGE,)), {"age": AGES.reshape(ROWS)})
        kept.say(budget(Fraction(1, 4), 2, group=("hospital/visits",)))
        assert shown() == [grant, f"{set_one} 1 --with hospital/visits --delta 0.0009765625"]
        cluster.crash(1)
        [found] = list_requests(owner.clients, 30, silent=[])
        assert commands(owner, found, HOSPITAL) == [grant]


@pytest.mark.parametrize("name", ["MOST", "MOST_BYTES", "MOST_BYTES_OF_ONE"])
def test_all_together_are_bounded_too(kept: Kept, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    waits(kept, noised_sum())
    with kept.cluster.ledgers[0].reading() as database:
        [size] = database.execute("SELECT length(record) + length(plan) FROM consent_requests").fetchone()
    assert 1000 < size < 10_000
    monkeypatch.setattr(requests, name, 1 if name == "MOST" else size + 100)
    with pytest.raises(SessionError, match="as many"):
        kept.open(noised_sum(epsilon=Fraction(1, 8)))


def test_a_full_queue_hides_no_owners_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MOST_OF_ONE", 0)
    with InProcess(tmp_path, 2) as cluster, pytest.raises(PolicyError, match="nothing of it"):
        Kept(cluster).open(noised_sum())


def _rows(kept: Kept, index: int) -> int:
    with kept.cluster.ledgers[index].reading() as database:
        return int(database.execute("SELECT count(*) FROM consent_requests").fetchone()[0])


def _audited(kept: Kept, index: int) -> int:
    with kept.cluster.ledgers[index].reading() as database:
        return sum(b'"kind":"request"' in each.row for each in audit.entries(database, 0, None))


def test_requests_and_decisions_are_in_the_audit_chain(kept: Kept) -> None:
    kept.allow()
    request = waits(kept, noised_sum())
    approve(kept.cluster, request)
    kept.ask(noised_sum())
    decide(operator(kept.cluster, 0), request, 0, 0, "enough", 30)
    with kept.cluster.ledgers[0].reading() as database:
        rows = [json.loads(each.row) for each in audit.entries(database, 0, None)]
        mine = [json.loads(each.row)["kind"] for each in audit.entries(database, 0, HOSPITAL) if each.row]
    told = [(row["kind"], row.get("decision")) for row in rows if row.get("request") == request]
    assert told == [("request", None), ("decision", "approved"), ("reveal", None), ("decision", "denied")]
    assert mine.count("request") == 1 and mine.count("decision") == 2
    assert "allow" not in {row["kind"] for row in rows}, "what costs a use or a budget is counted before it is told"


def test_approvals_and_what_they_were_used_for_outlive_a_restart(kept: Kept) -> None:
    kept.allow(4, 4)
    request = waits(kept, noised_sum())
    approve(kept.cluster, request, uses=2)
    kept.ask(noised_sum())
    for index in range(2):
        kept.cluster.crash(index)
        kept.cluster.revive(index)
    kept.ask(noised_sum())
    assert waits(kept, noised_sum()) == request


def test_a_dry_run_says_whose_words_are_missing_and_writes_nothing(kept: Kept) -> None:
    client = kept.cluster.client(ANALYST)
    found = granting.ask(client, noised_sum(), kept.binding())
    assert {(each.whose, each.operator) for each in found} == {
        (HOSPITAL, False), ("the operator of party-0", True), ("the operator of party-1", True),
    }  # fmt: skip
    assert listed(kept.cluster, 0) == []
    kept.allow()
    approve(kept.cluster, waits(kept, noised_sum()), only=0)
    found = granting.ask(client, noised_sum(), kept.binding())
    assert [(each.party, each.allowed) for each in found if each.operator] == [("party-1", False)]
    assert [each.allowed for each in found if not each.operator] == [True, True]


def test_a_policy_that_covers_it_uses_up_no_approval(kept: Kept) -> None:
    kept.allow(2, 2)
    request = waits(kept, noised_sum())
    approve(kept.cluster, request)
    for index in range(2):
        kept.cluster.crash(index)
        kept.cluster.revive(index, EVERYONE)
    kept.ask(noised_sum())
    assert [each.standings[0].used for each in listed(kept.cluster, 0)] == [0]


def test_the_tiny_model_is_computed_under_an_approval(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, policies=BOTH) as cluster:
        client, compiled = cluster.client("coordinator"), cluster.compiled()
        with pytest.raises(WaitingError) as caught:
            CoordinatedSession(client, compiled.plan, compiled.weights)
        approve(cluster, caught.value.request or "")
        with Session(client, compiled) as session:
            x = data(3)
            [y] = session.run(None, {"x": x})
        assert np.abs(y - tiny_answer(x)).max() < 1e-3
