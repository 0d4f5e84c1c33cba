"""The plan read on masks by the provider of a session whose runs are checked: every gate deals as it does otherwise.

What a gate hands over is a plain value, uniform or dependent.  This dealer shares it as the other one does, and
behind it its tag: alpha times a field value, Delta times each bit.  A gate that deals in place is given zeros, so that
the plain value stands there when it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.correlations import NO_TAGS, Tags
from mpc.errors import LocalProtocolError
from mpc.gates.base import NO_GATE, Correlation, Gate, mask_name
from mpc.interpret.dealer import Dealer, Piece, SessionMasks
from mpc.plan.tagging import tag_name
from mpc.planes import Plane
from mpc.prg import Draws, WordStream
from mpc.tags import NANOSECONDS_A_WORD, Key, in_windows
from mpc.wires import Wires


class TaggingDealer(Dealer):
    """A gate's reading at the provider, which deals a tag behind each value.

    Args:
        key: the session's plain keys.
        tags: which values have one; see `plan.tagging.entry_tags`.
    """

    def __init__(
        self,
        wires: Wires,
        draws: Sequence[Draws],
        corrected: int,
        session: SessionMasks,
        stored: Mapping[str, np.ndarray] | None = None,
        states: Mapping[str, np.ndarray] | None = None,
        *,
        key: Key,
        tags: Tags = NO_TAGS,
    ) -> None:
        super().__init__(wires, draws, corrected, session, stored, states)
        self._key, self._tags = key, tags
        self._pending: dict[str, tuple[np.ndarray, Correlation]] = {}

    def uniform(self, name: str) -> np.ndarray:
        """Return the plain value of a uniform correlation, whose tag is dealt."""
        spec = self._specs.get(name)
        plain = super().uniform(name)
        if spec is not None:
            self._deal_tag(spec, plain)
        return plain

    def others(self, name: str) -> np.ndarray:
        """Return zeros, which the gate turns into the plain value."""
        spec = self._specs.get(name)
        if spec is None or not spec.dependent or name in self._pending:
            raise LocalProtocolError(f"gate {self._name} did not declare {name!r} so, or dealt it before")
        plain = np.zeros(spec.shape, dtype=spec.word)
        self._pending[name] = (plain, spec)
        return plain

    def _parts(self, gates: Sequence[Gate]) -> Iterator[Piece]:
        if closing := tuple(self._tags.get(NO_GATE, ())):
            yield NO_GATE, closing, partial(self._deal_zeros, closing)
        for name, specs, deal in super()._parts(gates):
            yield name, (*specs, *self._tags.get(name, ())), deal

    def _deal_gate(self, gate: Gate) -> None:
        gate.deal(self)
        for name, (plain, spec) in self._pending.items():
            share = self._others(name)
            if spec.width:
                share ^= plain
            else:
                kernels.sub(plain.reshape(-1), share.reshape(-1), share.reshape(-1))
            self._deal_tag(spec, plain)
        self._pending = {}
        for wire in gate.writes:  # of what lies at the parties nothing but the tag is dealt
            if tag_name(mask_name(wire)) in self._specs:
                mask = Correlation(mask_name(wire), self.wires[wire].sizes)
                self._deal_tag(mask, np.ascontiguousarray(self._masks[wire]))
        self._over(gate)

    def _deal_tag(self, spec: Correlation, plain: np.ndarray) -> None:
        name = tag_name(spec.name)
        if name not in self._specs:
            return
        if spec.width:
            self._tag_bits(spec, plain)
            return
        share, tagged = self._others(name).reshape(-1), fp.scale(plain, int(self._key.alpha)).reshape(-1)
        kernels.sub(tagged, share, share)

    def _tag_bits(self, spec: Correlation, plain: np.ndarray) -> None:
        """Put the corrected party's words where they go, some thousand elements at a time."""
        _, place, seeds = self._claim_share(tag_name(spec.name))
        data = np.ascontiguousarray(plain).reshape(-1).view(np.uint8)
        whole = Plane(plain.size, 8 * plain.itemsize, 0, spec.width)
        streams = [WordStream(seed) for seed in seeds]
        read = written = 0
        for plane in spec.planes or (whole,):
            rows = data[read : read + plane.count * plane.width // 8].reshape(plane.count, -1)
            self._tag_plane(plane, rows, streams, written, place)
            read, written = read + rows.size, written + plane.bits

    def _tag_plane(
        self, plane: Plane, rows: np.ndarray, streams: Sequence[WordStream], before: int, place: np.ndarray
    ) -> None:
        """Do so for words whose constant bits are in one place.

        Args:
            rows: their bytes (count, width / 8).
            before: how many words of tags stand before theirs, in the streams and in the place.
        """
        each = plane.stop - plane.first

        def deal(start: int, stop: int) -> None:
            bits = np.unpackbits(rows[start:stop], axis=1, bitorder="little")
            dealt = np.ascontiguousarray(bits[:, plane.first : plane.stop])
            first, last = before + start * each, before + stop * each
            words = streams[0].part(first, last)
            for stream in streams[1:]:
                words ^= stream.part(first, last)
            kernels.tag_words(dealt, self._key.delta, words.reshape(dealt.shape))
            place[8 * first : 8 * last] = words.view(np.uint8)

        in_windows(deal, plane.count, NANOSECONDS_A_WORD * each)

    def _deal_zeros(self, closing: Sequence[Correlation]) -> None:
        """Deal shares of nothing, which hide each party's sums in checks."""
        for spec in closing:
            share = self._others(spec.name)
            if not spec.width:
                kernels.sub(fp.zeros(share.shape).reshape(-1), share.reshape(-1), share.reshape(-1))
