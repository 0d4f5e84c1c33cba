"""Clients that ask for what is not theirs, out of turn, twice, or malformed (security.md 3, 6-8, 16, 19, 24)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mpc.compiler.roles import Roles
from mpc.errors import (
    ConfigError,
    EncodingError,
    HandshakeError,
    InputError,
    IntegrityError,
    MpcError,
    PeerError,
    PlanError,
    PolicyError,
    ReuseError,
    SessionError,
)
from mpc.gates.base import Gate
from mpc.gates.linear import Combine, Total
from mpc.gates.moves import Reshape, Take
from mpc.gates.truncate import Truncate
from mpc.plan.cost import plan_cost
from mpc.wires import BATCH as B
from mpc.wires import Masking
from parties.agreed.memory import plan_memory, run_memory
from parties.config.models import Limits, PolicyConfig
from parties.party.ledger.states import RunState
from parties.pb import party_pb2
from tests.support.parties import (
    COORDINATOR,
    MODEL_OWNER,
    OWNER,
    PATIENCE,
    RECIPIENT,
    InProcess,
    Script,
    data,
    deadlines,
    eventually,
    parts,
)
from tests.support.plans import Builder, wire

STRANGER = "stranger"
P = (1 << 61) - 1


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2, limits=Limits(max_sessions=256)) as running:
        yield running


@pytest.fixture
def script(cluster: InProcess) -> Script:
    return cluster.script()


def close(script: Script) -> None:
    request = party_pb2.CloseRequest(session_id=script.id)
    script.everyone(lambda i: script.cluster.party(i).Close(request))


# ------------------------------------------------------------------------- who may ask


def test_a_stranger_has_no_part_in_a_session(script: Script) -> None:
    script.ready()
    party = script.cluster.party(0, STRANGER)
    for call in (
        lambda: party.Prepare(party_pb2.PrepareRequest(session_id=script.id, run=2, batch=1)),
        lambda: script.masks(0, 1, STRANGER),
        lambda: script.submit(0, 1, script.input_wire, bytes(24), STRANGER),
        lambda: script.result(0, 1, STRANGER),
        lambda: party.Close(party_pb2.CloseRequest(session_id=script.id)),
    ):
        with pytest.raises(PolicyError, match="has no part"):
            call()
    assert script.enter(1, script.integers(data(1)), OWNER) and script.finish()


def test_parties_are_no_clients_of_each_other(script: Script) -> None:
    script.ready()
    with pytest.raises(PolicyError):
        script.masks(0, 1, "party-1")
    with pytest.raises(PolicyError):
        script.result(0, 1, "party-1")
    with pytest.raises(PolicyError):
        script.masks(0, 1, "provider")


@pytest.mark.parametrize("caller", [OWNER, MODEL_OWNER, RECIPIENT])
def test_only_the_coordinator_plans_and_ends(script: Script, caller: str) -> None:
    script.ready()
    party = script.cluster.party(0, caller)
    with pytest.raises(PolicyError, match="not this session's coordinator"):
        party.Prepare(party_pb2.PrepareRequest(session_id=script.id, run=2, batch=1))
    with pytest.raises(PolicyError, match="not this session's coordinator"):
        party.Close(party_pb2.CloseRequest(session_id=script.id))
    assert script.cluster.of(0, script.id).life.state == "open"


@pytest.mark.parametrize("caller", [COORDINATOR, RECIPIENT, MODEL_OWNER])
def test_masks_of_data_go_to_its_owner_and_nothing_is_burnt_for_others(script: Script, caller: str) -> None:
    script.ready()
    with pytest.raises(PolicyError, match="owns no input"):
        script.masks(0, 1, caller)
    assert script.cluster.run_states(0, script.id) == ["dealt"]
    reply = script.masks(0, 1, OWNER)
    assert [part.wire for part in reply.seeds] == [script.input_wire]


def test_weights_masks_go_to_the_models_owner(script: Script) -> None:
    script.open()
    for caller in (OWNER, RECIPIENT, COORDINATOR):
        with pytest.raises(PolicyError, match="owns no input"):
            script.masks(0, 0, caller)
    wires = {part.wire for part in script.masks(0, 0, MODEL_OWNER).seeds}
    assert wires == set(script.compiled.weights)


def test_an_input_is_submitted_by_its_owner(submitting: Script) -> None:
    script = submitting
    script.ready()
    script.everyone(lambda i: script.masks(i, 1, OWNER))
    for caller in (COORDINATOR, MODEL_OWNER, RECIPIENT):
        with pytest.raises(PolicyError, match="does not own"):
            script.submit(0, 1, script.input_wire, bytes(24), caller)


@pytest.mark.parametrize("caller", [COORDINATOR, OWNER, MODEL_OWNER])
def test_outputs_go_to_recipients_only(script: Script, caller: str) -> None:
    """The coordinator learns what the run cost, and neither a seed nor a masked value."""
    script.started()
    [reply] = script.result(0, 1, caller)
    assert reply.WhichOneof("part") == "header" and not reply.header.outputs
    assert len(script.finish()[0]) == 2


def test_the_recipients_are_in_the_plan_and_in_the_policy(tmp_path: Path) -> None:
    """24: whoever the coordinator writes into a plan, each party asks its own policy."""
    allowed = {
        "plans": ("any",),
        "coordinators": (COORDINATOR,),
        "owners": (OWNER, MODEL_OWNER),
        "recipients": (RECIPIENT,),
    }
    with InProcess(tmp_path, 2, policies={1: PolicyConfig(**allowed)}) as cluster:
        refused = {
            "recipient": cluster.script(Roles(MODEL_OWNER, OWNER, (STRANGER,))),
            "recipient ": cluster.script(Roles(MODEL_OWNER, OWNER, (RECIPIENT, STRANGER))),
            "owner": cluster.script(Roles(MODEL_OWNER, STRANGER, (RECIPIENT,))),
            "owner ": cluster.script(Roles(STRANGER, OWNER, (RECIPIENT,))),
        }
        for role, script in refused.items():
            with pytest.raises(PolicyError, match=f"{role.strip()} '{STRANGER}'") as caught:
                script.propose()
            assert caught.value.peer == "party-1"
            assert script.errors[0] is None  # party 0 allows it; nothing ever ran there
        with pytest.raises(PolicyError, match=f"no part for '{STRANGER}'|coordinator '{STRANGER}'"):
            cluster.script().propose(STRANGER)
        assert cluster.script().started().finish()
        assert [state for state, _ in cluster.ledger_states(1)] == ["open"]


def test_a_refusal_does_not_tell_what_else_is_allowed(tmp_path: Path) -> None:
    """25: the list of what a party allows is its operator's."""
    policy = PolicyConfig(
        plans=("ab" * 32,), coordinators=(COORDINATOR, "hidden-name"), owners=("any",), recipients=("any",)
    )
    with InProcess(tmp_path, 2, policies={0: policy}) as cluster:
        with pytest.raises(PolicyError) as caught:
            cluster.script().propose()
        assert "ab" * 32 not in str(caught.value)
        with pytest.raises(PolicyError) as caught:
            cluster.script().propose(STRANGER)
        assert "hidden-name" not in str(caught.value) and "ab" * 32 not in str(caught.value)


