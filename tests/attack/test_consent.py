"""Attempts to read, or to be told, more than owners allow: at each party alone, and by ledgers that are put back."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import ConfigError, MpcError, PolicyError, SessionError
from parties.agreed.questions import Bound, Exact, ExactPlan, Question
from parties.agreed.signed import key_of
from parties.agreed.terms import Terms
from parties.party.ledger import file
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import RunState
from parties.party.run import Run
from parties.pb import consent_pb2
from parties.provider.service import ProviderService
from parties.trust import authority
from parties.trust.identity import Identity
from tests.support.asking import ANALYST, HOSPITAL, ROWS, Kept, above, exactly, noised_sum, word
from tests.support.grants import budget, dp, grant, revocation
from tests.support.objects import AGE, described, put
from tests.support.parties import InProcess

HALF = 500_000_000


class Watched(ProviderService):
    """A provider that notes which parties show it seeds of data at rest."""

    shown: list[str]

    def deal(self, request: Any, context: Any) -> Iterator[Any]:
        if request.terms.seeds:
            [name] = context.auth_context()["x509_common_name"]
            type(self).shown.append(name.decode())
        yield from super().deal(request, context)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    Watched.shown = []
    with InProcess(tmp_path, 2, provider=Watched) as cluster:
        yield Kept(cluster)


# -- 42: a grant's own words decide


PLAN = noised_sum()
NOT_YET = int(time.time()) + (1 << 28)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another coordinator": ({"coordinators": ("student",)}, "other coordinators"),
    "another recipient": ({"recipients": ("student",)}, "does not name the recipient analyst"),
    "another provider": ({"provider": "other"}, "other parties or providers"),
    "other parties": ({"parties": ("party-1", "party-0")}, "other parties or providers"),
    "not yet": ({"not_before": NOT_YET, "expires": NOT_YET + 1}, "does not hold yet"),
    "less noise": ({"question": dp(1, Fraction(1, 4))}, "allows 0.25 a run"),
    "less in all": ({"question": dp(Fraction(1, 4))}, "allows 0.25 a run"),
    "less delta": ({"question": dp(1, delta=Fraction(1, 1 << 55))}, "has less left"),
}


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", BAD)
def test_security_42_a_grant_of_something_else_opens_nothing(kept: Kept, case: str, index: int) -> None:
    changes, message = BAD[case]
    kept.say(budget())
    kept.grant(only=[1 - index])
    kept.grant(only=[index], **changes)
    with pytest.raises(PolicyError, match=message):
        kept.ask(PLAN)
    assert_nothing_was_told(kept, index)


def assert_nothing_was_told(kept: Kept, index: int) -> None:
    """The party that refused has shown the provider no seed; nobody was charged, nothing was told."""
    assert kept.cluster.names[index] not in Watched.shown
    for each in range(2):
        assert kept.spent(each) == kept.revealed(each) == 0


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_no_grant_no_budget_a_revoked_one_a_used_one(kept: Kept, index: int) -> None:
    given = kept.grant(only=[1 - index])
    kept.say(budget(), only=[1 - index])
    with pytest.raises(PolicyError, match="granted analyst nothing"):
        kept.ask(PLAN)
    kept.say(given, only=[index])
    with pytest.raises(PolicyError, match="set no budget"):
        kept.ask(PLAN)
    kept.say(budget(Fraction(1, 4)), only=[index])
    with pytest.raises(PolicyError, match=r"costs epsilon 0\.5, and 0\.25 of its budget"):
        kept.ask(PLAN)
    kept.say(budget(2, 2))
    kept.say(revocation(given), only=[index])
    with pytest.raises(PolicyError, match="was revoked"):
        kept.ask(PLAN)
    kept.say(given, only=[index])  # put again, it stays revoked
    with pytest.raises(PolicyError, match="was revoked"):
        kept.ask(PLAN)
    assert_nothing_was_told(kept, index)
    once = kept.grant(uses=1, expires=given.expires + 1)
    kept.say(once)
    with kept.cluster.ledgers[index].writing() as database:
        values = ("ab" * 32, 1, "hospital/patients", once.id, "", "laplace", 0, 0, 0.0)
        database.execute("INSERT INTO consent_charges VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    with pytest.raises(PolicyError, match="is used up"):
        kept.ask(PLAN)
    assert_nothing_was_told(kept, index)


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_an_expired_grant(kept: Kept, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.allow()
    kept.ask(PLAN)
    monkeypatch.setattr(kept.cluster.nodes[index].vault.times, "clock", lambda: time.time() + 4000)
    with pytest.raises(PolicyError, match="has expired"):
        kept.ask(PLAN)
    monkeypatch.setattr(kept.cluster.nodes[index].vault.times, "clock", time.time)
    with pytest.raises(SessionError, match="behind the latest time"):  # and it is no use to set the clock back
        kept.ask(PLAN)
    assert kept.revealed(0) == kept.revealed(1) == 1


def test_security_42_words_of_others(kept: Kept, tmp_path: Path) -> None:
    kept.say(budget())
    now = int(time.time())
    real = grant(parties=kept.cluster.names, created=now, not_before=now - 1, expires=now + 600)
    cluster, hospital, eve = kept.cluster, kept.cluster.identity(HOSPITAL), kept.cluster.identity("eve")
    files = authority.issue(cluster.ca, HOSPITAL, tmp_path / "again")
    again = Identity.load(files, HOSPITAL, members=(*cluster.names, "provider"))
    forged = word(real, eve)
    patched = consent_pb2.Word.FromString(word(real, hospital).SerializeToString())
    patched.grant.content = patched.grant.content.replace(b'"analyst"', b'"student"')
    other = real.model_copy(update={"cluster": "0" * 32})
    swapped = consent_pb2.Word(budget=word(real, hospital).grant)
    for caller, said in (
        ("eve", forged),
        ("eve", word(real, hospital)),  # true, and not its owner's to bring
        (HOSPITAL, forged),
        (HOSPITAL, patched),
        (HOSPITAL, word(other, hospital)),
        (HOSPITAL, word(real, again)),  # of a key that was issued later
        (HOSPITAL, swapped),
        (HOSPITAL, consent_pb2.Word()),
        ("eve", word(revocation(real, owner="eve"), hospital)),
    ):
        for index in range(2):
            with pytest.raises(MpcError) as caught:
                cluster.consent(index, caller).Say(said)
            assert caught.value.code in ("integrity", "input", "policy")
    with pytest.raises(PolicyError, match="granted analyst nothing"):
        kept.ask(PLAN)
    kept.say(real)
    kept.say(revocation(real, owner="eve"), "eve")  # a stranger's revocation of it counts for nothing
    kept.ask(PLAN)


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_other_rows_columns_plans_and_versions(kept: Kept, index: int) -> None:
    cluster, plan = kept.cluster, above()
    columns = (AGE, AGE.model_copy(update={"name": "score"}))
    manifest = put(cluster.client(HOSPITAL), described("two", ROWS, columns))
    second = put(cluster.client(HOSPITAL), described("two", ROWS, columns))
    name = manifest.id.hex()
    kept.grant(dataset=name, question=exactly(plan, manifest))
    for bindings, asked in (
        (kept.binding(manifest, columns=("score",)), plan),
        (kept.binding(manifest, rows=4), plan),
        (kept.binding(manifest, first=1, rows=4), plan),
        (kept.binding(second), plan),
        (kept.binding(manifest), above(level=61)),
    ):
        with pytest.raises(PolicyError, match="not one of the plans|granted analyst nothing"):
            kept.ask(asked, bindings)
    assert not Watched.shown
    kept.ask(plan, kept.binding(manifest))
    for changes in ({"columns": ("score",)}, {"rows": 4}):
        only = kept.grant(
            dataset=second.id.hex(),
            question=Question(exact=Exact(plans=(_listed(plan, second.id.hex(), **changes),))),
            only=[index],
        )
        kept.grant(dataset=second.id.hex(), question=exactly(plan, second), only=[1 - index], expires=only.expires + 1)
        with pytest.raises(PolicyError, match="not one of the plans"):
            kept.ask(plan, kept.binding(second))
    assert kept.revealed() == 1


def _listed(plan: Any, dataset: str, **changes: Any) -> ExactPlan:
    bound = Bound(**{"dataset": dataset, "columns": ("age",), "first": 0, "rows": ROWS, **changes})
    return ExactPlan(plan=plan.digest.hex(), bindings={"x": bound})


def test_security_42_one_bit_is_one_bit(kept: Kept) -> None:
    plan = above()
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest, bits=1), uses=5)
    with pytest.raises(MpcError, match="one bit a run"):
        kept.ask(plan)  # five rows, five bits
    assert kept.revealed() == 0
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest, 1, bits=1), uses=1)
    assert kept.ask(plan, kept.binding(rows=1), batch=1).sum() == 0
    with pytest.raises(PolicyError, match="used up|not one of the plans"):
        kept.ask(plan, kept.binding(rows=1), batch=1)


def test_security_42_a_name_that_is_issued_again_inherits_nothing(kept: Kept, tmp_path: Path) -> None:
    cluster = kept.cluster
    cluster.renew(HOSPITAL)
    for plan, coordinator in ((above(HOSPITAL), HOSPITAL), (noised_sum(HOSPITAL), HOSPITAL)):
        with pytest.raises(MpcError):
            kept.ask(plan, coordinator=coordinator)
    for said in (budget(), grant(parties=cluster.names, expires=int(time.time()) + 600, not_before=0)):
        with pytest.raises(PolicyError, match="inherits nothing"):
            kept.say(said)
    assert not Watched.shown and kept.revealed() == 0


def test_an_operators_cap_holds_whatever_the_owner_says(kept: Kept) -> None:
    kept.allow(3, 3)
    cluster = kept.cluster
    rules = cluster.nodes[1].consent.operator.rules
    capped = rules.policy.config.model_copy(update={"max_epsilon": "0.75"})
    rules.policy = replace(rules.policy, config=capped)
    kept.ask(PLAN)
    with pytest.raises(PolicyError, match=r"0\.25 of its budget is left; fix: ask the operator"):
        kept.ask(PLAN)


# -- 41: what it costs is written first


class Killed(BaseException):
    """The process is gone."""


class Kill:
    """Raises at the k-th write to the disk, before it is done, and at all later ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self._before(getattr(os, name)))
        transaction = file.transaction

        @contextmanager
        def dying(database: Any) -> Iterator[None]:
            self._tick()
            with transaction(database):
                yield
                self._tick()
            self._tick()

        monkeypatch.setattr(file, "transaction", dying)

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            return call(*args, **kwargs)

        return dying

    def _tick(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def test_security_41_the_charge_is_on_the_disk_at_every_failpoint(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.allow(20, 20)
    node, ledger = kept.cluster.nodes[0], kept.cluster.ledgers[0]
    key, folder = key_of(kept.cluster.identity(ANALYST).certificate_pem), node.config.data_dir
    paid, answered = 0, 0
    for at in range(40):
        terms = Terms(PLAN.digest, "provider", kept.cluster.names, (os.urandom(32), os.urandom(32)), kept.binding())
        consent = node.consent.open(PLAN, terms, ANALYST, key)
        ledger.open_session(terms.session_id, PLAN.digest, ANALYST, consent.opened)
        for state in (RunState.DEALT, RunState.BURNT, RunState.OPENED, RunState.CHECKED):
            ledger.advance(terms.session_id, 1, state)
        left = False
        with monkeypatch.context() as patched:
            kill = Kill(patched, at)
            try:
                consent.reveal(ledger, 1, ROWS)
                left = True  # here, and not before, the seeds of outputs leave
            except Killed:
                pass
        kept.cluster.crash(0)
        kept.cluster.revive(0)
        node, ledger = kept.cluster.nodes[0], kept.cluster.ledgers[0]
        with ledger.reading() as database:
            row = database.execute(
                "SELECT state FROM runs WHERE session_id = ? AND run = 1", (terms.session_id.hex(),)
            ).fetchone()
            charged = database.execute(
                "SELECT epsilon FROM consent_charges WHERE session = ?", (terms.session_id.hex(),)
            ).fetchall()
        assert (row[0] == RunState.REVEALED) == (charged == [(HALF,)])
        assert not left or charged == [(HALF,)]
        assert kept.spent() == paid + sum(amount for (amount,) in charged)  # nothing comes back
        paid = kept.spent()
        answered += left
        if kill.left >= 0 and left:
            break
    assert answered == 1 and folder.exists()


def test_security_41_no_seed_is_released_before_the_charge_is_committed(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.allow()
    found = []
    release = Run.reveal

    def watched(run: Run) -> None:
        [mine] = [n for n in kept.cluster.nodes for s in n.sessions(ANALYST) if run in s.runs.kept.values()]
        found.append(_spent(mine.config.data_dir / "ledger.sqlite"))
        release(run)

    monkeypatch.setattr(Run, "reveal", watched)
    kept.ask(PLAN)
    assert found == [HALF, HALF]  # as another process reads the file, at each party just before its seeds are kept


def test_security_41_ledgers_that_are_put_back_gain_nothing(tmp_path: Path) -> None:
    with InProcess(tmp_path, 3) as cluster:
        kept = Kept(cluster)
        kept.allow(2, Fraction(1, 2))
        for index in (0, 1):
            cluster.crash(index)
            shutil.copytree(tmp_path / f"data-{index}", tmp_path / f"backup-{index}")
            cluster.revive(index)
        kept.ask(PLAN)
        for index in (0, 1):
            cluster.crash(index)
            shutil.rmtree(tmp_path / f"data-{index}")
            shutil.copytree(tmp_path / f"backup-{index}", tmp_path / f"data-{index}")
            cluster.revive(index)
        assert [kept.spent(index) for index in range(3)] == [0, 0, HALF]
        with pytest.raises(PolicyError, match=r"party-2: .*0 of its budget is left"):
            kept.ask(PLAN)
        assert [kept.spent(index) for index in range(3)] == [0, 0, HALF]


def test_security_41_a_database_from_before_a_charge_is_refused(kept: Kept, tmp_path: Path) -> None:
    kept.allow()
    session = kept.open(PLAN)
    folder = kept.cluster.nodes[0].config.data_dir
    with sqlite3.connect(folder / "ledger.sqlite") as source, sqlite3.connect(tmp_path / "copy.sqlite") as copy:
        source.backup(copy)
    session.run({}, ROWS, lambda: 0.0)
    kept.cluster.crash(0)
    for path in folder.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(tmp_path / "copy.sqlite", folder / "ledger.sqlite")
    with pytest.raises(ConfigError, match="restored from a backup"):
        Ledger.open(folder)


def test_a_run_that_is_not_told_costs_nothing(kept: Kept) -> None:
    kept.allow()
    session = kept.open(PLAN)
    session.drop()
    assert kept.spent(0) == kept.spent(1) == 0


def _spent(path: Path) -> int:
    with sqlite3.connect(path) as database:
        return int(database.execute("SELECT coalesce(sum(epsilon), 0) FROM consent_charges").fetchone()[0])
