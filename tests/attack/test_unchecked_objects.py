"""Marks of checked sessions on what parties keep: nobody has an object say more than is so, and owners ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import MpcError, MpcWarning, PolicyError
from parties.agreed.objects import Manifest, Schema
from parties.agreed.provenance import Provenance
from parties.agreed.refreshing import identity_plan, refresh_bindings
from parties.agreed.requests import Request, make_request
from parties.agreed.signed import dump
from parties.agreed.terms import Terms
from parties.client.at_rest import bound
from parties.client.at_rest.listing import CHECKED, UNCHECKED, Description
from parties.client.datasets import Datasets
from parties.client.selection import Selection
from parties.party import keeping
from parties.party.policy import Policy
from parties.pb import data_pb2
from tests.support.asking import AGES, ANALYST, HOSPITAL, Kept, kept_by_two
from tests.support.grants import dp
from tests.support.keeping import SCORES, keep, kept_binding, kept_plan, noised_kept, vault
from tests.support.objects import RawPut

ACTIVE = kept_plan().with_security("active")
REFUSED = "something that is read was kept in one whose runs were not"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    yield from kept_by_two(tmp_path)


def marked(whole: Manifest) -> tuple[str, bool]:
    """(what its provenance says, whether that makes it a checked object)."""
    assert whole.kept is not None
    return whole.kept.security, whole.is_checked


def test_what_says_nothing_of_checks_has_the_bytes_that_it_had_and_is_unchecked() -> None:
    plain = Provenance(plan="ab" * 32, session="cd" * 32)
    checked = plain.model_copy(update={"security": "active"})
    said = plain.model_dump(mode="json")
    assert "security" not in said and Provenance.model_validate(said).security == "passive"
    assert checked.model_dump(mode="json") == {**said, "security": "active"}
    with pytest.raises(ValueError, match="security"):
        Provenance.model_validate({**said, "security": "very"})


def test_an_object_is_checked_if_all_is_that_it_was_kept_of(kept: Kept) -> None:
    kept.grant(question=dp(5))
    plain, _ = keep(kept, kept_plan())
    checked, _ = keep(kept, ACTIVE, f"{ANALYST}/checked")
    assert (marked(plain), marked(checked)) == (("passive", False), ("active", True))
    for whole, plan, word in (
        (plain, identity_plan(plain).with_security("active"), "passive"),  # a check of a copy is none of the original
        (checked, identity_plan(checked).with_security("active"), "active"),
        (checked, identity_plan(checked), "passive"),
    ):
        copy, _ = keep(kept, plan, f"{ANALYST}/copy", refresh_bindings(whole))
        assert marked(copy) == (word, word == "active")
        shown = repr(Description(copy))
        assert (CHECKED in shown, UNCHECKED in shown) == (word == "active", word != "active")


def test_a_party_that_claims_a_check_is_named_and_nothing_exists(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each party writes the mark from the plan alone, so that a lie is a signature of another object."""
    kept.grant(question=dp(5))
    honest, liars = keeping.kept_schema, []

    def lying(*given: Any) -> Schema:
        schema = honest(*given)
        assert schema.kept is not None
        liars.append(schema)
        if len(liars) % 2:  # one of the two parties
            return schema
        return schema.model_copy(update={"kept": schema.kept.model_copy(update={"security": "active"})})

    monkeypatch.setattr(keeping, "kept_schema", lying)
    with pytest.raises(MpcError):
        keep(kept, kept_plan())
    for index in (0, 1):
        with kept.cluster.ledgers[index].reading() as database:
            query = "SELECT count(*) FROM data_objects WHERE name = ? AND state = 'living'"
            assert database.execute(query, (SCORES,)).fetchone() == (0,)


def test_a_mark_that_not_all_have_signed_is_none(kept: Kept) -> None:
    """Whoever alters the word afterwards has no signature of it."""
    kept.grant(question=dp(5))
    made, _ = keep(kept, kept_plan())
    signed, trust = vault(kept.cluster).signed(made.id), kept.cluster.identity(ANALYST).trust
    said = made.model_dump(mode="json")
    said["kept"]["security"] = "active"
    forged = replace(signed, content=dump(said))
    assert Manifest.parse(forged.content).is_checked
    with pytest.raises(MpcError):
        Manifest.verify(trust, forged, None)


# -- who asks for it


