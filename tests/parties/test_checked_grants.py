"""Grants of checked sessions alone: whoever has data decides that its uses are checked, whatever operators allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mpc.errors import MpcWarning, PolicyError, UsageError
from parties.agreed.grants import Grant
from parties.agreed.signed import dump
from parties.client.datasets import Datasets
from parties.client.models import Models
from tests.support import grants
from tests.support.asking import AGES, ANALYST, HOSPITAL, Kept, above, exactly, kept_by_two, noised_sum
from tests.support.grants import dp
from tests.support.keeping import keep, kept_plan, noised_kept
from tests.support.lab import LAB, Lab
from tests.support.parties import InProcess, data, tiny_answer

HALF = 500_000_000
BITS = (AGES >= 60).astype(np.int64)
REFUSED = "is of sessions whose runs are checked, and this one's are not: ask with --security active"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    yield from kept_by_two(tmp_path)


def test_a_grant_that_says_nothing_of_it_has_the_bytes_that_it_had() -> None:
    plain, strict = grants.grant(), grants.grant(security="active")
    said = plain.model_dump(mode="json")
    assert "security" not in said and strict.model_dump(mode="json") == {**said, "security": "active"}
    assert Grant.parse(dump(strict.model_dump(mode="json"))) == strict and plain.id != strict.id


@pytest.mark.parametrize("word", ["passive", "Active", "", True])
def test_no_other_word_is_a_grant(word: object) -> None:
    with pytest.raises(ValidationError):
        grants.grant(security=word)


def test_security_active_noised_answers_are_checked_where_their_owner_says_so(kept: Kept) -> None:
    kept.grant(question=dp(4), security="active")
    with pytest.raises(PolicyError, match=REFUSED):
        kept.ask(noised_sum())
    assert kept.revealed() == kept.spent() == 0
    found = kept.ask(noised_sum().with_security("active"))
    assert abs(int(found.reshape(-1)[0]) - int(AGES.sum())) < 40_000
    assert [kept.spent(index) for index in (0, 1)] == [HALF] * 2
    kept.grant(question=dp(4))  # another word of the owner's, which says nothing of it
    kept.ask(noised_sum())
    assert kept.spent() == 2 * HALF


def test_security_active_what_was_kept_of_rows_is_asked_about_as_their_owner_says(kept: Kept) -> None:
    keeps = kept_plan().with_security("active")
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(keeps, kept.manifest), security="active")
    made, _ = keep(kept, keeps)
    kept.grant(question=dp(4), security="active")
    plan, bindings = noised_kept(made), kept.binding(made, columns=(made.columns[0].name,))
    with pytest.raises(PolicyError, match=REFUSED):
        kept.ask(plan, bindings)
    assert kept.spent() == 0
    kept.ask(plan.with_security("active"), bindings)
    assert kept.spent() == HALF


def test_security_active_an_exact_plan_and_a_checked_grant(kept: Kept) -> None:
    """A grant of a plan that is not checked is of no use to anybody; a client does not sign it."""
    for plan in (above(), above().with_security("active")):
        kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest), security="active")
    with pytest.raises(PolicyError, match=REFUSED):
        kept.ask(above())
    assert np.array_equal(kept.ask(above().with_security("active")).reshape(-1), BITS)
    strict, plain = (Datasets(kept.cluster.client(HOSPITAL, each)) for each in ("active", "passive"))
    reads = {"x": strict.get("patients")[["age"]]}
    for refused in (
        lambda: strict.grant("patients", ANALYST, plans=above(), data=reads),
        lambda: plain.grant("patients", ANALYST, plans=above(), data=reads, security="active"),
    ):
        with pytest.raises(UsageError, match="runs of a plan that is granted are not checked"):
            refused()


def test_a_client_grants_as_its_file_says_or_more(kept: Kept) -> None:
    strict, plain = (Datasets(kept.cluster.client(HOSPITAL, each)) for each in ("active", "passive"))
    assert strict.grant("patients", ANALYST, epsilon=1).security == "active"
    assert plain.grant("patients", ANALYST, epsilon=1).security is None
    assert plain.grant("patients", ANALYST, epsilon=1, security="active").security == "active"
    assert plain.grant("patients", ANALYST, epsilon=1, security="passive").security is None
    with pytest.raises(UsageError, match="every session is active"):
        strict.grant("patients", ANALYST, epsilon=1, security="passive")
    said = {json.loads(json.dumps(each.content())).get("security") for each in plain.grants()}
    assert said == {None, "active"}  # grants of one content within one second are one


def test_a_grant_of_what_was_never_checked_says_so(kept: Kept, recwarn: pytest.WarningsRecorder) -> None:
    """Until the object is put anew: then nothing of it is what an unchecked session has made."""
    own = Datasets(kept.cluster.client(HOSPITAL))
    own.refresh("patients")
    own.grant("patients", ANALYST, epsilon=1)
    assert not recwarn.list
    with pytest.warns(MpcWarning, match="hospital/patients is not checked: .* anew"):
        own.grant("patients", ANALYST, epsilon=1, security="active")
    own.put("patients", {"age": AGES}, ranges=(0, 127), rows_per_person=1)
    own.grant("patients", ANALYST, epsilon=1, security="active")
    assert not recwarn.list


def test_security_active_a_model_is_used_as_its_owner_says(tmp_path: Path) -> None:
    x = data(4)
    with InProcess(tmp_path, 2) as cluster:
        lab = Lab(cluster, tmp_path)
        lab.models().grant("triage", ANALYST, security="active")
        found = Models(cluster.client(ANALYST)).get(f"{LAB}/triage")
        with pytest.raises(PolicyError, match=REFUSED):
            lab.use(found.place(), {"x": x})
        answer = lab.use(found.place(security="active"), {"x": x})
        assert np.abs(answer - tiny_answer(x)).max() < 1e-3
        lab.model = lab.put("strict")
        assert Models(cluster.client(LAB, "active")).grant("strict", ANALYST).security == "active"
