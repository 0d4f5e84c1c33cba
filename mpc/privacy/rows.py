"""Single rows in a proof: from what a gate reads of row i follows what is known of what it writes there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mpc.errors import PlanError
from mpc.gates.base import Gate, count
from mpc.gates.bound import Bound
from mpc.gates.linear import LinearMap
from mpc.gates.moves import Concat
from mpc.gates.multiply import Multiply
from mpc.gates.open import Open
from mpc.gates.step import Step
from mpc.plan.plan import Plan
from mpc.privacy import forms, norms, products
from mpc.privacy.forms import LINEAR, Form
from mpc.privacy.intervals import Interval, interval
from mpc.privacy.norms import Ball, Trait
from mpc.privacy.products import Products
from mpc.privacy.sensitivity import Atoms, Ground
from mpc.privacy.states import Row, State, Sum
from mpc.wires import Wire

_MOST_WORK = 1 << 25
OBJECTS = 32
"""Python's integers are so many times slower than machine words."""


class RowProof:
    """Read gates that act within a row, and keep account of the hard ground that their results stand on."""

    def __init__(self, plan: Plan) -> None:
        self._wires = plan.wire
        self._one: dict[str, Wire] = {wire.name: wire.bind(1) for wire in plan.wires}
        self._atoms: dict[str, Ground] = {}
        self._spent = 0

    def _row(self, gate: Gate, name: str, states: Mapping[str, State]) -> Row:
        rows = {name: state for name, state in states.items() if isinstance(state, Row)}
        sources = frozenset().union(*(row.sources for row in rows.values()))
        if isinstance(gate, Bound):
            self._atoms[name] = Atoms((1 << gate.width) - 1, 1, sources)
            return Row(sources, self._itself(name), (0, (1 << gate.width) - 1), True)
        if isinstance(gate, Step):
            levels = len(gate.levels) if self._falls(gate, rows[gate.x]) else 1
            self._atoms[name] = Atoms(1, levels, sources)
            return Row(sources, self._itself(name), (0, 1), True, self._trait(gate, rows))
        if isinstance(gate, Open):
            return rows[gate.x]
        if isinstance(gate, Multiply) and (ball := self._ball(gate, rows, sources)) is not None:
            found_ball, between = ball
            self._atoms[name] = found_ball
            return Row(sources, self._itself(name), between, True)
        if isinstance(gate, Multiply) and (product := self._product(gate, rows, sources)) is not None:
            self._atoms[name] = product
            return Row(sources, self._itself(name), product.interval)
        trait = self._trait(gate, rows)
        if isinstance(trait, norms.Squares | norms.Norm):
            size = count(self._one[gate.reads[0]]) if isinstance(trait, norms.Norm) else 1
            return Row(sources, interval=norms.square_interval(trait, rows[gate.reads[0]].interval, size), trait=trait)
        found = {name: row.form for name, row in rows.items() if row.form is not None}
        if not isinstance(gate, LinearMap) or gate.kind not in LINEAR or len(found) < len(rows):
            return Row(sources)
        plain = not gate.offset and all(name in rows and rows[name].plain for name in gate.reads)
        return Row(sources, self._mapped(gate, found), self._interval(gate, rows), plain, trait)

    def _interval(self, gate: LinearMap, known: Mapping[str, Row] | Mapping[str, Sum]) -> Interval | None:
        """Where a map's elements lie, if that is known of all that it reads: of what is free it is not."""
        intervals = [known[name].interval if name in known else None for name in gate.reads]
        return interval(gate, intervals, self._one)

    def _trait(self, gate: Gate, rows: Mapping[str, Row]) -> Trait | None:
        known = {name: (row, row.trait) for name, row in rows.items()}
        fits = isinstance(gate, Step) and self._fits(gate, rows[gate.x])
        return norms.trait(gate, known, self._one, fits)

    def _ball(
        self, gate: Multiply, rows: Mapping[str, Row], sources: frozenset[str]
    ) -> tuple[Ball, Interval | None] | None:
        """Find a ball, and where its elements are: of a value times the bit of its own norm, or of such rows times one
        bounded number each."""
        if gate.y is None or gate.x not in rows or gate.y not in rows:
            return None
        for name, other in ((gate.x, gate.y), (gate.y, gate.x)):
            row, by, size = rows[name], rows[other], count(self._one[name])
            if count(self._one[other]) != 1 or size != count(self._one[gate.out]) or row.interval is None:
                continue
            found = norms.chosen(row, by.trait, sources)
            if found is not None:
                return found, (min(row.interval[0], 0), max(row.interval[1], 0))
            if by.interval is None or row.form is None or not row.plain or len(row.form) != 1:
                continue
            [(ground, matrix)] = row.form.items()
            ball = self._atoms[ground]
            if isinstance(ball, Ball):
                self._work(OBJECTS * matrix.values.size)
                ends = [one * two for one in row.interval for two in by.interval]
                return norms.scaled(ball, matrix, by.interval, sources), (min(ends), max(ends))
        return None

    def _product(self, gate: Multiply, rows: Mapping[str, Row], sources: frozenset[str]) -> Products | None:
        """A pattern times values in an interval, if it is one; the operands are laid beside each other as the gate
        does."""
        if gate.y is None:
            return None
        for name, other in ((gate.x, gate.y), (gate.y, gate.x)):
            vectors = self._patterns(rows[name], count(self._one[name])) if name in rows else None
            between = rows[other].interval if other in rows else None
            if vectors is not None and between is not None:
                one, out = self._one[name], self._one[gate.out]
                places = np.broadcast_to(np.arange(count(one)).reshape(one.sizes), out.sizes).reshape(-1)
                self._work(OBJECTS * vectors.shape[0] * places.size)
                return products.multiplied(vectors[:, places], between, sources)
        return None

    def _patterns(self, row: Row, size: int) -> np.ndarray | None:
        """The few vectors that a row can be, if it follows from the bits of one group of levels and nothing else."""
        if row.form is None or not row.plain or len(row.form) != 1:
            return None
        [(name, matrix)] = row.form.items()
        ground = self._atoms[name]
        if not isinstance(ground, Atoms) or ground.width != 1 or ground.levels != count(self._one[name]):
            return None
        self._work(OBJECTS * (ground.levels + 1) * size)
        return products.patterns(matrix, size, ground.levels)

    def _falls(self, gate: Step, x: Row) -> bool:
        """Are the bits of all levels 1 .. 1 0 .. 0, whatever the data?  Where the compared value is known to keep its
        declared bound, and levels rise: then no comparison ends outside the bits that it is made on."""
        return self._fits(gate, x) and list(gate.levels) == sorted(gate.levels)

    def _fits(self, gate: Step, x: Row) -> bool:
        """Does what is compared keep its declared bound, whatever the data are?"""
        limit = 1 << self._wires[gate.x].bits
        return x.interval is not None and -limit < x.interval[0] and x.interval[1] < limit

    def _itself(self, name: str) -> Form:
        self._work(count(self._one[name]))
        return forms.identity(name, count(self._one[name]))

    def _mapped(self, gate: LinearMap, found: Mapping[str, Form]) -> Form:
        read = sum(count(self._one[name]) for name in (*gate.reads, *gate.writes))
        self._work(read if isinstance(gate, Concat) else read * max(1, len(found)))
        form = forms.mapped(gate, found, self._one)
        self._work(sum(matrix.values.size for matrix in form.values()))
        return form

    def _work(self, entries: int) -> None:
        """A proof is short, or it is none: a plan from outside may not keep a party busy."""
        self._spent += entries
        if self._spent > _MOST_WORK:
            raise PlanError(
                "the plan's sums are too large to prove anything of them",
                remedy="ask for fewer elements or fewer sums in one plan",
            )
