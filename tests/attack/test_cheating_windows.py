"""A long run is checked window by window: what is wrong ends it there, and nothing of a window counts in another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import field as fp
from mpc.errors import EncodingError, IntegrityError, LocalProtocolError, MpcError, ReuseError
from mpc.gates.matmul import Matmul
from mpc.gates.relu import Relu
from mpc.interpret.active.audit import Sums
from mpc.interpret.active.run import CheckedRun
from mpc.plan.checking import CHECK_SIZES, CheckWindow, check_windows, step_of
from mpc.plan.plan import Plan
from tests.support.cheating import CheatedWorld, Deviation, added, fields_of_the_check, once, opened
from tests.support.effort import FULL
from tests.support.plans import Builder, wire
from tests.support.small_plans import BATCH as BATCH_OF_SMALL
from tests.support.small_plans import PLANS, small
from tests.support.worlds import seed

B, BATCH = "batch", 2
LAYERS = 4


def chain() -> Plan:
    """Products and ReLUs one behind another; the first ReLU's result is told, too."""
    b = Builder()
    b.enter("w", (2, 2), 4, session=True)
    b.enter("x0", (B, 2), 8)
    for n in range(LAYERS):
        b.gate(Matmul(name=f"m{n}", x=f"x{n}", weight="w", out=f"z{n}"), wire(f"z{n}", (B, 2), 16))
        b.gate(Relu(name=f"r{n}", x=f"z{n}", out=f"x{n + 1}", shift=4), wire(f"x{n + 1}", (B, 2), 12))
    b.output("x1", f"x{LAYERS}")
    return b.unchecked()


PLAN = chain().with_segments(40)
BOUND = PLAN.bind(BATCH)
WINDOWS = check_windows(BOUND)
WEIGHTS = {"w": np.array([[1, -2], [3, 1]])}
INPUTS = {"x0": np.array([[5, -7], [11, 2]])}


def world(parties: int = 2, kind: type[CheatedWorld] = CheatedWorld) -> CheatedWorld:
    return kind(PLAN, WEIGHTS, parties, seed(5))


def window_of(gate: str) -> int:
    return next(n for n, each in enumerate(WINDOWS) if gate in {found.name for found in each.gates})


def exchange_of(window: int, part: int = 0) -> int:
    """Where a window's check is, among all exchanges of a run."""
    return WINDOWS[window].stop + len(CHECK_SIZES) * window + part


def exchanges(made: CheatedWorld, deviation: Deviation, cheater: int = 0) -> int:
    """How many exchanges there are before the cheater is caught."""
    made.cheater, made.deviation = cheater, deviation
    seen: list[int] = []
    honest = made.sent

    def sent(number: int, *rest: Any) -> bytes:
        seen.append(number)
        return honest(number, *rest)

    made.sent = sent  # type: ignore[method-assign]
    with pytest.raises(IntegrityError):
        made.run(INPUTS, BATCH)
    made.sent = honest  # type: ignore[method-assign]
    assert made.honest_passed == 0
    return max(seen)


# ------------------------------------------------------------------------- which windows there are


def test_windows_are_all_gates_and_steps_in_an_order_in_which_they_can_be_replayed() -> None:
    for plan in [BOUND, *(small(name).plan.with_segments(8).bind(BATCH) for name in sorted(PLANS))]:
        found = check_windows(plan)
        assert sorted(gate.name for each in found for gate in each.gates) == sorted(gate.name for gate in plan.online)
        stops = [each.stop for each in found]
        assert stops == sorted({*stops}) and stops[0] >= 0
        place = {gate.name: number for number, each in enumerate(found) for gate in each.gates}
        written = {name: place[gate.name] for gate in plan.online for name in gate.writes}
        for gate in plan.online:
            assert all(written.get(name, 0) <= place[gate.name] for name in gate.reads)
    assert len(WINDOWS) >= 4


def test_a_run_that_needs_less_than_a_window_has_one() -> None:
    for name in sorted(PLANS):
        bound = small(name).plan.bind(BATCH)
        [window] = check_windows(bound)
        assert isinstance(window, CheckWindow) and window.gates == bound.online


def test_every_exchange_is_a_step_or_a_check() -> None:
    steps = [step_of(BOUND, number) for number in range(WINDOWS[-1].stop + 4 * len(WINDOWS))]
    assert [step for step in steps if step is not None] == [*range(WINDOWS[-1].stop)]
    assert all(steps[exchange_of(window, part)] is None for window in range(len(WINDOWS)) for part in range(4))
    with pytest.raises(IndexError):
        step_of(BOUND, len(steps))


# ------------------------------------------------------------------------------- what is caught


OPENINGS = list(opened(PLAN))


@pytest.mark.parametrize("place", OPENINGS, ids=str)
def test_security_active_an_error_ends_the_run_with_its_window(place: Any) -> None:
    """No later step is sent, by anybody."""
    number = OPENINGS.index(place)
    made = world(2 + number % 2)
    change = (added, once)[number % 2]
    found = exchanges(made, Deviation(opens=(place, change)), number % made.parties)
    assert found == exchange_of(window_of(place.gate), 3)


EVERY = [(name, place) for name in sorted(PLANS) for place in opened(small(name).plan)]


