"""Sessions that read objects at the parties: right answers, no round for them, and no more shown than is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from mpc.errors import (
    HandshakeError,
    InputError,
    IntegrityError,
    MpcError,
    PlanError,
    SessionError,
    UsageError,
)
from mpc.prg import Seed
from mpc.stored import BLOCK_ROWS
from parties.agreed.bindings import Binding, check_bindings, place
from parties.agreed.columns import Column
from parties.agreed.objects import Manifest
from parties.agreed.terms import Terms
from parties.agreed.ticket import Ticket
from parties.client.at_rest import bound, upload
from parties.client.conversation import Conversation
from parties.client.dataset import Dataset
from parties.client.running.coordinated import CoordinatedSession
from parties.client.selection import Selection
from parties.party.session import PartySession
from parties.pb import provider_pb2
from parties.provider.service import ProviderService
from tests.support.graphs import node, save_model
from tests.support.objects import schema
from tests.support.parties import COORDINATOR, FEATURES, PATIENCE, InProcess, eventually, tiny_answer, tiny_model
from tests.support.shelves import Shelf, put

ROWS = BLOCK_ROWS + 3
COLUMNS = (
    Column(name="a", type="integer", low=-4, high=4),
    Column(name="b", type="number", scale=Fraction(1 << 20), low=-4, high=4),
    Column(name="unread", type="number", scale=Fraction(1 << 8), low=0, high=1),
    Column(name="c", type="number", scale=Fraction(1 << 28), low=-4, high=4),
)


class Watched(ProviderService):
    """A provider that keeps what parties show it."""

    shown: list[provider_pb2.SessionTerms]

    def deal(self, request: provider_pb2.DealRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        if request.run == 0:
            type(self).shown.append(request.terms)
        yield from super().deal(request, context)


@dataclass
class Kept:
    """A cluster with a table at its parties."""

    cluster: InProcess
    shelves: list[Shelf]
    manifest: Manifest
    table: dict[str, np.ndarray]
    compiled: Compiled

    def bindings(self, first: int = 0, rows: int = 8, **changes: Any) -> tuple[Binding, ...]:
        every = bound.bindings(self.compiled.plan, {"x": Selection(self.manifest, ("a", "b", "c"), True)})
        return tuple(replace(each, **{"first": first, "rows": rows, **changes}) for each in every)

    def open(self, first: int = 0, rows: int = 8, **changes: Any) -> CoordinatedSession:
        bindings = self.bindings(first, rows, **changes)
        parties = self.cluster.client(COORDINATOR)
        return CoordinatedSession(parties, self.compiled.plan, self.compiled.weights, bindings=bindings)

    def answer(self, first: int, rows: int) -> np.ndarray:
        scales = {column.name: float(column.scale) for column in COLUMNS}
        part = slice(first, first + rows)
        return tiny_answer(np.stack([self.table[name][part] / scales[name] for name in ("a", "b", "c")], axis=1))


@pytest.fixture(params=[2, 3])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    Watched.shown = []
    with InProcess(tmp_path, request.param, provider=Watched) as cluster:
        shelves = [Shelf() for _ in cluster.nodes]
        for node, shelf in zip(cluster.nodes, shelves, strict=True):
            node.vault = shelf  # type: ignore[assignment]
        plain = schema(cluster.names, owner=COORDINATOR, name=f"{COORDINATOR}/t", rows=ROWS, columns=COLUMNS)
        rng = np.random.default_rng(1)
        table = {c.name: rng.integers(*c.ends, ROWS, dtype=np.int64, endpoint=True) for c in COLUMNS}
        made = put(shelves, cluster.identity(COORDINATOR), plain, table)
        chosen = Selection(made, ("a", "b", "c"), True)
        stored = {"x": bound.described(chosen)}
        compiled = compile_model(tiny_model(tmp_path / "m.onnx"), None, Roles(), stored=stored)
        yield Kept(cluster, shelves, made, table, compiled)


def values(kept: Kept, session: CoordinatedSession, batches: Sequence[int]) -> np.ndarray:
    out = kept.compiled.plan.outputs[0].wire
    found = [session.run({}, batch, lambda: 0.0)[0][out] for batch in batches]
    return np.concatenate(found) / float(kept.compiled.plan.wire[out].scale)


def test_runs_go_through_the_rows_in_order(kept: Kept) -> None:
    first = BLOCK_ROWS - 5  # across two blocks
    session = kept.open(first, 8)
    found = values(kept, session, [4, 4, 3, 5])
    session.close()
    exact = np.concatenate([kept.answer(first, 8), kept.answer(first, 8)])
    assert np.abs(found - exact).max() < 1e-3


def test_a_run_that_nobody_enters_anything_into_begins_when_all_parties_have_prepared_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins at whoever is asked for its result: a party that prepares for longer would be waited for as a peer."""
    go, asked = threading.Event(), list[str]()
    prepare, ask = PartySession.prepare, Conversation.ask

    def held(session: PartySession, *rest: Any) -> Any:
        assert session is not kept.cluster.of(1, session.id) or go.wait(PATIENCE)
        return prepare(session, *rest)

    def noted(conversation: Conversation[Any, Any], part: Any, seconds: float) -> Any:
        if part.HasField("result"):
            asked.append(conversation.party.name)
        return ask(conversation, part, seconds)

    monkeypatch.setattr(PartySession, "prepare", held)
    monkeypatch.setattr(Conversation, "ask", noted)
    session = kept.open()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(values, kept, session, [8])
        assert eventually(lambda: kept.cluster.of(0, session.id).runs.latest == 1)
        assert not asked, "the other prepares for longer"
        go.set()
        assert np.abs(running.result(PATIENCE) - kept.answer(0, 8)).max() < 1e-3
    session.close()
    assert len(asked) == len(kept.cluster.names)


