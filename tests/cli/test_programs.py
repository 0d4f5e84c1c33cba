"""'mpc inspect' says what runs hand on, and what a program does when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.plan.plan import Plan
from mpc.plan.program import Program, Told
from parties.agreed import programs
from tests.support.parties_commands import mpc_here
from tests.support.programs import learning
from tests.support.states import FEATURES, compiled

START = np.ones((FEATURES, 1))


@pytest.mark.parametrize(
    ("plan", "begins"),
    [
        (compiled().plan, "zeros"),
        (compiled(start=START).plan, "what coordinator enters or has put"),
        (compiled(start=START, public=True).plan, "what coordinator says in public"),
    ],
)
def test_a_state_is_named_with_what_it_begins_with(plan: Plan, begins: str, tmp_path: Path) -> None:
    words = f"state 'w' (3, 1) to the next run; it begins with {begins}"
    said = f"hands on      {words}"
    assert programs.said(programs.described(plan), ()) == [("hands on", words)]
    path = tmp_path / "step.plan"
    path.write_bytes(plan.canonical)
    found = mpc_here("inspect", path)
    assert found.returncode == 0 and said in found.stdout


def test_a_program_is_told_in_words() -> None:
    assert programs.said(programs.described(learning()), {"w_final"})[1:] == [
        (
            "program",
            "12 runs update it, each reads 4 rows, in an order that everybody knows; rate 4 from run 1 on, "
            "1 from run 7 on",
        ),
        ("", "output 'loss' is told in run 3 and every 3 runs after it, up to run 12"),
        ("", "output 'w_final' is kept at the parties in run 13 alone"),
        ("", "output 'answers' is told in run 14 and each run after it, up to run 15"),
    ]


def test_of_other_plans_nothing_is_said(tmp_path: Path) -> None:
    plan = learning()
    bare = Plan(inputs=plan.inputs, outputs=plan.outputs, wires=plan.wires, gates=plan.gates)
    assert programs.described(bare) == {} and programs.said({}, ()) == []


def test_an_output_whose_next_time_would_be_after_its_last_is_told_once() -> None:
    told = Told(output="beyond", first=36, every=100, last=36)
    report = {"program": Program(steps=36, told=(told,)).model_dump(mode="json")}
    assert programs.said(report, ())[1:] == [("", "output 'beyond' is told in run 36 alone")]
