"""The plan read on tags, by each party, once all of a window is opened: the reading that checks a run.

Each gate's own `prepare` and `evaluate` are given shares of tags and the lane of tags, and are sent what was opened.
What they want opened is then a share of the key times what should have been.  With an independent coin rho for each
opened element z, and for the bits of each opened word coins s of the word and t of the bit's place, a party adds up

    sigma_i = sum rho ([alpha z]_i - alpha_i z)          tau_i = sum s t ([Delta b]_i + b Delta_i)

over all field elements in F_p, and over all bits in the field of 2^64 elements.  Over the parties both are zero unless
somebody opened something else than what the gates say.  docs/protocols.md, "Checked runs", has the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.correlations import Bundle
from mpc.errors import LocalProtocolError, ReuseError
from mpc.gates.base import Gate, Opening, mask_name
from mpc.gates.compare import TABLE
from mpc.gates.readings import PartyReading
from mpc.interpret.active.products import fold_product, is_joined, take_offset
from mpc.interpret.party import Log, PartyRun
from mpc.interpret.state_wires import Carried
from mpc.plan.lasting import Readers
from mpc.plan.plan import Plan
from mpc.plan.tagging import gate_tags, tag_name, tagged_masks
from mpc.prg import Seed, WordStream, expand_field_part, expand_words
from mpc.shares import BitShare, Masked, Share
from mpc.tags import NANOSECONDS_A_WORD, BitTags, Key, SparseTags, TagLane, WordCoins, in_windows
from mpc.wires import Masking, Wires


class SessionTags:
    """Tags that outlive a run at one party: its share of the keys, of the weights' masks, and of state.

    Args:
        bundle: the correlations of the weights, with tags; of those that lie at the parties it has nothing but tags.
    """

    def __init__(self, plan: Plan, key: Key, bundle: Bundle) -> None:
        self.lane = TagLane.of(key)
        self.states: Carried[Share] = Carried("tags of state")
        self.masks: dict[str, Share] = {}
        self.memo: dict[str, Any] = {}
        self._unchecked = False
        needed = tagged_masks(plan)
        for gate in plan.weights:
            if gate.is_public(plan.wire):
                self.masks[gate.out] = Share(fp.zeros(plan.wire[gate.out].sizes))
            elif gate_tags(gate, plan.wire, needed):
                self.masks[gate.out] = bundle.take(gate.name, tag_name(mask_name(gate.out)))

    def __repr__(self) -> str:
        return f"<SessionTags weights={len(self.masks)}>"

    def open(self) -> None:
        """Begin a run: everything that is opened from now on has to be checked.

        Raises:
            ReuseError: the run before did not pass its check; the session, its keys and what is dealt for it are done.
        """
        if self._unchecked:
            raise ReuseError("the run before did not pass its check: nothing of its session is used any more")
        self._unchecked = True

    def passed(self) -> None:
        """End a run that has passed its check."""
        self._unchecked = False

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make()` gives the first time, that object afterwards."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def begin(self, plan: Plan) -> None:
        """Set the tags of what the first run reads of each state: a weight, or zeros."""
        self.states.begin(
            {
                state.in_: Share(fp.zeros(plan.wire[state.in_].sizes)) if state.init is None else self.masks[state.init]
                for state in plan.states
            }
        )


@dataclass(repr=False)
class Sums:
    """One party's sums: sigma (1,) in F_p, and tau (1,) in the field of 2^64 elements."""

    elements: np.ndarray = field(default_factory=lambda: fp.zeros((1,)))
    words: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.uint64))

    __secret__ = True


