"""Attempts on what parties keep: laundered budgets, half-made objects, digests that confirm a guess, lying parties."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

from mpc import field as fp
from mpc.encoding import encode_field
from mpc.errors import HandshakeError, InputError, IntegrityError, MpcError, MpcWarning, PolicyError, SessionError
from mpc.gates.truncate import Truncate
from mpc.prg import expand_field
from mpc.wires import Lifetime
from parties.agreed.keeps import Keep
from parties.agreed.objects import Manifest, contents_digest
from parties.agreed.provenance import Provenance
from parties.agreed.refreshing import identity_plan, refresh_bindings
from parties.agreed.signed import Endorsement, Signed
from parties.client.at_rest import keeping
from parties.client.at_rest.keeping import Keeping
from parties.client.datasets import Datasets
from parties.client.running.coordinated import CoordinatedSession
from parties.party import kept_run
from parties.party.kept_run import KeptRun
from parties.party.vault.keeps import Making
from parties.pb import data_pb2
from parties.provider.service import ProviderService
from tests.support.asking import AGES, ANALYST, HOSPITAL, ROWS, Kept, exactly, noised_sum
from tests.support.effort import FULL
from tests.support.grants import budget, dp, revocation
from tests.support.keeping import SCORES, keep, kept_binding, kept_plan, noised_kept, opened, vault
from tests.support.objects import RawPut
from tests.support.parties import PATIENCE, InProcess

BITS = (AGES >= 60).astype(np.int64)


class Watched(ProviderService):
    """A provider that keeps all that it is sent."""

    heard: list[bytes]

    def deal(self, request: Any, context: Any) -> Iterator[Any]:
        type(self).heard.append(request.SerializeToString())
        yield from super().deal(request, context)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    Watched.heard = []
    with InProcess(tmp_path, 2, provider=Watched) as cluster:
        yield Kept(cluster)


# -- a copy is no way around its owner


@pytest.mark.parametrize("index", [0, 1])
def test_security_41_a_budget_is_not_laundered_through_what_is_kept(kept: Kept, index: int) -> None:
    """Each party alone refuses: only one of them has heard of the limit."""
    kept.grant(question=dp(20))
    kept.say(budget(20), only=[1 - index])
    kept.say(budget(1), only=[index])
    made, _ = keep(kept, kept_plan())
    again, _ = keep(kept, identity_plan(made), f"{ANALYST}/copy", refresh_bindings(made))  # a copy of the copy
    assert made.kept is not None and again.kept is not None and again.kept.origins == made.kept.origins
    kept.ask(noised_kept(made), kept_binding(made))
    kept.ask(noised_kept(again), kept_binding(again))
    for plan, bindings in (
        (noised_kept(again), kept_binding(again)),
        (noised_kept(made), kept_binding(made)),
        (noised_sum(), None),
    ):
        with pytest.raises(PolicyError, match="0 of its budget is left"):
            kept.ask(plan, bindings)
    assert kept.spent(index) == 1_000_000_000


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_what_was_kept_is_asked_of_each_party_alone(kept: Kept, index: int) -> None:
    given = kept.allow()
    made, _ = keep(kept, kept_plan())
    kept.say(revocation(given), only=[index])
    other = kept.grant(question=dp(1), expires=given.expires + 1)
    assert other.id != given.id
    with pytest.raises(PolicyError, match="under which it was kept has been revoked"):
        kept.ask(noised_kept(made), kept_binding(made))
    assert kept.spent() == 0
    kept.ask(noised_sum())  # what it came from is still granted


@pytest.mark.parametrize("refresh", [False, True])
def test_security_42_a_revocation_holds_for_copies_too(kept: Kept, refresh: bool) -> None:
    """What was kept under a grant is copied, or refreshed, under another one: the first one's end is its end."""
    given = kept.allow(epsilon=20, total=20, uses=1)
    made, _ = keep(kept, kept_plan())  # the only use of that grant
    kept.grant(question=dp(20), expires=given.expires + 1)
    if refresh:
        again = Datasets(kept.cluster.client(ANALYST)).refresh("scores").manifest
    else:
        again, _ = keep(kept, identity_plan(made), f"{ANALYST}/copy", refresh_bindings(made))
    kept.ask(noised_kept(again), kept_binding(again))
    kept.say(revocation(given))
    with pytest.raises(PolicyError, match="under which it was kept has been revoked"):
        kept.ask(noised_kept(again), kept_binding(again))