# ------------------------------------------------------------------------- session ids


@pytest.mark.parametrize("session_id", [b"", bytes(32), b"\x07" * 32, bytes(31), bytes(range(33))], ids=len)
def test_ids_that_no_session_has(script: Script, session_id: bytes) -> None:
    script.ready()
    party = script.cluster.party(0)
    with pytest.raises(SessionError, match="does not know"):
        party.Prepare(party_pb2.PrepareRequest(session_id=session_id, run=1, batch=1))
    with pytest.raises(SessionError, match="does not know"):
        party.Masks(party_pb2.MasksRequest(session_id=session_id, run=1))
    with pytest.raises(SessionError, match="does not know"):
        script.submit(0, 1, script.input_wire, bytes(24), OWNER, session_id=session_id or bytes(1))
    with pytest.raises(SessionError, match="does not know"):
        party.Close(party_pb2.CloseRequest(session_id=session_id))


def test_a_nonce_opens_one_session(script: Script) -> None:
    """6, 19: neither the same opening nor one that shares a nonce with it ever runs again."""
    script.open()
    with pytest.raises(SessionError, match="or it was used"):
        script.cluster.party(0).Open(script.opening(script.terms.nonces))
    close(script)
    with pytest.raises(SessionError, match="or it was used"):
        script.cluster.party(0).Open(script.opening(script.terms.nonces))
    fresh = script.propose()
    with pytest.raises(SessionError, match="or it was used"):
        script.cluster.party(0).Open(script.opening((script.terms.nonces[0], fresh[1])))


