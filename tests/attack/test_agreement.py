"""A client that does not send all parties the same, to read what others entered (security.md 31)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.roles import Roles
from mpc.encoding import decode_field, encode_field
from mpc.errors import IntegrityError, LocalProtocolError, MpcError, PeerError
from mpc.gates.matmul import Matmul
from mpc.interpret.party import PartyRun
from mpc.interpret.world import World
from mpc.prg import expand_field
from mpc.shares import Lane
from parties.pb.party_pb2 import CloseRequest, Entered, Frame
from tests.support.parties import MODEL_OWNER, OWNER, RECIPIENT, InProcess, Script, data, eventually
from tests.support.plans import Builder, wire
from tests.support.stocks import deal, open_stock
from tests.support.worlds import seed

CURIOUS = Roles(MODEL_OWNER, OWNER, (OWNER,))
"""The data's owner receives the output."""


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("cluster")
    with InProcess(folder, request.param, middles=[(0, 1)]) as running:
        yield running


@pytest.fixture(autouse=True)
def honest(cluster: InProcess) -> Iterator[None]:
    yield
    cluster.middles[0].tamper = lambda sender, number, frame: [frame]


@pytest.fixture
def shown(cluster: InProcess) -> Iterator[list[tuple[str, Frame]]]:
    """Every frame between the first two parties, from the first greeting on: a session before may still say its end."""
    frames: list[tuple[str, Frame]] = []

    def watch(sender: str, number: int, frame: Frame) -> list[Frame]:
        if frames or frame.HasField("hello"):
            frames.append((sender, frame))
        return [frame]

    cluster.middles[0].tamper = watch
    yield frames


