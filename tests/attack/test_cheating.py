"""A party that cheats is caught before anything is revealed, whatever it does, to whichever message of any gate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings

from mpc import field as fp
from mpc.entry import WEIGHTS, EntryId
from mpc.errors import EncodingError, IntegrityError, LocalProtocolError, MpcError
from mpc.gates import GATES
from mpc.gates.base import Layout
from mpc.interpret.active import audit, check
from mpc.interpret.world import World
from mpc.plan.tagging import tag_name
from mpc.shares import Share
from mpc.tags import BitTags
from tests.support.case import Case
from tests.support.cases import CASES
from tests.support.cheating import (
    CheatedWorld,
    Deviation,
    Field,
    Place,
    UncheckedWorld,
    added,
    dealt,
    fields_of_the_check,
    kind_of,
    once,
    opened,
    rounds,
)
from tests.support.effort import FULL
from tests.support.small_plans import BATCH, PLANS, Small, small
from tests.support.vectors import every_gate
from tests.support.worlds import seed

RUN = EntryId(1)


def world(name: str, parties: int = 2, kind: type[World] = CheatedWorld) -> tuple[World, Small]:
    chosen = small(name)
    return kind(chosen.plan, chosen.weights, parties, seed(5)), chosen


def caught(made: World, chosen: Small, cheater: int, deviation: Deviation, error: type[MpcError] = MpcError) -> None:
    """No honest party passes the check: no seed of an output leaves any of them."""
    made.cheater, made.deviation = cheater, deviation  # type: ignore[attr-defined]
    with pytest.raises(error):
        made.run(chosen.inputs, BATCH)
    assert made.honest_passed == 0  # type: ignore[attr-defined]


# ------------------------------------------------------------- what there is to tamper with


def test_every_kind_of_opening_and_of_correlation_is_in_some_plan_here() -> None:
    """Of all gates there are, and of the plan that has all of them."""
    plans = [small(name).plan for name in PLANS]
    assert {gate.kind for plan in plans for gate in plan.gates} == set(GATES)
    golden = every_gate()
    assert {place.kind for place in opened(golden)} <= {place.kind for plan in plans for place in opened(plan)}
    for entry in (RUN, WEIGHTS):
        known = {place.kind for plan in plans for place in dealt(plan, entry)}
        assert {place.kind for place in dealt(golden, entry)} <= known


def test_no_setting_of_any_gate_opens_or_is_dealt_what_is_in_no_plan_here() -> None:
    """Of whatever plans of one gate are drawn: what is new in a setting has to be tampered with here."""
    plans = [small(name).plan for name in PLANS]
    known = {place.kind for plan in plans for place in opened(plan)}
    known |= {place.kind for plan in plans for entry in (RUN, WEIGHTS) for place in dealt(plan, entry)}
    for kind in sorted(CASES):

        @settings(max_examples=40, deadline=None, derandomize=True, database=None)
        @given(case=CASES[kind])
        def look_at(case: Case) -> None:
            plan = case.builder.build()
            found = {place.kind for place in opened(plan)}
            found |= {place.kind for entry in (RUN, WEIGHTS) for place in dealt(plan, entry)}
            assert found <= known, found - known

        look_at()


def openings_of(name: str) -> list[Place]:
    """One place of each kind of opening of a plan, and of each gate."""
    return list(opened(small(name).plan))


OPENINGS = [(name, place) for name in sorted(PLANS) for place in openings_of(name)]


@pytest.mark.parametrize(("name", "place"), OPENINGS, ids=lambda v: str(v))
def test_security_active_another_share_of_any_opening_is_caught(name: str, place: Place) -> None:
    """Each party in turn, of two and of three, goes on as if its share had been another one; always a sample."""
    every = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    turn = OPENINGS.index((name, place))
    for number, (parties, cheater) in enumerate(every if FULL else (every[turn % 2], every[2 + turn % 3])):
        made, chosen = world(name, parties)
        for change in (added, once) if FULL else ((added, once)[number],):
            caught(made, chosen, cheater, Deviation(opens=(place, change)), IntegrityError)


@pytest.mark.parametrize(("name", "place"), OPENINGS if FULL else OPENINGS[::2], ids=lambda v: str(v))
def test_control_without_a_check_that_share_changes_an_output(name: str, place: Place) -> None:
    made, chosen = world(name, 2, UncheckedWorld)
    honest = made.run(chosen.inputs, BATCH).outputs
    changed = False
    for change in (added, once):  # where bits are summed, all of them changed may sum to what it was
        made, chosen = world(name, 2, UncheckedWorld)
        made.deviation = Deviation(opens=(place, change))  # type: ignore[attr-defined]
        found = made.run(chosen.inputs, BATCH).outputs
        changed |= any(not np.array_equal(found[wire], honest[wire]) for wire in honest)
    assert changed


@pytest.mark.parametrize(("name", "place"), OPENINGS if FULL else OPENINGS[::6], ids=lambda v: str(v))
def test_control_with_the_keys_known_a_forgery_passes(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing but the keys stands between a cheater and an output."""
    made, chosen = world(name, 3)
    alpha, delta = np.uint64(0), np.uint64(0)
    for key in made.keys:  # type: ignore[attr-defined]
        alpha, delta = fp.add(np.array(alpha), np.array(key.alpha))[()], delta ^ key.delta
    fold, honest_gate = audit.fold_one, audit.Audit.fold_gate
    at: list[str] = []

    def fold_gate(self: audit.Audit, gate: object, *rest: object) -> None:
        at[:] = [gate.name]  # type: ignore[attr-defined]
        honest_gate(self, gate, *rest)  # type: ignore[arg-type]

    def forge(opening, tag, value, coin, lane, sums):  # type: ignore[no-untyped-def]
        if (at[0], opening.name) == (place.gate, place.name) and lane.one == made.keys[0].alpha:  # type: ignore[attr-defined]
            values = np.array(tag.values)
            first = values.reshape(-1)[:1]  # of bits, the word of the lowest of the first element
            first[:] = first ^ delta if opening.width else fp.add(first, np.array(alpha))
            tag = BitTags(values, tag.width) if opening.width else Share(values)
        fold(opening, tag, value, coin, lane, sums)

    monkeypatch.setattr(audit, "is_joined", lambda *_: False)  # all gates are replayed, where tags are to be forged
    monkeypatch.setattr(audit.Audit, "fold_gate", fold_gate)
    monkeypatch.setattr(audit, "fold_one", forge)
    made.cheater, made.deviation = 0, Deviation(opens=(place, once))  # type: ignore[attr-defined]
    made.run(chosen.inputs, BATCH)
    assert made.honest_passed == 2  # type: ignore[attr-defined]