@pytest.mark.parametrize(
    "nonces",
    [
        lambda own, other: (own,),
        lambda own, other: (own, own),
        lambda own, other: (own, other[:31]),
        lambda own, other: (own, other, other),
        lambda own, other: (),
    ],
)
def test_nonces_that_make_no_session(script: Script, nonces) -> None:
    own, other = script.propose()
    with pytest.raises(SessionError):
        script.cluster.party(0).Open(script.opening(nonces(own, other)))


@pytest.mark.parametrize("nonce", [bytes(32), b"\xff" * 32])
def test_a_nonce_is_drawn_by_the_party_itself(script: Script, nonce: bytes) -> None:
    _, other = script.propose()
    with pytest.raises(SessionError, match="did not draw"):
        script.cluster.party(0).Open(script.opening((nonce, other)))


def test_a_nonce_is_for_the_caller_and_the_plan_it_was_drawn_for(script: Script) -> None:
    nonces = script.propose()
    with pytest.raises(SessionError, match="for you"):
        script.cluster.party(0, STRANGER).Open(script.opening(nonces))
    nonces = script.propose()
    request = script.opening(nonces)
    request.plan_digest = bytes(range(32))
    with pytest.raises(HandshakeError, match="another plan"):
        script.cluster.party(0).Open(request)


@pytest.mark.parametrize(
    "parties", [("party-1", "party-0"), ("party-0", "party-2"), ("party-1", "party-2"), ("party-0", "party-0")]
)
def test_the_roster_is_the_configs(script: Script, parties: tuple[str, ...]) -> None:
    """5: another party set, or another order of it."""
    nonces = script.propose()
    with pytest.raises(HandshakeError):
        script.cluster.party(0).Open(script.opening(nonces, parties))


def test_a_session_of_which_one_party_has_other_terms(tmp_path: Path) -> None:
    """The coordinator gives two parties different nonces of the third: no two agree, none opens."""
    with InProcess(tmp_path, 2, deadlines=deadlines(connect=2, setup=8, step=4, submit=5)) as cluster:
        script = cluster.script()
        first, second = script.propose(), script.propose()
        requests = [script.opening(first), script.opening((first[0], second[1]))]
        with pytest.raises(PeerError):
            script.everyone(lambda i: cluster.party(i).Open(requests[i]))
        assert all(script.errors)
        assert cluster.is_idle()
        assert eventually(
            lambda: {state for index in (0, 1) for state, _ in cluster.ledger_states(index)} == {"aborted"}
        )


# -------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("number", [0, 1, 3, 1 << 31])
def test_runs_follow_each_other(script: Script, number: int) -> None:
    """A run number that is repeated or skipped ends the session."""
    script.ready()
    with pytest.raises(PeerError):
        script.prepare(number)
    assert eventually(lambda: script.cluster.ledger_states(0)[0] == ("aborted", "session"))


@pytest.mark.parametrize("batch", [0, (1 << 20) + 1, (1 << 32) - 1])
def test_impossible_batches(script: Script, batch: int) -> None:
    script.open().enter_weights()
    with pytest.raises(PlanError):
        script.prepare(1, batch)
    script.prepare(1, 1)  # refused before anything was dealt


def test_prepared_runs_share_one_limit_of_memory(tmp_path: Path) -> None:
    """A coordinator that prepares and never runs fills a limit, not the machine."""
    with InProcess(tmp_path, 2, limits=Limits(max_memory_bytes=180_000)) as cluster:
        script = cluster.script().ready()
        with pytest.raises(PlanError, match="memory"):
            for number in range(2, 100):
                script.prepare(number)
        script.enter(1, script.integers(data(1)), OWNER)
        assert script.finish()


