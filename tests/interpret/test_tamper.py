"""Bytes that no honest party sends end a run with an EncodingError, never with a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from mpc.errors import EncodingError, PeerError
from mpc.field import P
from mpc.gates.base import Opening
from mpc.plan.plan import Plan
from mpc.plan.schedule import schedule
from tests.support.effort import FULL
from tests.support.small_plans import small
from tests.support.vectors import every_gate
from tests.support.worlds import make_world

ROWS = 3
RNG = np.random.default_rng(0)


class Played:
    """A plan whose runs are played, with what its owners enter."""

    def __init__(self, name: str, plan: Plan, weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> None:
        self.name, self.plan, self.weights, self.inputs = name, plan, weights, inputs
        [self.rows] = {len(values) for values in inputs.values()}
        bound = plan.bind(self.rows)
        self.steps = schedule(bound.online, bound.wire).steps

    def run(self, change: Callable[[bytes], bytes], step: int, sender: int, parties: int = 2) -> list[bytes]:
        """The transcripts of a run in which one party's message of one step is changed."""

        def tamper(number: int, who: int, payload: bytes) -> bytes:
            return change(payload) if (number, who) == (step, sender) else payload

        return make_world(self.plan, self.weights, parties).run(self.inputs, self.rows, tamper=tamper).transcripts


def every_kind() -> Played:
    """A gate of every kind; comparisons take their rounds."""
    plan = every_gate()
    wires = plan.bind(ROWS).wire
    weights = {name: RNG.integers(-99, 99, wires[name].sizes) for name in ("w", "b", "k", "r")}
    return Played("every gate", plan, weights, {"x": RNG.integers(-999, 999, (ROWS, 2, 2))})


def at_once() -> Played:
    """Every gate that compares, in a round less."""
    found = small("at once")
    return Played("at once", found.plan, found.weights, found.inputs)


PLAYED = (every_kind(), at_once())


@dataclass(frozen=True)
class Place:
    """Where one opening lies in its step's payload."""

    of: Played
    step: int
    start: int
    gate: str
    opening: Opening

    def __str__(self) -> str:
        return f"{self.of.name}, step {self.step}: {self.gate}/{self.opening.name}"

    def run(self, change: Callable[[bytes], bytes], sender: int, parties: int = 2) -> list[bytes]:
        """The transcripts of a run in which this step's message is changed."""
        return self.of.run(change, self.step, sender, parties)


def places(of: Played) -> list[Place]:
    found = []
    for step in of.steps:
        position = step.agreement
        for turn in step.turns:
            for opening in turn.openings:
                found.append(Place(of, step.number, position, turn.gate.name, opening))
                position += opening.size
    return found


PLACES = [place for of in PLAYED for place in places(of)]
STEPS = [(of, number) for of in PLAYED for number in range(len(of.steps))]


def put(payload: bytes, position: int, data: bytes) -> bytes:
    return payload[:position] + data + payload[position + len(data) :]


@pytest.mark.parametrize("of", PLAYED, ids=lambda of: of.name)
def test_an_unchanged_run_passes(of: Played) -> None:
    assert len(set(of.run(lambda payload: payload, 0, 0))) == 1


LENGTHS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda p: b"",
    "one byte": lambda p: p[:1],
    "a byte short": lambda p: p[:-1],
    "an element short": lambda p: p[:-8],
    "an extra byte": lambda p: p + b"\0",
    "an extra byte in front": lambda p: b"\0" + p,
    "an extra element": lambda p: p + b"\0" * 8,
    "twice": lambda p: p + p,
}


@pytest.mark.parametrize(
    ("of", "step"), STEPS, ids=lambda value: value.name if isinstance(value, Played) else str(value)
)
@pytest.mark.parametrize("change", LENGTHS)
def test_a_wrong_length_ends_the_run(change: str, of: Played, step: int) -> None:
    """Of either sender; without MPC_FULL=1 each change of each step is one's, by turns."""
    for sender in (0, 1) if FULL else [(step + [*LENGTHS].index(change)) % 2]:
        with pytest.raises(EncodingError, match=f"step {step}"):
            of.run(LENGTHS[change], step, sender)