# --------------------------------------------------------------------- messages on their way


def messages() -> Iterator[tuple[str, int]]:
    """Every message of every plan: its exchange, openings first, then the check's."""
    for name in sorted(PLANS):
        for number in range(rounds(small(name).plan, BATCH) + len(check.CHECK_SIZES)):
            yield name, number


MESSAGES = list(messages())


def flipped(payload: bytes) -> bytes:
    """The lowest bit of the first byte changed: still the encoding of something, but for a digest in front."""
    return bytes([payload[0] ^ 1]) + payload[1:]


@pytest.mark.parametrize(("name", "number"), MESSAGES if FULL else MESSAGES[::7])
def test_security_active_a_message_that_differs_from_what_was_meant_is_caught(name: str, number: int) -> None:
    """To all peers, or to one of two alone: omitted, changed, or that of another exchange or run in its place."""
    made, chosen = world(name, 3)
    made.run(chosen.inputs, BATCH)
    before = made.run(chosen.inputs, BATCH).payloads
    exchanges = len(before)
    changes = {
        "changed": lambda _, payload: flipped(payload),
        "omitted": lambda _, payload: b"",
        "replayed": lambda cheater, payload: before[number][cheater],
        "swapped": lambda cheater, payload: before[(number + 1) % exchanges][cheater],
        "reflected": lambda cheater, payload: before[number][(cheater + 1) % 3],
    }
    for place, (what, change) in enumerate(changes.items()):
        for alone in (False, True):
            cheater = (number + place + alone) % 3
            victim = (cheater + 1 + place % 2) % 3

            def send(exchange: int, recipient: int, payload: bytes, to=victim if alone else None) -> bytes:  # type: ignore[no-untyped-def]
                if exchange != number or (to is not None and recipient != to):
                    return payload
                return change(cheater, payload)  # noqa: B023

            made.cheater, made.deviation = cheater, Deviation(sends=send)  # type: ignore[attr-defined]
            with pytest.raises(MpcError):
                made.run(chosen.inputs, BATCH)
            # only who tells sums to some and none to others, behind everything else, has some pass: no output is whole
            last = number == exchanges - 1 and alone
            assert made.honest_passed <= last, what  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", fields_of_the_check(), ids=str)