def test_nothing_before_the_weights(script: Script) -> None:
    script.open()
    with pytest.raises(SessionError, match="not prepared"):
        script.masks(0, 1, OWNER)
    with pytest.raises(SessionError, match="before its mask was asked for"):
        script.submit(0, 0, next(iter(script.compiled.weights)), bytes(8), MODEL_OWNER)
    with pytest.raises(SessionError, match="not prepared"):
        script.result(0, 1, RECIPIENT)


# -------------------------------------------------------------------------------- masks


def test_masks_are_handed_out_once(script: Script) -> None:
    """16: a second copy could be handed to somebody else."""
    script.open()
    script.everyone(lambda i: script.masks(i, 0, MODEL_OWNER))
    with pytest.raises(ReuseError):
        script.masks(0, 0, MODEL_OWNER)
    other = script.cluster.script().ready()
    other.masks(0, 1, OWNER)
    with pytest.raises(ReuseError):
        other.masks(0, 1, OWNER)


def test_of_concurrent_callers_one_gets_the_masks(script: Script) -> None:
    script.ready()
    seeds, errors = [], []

    def ask(_: int) -> None:
        try:
            seeds.append(script.masks(0, 1, OWNER).seeds[0].seed)
        except ReuseError as error:
            errors.append(error)

    script.count = 8
    script.everyone(ask)
    assert (len(seeds), len(errors)) == (1, 7)