def test_nothing_is_sent_for_them(kept: Kept, tmp_path: Path) -> None:
    entered = compile_model(tmp_path / "m.onnx", {"x": (-4.0, 4.0)})
    session = kept.open()
    _, report = session.run({}, 8, lambda: 0.0)
    session.close()
    other = CoordinatedSession(kept.cluster.client(COORDINATOR), entered.plan, entered.weights)
    x = {entered.plan.inputs[0].wire: np.zeros((8, FEATURES), np.int64)}
    _, usual = other.run(x, 8, lambda: 0.0)
    other.close()
    assert (report.rounds, report.sent_bytes) == (usual.rounds, usual.sent_bytes)


def test_security_39_seeds_of_columns_and_blocks_that_are_not_read_never_leave(kept: Kept) -> None:
    session = kept.open(BLOCK_ROWS, 2)
    values(kept, session, [2])
    session.close()
    assert len(Watched.shown) == len(kept.shelves)
    for terms in Watched.shown:
        given = [seed for part in terms.seeds for seed in part.seeds]
        owner = next(shelf for shelf in kept.shelves if shelf.seeds[kept.manifest.id, "a", 1].secret in given)
        assert given == [owner.seeds[kept.manifest.id, name, 1].secret for name in ("a", "b", "c")]
        everything = terms.SerializeToString()
        hidden = [seed.secret for key, seed in owner.seeds.items() if key[1] == "unread" or key[2] == 0]
        assert hidden
        assert not any(secret in everything for secret in hidden)