def test_security_42_an_exact_grant_of_the_origin_is_none_of_what_was_kept_of_it(kept: Kept) -> None:
    kept.allow()
    made, _ = keep(kept, kept_plan())
    plan = identity_plan(made)
    told = plan.model_copy(
        update={
            "wires": tuple(
                w.model_copy(update={"kept": False, "holders": (ANALYST,)}) if w.kept else w for w in plan.wires
            ),
            "outputs": tuple(out.model_copy(update={"keep": False}) for out in plan.outputs),
        }
    )
    told = type(plan)(**{name: getattr(told, name) for name in type(plan).model_fields})
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(told, kept.manifest))
    with pytest.raises(PolicyError, match="tells single rows|not one of the plans"):
        kept.ask(told, (replace(kept_binding(made)[0], wire="x0"),))


def test_blocks_that_parties_kept_are_not_put_as_one_s_own(kept: Kept) -> None:
    """A put may keep blocks of the version before, under its owner's word alone: not these, which are others' too."""
    kept.allow()
    made, _ = keep(kept, kept_plan())
    said = {"columns": made.columns, "version": 2, "previous": made.id.hex(), "name": SCORES, "rows": ROWS}
    put = RawPut(kept.cluster, ANALYST, **said)
    request = data_pb2.BeginRequest(put=put.id, schema=put.schema.content, kept=[data_pb2.KeptBlock(block=0, of=0)])
    for index in put.parties:
        with pytest.raises(InputError, match="blocks that parties kept of others' data"):
            put.call(index, "Begin", request)
        assert (SCORES, "draft") not in rows_of(kept, index)


def rows_of(kept: Kept, index: int) -> list[tuple[str, str]]:
    with kept.cluster.ledgers[index].reading() as database:
        return database.execute("SELECT name, state FROM data_objects ORDER BY name, version").fetchall()


# -- who says what becomes of it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": f"{HOSPITAL}/mine"}, "keeps nothing under the name of hospital"),
        ({"outputs": ("z",)}, "do not name what becomes"),
        ({"version": 2, "previous": "ab" * 32}, None),
        ({"version": 1, "previous": "ab" * 32}, "does not follow the newest"),
        ({"created": 1}, "was not named now"),
        ({"created": 1, "expires": 2}, "was not named now"),
    ],
)
def test_terms_that_name_something_else_are_refused(kept: Kept, change: dict[str, Any], message: str | None) -> None:
    kept.allow()
    parties = kept.cluster.client(ANALYST)
    [good] = keeping.keeps(parties, kept_plan(), {"y": Keeping(SCORES)})
    bad = replace(good, **change)
    if message is None:  # a number may be left out: a version that was cut off at its end
        CoordinatedSession(parties, kept_plan(), {}, bindings=kept.binding(), keeps=(bad,)).close()
        return
    with pytest.raises(MpcError, match=message):
        CoordinatedSession(parties, kept_plan(), {}, bindings=kept.binding(), keeps=(bad,))
    with pytest.raises(HandshakeError, match="do not name what becomes"):
        CoordinatedSession(parties, kept_plan(), {}, bindings=kept.binding())