@pytest.mark.parametrize(("name", "place"), EVERY if FULL else EVERY[::5], ids=str)
def test_security_active_an_error_in_any_gate_is_caught_where_a_window_ends_as_soon_as_it_can(
    name: str, place: Any
) -> None:
    """The control in the same session: an honest run in windows tells what one in a single window does."""
    chosen = small(name)
    made = CheatedWorld(chosen.plan.with_segments(1), chosen.weights, 2, seed(5))
    made.window = 1
    whole = CheatedWorld(chosen.plan, chosen.weights, 2, seed(5)).run(chosen.inputs, BATCH_OF_SMALL)
    found = made.run(chosen.inputs, BATCH_OF_SMALL)
    assert all(np.array_equal(found.outputs[wire], value) for wire, value in whole.outputs.items())
    made.cheater, made.deviation = len(name) % 2, Deviation(opens=(place, added))
    with pytest.raises(IntegrityError):
        made.run(chosen.inputs, BATCH_OF_SMALL)
    assert made.honest_passed == 0


@pytest.mark.parametrize("part", fields_of_the_check(), ids=str)
@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_security_active_every_part_of_every_check_is_checked(part: Any, window: int) -> None:
    made, cheater = world(3), (window + part.exchange) % 3
    at = exchange_of(window, part.exchange)

    def send(exchange: int, recipient: int, payload: bytes) -> bytes:
        if exchange != at:
            return payload
        return payload[: part.start] + bytes([payload[part.start] ^ 1]) + payload[part.start + 1 :]

    assert exchanges(made, Deviation(sends=send), cheater) <= exchange_of(window, part.exchange + 1)


def test_security_active_a_check_is_of_its_own_window_and_run() -> None:
    """The payloads of another window's check, or of this window in the run before, are refused."""
    made = world()
    before = made.run(INPUTS, BATCH).payloads
    for part in range(4):
        for other in (exchange_of(0, part), exchange_of(2, part), exchange_of(1, part)):

            def send(exchange: int, recipient: int, payload: bytes, other: int = other, part: int = part) -> bytes:
                return before[other][0] if exchange == exchange_of(1, part) else payload

            made.cheater, made.deviation = 0, Deviation(sends=send)
            with pytest.raises((IntegrityError, EncodingError)):
                made.run(INPUTS, BATCH)
            assert made.honest_passed == 0


def test_security_active_no_window_makes_up_for_another_one() -> None:
    """Errors that would cancel in one sum over the run: each window has sums, zeros and a coin of its own."""

    class Late(CheatedWorld):
        """The cheater takes its own sums of the second window into the third, where the error's were left out."""

        def make_party(self, plan: Any, index: int, bundle: Any, stored: Any) -> Any:
            party = super().make_party(plan, index, bundle, stored)
            if index == 0:
                honest, owed = party.replay, [Sums()]

                def replay(coin: Any) -> Sums:
                    found = honest(coin)
                    if party.passed == 1:
                        owed[0], found = found, Sums()
                    elif party.passed == 2:
                        found = Sums(fp.add(found.elements, owed[0].elements), found.words ^ owed[0].words)
                    return found

                party.replay = replay
            return party

    made = world(2, Late)
    assert exchanges(made, Deviation()) == exchange_of(1, 3)


def test_a_window_s_zeros_are_its_own() -> None:
    zeros: list[Sums] = []

    class Watched(CheatedWorld):
        def make_party(self, plan: Any, index: int, bundle: Any, stored: Any) -> Any:
            party = super().make_party(plan, index, bundle, stored)
            prepare = party.prepare

            def prepared() -> None:
                prepare()
                zeros.append(party.zeros)

            party.prepare = prepared
            return party

    world(3, Watched).run(INPUTS, BATCH)
    values = [int(value) for each in zeros for value in (*each.elements, *each.words)]
    assert len({*values}) == len(values) == 2 * 3 * len(WINDOWS)
    assert not np.bitwise_xor.reduce([each.words for each in zeros]).any()
    total = zeros[0].elements
    for each in zeros[1:]:
        total = fp.add(total, each.elements)
    assert not total.any()


def test_no_run_follows_one_of_which_a_window_did_not_pass() -> None:
    made = world()
    made.forgives = False
    assert exchanges(made, Deviation(opens=(OPENINGS[0], added))) == exchange_of(0, 3)
    made.deviation = Deviation()
    with pytest.raises(MpcError) as caught:
        made.run(INPUTS, BATCH)
    assert isinstance(caught.value, ReuseError)


# ---------------------------------------------------------------------------- what is let go of


def test_what_a_window_had_is_gone_when_it_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags, records, opened values and wires, but for outputs and what later gates read."""
    held: list[tuple[int, int, int, int]] = []
    check = CheckedRun.check
    honest = CheatedWorld(chain(), WEIGHTS, 2, seed(5)).run(INPUTS, BATCH).outputs

    def watched(self: CheckedRun) -> Any:
        audit = self._audit
        held.append((len(audit.prepared), len(self._log), len(self.run.wires.held), len(audit.masks)))
        return check(self)

    monkeypatch.setattr(CheckedRun, "check", watched)
    made = world()
    made.window, made.forgets = 1, True
    found = made.run(INPUTS, BATCH).outputs
    assert all(np.array_equal(found[name], honest[name]) for name in honest)
    assert len(held) == 2 * len(WINDOWS)
    most = [max(each[place] for each in held) for place in range(4)]
    gates = len(BOUND.online)
    assert most[0] <= 4 < gates and most[1] <= 3 and most[2] <= 6 and most[3] <= 4, most


def test_an_output_is_told_behind_the_last_check_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """x1 is there, and checked, with an early window."""
    made, asked = world(), list[int]()
    check = CheckedRun.check

    def asking(self: CheckedRun) -> Any:
        if self.passed:
            asked.append(self.passed)
            assert not self.checked and "x1" in self.run.wires
            for give in (self.release, self.keep):
                with pytest.raises(LocalProtocolError, match="before the run is checked"):
                    give("x1")
        return check(self)

    monkeypatch.setattr(CheckedRun, "check", asking)
    made.run(INPUTS, BATCH)
    assert max(asked) == len(WINDOWS) - 1