def test_burnt_is_durable_before_a_mask_leaves(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """16: at the moment the seed is taken from its bundle, the ledger says so already."""
    script.ready()
    session = script.cluster.of(0, script.id)
    bundle, seen = session.runs.get(1).party.bundle, []
    take = bundle.mask_seed

    def spy(wire: str):
        seen.append(script.cluster.run_states(0, script.id))
        return take(wire)

    monkeypatch.setattr(bundle, "mask_seed", spy)
    script.masks(0, 1, OWNER)
    assert seen == [["burnt"]]


def test_if_the_ledger_cannot_burn_no_mask_leaves(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.ready()
    ledger = script.cluster.ledgers[0]
    advance = ledger.advance

    def fails(session_id: bytes, run: int, to: RunState, *spend: Any, **options: Any) -> None:
        if to is RunState.BURNT:
            raise OSError("disk full")
        advance(session_id, run, to, *spend, **options)

    monkeypatch.setattr(ledger, "advance", fails)
    with pytest.raises(MpcError) as caught:
        script.masks(0, 1, OWNER)
    assert caught.value.code == "internal"
    monkeypatch.undo()
    assert len(script.masks(0, 1, OWNER).seeds) == 1  # nothing had left


# ------------------------------------------------------------------------------- inputs


@pytest.fixture(params=[False, True], ids=["in pieces", "in one message"])
def submitting(script: Script, request: pytest.FixtureRequest) -> Iterator[Script]:
    """Inputs are submitted in either of two ways; the same is refused."""
    script.whole = request.param
    yield script
    with suppress(MpcError):  # its stream holds a thread
        close(script)


@pytest.fixture
def asked(submitting: Script) -> Script:
    """Run 1 is prepared and the owner has its masks."""
    script = submitting
    script.ready()
    script.everyone(lambda i: script.masks(i, 1, OWNER))
    return script


@pytest.mark.parametrize("value", [P, P + 1, (1 << 64) - 1, 1 << 63, 1 << 61])
@pytest.mark.parametrize("position", [0, 2])
def test_an_element_that_is_not_below_p_is_rejected(asked: Script, value: int, position: int) -> None:
    """7: rejected, never reduced; p - 1 is fine."""
    elements = [0, 0, 0]
    elements[position] = value
    encoded = b"".join(element.to_bytes(8, "little") for element in elements)
    with pytest.raises(EncodingError, match="not below p"):
        asked.submit(0, 1, asked.input_wire, encoded, OWNER)
    asked.submit(0, 1, asked.input_wire, b"".join(e.to_bytes(8, "little") for e in (P - 1, 0, P - 1)), OWNER)


@pytest.mark.parametrize("size", [0, 1, 8, 23, 25, 32, 1 << 20])
def test_an_input_of_another_length_is_rejected(asked: Script, size: int) -> None:
    """8: before it is held."""
    with pytest.raises(PeerError):
        asked.submit(0, 1, asked.input_wire, bytes(size), OWNER)
    asked.submit(0, 1, asked.input_wire, bytes(24), OWNER)


def test_an_endless_input_is_cut_at_its_size(asked: Script) -> None:
    sent = []

    def endless() -> Iterator[party_pb2.SubmitPart]:
        yield next(parts(asked.id, 1, asked.input_wire, b""))
        while len(sent) < 4000:
            sent.append(1)
            yield party_pb2.SubmitPart(chunk=bytes(1 << 16))

    with pytest.raises(PeerError, match="more than"):
        asked.cluster.party(0, OWNER).Submit(endless())
    assert len(sent) < 4000


def test_an_input_is_submitted_once_and_after_its_mask(submitting: Script) -> None:
    script = submitting
    script.ready()
    with pytest.raises(SessionError, match="before its mask was asked for"):
        script.submit(0, 1, script.input_wire, bytes(24), OWNER)
    script.masks(0, 1, OWNER)
    script.submit(0, 1, script.input_wire, bytes(24), OWNER)
    with pytest.raises(InputError, match="submitted before"):
        script.submit(0, 1, script.input_wire, bytes(24), OWNER)
    wire = next(iter(script.compiled.weights))
    with pytest.raises(InputError, match="submitted before"):
        script.submit(0, 0, wire, bytes(8), MODEL_OWNER)


@pytest.mark.parametrize("wire", ["", "nothing", "y", "\N{SNOWMAN}" * 1000])
def test_an_input_wire_that_is_none(asked: Script, wire: str) -> None:
    with pytest.raises(InputError, match="no input wire"):
        asked.submit(0, 1, wire, bytes(24), OWNER)
    with pytest.raises(InputError, match="no input wire"):
        asked.submit(0, 1, asked.output_wire, bytes(24), OWNER)


def test_a_submission_begins_with_a_header(asked: Script) -> None:
    party = asked.cluster.party(0, OWNER)
    with pytest.raises(PeerError, match="header"):
        party.Submit(iter([party_pb2.SubmitPart(chunk=b"x")]))
    with pytest.raises(PeerError, match="header"):
        party.Submit(iter([]))
    with pytest.raises(PeerError):  # a second header is a piece of no bytes
        party.Submit(iter([*parts(asked.id, 1, asked.input_wire, b"")] * 2))


def test_silent_submissions_do_not_keep_their_threads(tmp_path: Path) -> None:
    """A stream without a first message ends after `connect` seconds, whatever deadline its caller set."""
    done = threading.Event()

    def silent() -> Iterator[party_pb2.SubmitPart]:
        done.wait(PATIENCE)
        yield from ()

    with InProcess(tmp_path, 2, deadlines=deadlines(connect=0.5, setup=5, step=2, submit=3)) as cluster:
        started = time.monotonic()
        try:
            with pytest.raises(PeerError):
                cluster.party(0, STRANGER).Submit(silent(), PATIENCE)
            assert time.monotonic() - started < PATIENCE / 2
        finally:
            done.set()


# ------------------------------------------------------------------------------ results


def test_a_recipient_may_ask_again_and_gets_the_same(script: Script) -> None:
    script.started()
    first = script.finish()
    again = script.finish()
    assert [[part.SerializeToString() for part in reply] for reply in first] == [
        [part.SerializeToString() for part in reply] for reply in again
    ]


def test_every_recipient_gets_the_seeds_and_nobody_else(cluster: InProcess) -> None:
    script = cluster.script(Roles(MODEL_OWNER, OWNER, (RECIPIENT, STRANGER))).started()
    for who in (RECIPIENT, STRANGER, RECIPIENT):
        [header, *_] = script.result(0, 1, who)
        assert [output.wire for output in header.header.outputs] == [script.output_wire]
    [header] = script.result(0, 1, COORDINATOR)
    assert not header.header.outputs


def test_runs_start_in_the_order_of_their_numbers(script: Script) -> None:
    """Whatever the order in which their inputs arrive, which can differ from party to party."""
    script.ready()
    script.prepare(2, 1)
    for run in (2, 1):
        script.enter(run, script.integers(data(1)), OWNER, 1)
    assert script.finish(2)
    assert script.finish(1)


def test_memory_is_given_back(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    script = cluster.script().started()
    session, budget = script.cluster.of(0, script.id), script.cluster.nodes[0].budget
    script.finish()
    [one] = [run.held for run in session.runs.kept.values()]
    for run in range(2, 14):
        script.prepare(run, 1)
        script.enter(run, script.integers(data(1)), OWNER, 1)
        script.finish(run)
    assert sum(run.held for run in session.runs.kept.values()) == one > 0
    assert len(session.runs.kept) <= 10
    given: list[int] = []
    give = budget.give
    monkeypatch.setattr(budget, "give", lambda count, whose: (given.append(count), give(count, whose)))
    session.close()
    assert one in given and plan_memory(script.plan, cluster.limits) in given


def test_free_gates_count_against_the_memory_limit() -> None:
    """A plan of a few kilobytes that deals next to nothing and broadcasts to terabytes."""
    b = Builder()

    def free(gate: Gate, *shape: int) -> None:
        b.gate(gate, wire(gate.out, (B, *shape), 30, masking=Masking.INHERITED))

    b.enter("x", (B, 1), 30)
    free(Take(name="take", x="x", axis=1, indices=(0,) * 64, out="line64"), 64)
    for n in (64, 64 * 64):  # a line and a column make a square, which is the next line
        free(Reshape(name=f"r{n}", x=f"line{n}", out=f"row{n}"), 1, n)
        free(Reshape(name=f"c{n}", x=f"line{n}", out=f"column{n}"), n, 1)
        free(Combine(name=f"s{n}", xs=(f"row{n}", f"column{n}"), factors=(1, 1), out=f"square{n}"), n, n)
        free(Reshape(name=f"l{n}", x=f"square{n}", out=f"line{n * n}"), n * n)
    free(Total(name="sum", x=f"line{1 << 24}", axes=(1,), out="s"), 1)
    b.gate(Truncate(name="t", x="s", out="y", shift=0), wire("y", (B, 1), 31))
    b.output("y")
    plan = b.build()
    assert plan_cost(plan, 4096).held < 1 << 20
    with pytest.raises(PlanError, match="memory"):
        run_memory(plan, 4096, Limits())
    plan_memory(plan, Limits())


def test_seeds_leave_after_revealed_is_in_the_ledger(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.ready()
    bundle, seen = script.cluster.of(0, script.id).runs.get(1).party.bundle, []
    take = bundle.mask_seed

    def spy(wire: str):
        if wire == script.output_wire:
            seen.append(script.cluster.run_states(0, script.id))
        return take(wire)

    monkeypatch.setattr(bundle, "mask_seed", spy)
    script.enter(1, script.integers(data(1)), OWNER)
    script.finish()
    assert seen == [["revealed"]]


@pytest.mark.parametrize("state", [RunState.OPENED, RunState.CHECKED, RunState.REVEALED])
def test_if_the_ledger_fails_nothing_is_revealed(
    script: Script, monkeypatch: pytest.MonkeyPatch, state: RunState
) -> None:
    script.ready()
    ledger = script.cluster.ledgers[0]
    advance = ledger.advance

    def fails(session_id: bytes, run: int, to: RunState, *spend: Any, **options: Any) -> None:
        if to is state:
            raise OSError("disk full")
        advance(session_id, run, to, *spend, **options)

    monkeypatch.setattr(ledger, "advance", fails)
    script.enter(1, script.integers(data(1)), OWNER)
    with pytest.raises(MpcError) as caught:
        script.result(0, 1, RECIPIENT)
    assert caught.value.code == "internal"
    assert "disk" not in str(caught.value)


def test_who_waits_for_a_run_hears_what_ended_it(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session ends, and gives back the run's memory, just when a client is told how far the run is."""
    session = script.ready().cluster.of(0, script.id)

    def ends(*_: object) -> Iterator[None]:
        session.abort(IntegrityError("ended, for this test"))
        yield

    monkeypatch.setattr(session, "follow", ends)
    with pytest.raises(IntegrityError, match="ended, for this test"):
        script.result(0, 1, RECIPIENT)


def test_an_abort_that_the_ledger_does_not_take_is_still_an_abort(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not leave peers and clients waiting."""
    script.ready()
    ledger = script.cluster.ledgers[0]

    def full(session_id: bytes, code: str) -> bool:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(ledger, "abort_session", full)
    script.cluster.of(0, script.id).abort(SessionError("for this test"))
    assert eventually(lambda: script.cluster.ledger_states(1)[0][0] == "aborted")
    with pytest.raises(SessionError, match="for this test"):
        script.result(0, 1, RECIPIENT)


def test_a_session_closed_in_the_middle_of_a_run_reveals_nothing(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator closes between the last opening and the release; a recipient is waiting."""
    script.ready()
    session = script.cluster.of(0, script.id)
    reached, go = threading.Event(), threading.Event()

    def barrier(run: object) -> None:
        reached.set()
        go.wait(PATIENCE)

    monkeypatch.setattr(session.online, "before_reveal", barrier)
    script.enter(1, script.integers(data(1)), OWNER)
    assert reached.wait(PATIENCE)
    errors = []

    def wait() -> None:
        try:
            script.result(0, 1, RECIPIENT)
        except MpcError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    script.cluster.party(0).Close(party_pb2.CloseRequest(session_id=script.id))
    go.set()
    waiting.join(PATIENCE)
    assert [type(error) for error in errors] == [SessionError]
    assert eventually(lambda: script.cluster.run_states(0, script.id) == ["aborted"])


def test_a_closed_session_is_over(script: Script) -> None:
    script.ready()
    close(script)
    with pytest.raises(SessionError, match="does not know"):
        script.masks(0, 1, OWNER)
    with pytest.raises(SessionError, match="does not know"):
        script.cluster.party(0).Close(party_pb2.CloseRequest(session_id=script.id))


def test_a_retry_after_an_abort_shares_nothing_with_it(tmp_path: Path) -> None:
    """19: the same input again: new id, new masks, no opened value repeats."""
    with InProcess(tmp_path, 2, middles=[(0, 1)]) as cluster:
        seen: list[dict[int, bytes]] = []

        def watch(sender: str, number: int, frame: party_pb2.Frame):
            if frame.WhichOneof("body") == "payload" and sender == "party-0":
                seen[-1][frame.payload.step] = frame.payload.data
                if len(seen) == 1 and frame.payload.step == 3:
                    return None
            return [frame]

        cluster.middles[0].tamper = watch
        ids, masked = [], []
        for attempt in range(2):
            seen.append({})
            script = cluster.script().ready()
            masked.append(script.enter(1, script.integers(data(1)), OWNER)[script.input_wire])
            ids.append(script.id)
            if attempt == 0:
                with pytest.raises(MpcError):
                    script.finish()
            else:
                assert script.finish()
        assert ids[0] != ids[1] and masked[0] != masked[1]
        first = {values[i : i + 8] for values in seen[0].values() for i in range(0, len(values) - 7, 8)}
        second = {values[i : i + 8] for values in seen[1].values() for i in range(0, len(values) - 7, 8)}
        assert first and second and not first & second


def test_idle_and_late_owners_end_a_session(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, deadlines=deadlines(connect=4, setup=8, step=4, submit=1, idle=2)) as cluster:
        late = cluster.script().ready()
        late.everyone(lambda i: late.masks(i, 1, OWNER))
        assert eventually(lambda: _tick(cluster, late.id))
        with pytest.raises(PeerError, match="did not submit in time"):
            late.result(0, 1, RECIPIENT)
        idle = cluster.script().open()
        assert eventually(lambda: _tick(cluster, idle.id))
        assert cluster.is_idle()


def _tick(cluster: InProcess, session_id: bytes) -> bool:
    cluster.nodes[0].end_overdue()
    return session_id not in cluster.sessions(0)
