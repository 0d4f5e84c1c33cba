"""A granted plan on fewer rows than were granted: a sum of all ages, asked of one row after another, is every age.

The terms say which rows a session goes through; of how many rows a run is, only the coordinator says.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mpc.errors import MpcError
from mpc.gates.input import Input
from mpc.gates.truncate import Truncate
from mpc.plan.ends import PlanState
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.wires import BATCH, Lifetime
from parties.agreed.objects import Manifest
from parties.party.consent.asked import Asked
from tests.support.asking import AGES, ANALYST, HOSPITAL, ROWS, Kept, above, exactly, stored
from tests.support.parties import InProcess
from tests.support.plans import wire, with_parts
from tests.support.questions import WIDE, Question

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with InProcess(tmp_path_factory.mktemp("rows"), 2) as cluster:
        yield Kept(cluster)


@pytest.fixture
def table(kept: Kept) -> Manifest:
    """A table of its own for each test."""
    return kept.put(f"patients-{next(NUMBERS)}")


def total() -> Plan:
    """The sum of all ages, without noise."""
    question = Question((BATCH, 1), bits=7)
    question.rows("x")
    question.gate(Truncate(name="t", x="s", out="t", shift=0), wire("t", (1,), WIDE))
    question.output("t")
    return parse_plan(stored(question.unchecked(), ["x"], HOSPITAL, ANALYST).canonical)


@pytest.fixture(params=[0, 1])
def only(request: pytest.FixtureRequest, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> int:
    """The one party that minds of how many rows a run is."""
    consent = kept.cluster.nodes[1 - request.param].consent
    asked = consent.asked

    def of_any_rows(*said: Any) -> Asked:
        found = asked(*said)
        vars(found)["rows_of_a_run"] = None
        return found

    monkeypatch.setattr(consent, "asked", of_any_rows)
    return int(request.param)


def test_security_42_a_sum_is_not_asked_of_one_row_after_another(kept: Kept, table: Manifest, only: int) -> None:
    """Each party refuses by itself."""
    plan, before = total(), kept.revealed(only)
    kept.grant(dataset=table.id.hex(), question=exactly(plan, table))
    for batch in (1, ROWS - 1):
        with pytest.raises(MpcError, match=f"party-{only}: .*of all 5 rows together"):
            kept.ask(plan, kept.binding(table), batch=batch)
    assert kept.revealed(only) == before
    assert kept.ask(plan, kept.binding(table)).tolist() == [AGES.sum()]


def test_rows_that_never_meet_are_answered_in_runs_of_any_length(kept: Kept, table: Manifest) -> None:
    plan = above()
    kept.grant(dataset=table.id.hex(), question=exactly(plan, table))
    session = kept.open(plan, kept.binding(table))
    found = [session.run({}, batch, lambda: 0.0)[0][plan.outputs[0].wire].reshape(-1) for batch in (2, 1, 2)]
    session.close()
    assert np.concatenate(found).tolist() == [0, 0, 1, 1, 1]


def carried() -> Plan:
    """The sum of the run before, told in each run."""
    question = Question((BATCH, 1), bits=7)
    question.gate(Input(name="in:w", out="w", lifetime=Lifetime.STATE), wire("w", (1,), WIDE))
    question.rows("x")
    question.gate(Truncate(name="t", x="s", out="t", shift=0), wire("t", (1,), WIDE))
    question.gate(Truncate(name="u", x="w", out="u", shift=0), wire("u", (1,), WIDE))
    question.output("u")
    plan = with_parts(question.unchecked(), states=(PlanState(name="w", in_="w", out="t"),))
    return parse_plan(stored(plan, ["x"], HOSPITAL, ANALYST).canonical)


def test_security_42_nor_through_what_the_next_run_is_handed(kept: Kept, table: Manifest, only: int) -> None:
    plan, before = carried(), kept.revealed(only)
    kept.grant(dataset=table.id.hex(), question=exactly(plan, table))
    session = kept.open(plan, kept.binding(table))
    with pytest.raises(MpcError, match=f"party-{only}: .*of all 5 rows together"):
        session.run({}, 1, lambda: 0.0)
    session.close()
    assert kept.revealed(only) == before
