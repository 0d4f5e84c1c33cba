"""Consent as owners, analysts and their commands have it: granted, asked, taken back; ledgers put back are shown."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import pytest
from click.testing import CliRunner

from mpc.errors import InputError, IntegrityError, MpcWarning, PolicyError, SessionError, UsageError
from mpc.privacy.composition import composed
from mpc.privacy.facts import CHARGE_UNIT, Loss
from parties.agreed.audit import START
from parties.agreed.questions import Bound
from parties.cli.audit import audit
from parties.cli.budgets import budget
from parties.cli.consent import grant
from parties.cli.display import Display
from parties.client.consent import auditing, composing, granting
from parties.client.consent.granted import as_amount
from parties.client.consent.heads import Heads
from parties.client.datasets import Datasets
from tests.support.asking import AGES, ANALYST, HOSPITAL, Kept, above, noised_sum
from tests.support.grants import dp
from tests.support.parties import CLUSTER, PATIENCE, InProcess


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with InProcess(tmp_path, 2) as cluster:
        yield Kept(cluster)


def test_an_owner_grants_an_analyst_asks_and_the_budget_falls(kept: Kept) -> None:
    hospital, analyst = kept.cluster.client(HOSPITAL), kept.cluster.client(ANALYST)
    with pytest.warns(MpcWarning, match="mpc budget set hospital/patients"):
        made = Datasets(hospital).grant("patients", ANALYST, epsilon=1.0, epsilon_each=0.5, uses=3, expires="2y")
    assert made.question.dp is not None and made.question.dp.epsilon_each == Fraction(1, 2)
    left = granting.set_budget(hospital, "hospital/patients", Fraction(3, 4), Fraction(1, 10**6))
    assert (left.epsilon, left.spent, left.more(Fraction(1, 10))) == (Fraction(3, 4), 0, 7)
    plan, data = noised_sum(), {"x": Datasets(analyst).get("hospital/patients")[["age"]]}
    verdicts = Datasets(analyst).ask(plan, data)
    assert [(v.party, v.allowed, v.mechanism, v.epsilon) for v in verdicts] == [
        (name, True, "laplace", Fraction(1, 2)) for name in kept.cluster.names
    ]
    assert kept.spent() == 0  # asking whether is free
    kept.ask(plan)
    for client in (hospital, analyst):
        left = granting.budget(client, "hospital/patients")
        assert (left.spent, left.left, left.noised) == (Fraction(1, 2), Fraction(1, 4), 1)
        [given] = granting.given(client)
        assert (given.id, given.uses, given.spent, given.revoked) == (made.id, 1, Fraction(1, 2), False)
        assert given.parties == kept.cluster.names
    verdicts = Datasets(analyst).ask(plan, data)
    assert {(v.allowed, v.whose) for v in verdicts} == {(False, HOSPITAL)} and "is left" in verdicts[0].why
    Datasets(hospital).revoke(made.id[:12])
    assert granting.given(analyst)[0].revoked
    with pytest.raises(PolicyError, match="was revoked"):
        kept.ask(plan)


def test_an_exact_plan_is_granted_with_what_it_reads(kept: Kept) -> None:
    hospital, analyst = Datasets(kept.cluster.client(HOSPITAL)), Datasets(kept.cluster.client(ANALYST))
    plan, data = above(), {"x": analyst.get("hospital/patients")[["age"]]}
    [verdict, _] = analyst.ask(plan, data)
    assert not verdict.allowed and verdict.whose == HOSPITAL and "mpc grant add hospital/patients" in verdict.remedy
    made = hospital.grant("patients", [ANALYST], plans=plan, data=data, uses=1)
    assert made.dataset == kept.manifest.id.hex() and made.question.exact is not None
    assert made.question.exact.plans[0].bindings == {
        "x": Bound(dataset=kept.manifest.id.hex(), columns=("age",), first=0, rows=5)
    }
    assert np.array_equal(kept.ask(plan).reshape(-1), AGES >= 60)
    with pytest.raises(InputError):
        hospital.grant("patients", [ANALYST], plans=plan)  # of what?


def test_a_budget_prints_as_people_read_it_and_says_what_its_answers_tell_together(kept: Kept) -> None:
    """Plain sums are what counts; of answers that cost as much each, less is known, which the owner is shown."""
    hospital, name = kept.cluster.client(HOSPITAL), "hospital/patients"
    assert str(granting.budget(hospital, name)).startswith(f"{name}: no budget is set; 0 noised answers")
    granting.set_budget(hospital, name, Fraction(9, 2), Fraction(1, 10**5))
    kept.grant(question=dp(Fraction(4)))
    for _ in range(3):
        kept.ask(noised_sum())
    found = composing.budget(hospital, name, Fraction(1, 10))
    assert str(found).startswith(f"{name}: epsilon 3 of 4.5 left, delta ") and "Fraction" not in repr(found)
    assert str(found.left) == repr(found.left) == "3" and f"{found.together}".startswith(
        "together: epsilon 0.964479 at delta 0.1, of 3 answers"
    )
    together = found.together
    assert together is not None and together.epsilon is not None
    [cost] = {(each.epsilon, each.delta) for each in charged(kept)}
    assert (together.answers, together.plain) == (3, 3 * cost[0])
    assert together.epsilon == composed(cost[0], [cost[1]] * 3, Fraction(1, 10)) < together.plain
    content = found.content()["together"]
    assert content == {"answers": 3, "delta": 0.1, "plain": 1.5, "epsilon": float(together.epsilon)}
    honest = auditing.follow_chain(hospital.clients[0], START, PATIENCE)
    for changed in ({"fault": "its rows do not follow"}, {"rows": ({"kind": "charge", "epsilon": 5, "delta": "0"},)}):
        chain = replace(honest, **changed)
        with mock.patch.object(composing, "follow_chain", lambda *_, chain=chain: chain):
            with pytest.raises(IntegrityError, match="does not say what was charged"):
                composing.budget(hospital, name, Fraction(1, 10))
    kept.ask(noised_sum(epsilon=Fraction(1, 4)))  # another epsilon: nothing less than the sum holds
    mixed = composing.budget(hospital, name, Fraction(1, 10)).together
    assert mixed is not None and mixed.epsilon is None and "plain sum" in str(mixed) and mixed.plain == Fraction(7, 4)
    assert granting.budget(hospital, name).left == Fraction(11, 4)  # what is enforced
    with pytest.raises(UsageError, match="its owner alone"):
        composing.budget(kept.cluster.client(ANALYST), name, Fraction(1, 10))
    with pytest.raises(UsageError, match="no delta"):
        composing.budget(hospital, name, Fraction(1))


def charged(kept: Kept) -> list[Loss]:
    """What the first party's ledger has of the answers."""
    query = "SELECT epsilon, delta FROM consent_charges"
    with kept.cluster.ledgers[0].reading() as database:
        return [Loss(Fraction(e, CHARGE_UNIT), Fraction(d, 10**18)) for e, d in database.execute(query)]


