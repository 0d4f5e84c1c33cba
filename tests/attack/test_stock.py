"""Whoever can write to a party's disk, kill it, restore it, or order for others: each bundle is used once or never
(security.md 16-21, and 24 for who may order)."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mpc.compiler.roles import Roles
from mpc.errors import (
    ConfigError,
    HandshakeError,
    IntegrityError,
    MpcError,
    MpcWarning,
    PeerError,
    PlanError,
    PolicyError,
    ReuseError,
    SessionError,
)
from parties import entropy
from parties.agreed.terms import Terms
from parties.client.running import stocks as ordering
from parties.client.running.stocks import Stock
from parties.client.session import Session
from parties.config.models import PolicyConfig
from parties.party.ledger.states import RunState
from parties.party.stock.files import FOLDER, FORMAT
from parties.party.stock.orders import MOST_RUNS
from parties.party.stock.shelf import Shelf
from parties.pb import party_pb2
from tests.support.parties import (
    COORDINATOR,
    MODEL_OWNER,
    OWNER,
    RECIPIENT,
    SEPARATE,
    InProcess,
    Script,
    data,
    deadlines,
    eventually,
)
from tests.support.stocks import deal, folder, open_stock, opening, script_of

QUICK = deadlines(connect=3, setup=15, step=5, submit=10)
OTHER = "other-coordinator"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path / "cluster", 2, deadlines=QUICK) as running:
        yield running


def restart(cluster: InProcess, index: int) -> None:
    cluster.crash(index)
    cluster.revive(index)


def ledger_state(cluster: InProcess, index: int, stock: Stock) -> tuple[str, str | None]:
    wanted = stock.terms.session_id.hex()
    [record] = [record for record in cluster.ledgers[index].history(100) if record.session_id == wanted]
    return str(record.state), record.reason


def run(script: Script, number: int) -> dict[str, bytes]:
    """One run with data of its own; what the owner submitted."""
    script.prepare(number)
    submitted = script.enter(number, script.integers(data(1)), OWNER)
    script.finish(number)
    return submitted


# ------------------------------------------------------------------------------ used once


def test_no_mask_of_a_stock_repeats(cluster: InProcess) -> None:
    """The same data in every run of two stocks: every masked value is another one."""
    seen: list[bytes] = []
    for stock in (deal(cluster, [1, 1]), deal(cluster, [1, 1])):
        script = open_stock(cluster, stock).enter_weights()
        seen += [value for number in (1, 2) for value in run(script, number).values()]
    assert len(set(seen)) == len(seen) == 4


def test_each_run_is_burnt_before_a_mask_leaves_and_once(cluster: InProcess) -> None:
    stock = deal(cluster, [1, 1])
    script = open_stock(cluster, stock).enter_weights()
    script.prepare(1)
    assert cluster.run_states(0, script.id) == ["dealt", "dealt"]
    script.masks(0, 1, OWNER)
    assert cluster.run_states(0, script.id) == ["burnt", "dealt"]
    with pytest.raises(ReuseError):
        script.masks(0, 1, OWNER)
    with pytest.raises(ReuseError):
        cluster.ledgers[0].advance(script.id, 1, RunState.BURNT)


@pytest.mark.parametrize("number", [1, 3])
def test_runs_come_in_order_and_do_not_repeat(cluster: InProcess, number: int) -> None:
    script = open_stock(cluster, deal(cluster)).enter_weights()
    run(script, 1)
    with pytest.raises(SessionError):
        script.prepare(number)
    said = [str(error) for error in script.errors]  # a party may hear of the other's refusal before its own
    assert any("prepared before, or comes too early" in each for each in said), said


def test_there_are_no_more_runs_than_were_dealt(cluster: InProcess) -> None:
    script = open_stock(cluster, deal(cluster, [1])).enter_weights()
    run(script, 1)
    with pytest.raises(SessionError, match="used up"):
        script.prepare(2)


def test_a_run_of_other_rows_is_refused_and_the_session_goes_on(cluster: InProcess) -> None:
    script = open_stock(cluster, deal(cluster, [1])).enter_weights()
    with pytest.raises(PlanError, match="for 1 rows, not 2"):
        script.prepare(1, batch=2)
    run(script, 1)


def test_a_stock_is_opened_once(cluster: InProcess) -> None:
    stock = deal(cluster)
    script = open_stock(cluster, stock)
    for attempt in range(2):
        with pytest.raises(SessionError, match="no stock of these terms"):
            cluster.party(attempt).Open(opening(stock.terms))
    assert not ordering.stocks(cluster.client())
    script.enter_weights()
    run(script, 1)


def test_of_many_who_open_at_once_one_succeeds(cluster: InProcess) -> None:
    stock, opened, refused = deal(cluster), [], []

    def attempt() -> None:
        try:
            opened.append(open_stock(cluster, stock))
        except MpcError as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in (0, 1):
        states = [record for record in cluster.ledgers[index].history(100) if record.state == "open"]
        assert len(states) == 1
    assert len(opened) <= 1 and len(opened) + len(refused) == 6


def test_as_an_ordinary_session_its_id_is_refused(cluster: InProcess) -> None:
    """The nonces of a stock were used up when it was ordered."""
    stock = deal(cluster)
    request = opening(stock.terms)
    request.stocked = False
    with pytest.raises(SessionError, match="did not draw that nonce"):
        cluster.party(0).Open(request)
    with pytest.raises(SessionError, match="was used before"):
        cluster.ledgers[0].open_session(stock.terms.session_id, stock.terms.plan_digest, COORDINATOR)
    assert ledger_state(cluster, 0, stock) == ("stocked", None)


# ---------------------------------------------------------------------- crashes, backups


def through_opening(script: Script) -> None:
    script.everyone(lambda index: script.cluster.party(index).Open(opening(script.terms)))


def through_preparing(script: Script) -> None:
    through_opening(script)
    script.enter_weights().prepare(1)


def through_masks(script: Script) -> None:
    through_preparing(script)
    script.everyone(lambda index: script.masks(index, 1, OWNER))


REACHED = [through_opening, through_preparing, through_masks]


@pytest.mark.parametrize("reached", REACHED, ids=lambda reached: reached.__name__)
def test_a_crash_burns_what_was_opened(cluster: InProcess, reached: Callable[[Script], None]) -> None:
    """Also when the files are put back afterwards."""
    stock, kept = deal(cluster), deal(cluster)
    copies = [shutil.copytree(folder(cluster, i, stock), cluster.folder / f"copy-{i}") for i in (0, 1)]
    reached(script_of(cluster, stock))
    for index in (0, 1):
        cluster.crash(index)
        shutil.rmtree(folder(cluster, index, stock), ignore_errors=True)
        shutil.copytree(copies[index], folder(cluster, index, stock))
        cluster.revive(index)
        # Party 0 goes first; the other one notices that, and has ended the session when its own turn comes.
        assert eventually(
            lambda index=index: ledger_state(cluster, index, stock)[0] in (("burnt",), ("burnt", "aborted"))[index]
        )
        assert not folder(cluster, index, stock).exists()
        with pytest.raises(SessionError, match="no stock of these terms"):
            cluster.party(index).Open(opening(stock.terms))
    [left] = ordering.stocks(cluster.client())
    assert left.terms == kept.terms
    run(open_stock(cluster, kept).enter_weights(), 1)


def test_files_put_back_while_the_party_runs_are_refused(cluster: InProcess) -> None:
    stock = deal(cluster, [1, 1])
    copies = [shutil.copytree(folder(cluster, i, stock), cluster.folder / f"copy-{i}") for i in (0, 1)]
    script = open_stock(cluster, stock).enter_weights()
    run(script, 1)
    script.everyone(lambda i: cluster.party(i).Close(party_pb2.CloseRequest(session_id=script.id)))
    for index in (0, 1):
        assert eventually(lambda index=index: not folder(cluster, index, stock).exists())
        shutil.copytree(copies[index], folder(cluster, index, stock))
        with pytest.raises(SessionError):
            cluster.party(index).Open(opening(stock.terms))
        # Even if the list in memory had it again, the ledger would not.
        node = cluster.nodes[index]
        node.stocks = Shelf(node.config, node.identity, node.ledger)
        with pytest.raises(SessionError):
            cluster.party(index).Open(opening(stock.terms))
        with pytest.raises(SessionError, match="not to be used: this ledger has it as closed"):
            cluster.ledgers[index].open_stocked(stock.terms.session_id, stock.terms.plan_digest, COORDINATOR)


def test_a_restored_ledger_is_refused_and_its_stock_with_it(cluster: InProcess) -> None:
    stock = deal(cluster)
    place = cluster.party_config(0).data_dir
    cluster.crash(0)
    shutil.copy(place / "ledger.sqlite", cluster.folder / "old.sqlite")
    shutil.copytree(folder(cluster, 0, stock), cluster.folder / "old-stock")
    cluster.revive(0)
    through_masks(script_of(cluster, stock))
    cluster.crash(0)
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (place / name).unlink(missing_ok=True)
    shutil.copy(cluster.folder / "old.sqlite", place / "ledger.sqlite")
    shutil.copytree(cluster.folder / "old-stock", folder(cluster, 0, stock), dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="restored from a backup"):
        cluster.revive(0)


def test_a_party_restored_as_a_whole_is_stopped_by_its_peers(cluster: InProcess) -> None:
    """Its own ledger cannot tell; no mask leaves it, since no peer greets with that session again."""
    stock = deal(cluster)
    place = cluster.party_config(0).data_dir
    cluster.crash(0)
    shutil.copytree(place, cluster.folder / "snapshot")
    cluster.revive(0)
    run(open_stock(cluster, stock).enter_weights(), 1)
    cluster.crash(0)
    shutil.rmtree(place)
    shutil.copytree(cluster.folder / "snapshot", place)
    cluster.revive(0)
    script = script_of(cluster, stock)
    with pytest.raises(MpcError):
        through_opening(script)
    assert isinstance(script.errors[0], PeerError) and isinstance(script.errors[1], SessionError)
    for index in (0, 1):
        with pytest.raises(MpcError):
            script.masks(index, 0, MODEL_OWNER)
    assert eventually(lambda: ledger_state(cluster, 0, stock)[0] == "aborted")


def test_a_crash_while_dealing_leaves_nothing(cluster: InProcess) -> None:
    script = cluster.script()
    nonces = script.propose()
    agreed = party_pb2.StockTerms(plan_digest=script.plan.digest, parties=cluster.names, nonces=nonces, batches=[1, 1])
    opened = Terms(script.plan.digest, "provider", cluster.names, nonces)
    for number in (0, 1):
        request = party_pb2.StoreRequest(session_id=opened.session_id, run=number, terms=None if number else agreed)
        script.everyone(lambda i, request=request: cluster.party(i).Store(request))
    keep = party_pb2.KeepRequest(session_id=opened.session_id)
    with pytest.raises(SessionError, match="2 of this stock's 3 bundles"):
        cluster.party(0).Keep(keep)
    place = cluster.party_config(0).data_dir / FOLDER / opened.session_id.hex()
    assert place.is_dir()
    cluster.crash(0)
    place.mkdir(exist_ok=True)  # as a kill would leave it
    (place / "terms.json").write_bytes(b"{}")
    cluster.revive(0)
    assert not place.exists() and not cluster.ledgers[0].stocked()
    for call in (
        lambda: cluster.party(0).Keep(keep),
        lambda: cluster.party(0).Store(party_pb2.StoreRequest(session_id=opened.session_id, run=2)),
    ):
        with pytest.raises(SessionError, match="not being dealt"):
            call()


def test_an_order_that_nobody_finishes_is_given_up(cluster: InProcess) -> None:
    script = cluster.script()
    nonces = script.propose()
    terms = Terms(script.plan.digest, "provider", cluster.names, nonces)
    agreed = party_pb2.StockTerms(plan_digest=script.plan.digest, parties=cluster.names, nonces=nonces, batches=[1])
    request = party_pb2.StoreRequest(session_id=terms.session_id, run=0, terms=agreed)
    script.everyone(lambda i: cluster.party(i).Store(request))
    node = cluster.nodes[0]
    node.orders.drop_idle(0.0)
    assert node.orders.open
    node.orders.drop_idle(float("inf"))
    assert not node.orders.open and not list((cluster.party_config(0).data_dir / FOLDER).iterdir())
    assert eventually(lambda: not cluster.provider.sessions())


def test_security_30_a_stock_of_the_format_that_had_no_key_is_deleted_unread(cluster: InProcess) -> None:
    """Its manifests confirm guesses of what is entered; they are never handed to anybody."""
    old, good = deal(cluster), deal(cluster)
    for index in (0, 1):
        path = folder(cluster, index, old) / "terms.json"
        path.write_bytes(path.read_bytes().replace(FORMAT.encode(), b"mpc-stock-1"))
        (path.parent / "000000.bundle").write_bytes(b"never read")
        restart(cluster, index)
        assert not path.parent.exists()
        assert ledger_state(cluster, index, old) == ("closed", "dropped")
    assert [each.terms for each in ordering.stocks(cluster.client())] == [good.terms]
    with pytest.raises(SessionError, match="no stock of these terms"):
        through_opening(script_of(cluster, old))
    run(open_stock(cluster, good).enter_weights(), 1)


# --------------------------------------------------------------------------- altered files


def flip(at: float) -> Callable[[Path, Path], None]:
    def change(path: Path, other: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(at * (len(content) - 1))] ^= 1
        path.write_bytes(content)

    return change


def truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def exchange(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def link(path: Path, other: Path) -> None:
    moved = path.with_name("elsewhere")
    path.rename(moved)
    path.symlink_to(moved)


def seed(path: Path, other: Path) -> None:
    """The seed at the end, with everything else as it was signed."""
    content = path.read_bytes()
    start = len(content) - 4 - int.from_bytes(content[-4:], "big")
    end = party_pb2.StoredBundle.FromString(content[start:-4])
    end.seed = entropy.token(32)
    changed = end.SerializeToString()
    path.write_bytes(content[:start] + changed + len(changed).to_bytes(4, "big"))


CHANGES = [flip(0.0), flip(0.004), flip(0.5), flip(0.97), truncate, lengthen, empty, exchange, link, seed]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__qualname__)
@pytest.mark.parametrize("number", [0, 1])
def test_an_altered_bundle_is_refused_by_name(
    cluster: InProcess, change: Callable[[Path, Path], None], number: int
) -> None:
    """In run 1 party 1 is the corrected one, so its file has all parts."""
    stock, other = deal(cluster), deal(cluster)
    name = f"{number:06d}.bundle"
    # another session's file, or the same session's of another run
    source = folder(cluster, 1, other) / name if number == 0 else folder(cluster, 1, stock) / "000003.bundle"
    change(folder(cluster, 1, stock) / name, source)
    script = script_of(cluster, stock)
    with pytest.raises(MpcError):
        through_preparing(script)
    error = script.errors[1]
    assert isinstance(error, IntegrityError) and f"stock/{script.id.hex()}/{name}" in str(error), error
    assert eventually(lambda: ledger_state(cluster, 1, stock) == ("aborted", "integrity"))
    assert eventually(lambda: ledger_state(cluster, 0, stock)[0] == "aborted")
    with pytest.raises(MpcError):
        script.masks(0, 1, OWNER)
    assert eventually(lambda: cluster.run_states(1, script.id) == ["aborted"] * 3)
    assert eventually(lambda: not folder(cluster, 1, stock).exists())


def test_another_partys_file_is_refused(cluster: InProcess) -> None:
    """Both parties' bundles have the same manifest: what tells them apart is the seed that it commits to."""
    stock = deal(cluster, [1, 1, 1])
    shutil.copy(folder(cluster, 0, stock) / "000000.bundle", folder(cluster, 1, stock) / "000000.bundle")
    script = script_of(cluster, stock)
    with pytest.raises(MpcError):
        through_opening(script)
    assert isinstance(script.errors[1], IntegrityError) and "000000.bundle" in str(script.errors[1])