@pytest.mark.parametrize("of", PLAYED, ids=lambda of: of.name)
@pytest.mark.parametrize("change", LENGTHS)
def test_a_wrong_length_among_three_ends_the_run(change: str, of: Played) -> None:
    for sender in range(3):
        with pytest.raises(EncodingError):
            of.run(LENGTHS[change], len(of.steps) - 1, sender, parties=3)


@pytest.mark.parametrize("place", [p for p in PLACES if p.opening.width == 0], ids=str)
@pytest.mark.parametrize("element", [P, P + 1, 1 << 61, (1 << 64) - 1])
def test_an_element_that_is_not_below_p_ends_the_run(place: Place, element: int) -> None:
    count = place.opening.size // 8
    for index in {0, count // 2, count - 1} if FULL or element == P else {count - 1}:
        with pytest.raises(EncodingError, match="not below p"):
            place.run(lambda p, i=index: put(p, place.start + 8 * i, element.to_bytes(8, "little")), 1)


@pytest.mark.parametrize("place", [p for p in PLACES if p.opening.width > 1], ids=str)
def test_a_leaf_word_that_is_too_wide_ends_the_run(place: Place) -> None:
    size = place.opening.size // np.prod(place.opening.shape)
    assert 8 * size > place.opening.width  # every leaf word has an odd width, so a bit to spare
    with pytest.raises(EncodingError, match="bits"):
        place.run(lambda p: put(p, place.start, b"\xff" * size), 1)
    top = bytearray(size)
    top[place.opening.width // 8] = 1 << place.opening.width % 8
    with pytest.raises(EncodingError, match="bits"):
        place.run(lambda p: put(p, place.start, bytes(top)), 0)


@pytest.mark.parametrize("place", [p for p in PLACES if p.opening.width == 1], ids=str)
def test_padding_that_is_not_zero_ends_the_run(place: Place) -> None:
    spare = 8 * place.opening.size - int(np.prod(place.opening.shape))
    last = place.start + place.opening.size - 1
    for bit in range(8 - spare, 8):
        with pytest.raises(EncodingError, match="padding"):
            place.run(lambda p, b=bit: put(p, last, bytes([p[last] | 1 << b])), 1)


def test_some_packed_bits_of_the_plan_have_padding() -> None:
    packed = [p for p in PLACES if p.opening.width == 1]
    assert packed and any(np.prod(p.opening.shape) % 8 for p in packed)


@pytest.mark.parametrize("place", PLACES if FULL else PLACES[::2], ids=str)
@pytest.mark.parametrize("sender", [0, 1, 2])
def test_a_well_formed_lie_shows_in_the_transcripts(place: Place, sender: int) -> None:
    """Passive security does not promise a right result; but the liar's transcript is another one."""
    if place.opening.width:
        lie = lambda p: put(p, place.start, bytes([p[place.start] ^ 1]))  # noqa: E731
    else:
        element = lambda p: int.from_bytes(p[place.start : place.start + 8], "little")  # noqa: E731
        lie = lambda p: put(p, place.start, ((element(p) + 1) % P).to_bytes(8, "little"))  # noqa: E731
    transcripts = place.run(lie, sender, parties=3)
    honest = [t for index, t in enumerate(transcripts) if index != sender]
    assert honest[0] == honest[1] != transcripts[sender]


def test_refusals_are_about_a_peer_and_show_no_bytes() -> None:
    with pytest.raises(PeerError) as caught:
        PLAYED[0].run(lambda p: b"secret bytes of a peer", 0, 1)
    assert "secret" not in str(caught.value) and caught.value.exit_code == 6