def test_another_plan_refreshes_nothing(kept: Kept) -> None:
    """Under the name of what was put stands what was put: a plan that is not the identity changes nothing there."""
    plan = identity_plan(kept.manifest)
    wires = tuple(w.model_copy(update={"bits": w.bits + 1}) for w in plan.wires)
    other = type(plan)(**{**{n: getattr(plan, n) for n in type(plan).model_fields}, "wires": wires})
    said = Keep(kept.manifest.name, ("y0",), 2, kept.manifest.id.hex(), kept.manifest.created)
    with pytest.raises(PolicyError, match="is a dataset that was put"):
        CoordinatedSession(
            kept.cluster.client(HOSPITAL), other, {}, bindings=refresh_bindings(kept.manifest), keeps=(said,)
        )
    fewer = (replace(refresh_bindings(kept.manifest)[0], rows=ROWS - 1),)
    with pytest.raises(PolicyError, match="is a dataset that was put"):
        CoordinatedSession(kept.cluster.client(HOSPITAL), plan, {}, bindings=fewer, keeps=(said,))


def test_nothing_is_kept_of_what_others_enter(kept: Kept) -> None:
    plan = kept_plan()
    gates = tuple(g.model_copy(update={"lifetime": Lifetime.RUN}) if g.kind == "input" else g for g in plan.gates)
    entered = type(plan)(**{**{n: getattr(plan, n) for n in type(plan).model_fields}, "gates": gates})
    parties = kept.cluster.client(ANALYST)
    said = keeping.keeps(parties, entered, {"y": Keeping(SCORES)})
    with pytest.raises(PolicyError, match="nothing is kept of what hospital would enter"):
        CoordinatedSession(parties, entered, {}, keeps=said)


# -- parties that do not hold the same


def test_a_party_with_another_value_ends_it_and_nothing_is_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.allow()
    write = Making.write

    def altered(self: Making, place: int, number: int, seed: Any, public: np.ndarray) -> Any:
        mine = self.vault.config.name == "party-1"
        return write(
            self,
            place,
            number,
            seed,
            fp.add(public, fp.from_signed(np.ones_like(public, np.int64))) if mine else public,
        )

    monkeypatch.setattr(Making, "write", altered)
    with pytest.raises(IntegrityError, match="do not hold the same of what is kept"):
        keep(kept, kept_plan())
    for index in (0, 1):
        assert rows_of(kept, index) == [("hospital/patients", "living")]
        assert kept.revealed(index) == 0
        assert len(list(vault(kept.cluster, index).folder.glob("*.block"))) == 1