def test_security_39_a_lying_seed_is_named(kept: Kept) -> None:
    kept.shelves[1].seeds[kept.manifest.id, "b", 0] = Seed(b"x" * 32)
    with pytest.raises(IntegrityError) as caught:
        kept.open()
    assert caught.value.peer == "party-1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ROWS + 1}, "rows"),
        ({"columns": ("a", "b")}, "elements a row"),
        ({"columns": ("b", "a", "c")}, "units"),
        ({"columns": ("a", "b", "nobody")}, "no such column"),
    ],
)
def test_a_binding_that_is_not_what_the_plan_reads_is_refused(
    kept: Kept, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        kept.open(**changes)


def _marked() -> Any:
    columns = (
        Column(name="a", type="number", scale=Fraction(1 << 20), low=10, high=60),
        Column(name="a.missing", type="missing", low=0, high=1, missing_of="a"),
        Column(name="b", type="number", scale=Fraction(1 << 20), low=-8, high=-2),
        Column(name="b.missing", type="missing", low=0, high=1, missing_of="b"),
        Column(name="c", type="number", scale=Fraction(1 << 20), low=-1, high=1),
    )
    return schema(("party-0", "party-1"), rows=8, columns=columns)


def test_a_dataset_stands_for_all_of_its_columns() -> None:
    whole = _marked()
    chosen = bound.read_choices({"x": Dataset(whole), "y": Dataset(whole)["b"]}, {"z": (0, 1)})
    assert chosen["x"].names == ("a", "a.missing", "b", "b.missing", "c") and chosen["y"].names == ("b",)
    assert bound.read_choices(None) == {}


@pytest.mark.parametrize(
    ("data", "ranges", "message"),
    [
        ({"x": "owner/name:a"}, None, "what input 'x' is to be read from is no dataset.*cluster.dataset"),
        ({"x": np.zeros((2, 1))}, None, "is no dataset.*session.run"),
        (Dataset(_marked())["a"], None, "data are by input; fix: data={'x': "),
        ({"x": Dataset(_marked())["a"]}, {"x": (0, 1)}, "'x' is read from a dataset, and has a range as well"),
    ],
)
def test_what_is_no_choice_of_columns_is_refused(data: Any, ranges: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bound.read_choices(data, ranges)


def test_a_note_says_what_a_model_reads_where_a_value_is_missing() -> None:
    whole = Dataset(_marked())
    told = bound.notes({"x": whole[["a", "b", "c"]], "y": whole[["b", "b.missing"]]})
    assert [each.partition(": ")[2] for each in told] == [
        "where it does, input 'x' reads 10",
        "where it does, input 'x' reads -2",
    ]


def test_what_an_owner_put_is_read_from_the_disk(tmp_path: Path) -> None:
    """The whole way: put over the wire, encrypted on three disks, read by a session that nobody enters data into."""
    rows = BLOCK_ROWS + 3
    columns = (Column(name="image", type="array", scale=Fraction(1 << 20), low=-4, high=4, shape=(FEATURES,)),)
    values_of = np.random.default_rng(2).integers(-(4 << 20), 4 << 20, (rows, FEATURES), dtype=np.int64)
    parts = [{"image": values_of[:BLOCK_ROWS]}, {"image": values_of[BLOCK_ROWS:]}]
    with InProcess(tmp_path, 3) as cluster:
        parties = cluster.client(COORDINATOR)
        made = upload.put(parties, upload.Described("scans", columns, rows), parts)
        chosen = Selection(made, ("image",), False)
        compiled = compile_model(tiny_model(tmp_path / "m.onnx"), stored={"x": bound.described(chosen)})
        [binding] = bound.bindings(compiled.plan, {"x": chosen})
        bindings = [replace(binding, first=BLOCK_ROWS - 40, rows=43)]
        session = CoordinatedSession(parties, compiled.plan, compiled.weights, bindings=bindings)
        out = compiled.plan.outputs[0].wire
        found = session.run({}, 43, lambda: 0.0)[0][out] / float(compiled.plan.wire[out].scale)
        session.close()
    exact = tiny_answer(values_of[BLOCK_ROWS - 40 :] / (1 << 20))
    assert np.abs(found - exact).max() < 1e-3


def test_a_noised_sum_over_all_rows_of_a_disk(tmp_path: Path) -> None:
    """A plan that every party could prove, over more rows than a block has, in one run of three rounds."""
    rows = BLOCK_ROWS + 3
    columns = (Column(name="stay", type="integer", low=0, high=100),)
    stay = np.random.default_rng(3).integers(0, 101, rows, dtype=np.int64)
    parts = [{"stay": stay[:BLOCK_ROWS]}, {"stay": stay[BLOCK_ROWS:]}]
    total = save_model(
        tmp_path, [node("ReduceSum", ["x", "first"], ["y"], keepdims=0)], {"first": np.zeros(1, np.int64)}, ("batch", 1)
    )
    with InProcess(tmp_path, 2) as cluster:
        parties = cluster.client(COORDINATOR)
        made = upload.put(parties, upload.Described("stays", columns, rows), parts)
        chosen = Selection(made, ("stay",), True)
        compiled = compile_model(total, stored={"x": bound.described(chosen)}, noise={"y": 1.0})
        bindings = bound.bindings(compiled.plan, {"x": chosen})
        session = CoordinatedSession(parties, compiled.plan, compiled.weights, bindings=bindings)
        opened, report = session.run({}, rows, lambda: 0.0)
        session.close()
    out = compiled.plan.outputs[0].wire
    assert report.rounds == 3
    noise = opened[out].item() / float(compiled.plan.wire[out].scale) - stay.sum()
    assert abs(noise) < 40 * 100  # the law's scale is 100: beyond with probability e^-40, and rounding of rows is small


def test_somebody_else_is_told_nothing(kept: Kept) -> None:
    plan, weights = kept.compiled.plan, kept.compiled.weights
    bindings = kept.bindings()
    with pytest.raises(SessionError, match="no such object"):
        CoordinatedSession(kept.cluster.client("eve"), plan, weights, bindings=bindings)


def test_a_run_does_not_cross_the_end(kept: Kept) -> None:
    session = kept.open()
    values(kept, session, [5])
    with pytest.raises(MpcError, match="3 of the 8 stored rows are left"):
        values(kept, session, [4])


def test_bindings_are_in_the_session_id_and_in_tickets(kept: Kept) -> None:
    session = kept.open()
    ticket = Ticket.parse(session.ticket.text)
    assert ticket.terms.bindings == session.terms.bindings
    terms = session.terms
    other = replace(terms, bindings=(replace(terms.bindings[0], first=1),))
    assert other.session_id != terms.session_id
    session.close()


def test_each_stored_wire_is_bound_once(kept: Kept) -> None:
    plan = kept.compiled.plan
    [one] = kept.bindings()
    for wrong in ([], [one, replace(one, wire="y"), one], [replace(one, wire="y")]):
        with pytest.raises(HandshakeError, match="not the stored wires"):
            check_bindings(plan, wrong)
    half = replace(one, rows=one.rows - 1)
    for wrong in ([one, one], [half, replace(one, first=one.rows - 2, rows=1)]):  # the same rows again
        with pytest.raises(HandshakeError, match="some rows of an object twice"):
            check_bindings(plan, wrong)
    check_bindings(plan, [half, replace(one, first=one.rows - 1, rows=1)])
    with pytest.raises(PlanError, match="terms are malformed"):
        terms = Terms(plan.digest, "provider", ("p", "q"), (b"1" * 32, b"2" * 32))
        Ticket.parse(Ticket(plan, terms).text)


def test_rows_follow_one_another() -> None:
    assert [place(done, 2, 6) for done in (0, 2, 4, 6)] == [0, 2, 4, 0]
    with pytest.raises(InputError, match="1 of the 6"):
        place(5, 2, 6)


@pytest.mark.parametrize(
    "fields",
    [
        {"object": b"short"},
        {"columns": ()},
        {"first": -1},
        {"rows": 0},
        {"first": 1 << 40},
    ],
)
def test_no_binding(fields: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"wire": "x", "object": bytes(32), "columns": ("a",), "first": 0, "rows": 1}
    with pytest.raises(HandshakeError):
        Binding(**{**whole, **fields})


def test_a_manifest_that_its_owner_has_not_signed_is_refused_by_the_provider(kept: Kept) -> None:
    eve = kept.cluster.identity("eve")
    for shelf in kept.shelves:
        old = shelf.statements[kept.manifest.id]
        shelf.statements[kept.manifest.id] = replace(old, signature=kept.manifest.sign(eve).signature)
    with pytest.raises(IntegrityError, match="false manifest"):  # also if the other party is heard first
        kept.open()


def test_x_hat_that_was_altered_at_one_party_ends_the_run(kept: Kept) -> None:
    """Else who wrote to one party's disk and receives the output learns what the difference does to that party's share
    of secret weights."""
    session = kept.open()
    shelf = kept.shelves[1]
    place = (kept.manifest.id, "b", 0)
    shelf.public[place] = fp.add_int(shelf.public[place], 1)
    with pytest.raises(MpcError) as caught:
        values(kept, session, [8])
    assert caught.value.code == "integrity"
