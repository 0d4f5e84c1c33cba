"""One party of an in-process session deviates: what it may do at all is enumerated from plans and from the check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc import field as fp
from mpc.correlations import Bundle, Words, dealt_values
from mpc.encoding import field_size
from mpc.errors import MpcError
from mpc.gates.base import Correlation, Gate, Layout, Opening
from mpc.interpret.active.run import CheckedRun
from mpc.interpret.active.world import CheckedWorld
from mpc.interpret.party import PartyRun
from mpc.interpret.world import World, WorldRun
from mpc.plan.checking import CHECK_SIZES, entry_tags
from mpc.plan.plan import Plan
from mpc.plan.schedule import schedule
from mpc.shares import BitShare, Masked, Share

Values = Callable[[np.ndarray, Layout], np.ndarray]
Send = Callable[[int, int, bytes], bytes]
"""(exchange, recipient, payload) -> what that peer is sent instead."""


def kind_of(gate: Gate, name: str) -> tuple[str, str]:
    """The kind of a gate, and the kind of a thing of it: names that differ by a number are one kind."""
    if gate.kind == "maximum" and name in gate.writes:  # there what is opened is named after the wire
        return gate.kind, "result"
    return gate.kind, re.sub(r"\d+", "", name.split("mask:")[0] + "mask" * ("mask:" in name))


@dataclass(frozen=True)
class Place:
    """One thing that a party opens, or is dealt."""

    gate: str
    name: str
    kind: tuple[str, str]

    def __str__(self) -> str:
        return f"{self.kind[0]}/{self.kind[1]} of {self.gate}"


def opened(plan: Plan) -> Iterator[Place]:
    """Everything that is opened in a run of a plan."""
    bound = plan.bind(1)
    for gate in bound.online:
        for each in (opening for openings in gate.openings(bound.wire) for opening in openings):
            yield Place(gate.name, each.name, kind_of(gate, each.name))


def dealt(plan: Plan, entry: Any, batch: int = 1) -> Iterator[Place]:
    """Everything that a party takes of what it is dealt for a run, or for the weights: values, tags, what closes."""
    bound = plan.bind(batch)
    gates = bound.weights if entry.is_weights else bound.online
    by_name = {gate.name: gate for gate in gates}
    for name, value in dealt_values(gates, bound.wire, entry_tags(bound, entry)):
        if not value.hidden:
            gate = by_name.get(name)
            yield Place(name, value.name, ("closing", value.name) if gate is None else kind_of(gate, value.name))


def added(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Every element one more; every bit flipped."""
    if layout.width:
        return values ^ values.dtype.type((1 << layout.width) - 1)
    return fp.add(values, np.broadcast_to(np.uint64(1), values.shape))


def once(values: np.ndarray, layout: Layout) -> np.ndarray:
    """One more, or one bit flipped, in the first element alone."""
    out = np.array(values)
    out.reshape(-1)[0] = added(out.reshape(-1)[:1], Layout("", (1,), layout.width and 1))[0]
    return out


@dataclass
class Deviation:
    """What the cheater does.

    Args:
        opens: a place, and what is made of its share there; it goes on as if its share had been that.
        takes: a place of its dealt state, likewise.
        enters: wire -> x^ that it holds instead of what was sent.
        sends: what a peer is sent instead of a payload.
        key: what it believes the parties' common key to be.
    """

    opens: tuple[Place, Values] | None = None
    takes: tuple[Place, Values] | None = None
    enters: dict[str, Values] = field(default_factory=dict)
    sends: Send | None = None
    key: bytes | None = None


