"""What lies at a party, or was left by the run before, is checked as what is dealt is: the answer is right, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mpc.correlations import Bundle
from mpc.errors import IntegrityError, ReuseError
from mpc.gates.base import Layout
from mpc.interpret.active.run import CheckedRun
from mpc.plan.plan import Plan
from mpc.shares import Masked, Share
from tests.support.cheating import CheatedWorld, added, once
from tests.support.programs import data, learning
from tests.support.worlds import seed

PARTIES = 3


class Altered(CheatedWorld):
    """The cheater holds another share of a stored input's mask, or another x^ of it."""

    shares: dict[str, Any]
    publics: dict[str, Any]

    def make_party(self, plan: Plan, index: int, bundle: Bundle, stored: Mapping[str, Masked]) -> CheckedRun:
        if index == self.cheater:
            stored = {
                name: Masked(
                    self.publics.get(name, same)(wire.public, Layout(name, wire.public.shape)),
                    Share(self.shares.get(name, same)(wire.known_mask().values, Layout(name, wire.public.shape))),
                )
                for name, wire in stored.items()
            }
        made: CheckedRun = super().make_party(plan, index, bundle, stored)
        return made


def same(values: np.ndarray, layout: Layout) -> np.ndarray:
    return values


def trained(runs: int) -> Altered:
    """So many steps of training on rows that lie at the parties, all honest."""
    made = Altered(learning(), {}, PARTIES, seed(4), stored=data())
    made.shares, made.publics = {}, {}
    for _ in range(runs):
        made.run({}, 1)
    return made


@pytest.mark.parametrize("cheater", range(PARTIES))
@pytest.mark.parametrize("kind", ["shares", "publics"])
@pytest.mark.parametrize("name", ["x", "y"])
def test_security_active_what_is_stored_and_altered_by_its_holder_is_caught(name: str, kind: str, cheater: int) -> None:
    made = trained(1)
    made.cheater = cheater
    getattr(made, kind)[name] = once
    with pytest.raises(IntegrityError):
        made.run({}, 1)
    assert made.honest_passed == 0


@pytest.mark.parametrize("cheater", range(PARTIES))
@pytest.mark.parametrize("kind", ["masks", "public"])
def test_security_active_state_that_is_altered_between_runs_is_caught(kind: str, cheater: int) -> None:
    made = trained(2)
    made.cheater = cheater
    held = getattr(made.sessions[cheater].states, kind).held
    [name] = held
    values = held[name].values if kind == "masks" else held[name]
    changed = added(values, Layout(name, values.shape))
    held[name] = Share(changed) if kind == "masks" else changed
    with pytest.raises(IntegrityError):
        made.run({}, 1)
    assert made.honest_passed == 0


def test_security_active_no_run_follows_one_that_failed() -> None:
    """The session is over, with its keys, its state and all that was dealt for it."""
    made = trained(1)
    made.forgives = False
    made.shares["x"] = once
    with pytest.raises(IntegrityError):
        made.run({}, 1)
    made.shares.clear()
    with pytest.raises(ReuseError, match="did not pass its check"):
        made.run({}, 1)
    assert not any(made.passed)