@pytest.mark.parametrize("parties", [2, 3])
def test_security_active_every_part_of_the_check_is_checked(part: Field, parties: int) -> None:
    made, chosen = world("relu", parties)
    first = rounds(chosen.plan, BATCH)
    for cheater in range(parties):
        for at in {part.start, (part.start + part.stop) // 2, part.stop - 1}:

            def send(exchange: int, recipient: int, payload: bytes, at: int = at) -> bytes:
                if exchange != first + part.exchange:
                    return payload
                return payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]

            caught(made, chosen, cheater, Deviation(sends=send))


# ------------------------------------------------------------------------------- dealt state


def places_dealt(name: str) -> list[tuple[str, Place]]:
    return [(name, place) for place in dealt(small(name).plan, RUN)]


DEALT = [each for name in sorted(PLANS) for each in places_dealt(name)]


def abort_or_correct(name: str, place: Place, parties: int, cheater: int, change: object) -> bool:
    """Return whether it was caught; if it was not, outputs are those that honest parties compute."""
    plain, chosen = world(name, parties, World)
    expected = plain.run(chosen.inputs, BATCH).outputs
    made, _ = world(name, parties)
    made.cheater, made.deviation = cheater, Deviation(takes=(place, change))  # type: ignore[attr-defined, arg-type]
    try:
        run = made.run(chosen.inputs, BATCH)
    except IntegrityError:
        assert made.honest_passed == 0  # type: ignore[attr-defined]
        return True
    assert made.honest_passed == parties - 1  # type: ignore[attr-defined]
    for wire, value in expected.items():
        np.testing.assert_array_equal(run.outputs[wire], value)
    return False


@pytest.mark.parametrize(("name", "place"), DEALT if FULL else DEALT[::5], ids=lambda v: str(v))
def test_security_active_dealt_state_that_its_holder_changes_ends_in_an_abort_or_a_correct_answer(
    name: str, place: Place
) -> None:
    every = [(parties, cheater) for parties in (2, 3) for cheater in range(parties)]
    for parties, cheater in every if FULL else [every[len(place.name) % len(every)]]:
        found = abort_or_correct(name, place, parties, cheater, added)
        assert found or _may_be_unused(name, place), f"{place}: every element was changed, and nobody noticed"


def _may_be_unused(name: str, place: Place) -> bool:
    """Is it read for some public values alone, or never?  m counts in one element of 2^(60 - k); the mask of what is
    entered where somebody multiplies with it, and then it has a tag."""
    if place.kind == ("input", "mask"):
        return tag_name(place.name) not in {each.name for _, each in places_dealt(name)}
    return place.name.removeprefix("tag:").endswith("m")


def test_security_active_a_changed_share_of_the_keys_is_caught() -> None:
    for key in ("alpha", "delta"):
        made, chosen = world("relu", 3)
        tags = made.tags[1]  # type: ignore[attr-defined]
        one, bit_one = tags.lane.one, tags.lane.bit_one
        changed = (fp.add(np.array(one), np.array(1, np.uint64))[()], bit_one) if key == "alpha" else (one, bit_one ^ 1)
        tags.lane = type(tags.lane)(*map(np.uint64, changed))
        caught(made, chosen, 1, Deviation(), IntegrityError)


def test_security_active_the_weights_tags_count() -> None:
    made, chosen = world("matmul", 2)
    for gate in chosen.plan.weights:
        assert tag_name(f"mask:{gate.out}") in {place.name for place in dealt(chosen.plan, WEIGHTS)}
        tags = made.tags[0]  # type: ignore[attr-defined]
        honest = tags.masks[gate.out]
        tags.masks[gate.out] = type(honest)(added(honest.values, Layout("", honest.shape)))
        tags.memo.clear()
        caught(made, chosen, 0, Deviation(), IntegrityError)
        tags.masks[gate.out] = honest
        tags.memo.clear()
    made.cheater, made.deviation = 0, Deviation()  # type: ignore[attr-defined]
    made.run(chosen.inputs, BATCH)


# ------------------------------------------------------------------------------ named attacks


@pytest.mark.parametrize("parties", [2, 3])
def test_security_active_another_input_at_one_party_is_caught(parties: int) -> None:
    made, chosen = world("maps", parties)
    for cheater in range(parties):
        caught(made, chosen, cheater, Deviation(enters={"x": once}), IntegrityError)


def test_security_active_another_key_of_the_parties_is_caught() -> None:
    """Salts are sent pairwise; noise is drawn in common by a key that is made of them."""
    made, chosen = world("noise", 3)
    caught(made, chosen, 2, Deviation(key=bytes(31) + b"\1"), IntegrityError)