class Audit:
    """One party's replay of one run on tags.

    Args:
        run: whose public values are there once it is over.
        log: what is opened in it: of the gates that are replayed, whole by then.
        session: this party's tags of the session.
    """

    def __init__(self, run: PartyRun, log: Log, session: SessionTags) -> None:
        self.run, self.session = run, session
        self.wires: Wires = run.plan.wire
        self.masks: dict[str, Share] = {}
        self.unopened: dict[str, Share] = {}
        self.needed = tagged_masks(run.plan)
        self.common = run.common_draws()
        self.states: Mapping[str, Share] = {}
        self._log = log
        self.prepared: dict[str, Any] = {}
        """Holds what gates have kept for the replay, by their names; each is taken once."""
        self._readers = Readers(run.plan.online, run.plan.carried)
        self._left = not run.plan.states

    def __repr__(self) -> str:
        return f"<Audit of {self.run.bundle.id.entry}>"

    def begin(self) -> None:
        """Read the tags of state; before `PartyRun.prepare`.

        Raises:
            ReuseError: the run before is not prepared, or this run was prepared before; of a plan with states.
        """
        plan, number = self.run.plan, self.run.bundle.id.entry.number
        if plan.states:
            if number == 1:
                self.session.begin(plan)
            self.states = self.session.states.read(number)

    def prepare_gate(self, gate: Gate) -> None:
        """Do all work for a gate that needs neither inputs nor the coin; gates come in the order of the run's own.

        Field elements are expanded, and whatever gates make of them; and words, but for those of tables.
        """
        reading = TagReading(self, gate)
        kept = take_offset(gate, reading) if is_joined(gate, self.wires) else gate.prepare(reading)
        self.prepared[gate.name] = kept

    @property
    def whole(self) -> bool:
        """Is all of it prepared, and the next run's state left?"""
        return self.run.whole and self._left

    def leave(self) -> None:
        """Give the tags of states to the next run, as soon as all gates are prepared."""
        if self.run.whole and not self._left:
            self._left = True
            kept = {state.in_: self.masks[state.out] for state in self.run.plan.states}
            self.session.states.leave(self.run.bundle.id.entry.number, kept)

    def fold(self, coin: Seed, gates: Sequence[Gate], last: bool) -> Sums:
        """Add up what was opened, by the coin, beside the tags that a replay of gates makes; let go of what these had.

        Args:
            gates: in plan order; those of a window, all of which are over.
            last: there are no more, and everything that was opened is added up by then.

        Raises:
            LocalProtocolError: something was opened that no tag stands for, or the reverse.
            ReuseError: a gate is not prepared, or was replayed before.
        """
        sums = Sums()
        for gate in gates:
            self.fold_gate(gate, coin, sums)
            self.run.replayed(gate)
            for name in self._readers.over(gate):
                self.masks.pop(name, None)
                self.unopened.pop(name, None)
        if last and self._log:
            raise LocalProtocolError(f"opened without a tag: {sorted(self._log)}")
        return sums

    def fold_gate(self, gate: Gate, coin: Seed, sums: Sums) -> None:
        """Run one gate on tags, and add what it opened to the sums."""
        reading, kept = TagReading(self, gate), self._taken(gate)
        if is_joined(gate, self.wires):
            [[public]] = self._log.pop(gate.name)
            fold_product(gate, reading, kept, public, coin.derive(gate.name), sums.elements)
            return
        rounds = gate.openings(self.wires)
        if not rounds and all(self.wires[name].masking is not Masking.UNOPENED for name in gate.writes):
            return  # public values of it are there already
        opened, answers = self._log.pop(gate.name, []), cast(Any, None)
        if len(opened) != len(rounds):
            raise LocalProtocolError(f"gate {gate.name} opened {len(opened)} times, and declared {len(rounds)}")
        evaluation = gate.evaluate(reading, kept)
        try:
            for number, (openings, values) in enumerate(zip(rounds, opened, strict=True)):
                tags = evaluation.send(answers)
                for opening, tag, value in zip(openings, tags, values, strict=True):
                    fold_one(opening, tag, value, coin.derive(gate.name, number, opening.name), self.session.lane, sums)
                answers = values
            evaluation.send(answers)
        except StopIteration:
            return
        raise LocalProtocolError(f"gate {gate.name} opens more than it declared")

    def _taken(self, gate: Gate) -> Any:
        """Take what was prepared for a gate, once."""
        if gate.name not in self.prepared:
            raise ReuseError(f"gate {gate.name} is not prepared to be replayed, or was replayed before")
        return self.prepared.pop(gate.name)


