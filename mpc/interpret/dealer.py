"""The plan read on masks, by the provider: which correlations each party needs.

The provider holds one seed per party and so knows every mask in the clear.  It never sees an
input, a masked value or an output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc import field as fp
from mpc.correlations import BundleId, corrected_party, expand, sub_seed
from mpc.errors import LocalProtocolError
from mpc.gates.base import Correlation, Gate, Wires, mask_name
from mpc.prg import Draws, Seed
from mpc.wires import Wire


class SessionMasks:
    """Masks that outlive a run: those of the weights, and what was made of them once."""

    def __init__(self) -> None:
        self.masks: dict[str, np.ndarray] = {}
        self.made: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<SessionMasks wires={len(self.masks)}>"


@dataclass(frozen=True)
class Dealt:
    """What leaves the provider for one bundle, and what its manifest commits to.

    Args:
        corrections: plan-ordered shares of the corrected party.
        corrected: that party's index.
        commitments: held wire -> H(k_i) of every party.
    """

    corrections: bytes = field(repr=False)
    corrected: int
    commitments: dict[str, list[bytes]]


class Dealer:
    """What a gate's `deal` sees: it names plain values; this makes shares and corrections of them."""

    def __init__(self, wires: Wires, draws: Sequence[Draws], corrected: int, session: SessionMasks) -> None:
        self.wires = wires
        self._draws = draws
        self._corrected = corrected
        self._session = session
        self._masks: dict[str, np.ndarray] = {}
        self._commitments: dict[str, list[bytes]] = {}
        self._gate: Gate
        self._specs: dict[str, Correlation] = {}
        self._blobs: dict[str, bytes] = {}

    def wire(self, name: str) -> Wire:
        return self.wires[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.wires[name].sizes

    def uniform(self, name: str) -> np.ndarray:
        """The plain value of a uniform correlation: the sum of what all parties will expand."""
        spec = self._claim(name, dependent=False)
        seeds = [sub_seed(draws, self._gate, spec) for draws in self._draws]
        if spec.holders:
            self._commitments[name] = [seed.commitment() for seed in seeds]
        return _accumulate(spec, (expand(seed, spec) for seed in seeds))

    def dependent(self, name: str, plain: np.ndarray) -> None:
        """Share a plain value: everyone but the corrected party expands, that one is sent its share."""
        spec = self._claim(name, dependent=True)
        if plain.shape != spec.shape:
            raise LocalProtocolError(f"{self._gate.name}/{name}: dealt {plain.shape}, declared {spec.shape}")
        others = (
            expand(sub_seed(draws, self._gate, spec), spec)
            for index, draws in enumerate(self._draws)
            if index != self._corrected
        )
        known = _accumulate(spec, others)
        share = plain ^ known if spec.width else fp.sub(plain, known)
        self._blobs[name] = spec.encode(share)

    def draw_mask(self, wire: str) -> None:
        """This wire's mask is the uniform value named after it."""
        self.derive_mask(wire, self.uniform(mask_name(wire)))

    def derive_mask(self, wire: str, plain: np.ndarray) -> None:
        """This wire's mask is this function of other masks and uniform values."""
        self._masks[wire] = plain

    def mask(self, wire: str) -> np.ndarray:
        """The plain mask of a wire."""
        return self._masks[wire] if wire in self._masks else self._session.masks[wire]

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Something made of the session's masks, the first time; kept for its later runs."""
        if key not in self._session.made:
            self._session.made[key] = make()
        return self._session.made[key]

    def _claim(self, name: str, dependent: bool) -> Correlation:
        spec = self._specs.pop(name, None)
        if spec is None or spec.dependent != dependent:
            raise LocalProtocolError(f"gate {self._gate.name} did not declare {name!r} so, or dealt it before")
        return spec

    def run(self, gates: Iterable[Gate]) -> tuple[bytes, dict[str, list[bytes]], dict[str, np.ndarray]]:
        """Deal for all gates; (corrections in plan order, commitments, plain masks)."""
        parts: list[bytes] = []
        for gate in gates:
            declared = gate.correlations(self.wires)
            self._gate, self._blobs = gate, {}
            self._specs = {spec.name: spec for spec in declared}
            gate.deal(self)
            if self._specs:
                raise LocalProtocolError(f"gate {gate.name} declared {sorted(self._specs)} and dealt none")
            parts += [self._blobs[spec.name] for spec in declared if spec.dependent]
        commitments = {name.split(":", 1)[1]: seeds for name, seeds in self._commitments.items()}
        return b"".join(parts), commitments, self._masks


def _accumulate(spec: Correlation, shares: Iterator[np.ndarray]) -> np.ndarray:
    """Their sum, with one of them in memory at a time."""
    total = next(shares)
    for share in shares:
        total = total ^ share if spec.width else fp.add(total, share)
        del share  # before the next one is made
    return total


def deal(gates: Iterable[Gate], wires: Wires, bundle: BundleId, seeds: Sequence[Seed], session: SessionMasks) -> Dealt:
    """Deal one bundle: a run's (`run` >= 1), or the weights' masks of a session (`run` 0).

    Args:
        gates, wires: of a bound plan.
        seeds: one per party, fresh for this bundle.
        session: written by the weights' bundle, read by runs.
    """
    corrected = corrected_party(bundle, len(seeds))
    dealer = Dealer(wires, [bundle.draws(seed) for seed in seeds], corrected, session)
    corrections, commitments, masks = dealer.run(gates)
    if bundle.run == 0:
        session.masks.update(masks)
    return Dealt(corrections, corrected, commitments)
