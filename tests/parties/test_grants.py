"""Grants, budgets, revocations: one encoding, one signer, one cluster, no word that stands for another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mpc.errors import InputError, IntegrityError, MpcError
from parties.agreed.grants import LARGEST, Budget, Grant, Revocation, Statement
from parties.agreed.questions import Bound, ExactPlan
from parties.agreed.signed import Signed, dump
from parties.trust import authority
from parties.trust.identity import Identity
from tests.support.effort import examples
from tests.support.grants import ID, LATER, MADE, NAME, budget, dp, exact, grant, revocation, use
from tests.support.parties import CLUSTER

NAMED = exact(dataset=ID)
USE = use(data_owners=("clinic", "hospital"), entered=False, datasets=("clinic/visits", ID), rows=7)
EVERY = (
    grant(),
    grant(dataset=ID, question=NAMED, uses=1),
    grant(dataset=ID, question=USE),
    budget(),
    revocation(grant()),
)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Identity]:
    folder = tmp_path_factory.mktemp("trust")
    authority.make_ca(folder / "ca", "test-ca")

    def make(name: str) -> Identity:
        return Identity.load(authority.issue(folder / "ca", name, folder / name), name)

    return make


@pytest.mark.parametrize("said", EVERY, ids=lambda said: said.format)
def test_there_is_one_encoding(said: Statement, identity: Callable[[str], Identity]) -> None:
    hospital = identity("hospital")
    signed = said.sign(hospital)
    assert type(said).parse(signed.content) == said and signed.content.isascii()
    assert type(said).verify(hospital.trust, signed, CLUSTER, time.time) == said
    for change in (
        signed.content + b" ",
        signed.content.replace(b'"owner":', b'"owner": '),
        signed.content[:-1] + b',"more":1}',
        signed.content.replace(b"{", b'{"owner":"hospital",', 1),
        b"[" * 10_000,
        b"\xff",
        signed.content + b" " * LARGEST,
    ):
        with pytest.raises(InputError):
            type(said).parse(change)


def test_every_word_of_a_grant_is_in_its_id() -> None:
    others = [
        grant(cluster="f" * 32),
        grant(owner="clinic", dataset="clinic/patients"),
        grant(dataset="hospital/others"),
        grant(parties=("party-1", "party-0")),
        grant(provider="other"),
        grant(coordinators=("analyst", "student")),
        grant(recipients=("student",)),
        grant(uses=1),
        grant(created=MADE + 1),
        grant(not_before=MADE + 1),
        grant(expires=LATER + 1),
        grant(question=dp(each=Fraction(1, 2))),
        grant(question=dp(2)),
        grant(question=dp(outputs=5)),
        grant(question=dp(delta=Fraction(1, 2))),
        grant(dataset=ID, question=exact(dataset=ID)),
        grant(question=USE),
        grant(question=use()),
        grant(question=use(data_owners=("hospital",))),
        grant(question=use(entered=False)),
        grant(question=use(datasets=("clinic/visits",))),
        grant(question=use(rows=7)),
    ]
    assert len({grant().id, *(other.id for other in others)}) == len(others) + 1


def test_grants_of_datasets_have_the_bytes_that_they_had_before_there_were_models() -> None:
    assert grant().id == "791ac004c5a7f07e042d5e77e674f6e19f0fa048ea592fbf359226f3b6eed222"
    exactly = grant(dataset=ID, question=NAMED, uses=1)
    assert exactly.id == "8ceebf0995d46cbf35fd24672e159dad4657592bb1f905fc2569d55ea4556a36"
    content = json.loads(dump(grant().model_dump(mode="json")))
    with pytest.raises(InputError, match="one encoding"):
        Grant.parse(dump({**content, "question": {**content["question"], "use": None}}))


def test_a_word_of_one_kind_is_none_of_another(identity: Callable[[str], Identity]) -> None:
    hospital = identity("hospital")
    for said in EVERY:
        for kind in (Grant, Budget, Revocation):
            signed = Signed.make(hospital, kind.TAG, dump(said.model_dump(mode="json")))
            if isinstance(said, kind):
                kind.verify(hospital.trust, signed, CLUSTER, time.time)
                continue
            with pytest.raises(InputError):
                kind.verify(hospital.trust, signed, CLUSTER, time.time)
            with pytest.raises(IntegrityError):
                type(said).verify(hospital.trust, signed, CLUSTER, time.time)


@pytest.mark.parametrize("said", EVERY, ids=lambda said: said.format)
def test_security_42_words_of_others_and_of_other_clusters(
    said: Statement, identity: Callable[[str], Identity]
) -> None:
    hospital, eve = identity("hospital"), identity("eve")
    real = said.sign(hospital)
    with pytest.raises(IntegrityError):
        type(said).verify(hospital.trust, said.sign(eve), CLUSTER, time.time)
    with pytest.raises(IntegrityError):
        forged = Signed(real.content, said.sign(eve).signature, real.certificate)
        type(said).verify(hospital.trust, forged, CLUSTER, time.time)
    with pytest.raises(IntegrityError, match="another cluster"):
        type(said).verify(hospital.trust, real, "0" * 32, time.time)
    with pytest.raises(IntegrityError, match="another cluster"):
        type(said).verify(hospital.trust, real, None, time.time)
    with pytest.raises(IntegrityError):  # a certificate that has lapsed
        type(said).verify(hospital.trust, real, CLUSTER, lambda: time.time() + 1e10)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dataset": "clinic/patients"}, "somebody else's"),
        ({"dataset": "patients"}, None),
        ({"dataset": "hospital/.."}, "OWNER/NAME"),
        ({"dataset": ID.upper()}, None),
        ({"question": exact()}, "one version"),
        ({"dataset": "cd" * 32, "question": exact()}, "does not read"),
        ({"dataset": ID, "question": exact(bits=1)}, "how many"),
        ({"expires": MADE}, "expires before"),
        ({"coordinators": ()}, None),
        ({"coordinators": ("a", "a")}, "twice"),
        ({"recipients": ("any thing",)}, None),
        ({"recipients": ("an\u0430lyst",)}, None),
        ({"recipients": ("analyst\x1b[2J",)}, None),
        ({"uses": 0}, None),
        ({"parties": ("party-0",)}, None),
    ],
)
def test_a_grant_that_makes_no_sense(changes: dict[str, Any], why: str | None) -> None:
    with pytest.raises((ValidationError, MpcError), match=why):
        grant(**changes)


@pytest.mark.parametrize(
    "fields",
    [
        {"epsilon": Fraction(0)},
        {"epsilon": Fraction(-1)},
        {"epsilon": Fraction(10**7)},
        {"epsilon": Fraction(1, 10**19)},
        {"each": Fraction(2)},
        {"delta": Fraction(1)},
        {"outputs": 0},
        {"mechanisms": ()},
        {"mechanisms": ("uniform",)},
        {"mechanisms": ("laplace", "laplace")},
    ],
)
def test_limits_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        dp(**fields)
    if "epsilon" in fields and fields["epsilon"] != 0:
        with pytest.raises(ValidationError):
            budget(fields["epsilon"])


def test_names_of_wires_and_columns_are_text_that_reads_as_itself() -> None:
    bound = Bound(dataset=ID, columns=("age",), first=0, rows=1)
    for name in ("", "a\nb", "\u202eevil", "a" * 201):
        with pytest.raises(ValidationError):
            ExactPlan(plan=ID, bindings={name: bound})
        with pytest.raises(ValidationError):
            Bound(dataset=ID, columns=(name,), first=0, rows=1)


@examples(60)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.integers(0, 600), st.integers(0, 600))
def test_hostile_bytes_are_refused(noise: bytes, start: int, length: int) -> None:
    for said in EVERY:
        whole = dump(said.model_dump(mode="json"))
        for content in (noise, whole[:start] + noise + whole[start + length :]):
            try:
                found = type(said).parse(content)
            except InputError:
                continue
            assert dump(found.model_dump(mode="json")) == content


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@examples(60)
@given(st.data(), json_values)
def test_hostile_fields_are_refused(draw: st.DataObject, value: Any) -> None:
    said = draw.draw(st.sampled_from(EVERY))
    content = said.model_dump(mode="json")
    content[draw.draw(st.sampled_from(sorted(content)))] = value
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    try:
        found = type(said).parse(text)
    except InputError:
        return
    assert dump(found.model_dump(mode="json")) == text


def test_a_name_is_of_all_versions() -> None:
    assert grant().by_name and not grant(dataset=ID, question=NAMED).by_name
    assert grant(dataset=ID).dataset == ID and grant().dataset == NAME


def test_nothing_of_a_grant_is_a_path(tmp_path: Path) -> None:
    with pytest.raises((ValidationError, MpcError)):
        grant(owner="../x", dataset="../x/y")