@pytest.mark.parametrize("index", [0, 1])
def test_security_active_a_grant_of_checked_sessions_reads_nothing_unchecked(kept: Kept, index: int) -> None:
    """Each party alone refuses: what a plan takes for bounded would be whatever a party made of it."""
    kept.grant(question=dp(5), uses=2)
    plain, checked = keep(kept, kept_plan())[0], keep(kept, ACTIVE, f"{ANALYST}/checked")[0]
    kept.grant(question=dp(5), security="active", only=[index])
    kept.grant(question=dp(5), only=[1 - index])
    plan = noised_kept(plain).with_security("active")
    with pytest.raises(PolicyError, match=REFUSED):
        kept.ask(plan, kept_binding(plain))
    assert kept.spent() == kept.spent(index=1) == 0
    kept.ask(plan, kept_binding(checked))
    assert kept.spent(index) == 500_000_000


def test_security_active_a_policy_of_checked_sessions_reads_nothing_unchecked(kept: Kept) -> None:
    kept.grant(question=dp(5))
    plain, _ = keep(kept, kept_plan())
    checked, _ = keep(kept, ACTIVE, f"{ANALYST}/checked")
    rules = kept.cluster.nodes[1].rules
    rules.policy = Policy(rules.policy.config.model_copy(update={"security": ("active",)}), rules.policy.machines)
    plan = noised_kept(plain).with_security("active")
    with pytest.raises(PolicyError, match="allows active security, and something that is read was kept"):
        kept.ask(plan, kept_binding(plain))
    assert kept.spent() == 0
    kept.ask(plan, kept_binding(checked))


def test_a_coordinator_and_operators_are_told(kept: Kept) -> None:
    kept.grant(question=dp(5))
    plain, _ = keep(kept, kept_plan())
    reads = {"x": Selection(plain, tuple(each.name for each in plain.columns), True)}
    plan = noised_kept(plain)
    assert not bound.notes(reads, plan)
    [note] = bound.notes(reads, plan.with_security("active"))
    assert note.startswith(f"{SCORES} was kept in a session that was not checked")
    for asked, shown in ((plan, False), (plan.with_security("active"), True)):
        terms = Terms(asked.digest, "provider", ("a", "b"), (b"1" * 32, b"2" * 32), kept_binding(plain))
        made = make_request(asked, terms, "c" * 32, ANALYST, b"k" * 32, {plain.id: plain}, ())
        assert any("; kept in a session that was not checked" in line for line in made.lines) == shown
        assert (b"unchecked" in made.content) == shown and Request.parse(made.content) == made


def test_who_asks_in_a_checked_session_is_warned(kept: Kept) -> None:
    """A question is a session as any other."""
    kept.grant(question=dp(5))
    keep(kept, kept_plan())
    mine = Datasets(kept.cluster.client(ANALYST, "active")).get(SCORES)
    with pytest.warns(MpcWarning, match=f"{SCORES} was kept in a session that was not checked"):
        with suppress(MpcError):  # nobody has granted it
            mine["y"].mean().get(epsilon=1)


# -- versions that keep blocks


def test_rows_beside_a_refresh_that_was_not_checked_are_not_checked_either(kept: Kept) -> None:
    """An owner's word on new rows is none on what parties made of the old ones."""
    more = {"age": AGES}
    for security, checked in (("passive", False), ("active", True)):
        own = Datasets(kept.cluster.client(HOSPITAL, security))
        own.refresh("patients")
        made = own.append("patients", more).manifest
        assert made.kept is None and made.unchecked != checked and made.is_checked == checked
        assert (UNCHECKED in repr(Description(made))) != checked
        again = own.append("patients", more).manifest
        assert again.is_checked == checked  # as long as a block of it is kept
        with pytest.raises(MpcError, match="does not say as that one does"):
            lie(kept, again)
        assert own.put("patients", more, ranges=(0, 127), rows_per_person=1).manifest.is_checked


def lie(kept: Kept, before: Manifest) -> None:
    """Begin a version that keeps a block, and says the other thing of checks."""
    said = {name: getattr(before, name) for name in Schema.model_fields if name not in ("cluster", "parties")}
    changes = {"version": before.version + 1, "previous": before.id.hex(), "unchecked": before.is_checked}
    put = RawPut(kept.cluster, **{**said, **changes})
    block = data_pb2.KeptBlock(block=0, of=0)
    put.call(0, "Begin", data_pb2.BeginRequest(put=put.id, schema=put.schema.content, kept=[block]))