class Deviating(World):
    """A world whose party `cheater` deviates.  Mixed in front of a world, checked or not."""

    cheater = 0
    cheaters: frozenset[int] = frozenset()
    """Whoever works with it."""
    deviation = Deviation()
    passed: list[bool]
    errors: dict[int, MpcError]

    def make_party(self, plan: Plan, index: int, bundle: Bundle, stored: Mapping[str, Masked]) -> Any:
        honest = self.transcript_key
        if index == self.cheater and self.deviation.key is not None:
            self.transcript_key = self.deviation.key
        party = super().make_party(plan, index, bundle, stored)
        self.transcript_key = honest
        if index == self.cheater:
            run = party.run if isinstance(party, CheckedRun) else party
            if self.deviation.opens:
                lie_about(run, *self.deviation.opens)
            if self.deviation.takes:
                take_otherwise(bundle, *self.deviation.takes)
        return party

    def exchange(self, parties: Sequence[Any], given: dict[str, np.ndarray], result: WorldRun, tamper: Any) -> None:
        altered = {
            name: self.deviation.enters.get(name, lambda v, _: v)(value, Layout(name, value.shape))
            for name, value in given.items()
        }
        running = [party.steps(altered if who == self.cheater else given) for who, party in enumerate(parties)]
        self.errors, done, received = {}, set[int](), [None] * len(parties)
        number, liars = 0, {self.cheater, *self.cheaters}
        while len(done) < len(parties) and not self.errors.keys() - liars:
            payloads: dict[int, bytes] = {}
            for who, steps in enumerate(running):
                if who in self.errors or who in done:
                    continue
                try:
                    payloads[who] = bytes(steps.send(received[who]))
                except StopIteration:
                    done.add(who)
                except MpcError as error:
                    self.errors[who] = error
            if not payloads or len(payloads) < len(parties):
                break  # whoever is still there waits for a peer in vain
            result.payloads.append([payloads[who] for who in range(len(parties))])
            received = [
                [self.sent(number, who, to, payloads[who]) for who in range(len(parties)) if who != to]
                for to in range(len(parties))
            ]
            number += 1
        self.passed = [who in done for who in range(len(parties))]
        failed = [self.errors[who] for who in self.errors if who not in liars]
        if failed or not all(self.passed[who] for who in range(len(parties)) if who not in liars):
            raise failed[0] if failed else PeerIsGone("a peer is gone")

    def sent(self, number: int, sender: int, recipient: int, payload: bytes) -> bytes:
        if sender != self.cheater or self.deviation.sends is None:
            return payload
        return self.deviation.sends(number, recipient, payload)

    @property
    def honest_passed(self) -> int:
        """How many honest parties would release a seed."""
        return sum(passed for who, passed in enumerate(self.passed) if who not in {self.cheater, *self.cheaters})


class PeerIsGone(MpcError):
    """What an honest party ends with that waits for a party that has aborted."""


class CheatedWorld(Deviating, CheckedWorld):
    """A session that checks its runs, with a cheater.

    A session is over behind a run that did not pass; tests that forgive it try the next attack in it all the same.
    """

    forgives = True

    def make_party(self, plan: Plan, index: int, bundle: Bundle, stored: Mapping[str, Masked]) -> Any:
        if self.forgives:
            self.tags[index].passed()
        return super().make_party(plan, index, bundle, stored)


class UncheckedWorld(Deviating):
    """A session that does not, with a cheater: the control."""


def lie_about(run: PartyRun, place: Place, change: Values) -> None:
    """Have a party open another share, and go on as if it were its own."""
    honest, rounds = run._resume, {gate.name: 0 for gate in run.plan.online}

    def resume(gate: Gate, active: Any, waiting: Any, opened: Any) -> None:
        honest(gate, active, waiting, opened)
        if gate.name not in waiting:
            return
        openings = gate.openings(run.plan.wire)[rounds[gate.name]]
        rounds[gate.name] += 1
        if gate.name == place.gate:
            waiting[gate.name] = tuple(
                _changed(share, each, change) if each.name == place.name else share
                for share, each in zip(waiting[gate.name], openings, strict=True)
            )

    run._resume = resume  # type: ignore[method-assign]


def _changed(share: Share | BitShare, opening: Opening, change: Values) -> Share | BitShare:
    values = change(share.values, opening)
    return BitShare(values, share.width) if isinstance(share, BitShare) else Share(values)


def take_otherwise(bundle: Bundle, place: Place, change: Values) -> None:
    """Have a party compute with another share than it was dealt."""
    honest = bundle._take

    def take(gate: str, name: str) -> tuple[Correlation, np.ndarray]:
        spec, values = honest(gate, name)
        return spec, change(values, spec) if (gate, name) == (place.gate, place.name) and not words_alone else values

    words, words_alone = bundle.take_words, False

    def take_words(gate: str, name: str) -> Words:
        nonlocal words_alone
        words_alone = True  # of the corrected party they come through `take`
        taken = words(gate, name)
        words_alone = False
        if (gate, name) != (place.gate, place.name):
            return taken
        whole = change(np.array(taken.part(0, taken.size)), bundle._specs[gate, name])
        return Words(lambda places: whole[places], lambda start, stop: whole[start:stop], whole.size)

    bundle._take = take  # type: ignore[method-assign]
    bundle.take_words = take_words  # type: ignore[method-assign]


@dataclass(frozen=True)
class Field:
    """A part of one party's payload in the check."""

    exchange: int
    name: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"exchange {self.exchange}: {self.name}"


def fields_of_the_check() -> list[Field]:
    """Every part of every payload of the check; they cover its sizes."""
    parts = [
        [("held", 32), ("coin's commitment", 32)],
        [("seed", 32)],
        [("sums' commitment", 32)],
        [("sigma", field_size((1,))), ("word", 8), ("nonce", 32), ("commitments seen", 32)],
    ]
    found = []
    for exchange, names in enumerate(parts):
        start = 0
        for name, size in names:
            found.append(Field(exchange, name, start, start + size))
            start += size
        assert start == CHECK_SIZES[exchange]
    return found


def rounds(plan: Plan, batch: int) -> int:
    """How many exchanges a run has before its check."""
    bound = plan.bind(batch)
    return len(schedule(bound.online, bound.wire).steps)