def less(value: bytes, place: int) -> bytes:
    """x^ - e_j: one element is one less."""
    elements = decode_field(value, (len(value) // 8,)).copy()
    elements[place] = fp.add_int(elements[place : place + 1], -1)[0]
    return encode_field(elements)


def enter_unlike(script: Script, run: int, values: dict[str, np.ndarray], caller: str, liar_to: int) -> None:
    """As `Script.enter`, but one party is sent another first wire."""
    replies = script.everyone(lambda index: script.masks(index, run, caller))
    masked = script.masked(values, replies)
    first = next(iter(masked))

    def submit(index: int) -> None:
        for name, value in masked.items():
            sent = less(value, 0) if (index, name) == (liar_to, first) else value
            script.submit(index, run, name, sent, caller)

    script.everyone(submit)


def assert_ended(script: Script, owner: str, recipient: str) -> None:
    """Every party ended the session and names that owner; no seed of an output's mask left one."""
    cluster = script.cluster
    for index in range(len(cluster.names)):
        with pytest.raises(IntegrityError) as caught:
            script.result(index, 1, recipient)
        assert caught.value.peer == owner and owner in caught.value.what, caught.value
        assert "did not send all parties the same" in caught.value.what
        assert eventually(lambda index=index: cluster.ledger_states(index)[0] == ("aborted", "integrity"))
        assert eventually(lambda index=index: cluster.run_states(index, script.id) == ["aborted"])
    assert cluster.has_ended(script.id)


def no_more_than_one_opening(shown: list[tuple[str, Frame]]) -> bool:
    return {frame.payload.step for _, frame in shown if frame.HasField("payload")} == {0}


def opened_now(cluster: InProcess, roles: Roles) -> Script:
    return cluster.script(roles).open()


def opened_from_stock(cluster: InProcess, roles: Roles) -> Script:
    return open_stock(cluster, deal(cluster, [1], roles), roles)


@pytest.mark.parametrize("opened", [opened_now, opened_from_stock])
@pytest.mark.parametrize("liar_to", [0, -1])
def test_security_31_a_data_owner_that_is_the_recipient(
    cluster: InProcess, shown: list, opened: Callable[[InProcess, Roles], Script], liar_to: int
) -> None:
    """The attack: x^ to one party and x^ - e_j to another, and the weights follow from the output."""
    script = opened(cluster, CURIOUS).enter_weights()
    script.prepare(1)
    enter_unlike(script, 1, script.integers(data(1)), OWNER, liar_to % len(cluster.names))
    assert_ended(script, OWNER, OWNER)
    assert no_more_than_one_opening(shown)


@pytest.mark.parametrize("opened", [opened_now, opened_from_stock])
def test_security_31_a_model_owner(
    cluster: InProcess, shown: list, opened: Callable[[InProcess, Roles], Script]
) -> None:
    script = opened(cluster, Roles(MODEL_OWNER, OWNER, (MODEL_OWNER,)))
    enter_unlike(script, 0, script.compiled.weights, MODEL_OWNER, 1)
    script.prepare(1)
    script.enter(1, script.integers(data(1)), OWNER)
    assert_ended(script, MODEL_OWNER, MODEL_OWNER)
    assert no_more_than_one_opening(shown)


def test_who_hears_of_it_first_names_the_owner_too(cluster: InProcess) -> None:
    """A peer's abort may come before a party has found out by itself: it is a code and a name."""
    script = cluster.script(CURIOUS).open()
    cluster.of(1, script.id).links["party-0"].abort(IntegrityError("unlike", peer=OWNER))
    assert eventually(lambda: script.id not in cluster.sessions(0))
    with pytest.raises(IntegrityError, match=f"{OWNER} did not send all parties the same"):
        script.result(0, 1, OWNER)


def test_security_31_several_owners_are_all_named(cluster: InProcess) -> None:
    script = cluster.script().open()
    enter_unlike(script, 0, script.compiled.weights, MODEL_OWNER, 1)
    script.prepare(1)
    enter_unlike(script, 1, script.integers(data(1)), OWNER, 0)
    said = set()
    for index in range(len(cluster.names)):
        with pytest.raises(IntegrityError) as caught:
            script.result(index, 1, RECIPIENT)
        assert caught.value.peer in (OWNER, MODEL_OWNER)
        said.add(caught.value.what)
    assert any(f"{OWNER} and {MODEL_OWNER} did not" in what for what in said), said
    assert cluster.has_ended(script.id)


def test_honest_owners_are_not_named_and_the_next_session_works(cluster: InProcess, shown: list) -> None:
    script = cluster.script().started()
    assert len({parts[0].header.transcript for parts in script.finish()}) == 1
    assert not any(frame.HasField("entered") for _, frame in shown)
    first = {
        sender: frame.payload.data[:32] for sender, frame in shown if frame.payload.data and not frame.payload.step
    }
    assert len(first) == 2 and len(set(first.values())) == 1
    seen = [parts[0].header.SerializeToString() for parts in script.finish()]
    assert not any(digest in header for digest in first.values() for header in seen)  # for the parties alone
    script.everyone(lambda index: cluster.party(index).Close(CloseRequest(session_id=script.id)))


# ------------------------------------------------------- parties that say what is not so


def lie_in_front(sender: str, number: int, frame: Frame) -> list[Frame]:
    """party-1's first payload begins with another digest."""
    if sender == "party-1" and frame.HasField("payload") and frame.payload.step == 0:
        frame.payload.data = bytes(32) + frame.payload.data[32:]
    return [frame]


def claims(run: int) -> Callable:
    """party-1 says of a run that something differs where nothing does, and, as who says so, opens nothing more."""

    def tamper(sender: str, number: int, frame: Frame) -> list[Frame]:
        if sender != "party-1" or not frame.HasField("payload"):
            return [frame]
        return [] if frame.payload.step else [frame, Frame(entered=Entered(run=run, digests=[bytes(32)] * 2))]

    return tamper


@pytest.mark.parametrize("deviation", [lie_in_front, claims(1), claims(2)], ids=["lies", "accuses", "another run"])
def test_a_party_that_disagrees_for_no_reason_ends_the_session(cluster: InProcess, deviation: Callable) -> None:
    """No owner is blamed for it, and nobody waits."""
    cluster.middles[0].tamper = deviation
    script = cluster.script().started()
    for index in range(len(cluster.names)):
        with pytest.raises(MpcError) as caught:
            script.result(index, 1, RECIPIENT)
        assert isinstance(caught.value, PeerError | IntegrityError)
        assert caught.value.peer not in (OWNER, MODEL_OWNER), caught.value
    assert cluster.has_ended(script.id)


def test_who_disagrees_is_not_said_to_be_out_of_turn(cluster: InProcess) -> None:
    """Whether it lies, or was lied to by somebody who told only it, nobody else can know: that is what is said."""
    cluster.middles[0].tamper = claims(1)
    script = cluster.script().started()
    with pytest.raises(IntegrityError, match="party-1 says that parties were not sent the same") as caught:
        script.result(0, 1, RECIPIENT)
    assert caught.value.peer == "party-1" and "or it lies" in str(caught.value)
    assert cluster.has_ended(script.id)


# ------------------------------------------------------------------------- what it stops


def linear() -> Builder:
    b = Builder()
    b.enter("w", (3, 2), 12, session=True)
    b.enter("c", (2,), 12, session=True)
    b.enter("x", ("batch", 3), 12)
    b.gate(Matmul(name="g", x="x", weight="w", bias="c", out="z"), wire("z", ("batch", 2), 40))
    b.output("z")
    return b


WEIGHTS = {"w": np.random.default_rng(5).integers(-999, 999, (3, 2)), "c": np.array([77, -5])}


def parties_of_a_run(world: World, batch: int) -> tuple[list[PartyRun], np.ndarray]:
    """Two parties, prepared for an input of zeros: (their runs, x^)."""
    plan = world.plan.bind(batch)
    _, bundles = world.deal(plan, plan.online, 1, batch)
    masked = world.mask_input(plan.wire["x"], np.zeros((batch, 3), dtype=np.int64), bundles)
    sessions = zip(bundles, world.sessions, strict=True)
    runs = [PartyRun(plan, Lane.passive(index), bundle, session) for index, (bundle, session) in enumerate(sessions)]
    for run in runs:
        run.prepare()
    return runs, masked


def evaluate_unlike(runs: list[PartyRun], masked: np.ndarray, compared: bool = True) -> list[MpcError | None]:
    """Row j of what the second party is sent is one less in place j; what ended each party.

    compared: or else each party finds its own digest where the other's stands, and so nothing to object to.
    """
    other = masked.copy()
    for place in range(3):
        other[place] = fp.sub(masked[place], np.eye(3, dtype=np.uint64)[place])
    running = [run.steps({"x": each}) for run, each in zip(runs, (masked, other), strict=True)]
    payloads, size = [bytes(next(steps)) for steps in running], runs[0].schedule.steps[0].agreement
    ended: list[MpcError | None] = []
    for index, steps in enumerate(running):
        try:
            front = payloads[1 - index if compared else index][:size]
            steps.send([front + payloads[1 - index][size:]])
        except StopIteration:
            ended.append(None)
        except MpcError as error:
            ended.append(error)
    return ended


def test_security_31_without_the_comparison_the_weights_are_read_exactly() -> None:
    """The control: what the attacker learns where parties do not compare, with party-0's view and the output."""
    world = World(linear().build(), WEIGHTS, 2, seed(3))
    runs, masked = parties_of_a_run(world, batch=4)

    assert evaluate_unlike(runs, masked, compared=False) == [None, None]
    z = runs[0].output("z")
    for run in runs:
        z = fp.sub(z, expand_field(run.release("z"), z.shape))
    # the last row is the bias, and row j the bias less party-1's share of w_j
    theirs = fp.sub(np.broadcast_to(z[3], (3, 2)).copy(), z[:3])
    mine = world.sessions[0].masked["w"].share(Lane.passive(0)).values
    assert np.array_equal(fp.to_signed(fp.add(mine, theirs)), WEIGHTS["w"])


def test_security_31_with_it_both_parties_stop_and_release_nothing() -> None:
    world = World(linear().build(), WEIGHTS, 2, seed(3))
    runs, masked = parties_of_a_run(world, batch=4)
    assert [type(error) for error in evaluate_unlike(runs, masked)] == [IntegrityError, IntegrityError]
    for run in runs:
        with pytest.raises(LocalProtocolError, match="before the parties agree"):
            run.release("z")


def test_nothing_is_released_before_a_run_has_begun() -> None:
    """Every plan that is accepted opens something, or no output of it could be unmasked."""
    runs, _ = parties_of_a_run(World(linear().build(), WEIGHTS, 2, seed(3)), batch=4)
    with pytest.raises(LocalProtocolError, match="before the parties agree"):
        runs[0].release("z")


def test_the_digests_of_what_was_entered_need_the_parties_key() -> None:
    """Neither clients nor the provider, who knows all masks, could tell a guess by one."""
    world = World(linear().build(), WEIGHTS, 2, seed(3))
    plan, found = world.plan.bind(1), []
    for number, key in enumerate((b"", b"k" * 32), 1):
        bundle = world.deal(plan, plan.online, number, 1)[1][0]
        run = PartyRun(plan, Lane.passive(0), bundle, world.sessions[0], key)
        run.given = {"x": np.zeros((1, 3), dtype=np.uint64)}
        found.append((run.transcript.digest, *run.entered()))
    assert len(set(found[0] + found[1])) == 4