def test_an_altered_plan_is_refused_by_name(cluster: InProcess) -> None:
    stock = deal(cluster)
    path = folder(cluster, 0, stock) / "plan"
    for content in (cluster.compiled().plan.canonical, b"{}", b"", b"\xff", path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match=f"stock/{stock.terms.session_id.hex()}/plan"):
            cluster.party(0).Open(opening(stock.terms))
    assert ledger_state(cluster, 0, stock) == ("stocked", None)


ALTERED_TERMS: list[Callable[[bytes], bytes]] = [
    lambda content: content.replace(b'"batches":[1', b'"batches":[2'),
    lambda content: content.replace(b"party-0", b"party-7"),
    lambda content: content.replace(b'"batches":[1,1,1]', b'"batches":[1,1,1,1]'),
    lambda content: content.replace(b'"batches":[1,1,1]', b'"batches":[]'),
    lambda content: content.replace(b'"batches":[1,1,1]', b'"batches":[true]'),
    lambda content: content.replace(b'"batches":[1,1,1]', b'"batches":7'),
    lambda content: b"[" * 100_000,
    lambda content: b"",
]


def test_altered_terms_are_of_no_use(cluster: InProcess) -> None:
    """They are not listed, or say what no manifest says; other stocks are as good as before."""
    altered, good = [deal(cluster) for _ in ALTERED_TERMS], deal(cluster)
    for stock, change in zip(altered, ALTERED_TERMS, strict=True):
        path = folder(cluster, 0, stock) / "terms.json"
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.read_bytes() != before
    restart(cluster, 0)
    listed = {each.terms.session_id: each for each in ordering.stocks(cluster.client())}
    assert not listed[good.terms.session_id].missing
    assert all(listed[stock.terms.session_id].missing for stock in altered)
    run(open_stock(cluster, good).enter_weights(), 1)

    def used(stock: Stock) -> None:
        through_preparing(script_of(cluster, stock))

    with ThreadPoolExecutor(len(altered)) as pool:  # each waits for a greeting that never comes
        trying = [pool.submit(used, stock) for stock in altered]
    for number, attempt in enumerate(trying):
        assert isinstance(attempt.exception(), MpcError), (number, attempt.exception())