def test_a_party_that_signs_something_else_is_named_and_nothing_exists(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.allow()
    endorse = Manifest.endorse

    def lying(self: Manifest, identity: Any) -> Endorsement:
        other = self.model_copy(update={"contents": "ab" * 32}) if identity.name == "party-1" else self
        return endorse(other, identity)

    monkeypatch.setattr(Manifest, "endorse", lying)
    with pytest.raises(MpcError) as caught:
        keep(kept, kept_plan())
    assert "party-1" in str(caught.value)
    for index in (0, 1):
        assert (SCORES, "living") not in rows_of(kept, index)


def test_a_manifest_that_not_all_have_signed_is_none(kept: Kept) -> None:
    kept.allow()
    made, _ = keep(kept, kept_plan())
    signed = vault(kept.cluster).signed(made.id)
    trust = kept.cluster.identity(ANALYST).trust
    assert Manifest.verify(trust, signed, None).id == made.id
    first, second = signed.endorsements
    for joint in ((first,), (first, first), (second, first), ()):
        with pytest.raises(IntegrityError):
            Manifest.verify(trust, replace(signed, endorsements=joint), None)
    alone = made.sign(kept.cluster.identity(ANALYST))  # as an owner signs what it puts
    with pytest.raises(IntegrityError):
        Manifest.verify(trust, alone, None)
    own = Manifest.parse(kept.manifest.content)
    with pytest.raises(IntegrityError):  # nor can parties sign what an owner has to
        Manifest.verify(trust, Signed.joint(own.content, signed.endorsements), None)


def test_an_owner_puts_nothing_that_says_it_was_kept(kept: Kept) -> None:
    history = Provenance(plan="ab" * 32, session="cd" * 32)
    put = RawPut(kept.cluster, ANALYST, kept=history)
    with pytest.raises(MpcError):
        put.begin().enter()
        for index in put.parties:
            put.commit(index, put.manifest())


# -- digests


def test_security_30_nothing_that_the_provider_gets_confirms_a_guess_of_what_is_kept(kept: Kept) -> None:
    """It knows every mask of z, so from a guess of z it knows z^, and every digest of that which has no secret key."""
    kept.allow()
    made, _ = keep(kept, kept_plan())
    kept.ask(noised_kept(made), kept_binding(made))  # now it is shown the manifest and all seeds
    masked = vault(kept.cluster).block(made.id, "y", 0)
    plain = blake3.blake3(encode_field(masked)).digest()
    forms = {plain.hex().encode(), plain, made.contents.encode()}
    heard = b"".join(Watched.heard)
    assert made.contents.encode() in heard and plain not in heard and plain.hex().encode() not in heard
    for salt in (
        bytes(32),
        made.id,
        bytes.fromhex(made.kept.session if made.kept else ""),
        blake3.blake3(b"").digest(),
    ):
        assert contents_digest(salt, [plain]).hex() != made.contents
    for index in (0, 1):
        with kept.cluster.ledgers[index].reading() as database:
            stored = b"".join(bytes(row) for (row,) in database.execute("SELECT row FROM audit"))
        assert b"reveal" in stored and b'"allow"' not in stored and not any(form in stored for form in forms)


def test_two_objects_of_equal_values_have_nothing_in_common(kept: Kept) -> None:
    kept.allow()
    first, _ = keep(kept, kept_plan())
    second, _ = keep(kept, kept_plan(), f"{ANALYST}/again")
    assert first.contents != second.contents
    assert not {*first.commitments["y"]} & {*second.commitments["y"]}
    assert not np.array_equal(vault(kept.cluster).block(first.id, "y", 0), vault(kept.cluster).block(second.id, "y", 0))
    for index in (0, 1):
        seeds = {vault(kept.cluster, index).seed(each.id, "y", 0).secret for each in (first, second)}
        assert len(seeds) == 2


def test_security_43_no_seed_of_what_is_kept_takes_two_values(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seed that is ever written down is fresh, over many objects and refreshes."""
    kept.allow(epsilon=20, total=20)
    written: list[tuple[str, bytes]] = []
    write = Making.write

    def watch(self: Making, place: int, number: int, seed: Any, public: np.ndarray) -> Any:
        written.append((self.vault.config.name, seed.secret))
        return write(self, place, number, seed, public)

    monkeypatch.setattr(Making, "write", watch)
    keep(kept, kept_plan(), batches=(2, 3))
    keep(kept, kept_plan())
    Datasets(kept.cluster.client(HOSPITAL)).refresh("patients")
    assert len(written) == 2 * 4 == len({secret for _, secret in written})


def test_a_peers_old_messages_and_a_stolen_old_seed_do_not_give_the_new_one(kept: Kept) -> None:
    """What a party sends in a refresh is its new share less its old one, less a dealt share of zero: with the old
    seed alone the new one stays uniform.  A bare opening would send exactly their difference."""
    old = [expand_field(vault(kept.cluster, i).seed(kept.manifest.id, "age", 0), (ROWS,)) for i in (0, 1)]
    public = vault(kept.cluster).block(kept.manifest.id, "age", 0)  # x^, which the first party adds
    sent: list[np.ndarray] = []
    evaluate = Truncate.evaluate

    def watch(self: Truncate, run: Any, prepared: Any) -> Any:
        steps = evaluate(self, run, prepared)
        (share,) = shares = next(steps)
        sent.append(share.values.copy())
        opened_ = yield shares
        try:
            steps.send(opened_)
        except StopIteration:
            return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Truncate, "evaluate", watch)
        made = Datasets(kept.cluster.client(HOSPITAL)).refresh("patients").manifest
    new = [expand_field(vault(kept.cluster, i).seed(made.id, "age", 0), (ROWS,)) for i in (0, 1)]
    assert len(sent) == 2
    for message in sent:
        for index in (0, 1):
            for constant in (np.zeros(ROWS, np.uint64), public):
                bare = fp.sub(fp.add(constant, new[index]), old[index])
                assert not np.array_equal(bare, message)
    total = fp.add(sent[0], sent[1])
    assert np.array_equal(total, vault(kept.cluster).block(made.id, "age", 0))


# -- a party that dies

STEPS: dict[str, tuple[Any, str, bool]] = {
    "before it is written": (Making, "write", False),
    "after it is written": (Making, "write", True),
    "before it is compared": (kept_run, "tell", False),
    "within the transaction": (Making, "receive", False),
    "before the transaction is over": (Making, "receive", True),
    "before it is signed": (KeptRun, "settle", False),
    "before it exists": (Making, "complete", False),
    "when it exists": (Making, "complete", True),
    "before the old version is erased": (Making, "replace", False),
    "when the old version is erased": (Making, "replace", True),
}


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Death:
    """Kills the first party at one step of keeping something, once."""

    cluster: InProcess
    after: bool
    dead: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def dying(this: Any, *args: Any, **kwargs: Any) -> Any:
            if self.dead.is_set() or not is_first(this):
                return call(this, *args, **kwargs)
            if self.after:
                call(this, *args, **kwargs)
            self.dead.set()
            self.thread = threading.Thread(target=self.cluster.crash, args=(0,))
            self.thread.start()
            raise Killed

        return dying


def is_first(this: Any) -> bool:
    """Is it the first party's?  Links, of `tell`, lead to the others."""
    if isinstance(this, list):
        return bool(this[0].peer == "party-1")
    return bool(this.vault.config.name == "party-0")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("refresh", [False, True])
def test_a_party_that_is_killed_leaves_a_whole_object_or_none(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, refresh: bool
) -> None:
    """Without MPC_FULL=1 at each step of a session that keeps something, or of a refresh, by turns."""
    kept.allow(epsilon=20, total=20)
    for number, (name, (place, method, after)) in enumerate(STEPS.items()):
        if not refresh if method == "replace" else not FULL and number % 2 == refresh:
            continue
        death = Death(kept.cluster, after)
        with monkeypatch.context() as patch:
            patch.setattr(place, method, death.around(getattr(place, method)))
            with pytest.raises(MpcError):
                again(kept, refresh)
            assert death.dead.wait(PATIENCE) and death.thread is not None, name
            death.thread.join(PATIENCE)
        kept.cluster.revive(0)
        settled(kept, name)
    made = again(kept, refresh)
    assert np.array_equal(opened(kept.cluster, made, made.columns[0].name).reshape(-1), AGES if refresh else BITS)


def again(kept: Kept, refresh: bool) -> Manifest:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MpcWarning)  # of versions that some parties alone have
        if refresh:
            return Datasets(kept.cluster.client(HOSPITAL)).refresh("patients").manifest
        return keep(kept, kept_plan())[0]


def settled(kept: Kept, name: str) -> None:
    """Once nothing is under way: what can be asked for is whole, and nothing half-made counts."""
    deadline = time.monotonic() + PATIENCE
    while any(node.open_sessions() for node in kept.cluster.nodes) or any(
        "keeping" in {state for _, state in rows_of(kept, index)} for index in (0, 1)
    ):
        assert time.monotonic() < deadline, name
        time.sleep(0.05)
    for who, dataset, expected in ((HOSPITAL, "hospital/patients", AGES), (ANALYST, SCORES, BITS)):
        try:
            found = Datasets(kept.cluster.client(who)).get(dataset).manifest
        except SessionError:
            assert dataset == SCORES, name  # what was put is always there
            continue
        for index in (0, 1):
            assert vault(kept.cluster, index).manifest(found.id).id == found.id, name
        assert np.array_equal(opened(kept.cluster, found, found.columns[0].name).reshape(-1), expected), name
