"""A party of a cluster that cheats: a daemon like the others, whose runs, or what its links send, are other ones.

Nothing in what is shipped knows of it: methods of one party's sessions are replaced, in a test's process or in the
process of a party that is started to cheat (`tests/support/cheating_party.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from mpc.correlations import Bundle
from mpc.gates.base import Layout
from mpc.interpret.active.run import CheckedRun
from mpc.interpret.preparing import Arrivals
from mpc.plan.plan import Plan
from mpc.shares import Masked
from parties.party.evaluating import Evaluation, Evaluations
from parties.party.link import Link
from parties.party.session import PartySession
from tests.support.cheating import Deviation, lie_about, take_otherwise


@contextmanager
def cheating(chosen: Deviation | Callable[[Plan], Deviation], cheater: int | None = None) -> Iterator[None]:
    """Have one party deviate in all its sessions; in a process with one party alone, that one.

    Args:
        chosen: what it does, or what it does in a run of a plan; a deviation's `sends` is asked for every payload:
            (exchange of the run, recipient's place in the roster, what it would send).
        cheater: its place in the roster.
    """
    make, links = Evaluations.make, PartySession.make_links

    def is_cheater(index: int) -> bool:
        return cheater in (None, index)

    def deviating(
        self: Evaluations,
        plan: Plan,
        bundle: Bundle,
        key: bytes,
        stored: Mapping[str, Masked],
        arrivals: Arrivals | None = None,
        window: int | None = None,
    ) -> Evaluation:
        if not is_cheater(self._index):
            return make(self, plan, bundle, key, stored, arrivals, window)
        deviation = chosen if isinstance(chosen, Deviation) else chosen(plan)
        assert isinstance(chosen, Deviation) or deviation.sends is None  # links are there before a plan is
        made = make(self, plan, bundle, deviation.key or key, stored, arrivals, window)
        run = made.run if isinstance(made, CheckedRun) else made
        names = {gate.name for gate in plan.online}
        if deviation.opens and deviation.opens[0].gate in names:
            lie_about(run, *deviation.opens)
        if deviation.takes:
            take_otherwise(bundle, *deviation.takes)
        if deviation.enters:
            _enter_otherwise(made, deviation)
        return made

    def meeting(self: PartySession) -> dict[str, Link]:
        found = links(self)
        place = self.terms.parties.index(self._config.name)
        if is_cheater(place) and isinstance(chosen, Deviation) and chosen.sends is not None:
            for name, link in found.items():
                _send_otherwise(link, chosen.sends, self.terms.parties.index(name))
        return found

    with mock.patch.object(Evaluations, "make", deviating), mock.patch.object(PartySession, "make_links", meeting):
        yield


def _enter_otherwise(made: Evaluation, deviation: Deviation) -> None:
    steps = made.steps

    def altered(given: Mapping[str, np.ndarray]) -> Any:
        changed = {
            name: deviation.enters[name](values, Layout(name, values.shape)) if name in deviation.enters else values
            for name, values in given.items()
        }
        return steps(changed)

    made.steps = altered  # type: ignore[method-assign]


def _send_otherwise(link: Link, change: Callable[[int, int, bytes], bytes], recipient: int) -> None:
    send = link.send

    def altered(run: int, step: int, payload: bytes | memoryview) -> None:
        send(run, step, change(step, recipient, bytes(payload)))

    link.send = altered  # type: ignore[method-assign]