def test_a_missing_file_means_another_session_aloud(cluster: InProcess) -> None:
    roles = Roles()
    for name in ("plan", "000001.bundle"):
        stock = deal(cluster, [1], roles)
        (folder(cluster, 1, stock) / name).unlink()
        with pytest.raises(SessionError, match="no stock of these terms"):
            cluster.party(1).Open(opening(stock.terms))
        [listed] = ordering.stocks(cluster.client())
        assert listed.missing == ("party-1",)
        session = Session(cluster.client(), cluster.compiled(roles), 1)
        assert session.stocked is None
        session.run(None, {"x": data(1)})
        session.close()
        ordering.drop(cluster.client(), listed)
        assert not ordering.stocks(cluster.client())


def test_a_stock_that_goes_between_two_calls_is_replaced_aloud(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = Roles()
    stock = deal(cluster, [1], roles)
    shutil.rmtree(folder(cluster, 0, stock))
    monkeypatch.setattr(ordering, "find", lambda *_: stock)
    with pytest.warns(MpcWarning, match="is dealt now: party-0: this party has no stock of these terms"):
        session = Session(cluster.client(), cluster.compiled(roles), 1)
    assert session.stocked is None and "party-0: this party has no stock of these terms" in session.notes[0]
    session.run(None, {"x": data(1)})
    session.close()


# ------------------------------------------------------------------------ who may do what


def test_only_who_may_open_sessions_may_order(tmp_path: Path) -> None:
    policies = {
        i: PolicyConfig(plans=("any",), coordinators=(COORDINATOR,), owners=("any",), recipients=("any",))
        for i in (0, 1)
    }
    with InProcess(tmp_path, 2, policies=policies, deadlines=QUICK) as cluster:
        with pytest.raises(PolicyError, match="does not allow the coordinator"):
            ordering.order(cluster.client(OTHER), cluster.compiled(SEPARATE).plan, [1])
        assert not any(node.orders.open for node in cluster.nodes)
        deal(cluster, [1])


def test_a_stock_is_its_coordinators_alone(cluster: InProcess) -> None:
    stock = deal(cluster)
    for machine in ("party-1", "provider"):
        with pytest.raises(PolicyError, match="process of the cluster"):
            cluster.party(0, machine).Stocks(party_pb2.StocksRequest())
    for caller in (OTHER, OWNER, MODEL_OWNER, RECIPIENT):
        party = cluster.party(0, caller)
        assert party.Stocks(party_pb2.StocksRequest()) == []
        assert not party.Drop(party_pb2.DropRequest(session_id=stock.terms.session_id)).dropped
        with pytest.raises(SessionError, match="no stock of these terms"):
            party.Open(opening(stock.terms))
    assert ledger_state(cluster, 0, stock) == ("stocked", None)
    run(open_stock(cluster, stock).enter_weights(), 1)


def test_an_order_is_its_coordinators_alone(cluster: InProcess) -> None:
    script = cluster.script()
    nonces = script.propose()
    terms = Terms(script.plan.digest, "provider", cluster.names, nonces)
    agreed = party_pb2.StockTerms(plan_digest=script.plan.digest, parties=cluster.names, nonces=nonces, batches=[1])
    first = party_pb2.StoreRequest(session_id=terms.session_id, run=0, terms=agreed)
    with pytest.raises(SessionError, match="did not draw that nonce for you"):
        cluster.party(0, OTHER).Store(first)
    script.everyone(lambda i: cluster.party(i).Store(first) if i else None)
    for call in (
        lambda: cluster.party(1, OTHER).Store(party_pb2.StoreRequest(session_id=terms.session_id, run=1)),
        lambda: cluster.party(1, OTHER).Keep(party_pb2.KeepRequest(session_id=terms.session_id)),
    ):
        with pytest.raises(PolicyError, match="did not order"):
            call()
    assert not cluster.party(1, OTHER).Drop(party_pb2.DropRequest(session_id=terms.session_id)).dropped
    assert cluster.nodes[1].orders.open


def test_bundles_are_stored_in_order_and_once(cluster: InProcess) -> None:
    script = cluster.script()
    nonces = script.propose()
    terms = Terms(script.plan.digest, "provider", cluster.names, nonces)
    agreed = party_pb2.StockTerms(plan_digest=script.plan.digest, parties=cluster.names, nonces=nonces, batches=[1, 1])
    first = party_pb2.StoreRequest(session_id=terms.session_id, run=0, terms=agreed)
    with pytest.raises(HandshakeError, match="does not belong"):
        cluster.party(0).Store(party_pb2.StoreRequest(session_id=bytes(32), run=0, terms=agreed))
    script.everyone(lambda i: cluster.party(i).Store(first))
    with pytest.raises(SessionError, match="did not draw that nonce"):
        cluster.party(0).Store(first)
    for number in (2, MOST_RUNS, 3):
        with pytest.raises(SessionError, match="comes too early"):
            cluster.party(0).Store(party_pb2.StoreRequest(session_id=terms.session_id, run=number))
    with pytest.raises(SessionError, match="no stock of these terms"):
        cluster.party(0).Open(opening(terms))


def test_a_policy_that_has_changed_since_keeps_the_stock(cluster: InProcess) -> None:
    stock = deal(cluster)
    strict = PolicyConfig(plans=("any",), coordinators=("any",), owners=("any",), recipients=("nobody",))
    loose = PolicyConfig(plans=("any",), coordinators=("any",), owners=("any",), recipients=("any",))
    cluster.crash(0)
    cluster.revive(0, policy=strict)
    with pytest.raises(PolicyError, match="does not allow the output recipient"):
        cluster.party(0).Open(opening(stock.terms))
    assert ledger_state(cluster, 0, stock) == ("stocked", None)
    cluster.crash(0)
    cluster.revive(0, policy=loose)
    run(open_stock(cluster, stock).enter_weights(), 1)


def test_parties_that_are_told_to_take_different_stocks_do_not_meet(cluster: InProcess) -> None:
    one, other = deal(cluster), deal(cluster)
    script = script_of(cluster, one)
    with pytest.raises(PeerError):
        script.everyone(lambda i: cluster.party(i).Open(opening((one, other)[i].terms)))
    assert all(isinstance(error, PeerError) for error in script.errors)
    for index, stock in ((0, one), (1, other)):
        assert eventually(lambda index=index, stock=stock: ledger_state(cluster, index, stock)[0] == "aborted")
        with pytest.raises(MpcError):
            script_of(cluster, stock).masks(index, 0, MODEL_OWNER)
    for index, stock in ((1, one), (0, other)):
        assert ledger_state(cluster, index, stock) == ("stocked", None)


def test_mixed_nonces_are_no_stock(cluster: InProcess) -> None:
    one, other = deal(cluster), deal(cluster)
    request = opening(one.terms)
    request.nonces[1] = other.terms.nonces[1]
    for index in (0, 1):
        with pytest.raises(SessionError, match="no stock of these terms"):
            cluster.party(index).Open(request)