def fold_one(opening: Opening, tag: Share | BitShare, value: np.ndarray, coin: Seed, lane: TagLane, sums: Sums) -> None:
    """Add one opened value and its tag to the sums, each with its coins."""
    width = tag.width if isinstance(tag, BitTags) else 0
    if tag.shape != opening.shape or width != opening.width or isinstance(tag, BitShare) != bool(width):
        raise LocalProtocolError(f"{opening} has the tag {tag!r}")
    opened = np.ascontiguousarray(value, dtype=np.uint64).reshape(-1)
    if isinstance(tag, BitTags):
        columns = expand_words(coin.derive("columns"), (width,), 64)
        tag.fold(opened, lane.bit_one, WordCoins(columns, WordStream(coin.derive("rows")).part), sums.words)
        return
    values = np.ascontiguousarray(tag.values).reshape(-1)

    def fold(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        chosen, of_tags, of_values = expand_field_part(coin, start, stop - start), fp.zeros((1,)), fp.zeros((1,))
        kernels.dot(values[start:stop], chosen, of_tags)
        kernels.dot(opened[start:stop], chosen, of_values)
        return of_tags, of_values

    for of_tags, of_values in in_windows(fold, opened.size, NANOSECONDS_A_WORD):
        sums.elements = fp.add(sums.elements, fp.sub(of_tags, fp.scale(of_values, int(lane.one))))


class TagReading(PartyReading):
    """One gate's reading of a run on tags, for its `prepare` and `evaluate`: what is shared is tags, what is public is
    the run's."""

    def __init__(self, audit: Audit, gate: Gate) -> None:
        self._audit, self._gate = audit, gate.name
        self.wires: Wires = audit.wires
        self.lane = audit.session.lane

    def __repr__(self) -> str:
        return f"<TagReading gate={self._gate}>"

    def masked(self, name: str) -> Masked:
        """Return x^, and the tag of its mask if there is one."""
        return Masked(self._audit.run.masked(name).public, self._mask(name))

    def public(self, name: str) -> np.ndarray:
        """Return x^."""
        return self._audit.run.masked(name).public

    def _mask(self, name: str) -> Share | None:
        session = self._audit.session.masks
        return session[name] if name in session else self._audit.masks.get(name)

    def mask_share(self, name: str) -> Share:
        """Return the tag of a wire's mask."""
        mask = self._mask(name)
        if mask is None:
            raise LocalProtocolError(f"the mask of wire {name} has no tag")
        return mask

    def has_mask(self, name: str) -> bool:
        """Has the wire's mask a tag?"""
        return self._mask(name) is not None

    def needs_mask(self, name: str) -> bool:
        """Does a gate, or the next run, need it?"""
        return name in self._audit.needed

    def share(self, name: str) -> Share:
        """Return the tag of x."""
        if self.wires[name].masking is Masking.UNOPENED:
            return self._audit.unopened[name]
        return self.masked(name).share(self.lane)

    def take(self, name: str) -> Share:
        """Return the tag of a dealt field value, once."""
        return self._audit.run.bundle.take(self._gate, tag_name(name))

    def take_bits(self, name: str) -> BitShare:
        """Return the tags of dealt bits, once: all are here, but for those of tables, of which few are looked up."""
        bundle = self._audit.run.bundle
        words, value = bundle.take_words(self._gate, tag_name(name)), bundle.spec(self._gate, name)
        if name.endswith(TABLE):
            return SparseTags(value.shape, value.width, words.at, words.part, words.size)
        whole = words.part(0, words.size)
        return SparseTags(value.shape, value.width, None, lambda start, stop: whole[start:stop], words.size)

    def take_mask(self, wire: str) -> Share:
        """Return the tag of a drawn mask, once; zeros of an input's that has none, since nobody computes with it."""
        name = mask_name(wire)
        if not self._audit.run.bundle.has(self._gate, tag_name(name)):
            return Share(fp.zeros(self.shape(wire)))
        mask = self.take(name)
        self.set_mask(wire, mask)
        return mask

    def common(self, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        """Return words that all parties know."""
        if self._audit.common is None:
            raise LocalProtocolError(f"gate {self._gate} draws in common, and this run has no key of the parties")
        return expand_words(self._audit.common.sub_seed(self._gate, name), shape, width)

    def stored_mask(self, wire: str) -> Share:
        """Return the tag of a stored input's mask, or zeros where nobody computes with it."""
        if not self._audit.run.bundle.has(self._gate, tag_name(mask_name(wire))):
            return Share(fp.zeros(self.shape(wire)))
        return self.take(mask_name(wire))

    def state_mask(self, wire: str) -> Share:
        """Return the tag of a state's mask, as the run before has left it."""
        return self._audit.states[wire]

    def given(self, wire: str) -> np.ndarray:
        """Return x^ of an input."""
        return self.public(wire)

    def set_mask(self, wire: str, mask: Share) -> None:
        """Say the tag of the mask of a wire that the gate writes; kept if somebody computes with it."""
        if wire in self._audit.needed or self.wires[wire].masking is Masking.FLIPPED:
            self._audit.masks[wire] = mask

    def set(self, name: str, public: np.ndarray) -> None:
        """Write nothing: the run has done so."""

    def set_share(self, name: str, share: Share) -> None:
        """Write the tag of a wire that is not opened."""
        self._audit.unopened[name] = share

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return something made of the session's weights, the first time."""
        return self._audit.session.once(key, make)

    @property
    def room(self) -> fp.Room:
        """The room that is left for layouts of the session's weights."""
        return self._audit.run.session.room