def test_nobody_else_is_told_anything(kept: Kept) -> None:
    kept.allow()
    stranger = kept.cluster.client("stranger")
    assert granting.given(stranger) == []
    for name in ("hospital/patients", "hospital/nothing"):
        with pytest.raises(SessionError, match="no such object here, or you may not see it"):
            granting.budget(stranger, name)
    hidden = kept.put("hidden", visible=())
    plan = noised_sum("stranger")
    for bindings in (kept.binding(hidden), kept.binding(object=b"7" * 32)):
        answers = granting.ask(stranger, plan, bindings)
        assert {(each.dataset, each.allowed, each.why) for each in answers} == {
            ("", False, "there is no such object here, or you may not see it")
        }


@pytest.mark.parametrize("given", [0, -1, "x", "1e999999999", "0/1", float("nan"), float("inf"), True, None, [], "1/0"])
def test_an_amount_that_is_none(given: Any) -> None:
    with pytest.raises(UsageError):
        as_amount(given, "epsilon")


def test_amounts_are_as_they_are_written() -> None:
    assert as_amount(0.1, "epsilon") == as_amount("0.1", "epsilon") == Fraction(1, 10)
    assert as_amount("1/3", "epsilon") == Fraction(1, 3) and as_amount(2, "epsilon") == 2


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"epsilon": 1, "plans": []},
        {"epsilon": 1, "epsilon_each": 2},
        {"epsilon": 1, "uses": 0},
        {"epsilon": 1, "outputs": 0},
        {"epsilon": 1, "expires": "soon"},
        {"epsilon": 1, "coordinators": []},
        {"epsilon": 1, "coordinators": ["a b"]},
        {"plans": "nothing.plan"},
        {"plans": 3},
    ],
)
def test_a_grant_that_is_none(kept: Kept, said: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Datasets(kept.cluster.client(HOSPITAL)).grant("patients", **{"coordinators": ANALYST, **said})


def test_a_ledger_that_was_put_back_is_shown(kept: Kept, tmp_path: Path) -> None:
    kept.allow(2, 2)
    kept.cluster.crash(0)
    shutil.copytree(tmp_path / "data-0", tmp_path / "backup")
    kept.cluster.revive(0)
    analyst = kept.cluster.client(ANALYST)
    kept.ask(noised_sum())
    heads = Heads(_newest_heads(tmp_path)).known()
    assert set(heads) == {*kept.cluster.names}
    good = auditing.check_chains(analyst.clients, heads, 30)
    assert [each.fault for each in good] == [None, None]
    whole = auditing.check_chains(analyst.clients, {}, 30)
    assert {each.after for each in whole} == {START}
    kinds = [row["kind"] for row in whole[1].rows]
    assert kinds == ["grant", "open", "charge", "reveal"]  # and nothing of the hospital's own
    assert whole[1].count == len(kinds) + 2 and whole[1].head == good[1].head
    [charged] = [row for row in whole[1].rows if row["kind"] == "charge"]
    assert (charged["epsilon"], charged["dataset"]) == (500_000_000, "hospital/patients")
    kept.cluster.crash(0)
    shutil.rmtree(tmp_path / "data-0")
    shutil.copytree(tmp_path / "backup", tmp_path / "data-0")
    kept.cluster.revive(0)
    faults = [each.fault for each in auditing.check_chains(analyst.clients, heads, 30)]
    assert faults[0] is not None and "no such head" in faults[0] and faults[1] is None
    with pytest.raises(IntegrityError, match="no party has a row behind that head"):
        auditing.check_chains(analyst.clients, {}, 30, heads["party-0"])
    assert auditing.check_chains(analyst.clients, {}, 30, heads["party-1"])[0].party == "party-1"


def _newest_heads(folder: Path) -> Path:
    return folder / "certificates" / ANALYST / f"{ANALYST}.heads.json"


def test_a_chain_that_lies_is_noticed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.allow()
    analyst = kept.cluster.client(ANALYST)
    with kept.cluster.ledgers[0].writing() as database:
        lie = "UPDATE audit SET row = CAST(replace(CAST(row AS TEXT), ?, ?) AS BLOB)"
        database.execute(lie, ('"kind":"grant"', '"kind":"graft"'))
    found = auditing.check_chains(analyst.clients, {}, 30)
    assert found[0].fault is not None and "do not follow" in found[0].fault and found[1].fault is None


def cluster_file(kept: Kept, name: str, folder: Path) -> Path:
    """A cluster file of that client."""
    tls = kept.cluster.tls(name)
    lines = [f'name = "{name}"', f'cluster = "{CLUSTER}"', "[tls]"]
    lines += [f'{key} = "{getattr(tls, key)}"' for key in ("certificate", "key", "ca")]
    lines += ["[provider]", 'name = "provider"', f'address = "{kept.cluster.addresses["provider"]}"']
    for party in kept.cluster.names:
        lines += ["[[parties]]", f'name = "{party}"', f'address = "{kept.cluster.addresses[party]}"']
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(file: Path, group: click.Command, *words: str, fails: type[Exception] | None = None) -> dict[str, Any]:
    """A command's JSON."""
    done = CliRunner().invoke(group, [*words, "--cluster", str(file), "--json"], obj=Display(as_json=True))
    assert (done.exception is None) if fails is None else isinstance(done.exception, fails), done.exception
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.exception is None else {}
    return found


def test_commands(kept: Kept, tmp_path: Path) -> None:
    hospital, analyst = cluster_file(kept, HOSPITAL, tmp_path), cluster_file(kept, ANALYST, tmp_path)
    plan = tmp_path / "above.plan"
    plan.write_bytes(above().canonical)
    asked = ("check", str(plan), "--data", "hospital/patients:age")
    assert not any(each["allowed"] for each in run(analyst, grant, *asked)["answers"])
    words = ("--coordinator", ANALYST, "--plan", str(plan), "--data", "hospital/patients:age", "--uses", "2")
    made = run(hospital, grant, "add", "patients", *words)["grant"]
    assert all(each["allowed"] for each in run(analyst, grant, *asked)["answers"])
    kept.ask(above())
    [listed] = run(analyst, grant, "list")["grants"]
    assert (listed["id"], listed["used"], listed["revoked"]) == (made["id"], 1, False)
    assert run(hospital, grant, "revoke", made["id"][:10])["revoked"] == made["id"]
    assert run(hospital, budget, "set", "patients", "--epsilon", "2")["budget"]["left"] == 2
    shown = run(hospital, budget, "show", "patients", "--each", "0.5")["budget"]
    assert (shown["more"], shown["exact_answers"]) == (4, 1)
    numbers = {"dataset": "hospital/patients", "epsilon": 2.0, "delta": 1e-6, "spent": 0.0, "left": 2.0}
    assert shown == {
        **numbers,
        "spent_delta": 0.0,
        "noised_answers": 0,
        "exact_answers": 1,
        "each": 0.5,
        "more": 4,
    }
    together = run(hospital, budget, "show", "patients", "--together", "1e-6")["budget"]["together"]
    assert together == {"answers": 0, "delta": 1e-6, "plain": 0.0, "epsilon": None}
    chains = run(analyst, audit)["chains"]
    assert [each["fault"] for each in chains] == [None, None]
    run(analyst, audit, "--against", "0" * 63 + "1", fails=IntegrityError)
    run(hospital, grant, "add", "patients", "--coordinator", ANALYST, fails=UsageError)


def test_an_audit_says_what_was_charged_in_numbers(kept: Kept, tmp_path: Path) -> None:
    """Rows are in billionths; whatever else a party writes there is shown as it is."""
    hospital = cluster_file(kept, HOSPITAL, tmp_path)
    kept.allow()
    kept.ask(noised_sum())
    found = granting.budget(kept.cluster.client(HOSPITAL), "hospital/patients")
    assert found.answers == "1 noised answer and 0 exact ones were given"
    told, again = (
        CliRunner().invoke(audit, ["--cluster", str(hospital)], obj=Display(as_json=False)).stdout for _ in range(2)
    )
    for party in kept.cluster.names:
        whole = re.search(rf"^{party}: \d+ rows from its beginning, head (\w{{64}}); the chain is whole$", told, re.M)
        assert whole is not None, told
        since = f"{party}: 0 new rows since {whole[1][:16]}, head {whole[1]}; the chain is whole"
        assert since in again.splitlines()
    budgets = [line for line in told.splitlines() if " budget " in line]
    assert len(budgets) == 2 and all(" epsilon=" in line and " delta=" in line for line in budgets)
    charges = [line for line in told.splitlines() if " charge " in line]
    assert len(charges) == 2 and all(" epsilon=0.5 " in line and "delta=" in line for line in charges)
    assert not any("500000000" in line for line in charges)
    chains = auditing.check_chains(kept.cluster.client(HOSPITAL).clients, {}, 30)
    raw = [row for chain in chains for row in chain.rows if row["kind"] == "charge"]
    assert {row["epsilon"] for row in raw} == {500_000_000}


def test_a_grant_of_some_rows_is_of_these_and_no_others(kept: Kept, tmp_path: Path) -> None:
    """On the command line as in Python: from the first row that is named to before the last."""
    hospital, analyst = cluster_file(kept, HOSPITAL, tmp_path), cluster_file(kept, ANALYST, tmp_path)
    plan = tmp_path / "above.plan"
    plan.write_bytes(above().canonical)

    def allowed(data: str) -> set[bool]:
        answers = run(analyst, grant, "check", str(plan), "--data", data)["answers"]
        return {each["allowed"] for each in answers}

    words = ("--coordinator", ANALYST, "--plan", str(plan), "--data", "x=hospital/patients:age@1:4")
    made = run(hospital, grant, "add", "patients", *words)["grant"]
    [listed] = made["question"]["exact"]["plans"]
    assert (listed["bindings"]["x"]["first"], listed["bindings"]["x"]["rows"]) == (1, 3)
    assert allowed("hospital/patients:age@1:4") == {True}
    for other in ("", "@1:5", "@0:4", "@2:4", "@:4"):
        assert allowed(f"hospital/patients:age{other}") == {False}
    for nothing in ("@9:12", "@3:3"):
        asked = ("check", str(plan), "--data", f"hospital/patients:age{nothing}")
        run(analyst, grant, *asked, fails=UsageError)
    few = ("--coordinator", ANALYST, "--epsilon", "1", "--outputs", "3")
    assert run(hospital, grant, "add", "patients", *few)["grant"]["question"]["dp"]["outputs"] == 3
