"""The plan read on masks, by the provider: which correlations each party needs.

The provider holds one seed per party and so knows every mask in the clear.  It never sees an
input, a masked value or an output; weights it knows if the plan says that they are public.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.correlations import BundleId, corrected_party, dealt_for, expand, sub_seed
from mpc.errors import LocalProtocolError
from mpc.gates.base import Correlation, Gate, mask_name
from mpc.gates.readings import DealReading
from mpc.interpret.state_wires import Carried
from mpc.plan.ends import PlanState
from mpc.plan.lasting import Readers
from mpc.prg import Draws, Seed
from mpc.wires import Masking, Wires

Final = Callable[[memoryview], None]
Piece = tuple[str, tuple[Correlation, ...], Callable[[], None]]
"""A name, what is declared under it, and what deals that and lets go of masks behind it."""


class SessionMasks:
    """Values that outlive a run: the weights' masks, the public weights themselves, what was made of them once, and
    masks of state that runs hand on."""

    def __init__(self) -> None:
        self.masks: dict[str, np.ndarray] = {}
        self.states: Carried[np.ndarray] = Carried("masks of state")
        self.public: dict[str, np.ndarray] = {}
        self.made: dict[str, Any] = {}
        self.room = fp.Room()

    def __repr__(self) -> str:
        return f"<SessionMasks wires={len(self.masks)}>"

    def read_states(self, run: int, states: Sequence[PlanState], wires: Wires) -> dict[str, np.ndarray]:
        """Return the masks of what a run reads of the one before it, once, by wire; the first reads weights, or zeros.

        Raises:
            ReuseError: that run is not dealt, or this one is.
        """
        if run == 1:
            zeros = {state.in_: fp.zeros(wires[state.in_].sizes) for state in states}
            first = {state.in_: self.masks[state.init] for state in states if state.init in self.masks}
            self.states.begin({**zeros, **first})
        return self.states.read(run)


@dataclass(frozen=True)
class Dealt:
    """One bundle as it leaves the provider, and what its manifest commits to.

    Args:
        corrections: shares of the corrected party, in the order of the gates; none if they were given to `final`.
        corrected: that party's index.
        commitments: held wire -> H(k_i) of every party; none if corrections were given to `final`, as whoever takes
            these asked for `committed` before.
    """

    corrections: memoryview = field(repr=False)
    corrected: int
    commitments: dict[str, list[bytes]]


class Dealer(DealReading):
    """A gate's reading at the provider: it names plain values; this makes shares and corrections of them."""

    def __init__(
        self,
        wires: Wires,
        draws: Sequence[Draws],
        corrected: int,
        session: SessionMasks,
        stored: Mapping[str, np.ndarray] | None = None,
        states: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.wires: Wires = wires
        self._stored, self._states = stored or {}, states or {}
        self._draws = draws
        self._corrected = corrected
        self._session = session
        self._masks: dict[str, np.ndarray] = {}
        self._readers = Readers((), ())
        self._name = ""
        self._specs: dict[str, Correlation] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._apart: dict[str, np.ndarray] = {}
        self._blob = np.empty(0, dtype=np.uint8)

    def uniform(self, name: str) -> np.ndarray:
        """Return the plain value of a uniform correlation: the sum of what all parties will expand."""
        spec = self._claim(name, dependent=False)
        seeds = [sub_seed(draws, self._name, spec) for draws in self._draws]
        total = expand(seeds[0], spec)
        for seed in seeds[1:]:
            _add_to(total, expand(seed, spec), spec)
        return total

    def dependent(self, name: str, plain: np.ndarray) -> None:
        """Share a plain value: everyone but the corrected party expands, that one is sent its share."""
        bits = name in self._specs and self._specs[name].width > 0
        share = self.others(name)
        if plain.shape != share.shape:
            raise LocalProtocolError(f"{self._name}/{name}: dealt {plain.shape}, declared {share.shape}")
        if bits:
            share ^= plain.astype(share.dtype, copy=False)
        else:
            kernels.sub(np.ascontiguousarray(plain).reshape(-1), share.reshape(-1), share.reshape(-1))

    def others(self, name: str) -> np.ndarray:
        """Return the sum of the other parties' shares, in the buffer that the corrected party's share will overwrite.

        The gate turns it into that share, in place: into plain minus it, for bits plain xor it.
        """
        return self._others(name)

    def _others(self, name: str) -> np.ndarray:
        spec, place, seeds = self._claim_share(name)
        if spec.packed or self._places[name][0] % spec.word.itemsize:  # put there when the gate is done
            self._apart[name] = out = np.empty(spec.shape, dtype=spec.word)
        else:
            out = place.view(spec.word).reshape(spec.shape)
        expand(seeds[0], spec, out)
        for seed in seeds[1:]:
            _add_to(out, expand(seed, spec), spec)
        return out

    def _claim_share(self, name: str) -> tuple[Correlation, np.ndarray, list[Seed]]:
        """A dependent value, the bytes of the corrected party's share of it, and the other parties' seeds."""
        spec = self._claim(name, dependent=True)
        seeds = [sub_seed(draws, self._name, spec) for i, draws in enumerate(self._draws) if i != self._corrected]
        return spec, self._blob[slice(*self._places[name])], seeds

    def draw_mask(self, wire: str) -> None:
        """Take the uniform value named after a wire for its mask."""
        self.derive_mask(wire, self.uniform(mask_name(wire)))

    def derive_mask(self, wire: str, plain: np.ndarray) -> None:
        """Set a wire's mask to this function of other masks and uniform values."""
        self._masks[wire] = plain

    def mask(self, wire: str) -> np.ndarray:
        """Return the plain mask of a wire; a public weight's is zero."""
        if self.wires[wire].masking is Masking.PUBLIC:
            return fp.zeros(self.shape(wire))
        return self._masks[wire] if wire in self._masks else self._session.masks[wire]

    def stored_mask(self, wire: str) -> np.ndarray:
        """Return the plain mask of a stored input."""
        return self._stored[wire]

    def state_mask(self, wire: str) -> np.ndarray:
        """Return the plain mask of a state."""
        return self._states[wire]

    def public(self, name: str) -> np.ndarray:
        """Return a public weight, as field elements."""
        return self._session.public[name]

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return something made of the session's masks or public weights, the first time; kept for its later runs."""
        if key not in self._session.made:
            self._session.made[key] = make()
        return self._session.made[key]

    @property
    def room(self) -> fp.Room:
        """The room that is left for layouts of the session's masks or public weights."""
        return self._session.room

    def _claim(self, name: str, dependent: bool) -> Correlation:
        spec = self._specs.pop(name, None)
        if spec is None or spec.dependent != dependent:
            raise LocalProtocolError(f"gate {self._name} did not declare {name!r} so, or dealt it before")
        return spec

    def run(self, gates: Sequence[Gate], final: Final, wanted: Collection[str]) -> dict[str, np.ndarray]:
        """Deal for all gates, see `deal`; plain masks of the wires that are wanted behind it."""
        self._readers = Readers(gates, wanted)
        for name, declared, deal_part in self._parts(gates):
            specs = {spec.name: spec for spec in declared}
            self._name, self._specs, self._places, self._apart = name, dict(specs), {}, {}
            size = 0
            for spec in specs.values():
                if spec.dependent:
                    self._places[spec.name] = (size, size + spec.size)
                    size += spec.size
            self._blob = np.empty(size, dtype=np.uint8)
            deal_part()
            if self._specs:
                raise LocalProtocolError(f"gate {name} declared {sorted(self._specs)} and dealt none")
            for value, share in self._apart.items():
                self._blob[slice(*self._places[value])] = np.frombuffer(specs[value].encode(share), dtype=np.uint8)
            if size:
                final(self._blob.data)
        return {name: self._masks[name] for name in wanted}

    def _parts(self, gates: Sequence[Gate]) -> Iterator[Piece]:
        """Yield what is dealt, piece by piece."""
        for gate in gates:
            yield gate.name, dealt_for(gate, self.wires), partial(self._deal_gate, gate)

    def _deal_gate(self, gate: Gate) -> None:
        """Have a gate deal, and let go of the masks that no further one reads."""
        gate.deal(self)
        self._over(gate)

    def _over(self, gate: Gate) -> None:
        for name in self._readers.over(gate):
            self._masks.pop(name, None)


def _add_to(total: np.ndarray, share: np.ndarray, spec: Correlation) -> None:
    if spec.width:
        total ^= share
    else:
        kernels.add(total.reshape(-1), share.reshape(-1), total.reshape(-1))


DealerKind = Callable[..., Dealer]


def deal(
    gates: Iterable[Gate],
    wires: Wires,
    bundle: BundleId,
    seeds: Sequence[Seed],
    session: SessionMasks,
    final: Final | None = None,
    stored: Mapping[str, np.ndarray] | None = None,
    states: Sequence[PlanState] = (),
    kind: DealerKind = Dealer,
) -> Dealt:
    """Deal one bundle: a run's, or the masks of a session's weights.

    Args:
        gates, wires: of a bound plan; each gate behind those whose wires it reads.
        seeds: one per party, fresh for this bundle.
        session: written by the weights' bundle, read by runs; has the public weights by then.
        final: called with the corrections in the order of the gates, piece by piece, as soon as they will not change;
            if it is left out, they are returned.
        stored: plain masks of the stored inputs that these gates write, of this run's rows.
        states: the plan's, for a run; the masks of those that it reads are there once the run before is dealt.
        kind: makes the dealer, of what `Dealer` takes.

    Raises:
        ReuseError: it is not, or this run was dealt before; of a plan with states.
    """
    corrected, run = corrected_party(bundle, len(seeds)), bundle.entry.number
    carried = session.read_states(run, states, wires) if states else {}
    dealer = kind(wires, [bundle.draws(seed) for seed in seeds], corrected, session, stored, carried)
    gates, parts = tuple(gates), list[memoryview]()
    wanted = {state.out for state in states}
    if bundle.entry.is_weights:
        wanted = {name for gate in gates for name in gate.writes if wires[name].masking is not Masking.PUBLIC}
    masks = dealer.run(gates, parts.append if final is None else final, wanted)
    if bundle.entry.is_weights:
        session.masks.update(masks)
    if states:
        session.states.leave(run, {state.in_: masks[state.out] for state in states})
    joined = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
    return Dealt(joined, corrected, committed(gates, wires, bundle, seeds) if final is None else {})


def committed(gates: Iterable[Gate], wires: Wires, bundle: BundleId, seeds: Sequence[Seed]) -> dict[str, list[bytes]]:
    """Return what a bundle's manifest commits to: wire -> H(k_i) of every party, for each mask that is used behind
    the run."""
    draws = [bundle.draws(seed) for seed in seeds]
    return {
        spec.name.removeprefix(mask_name("")): [sub_seed(each, gate.name, spec).commitment() for each in draws]
        for gate in gates
        for spec in dealt_for(gate, wires)
        if spec.held
    }