class Mirrored(CheatedWorld):
    """Party 0 and 2 of three cheat: 2 repeats all that party 1, which is honest, says of its sums.

    So of all words its own and the copy cancel, and party 0 says none.  Field elements were opened as they should be:
    their sums are zero over the parties, so the cheaters know sigma_1 of theirs, and party 0 says -2 sigma_1.
    """

    def make_party(self, plan, index, bundle, stored):  # type: ignore[no-untyped-def]
        party = super().make_party(plan, index, bundle, stored)
        self.made = [*getattr(self, "made", []), party][-3:]
        honest, sums = party.replay, []
        if index == 0:
            party.replay = lambda coin: self._both(honest(coin), self.made[2].replay(coin))
        if index == 2:
            party.replay = lambda coin: sums[0] if sums else sums.append(honest(coin)) or sums[0]
        return party

    def _both(self, mine: audit.Sums, second: audit.Sums) -> audit.Sums:
        known = fp.add(mine.elements, second.elements)
        return audit.Sums(fp.add(known, known))

    def sent(self, number, sender, recipient, payload):  # type: ignore[no-untyped-def]
        if sender == 1:
            self.told = payload
        mirrored = sender == 2 and number >= rounds(self.plan, BATCH) + 2
        return self.told if mirrored else super().sent(number, sender, recipient, payload)


def mirrored() -> Mirrored:
    chosen = small("step")
    place = next(place for place in opened(chosen.plan) if place.name == "e")
    made = Mirrored(chosen.plan, chosen.weights, 3, seed(5))
    made.deviation, made.cheaters = Deviation(opens=(place, once)), frozenset({0, 2})
    return made


def test_security_active_commitments_that_are_copied_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits alone: they were forged, if commitments did not name who made them; see the control below."""
    with pytest.raises(IntegrityError, match="one commitment"):
        mirrored().run(small("step").inputs, BATCH)
    monkeypatch.setattr(check, "require_distinct", lambda commitments: None)
    with pytest.raises(IntegrityError, match="commitment of a check was not kept"):
        mirrored().run(small("step").inputs, BATCH)


def test_control_commitments_without_a_sender_are_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = check.Check.commitment
    monkeypatch.setattr(check.Check, "commitment", lambda self, kind, sender, *rest: honest(self, kind, 0, *rest))
    monkeypatch.setattr(check, "require_distinct", lambda commitments: None)
    made = mirrored()
    with pytest.raises(LocalProtocolError, match="before the run is checked"):  # a cheater's own code, behind it all
        made.run(small("step").inputs, BATCH)
    assert made.honest_passed == 1


def test_security_active_a_coin_that_is_chosen_last_is_caught() -> None:
    """A rushing party waits for the others' seeds, and says another one than it has committed to."""
    made, chosen = world("step", 3)
    first = rounds(chosen.plan, BATCH)
    caught(
        made,
        chosen,
        0,
        Deviation(sends=lambda number, _, payload: bytes(32) if number == first + 1 else payload),
        IntegrityError,
    )


def test_security_active_sums_that_are_chosen_last_are_caught() -> None:
    """A rushing party tells what makes the total zero: it has committed to something else."""
    made, chosen = world("step", 2)
    first = rounds(chosen.plan, BATCH)
    place = next(iter(opened(chosen.plan)))
    told: dict[int, bytes] = {}

    class Rushing(CheatedWorld):
        def sent(self, number, sender, recipient, payload):  # type: ignore[no-untyped-def]
            if sender == 1:
                told[number] = payload
                return payload
            if number != first + 3:
                return payload
            sigma = (fp.P - int.from_bytes(told[number][:8], "little")) % fp.P
            return sigma.to_bytes(8, "little") + told[number][8:16] + payload[16:]

    attacked = Rushing(chosen.plan, chosen.weights, 2, seed(5))
    caught(attacked, chosen, 0, Deviation(opens=(place, once)), IntegrityError)


def test_a_payload_of_a_wrong_length_is_named_as_such() -> None:
    made, chosen = world("step", 2)
    first = rounds(chosen.plan, BATCH)
    for exchange in range(4):
        caught(
            made,
            chosen,
            0,
            Deviation(sends=lambda number, _, p, e=exchange: p + b"\0" if number == first + e else p),  # type: ignore[misc]
            EncodingError,
        )


def test_kinds_are_told_apart_by_gate_and_name_and_not_by_number() -> None:
    relu = next(gate for gate in small("relu").plan.gates if gate.kind == "relu")
    assert kind_of(relu, "and0") == kind_of(relu, "and17") == ("relu", "and")
    assert kind_of(relu, "tag:mask:y") == ("relu", "tag:mask")
