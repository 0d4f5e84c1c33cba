"""Collections under attack: a coordinator who wants one person's row, clients who enter too much or twice, and a
provider who guesses."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import blake3
import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.stored import StoredInput
from mpc.encoding import encode_field
from mpc.errors import IntegrityError, PolicyError, SessionError
from mpc.prg import Seed
from parties.agreed.bindings import Binding
from parties.agreed.collecting import ContributionList, gathered_salt
from parties.agreed.grants import Statement
from parties.agreed.objects import Manifest, contents_digest
from parties.client.at_rest.masking import mask
from parties.client.collections import calls as collecting
from parties.client.collections.collection import Collection
from parties.client.collections.sums import Wishes, compiled
from parties.client.questions import expression, model
from parties.client.running.roles import PUBLIC, assign
from parties.client.session import Session
from parties.pb import collect_pb2, data_pb2
from parties.pb.data_pb2 import SignedStatement
from tests.support.asking import word
from tests.support.collections import SIZE, Wild, enter, enter_all, finish, opened, raw, row
from tests.support.grants import budget, dp, grant
from tests.support.parties import COORDINATOR, InProcess


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("collections"), 2) as running:
        yield running


def lists_of(cluster: InProcess, made: Collection) -> list[SignedStatement]:
    request = collect_pb2.CollectionRequest(collection=made.said.id)
    return [cluster.collect(index).CloseCollection(request) for index in range(len(cluster.names))]


def gather_at(cluster: InProcess, index: int, made: Collection, lists: list[SignedStatement]) -> None:
    parts = [collect_pb2.GatherPart(collection=made.said.id), *(collect_pb2.GatherPart(list=each) for each in lists)]
    cluster.collect(index).Gather(iter(parts))


def test_whatever_a_client_enters_it_moves_the_sum_by_the_range_at_most(cluster: InProcess) -> None:
    """Field elements of any size: each number counts as one between -1 and 1, or by a rounding's width beyond."""
    made = opened(cluster, "wild", epsilon=5, delta="1/100000")
    rows = enter_all(cluster, made, 4)
    wild = np.random.default_rng(3).integers(0, fp.P, (1, SIZE), dtype=np.uint64)
    wild[0, :4] = [0, fp.P - 1, fp.P // 2, 1 << 60]
    put = raw(cluster, made, "mallory", kind=Wild)
    put.begin().enter({"x": wild})
    finish(put)
    found = made.sum()
    moved = found.value - sum(rows)
    assert found.rows == 5
    assert np.abs(moved).max() < 1.001 + 6 * found.std


@pytest.mark.parametrize("kind", ["exact", "another epsilon", "some rows", "twice", "somebody else"])
def test_the_one_question_is_asked_once_of_all_rows(cluster: InProcess, kind: str) -> None:
    """Whatever whoever collects says beside: it is the owner of that name, and grants itself all that it likes."""
    made = opened(cluster, f"question-{kind.replace(' ', '-')}", at_most=3)
    enter_all(cluster, made, 3)
    whole = collecting.gathered(cluster.client(), made.said)
    for index in range(2):
        for said in words(cluster, made):
            cluster.consent(index, COORDINATOR).Say(word(said, cluster.identity(COORDINATOR)))
    plan, rows, asker = made.signed_plan(), whole.rows, COORDINATOR
    if kind == "exact":
        plan = exact_rows()
    if kind == "another epsilon":
        plan = compiled(COORDINATOR, WISHES)
    if kind == "some rows":
        rows = 2
    if kind == "twice":
        made.sum()
    if kind == "somebody else":
        asker = "stranger"
    [given] = plan.plan.inputs
    with pytest.raises((PolicyError, SessionError)) as refused:
        session = Session(
            cluster.client(asker), plan, bindings=(Binding(given.wire, whole.id, ("x",), 0, rows),), quiet=True
        )
        session.run(None, {})
    reason = {
        "exact": "consented to another plan",
        "another epsilon": "consented to another plan",
        "some rows": "asked of all its rows",
        "twice": "has been told",
        "somebody else": "no such object",
    }
    assert reason[kind] in str(refused.value)


WISHES = Wishes(SIZE, Fraction(-1), Fraction(1), 3, 3, Fraction(5), Fraction(1, 10**5), "gaussian", 12)


def exact_rows() -> Compiled:
    """The rows themselves."""
    node = expression.column("x", expression.REAL, (SIZE,), (-1.0, 1.0))
    stored = {"x": StoredInput((WISHES.column.scale,), (-1.0,), (1.0,))}
    roles = assign(COORDINATOR, {"x": COORDINATOR}, weights=PUBLIC)
    return compile_model(model.write({"rows": node}, False), roles=roles, stored=stored)


def words(cluster: InProcess, made: Collection) -> list[Statement]:
    """A budget, and grants of noised answers and of this very object."""
    said = made.said
    times = {"created": said.created, "not_before": said.created, "expires": said.expires}
    who = {"owner": COORDINATOR, "coordinators": (COORDINATOR,), "recipients": (COORDINATOR,)}
    noised = grant(parties=cluster.names, dataset=made.name, question=dp(5), **times, **who)
    return [budget(1000, dataset=made.name, owner=COORDINATOR), noised]


def test_closed_early(cluster: InProcess) -> None:
    made = opened(cluster, "early")
    enter_all(cluster, made, 3)
    for index in range(2):
        with pytest.raises(SessionError, match="is open for"):
            cluster.collect(index).CloseCollection(collect_pb2.CollectionRequest(collection=made.said.id))
        with pytest.raises(SessionError, match="is not closed"):
            gather_at(cluster, index, made, [])


def test_lists_that_parties_have_not_signed(cluster: InProcess) -> None:
    """Whoever collects leaves people out, puts them in, or shows another collection's list."""
    made = opened(cluster, "lists", at_most=4, at_least=2)
    enter_all(cluster, made, 4)
    lists = lists_of(cluster, made)
    said = ContributionList(cluster=made.said.cluster, party="party-1", collection=made.said.id, contributions=())
    mine = ContributionList.model_validate_json(lists[1].content)
    other = opened(cluster, "other-lists", at_most=3)
    enter_all(cluster, other, 3)
    forged = said.model_copy(update={"contributions": mine.contributions[:2]}).sign(cluster.identity(COORDINATOR))
    fewer = SignedStatement(content=forged.content, signature=forged.signature, certificate=forged.certificate)
    patched = SignedStatement(content=forged.content, signature=lists[1].signature, certificate=lists[1].certificate)
    for second in (fewer, patched, lists_of(cluster, other)[1], lists[0]):
        for index in range(2):
            with pytest.raises(IntegrityError):
                gather_at(cluster, index, made, [lists[0], second])
    with pytest.raises(IntegrityError, match="1 lists"):
        gather_at(cluster, 0, made, lists[:1])
    with pytest.raises(SessionError, match="no such collection"):
        cluster.collect(0, "stranger").CloseCollection(collect_pb2.CollectionRequest(collection=made.said.id))
    with pytest.raises(SessionError, match="not gathered"):
        cluster.collect(0).CompleteCollection(collect_pb2.CompleteCollectionRequest(collection=made.said.id))
    gather_at(cluster, 0, made, lists)
    unsigned = collect_pb2.CompleteCollectionRequest(collection=made.said.id)
    with pytest.raises(IntegrityError, match="0 parties signed"):
        cluster.collect(0).CompleteCollection(unsigned)
    assert made.sum().rows == 4


def test_one_person_among_clients_of_the_coordinators_has_the_noise(cluster: InProcess) -> None:
    """Who collects knows all rows but one: what is left is that row under noise of the whole epsilon, and cannot be
    asked for again; a second collection costs that person a second epsilon, which it consents to by entering again."""
    made = opened(cluster, "isolated", at_most=3, epsilon=1)
    known = enter_all(cluster, made, 2)
    enter(cluster, made, "person", row(9))
    found = made.sum()
    left = found.value - sum(known)
    spread = np.sqrt(np.mean((left - row(9)) ** 2))
    assert found.std > 2  # the range is 2 wide
    assert 0.5 * found.std < spread < 2 * found.std
    again = opened(cluster, "isolated-again", at_most=3, epsilon=1)
    enter_all(cluster, again, 2)
    with pytest.raises(SessionError, match="is open for"):
        again.sum()  # and nothing of the first one stands in for the row that was not entered


def test_an_entry_counts_in_its_collection_alone(cluster: InProcess) -> None:
    one, two = opened(cluster, "one", at_most=3), opened(cluster, "two", at_most=3)
    put = raw(cluster, one, "person", collection=two.said.id)
    with pytest.raises(PolicyError, match="another name"):
        put.begin()
    put = raw(cluster, one, "person").begin().enter()
    finish(put)
    assert (one.standing.entered, two.standing.entered) == (1, 0)


def test_what_is_gathered_confirms_no_guess_to_who_knows_the_masks(cluster: InProcess) -> None:
    """The provider knows all masks, and whoever works with it all rows but one: the manifest that it is shown has a
    salt of every client's."""
    made = opened(cluster, "guessed", at_most=3)
    puts = []
    for number in range(3):
        puts.append(raw(cluster, made, f"client-{number}").begin().enter())
        finish(puts[-1])
    whole = collecting.gathered(cluster.client(), made.said)
    order = sorted(puts, key=lambda put: put.manifest().id.hex())
    digests = [blake3.blake3(encode_field(put.x[0])).digest() for put in order]
    salts = [put.salt for put in order]
    assert contents_digest(gathered_salt(salts), digests).hex() == whole.contents
    for place in range(3):
        guessed = [*salts[:place], bytes(32), *salts[place + 1 :]]
        assert contents_digest(gathered_salt(guessed), digests).hex() != whole.contents


def test_a_gathered_object_that_a_client_puts_itself(cluster: InProcess) -> None:
    """All of its blocks are here, and no other thing is wrong with it than whose signature it has."""
    made = opened(cluster, "imitated")
    fields = {"collection": None, "gathered": made.said.id, "rows": 2, "lengths": (1, 1)}
    put = raw(cluster, made, "mallory", name="mallory/imitation", **fields).begin()
    seeds, digests = [], []
    for block in range(2):
        own = []
        for index in put.parties:
            request = data_pb2.SeedsRequest(put=put.id, block=block, places=[0])
            [given] = put.call(index, "Seeds", request).seeds
            own.append(Seed(given.seed))
        masked = encode_field(mask(np.zeros((1, SIZE), np.int64), own))
        for index in put.parties:
            header = data_pb2.BlockHeader(put=put.id, place=0, block=block, commitment=own[index].commitment())
            put.call(index, "Block", iter([data_pb2.BlockPart(header=header), data_pb2.BlockPart(chunk=masked)]))
        seeds.append([seed.commitment() for seed in own])
        digests.append(blake3.blake3(masked).digest())
    whole = Manifest.of(put.schema, {made.said.column.name: seeds}, contents_digest(put.salt, digests))
    for index in put.parties:
        with pytest.raises(IntegrityError, match="sign"):
            put.commit(index, whole)
