"""The proof that a plan's outputs are differentially private, read off its public bytes.

Neighbours: one person's rows are replaced by any others, field elements of any size among them; the number of rows is
public.  Whoever writes the plan is the adversary, and enters everything else that the plan reads.  Each wire is one of

    free     does not depend on protected rows but through what has been noised before: anything may be done with it
    row      row i follows from row i of stored wires alone; perhaps a known linear form of hard atoms
    sum      no rows any more: a known linear form of atoms, summed over the rows
    noise    drawn, and not yet added

and only free wires may be outputs, or state that the next run reads: so what a run reads of the one before is free.
But rows may stay at the parties, masked, where nobody receives them: their history is kept with them, and is asked of
whoever reads them later.  A sum becomes free by exactly one gate: a combine with a draw of its own for every element,
whose thresholds are those of its epsilon and of the sensitivity that is found here.  Values that are free may be read
by anything, also by what is noised later: the proof holds for each value of theirs, so epsilons add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from mpc.errors import PlanError
from mpc.gates.base import Gate, count
from mpc.gates.bound import Bound
from mpc.gates.draw import WORD_BITS, Draw
from mpc.gates.linear import Combine, LinearMap
from mpc.gates.rows import Rows
from mpc.gates.step import Step
from mpc.plan.plan import Plan
from mpc.privacy import forms, law, sensitivity
from mpc.privacy.facts import Guarantee, Loss, StoredFacts, Vector
from mpc.privacy.forms import LINEAR, Form
from mpc.privacy.intervals import Interval, interval
from mpc.privacy.sensitivity import Atoms
from mpc.privacy.within import check_within, has_rows, refuse
from mpc.wires import BATCH, Wire

_MOST_WORK = 1 << 25


@dataclass(frozen=True)
class Row:
    """A wire with rows.

    Args:
        sources: the stored wires that it depends on.
        form: how a row's elements depend on atoms, if they do linearly.
        interval: where every element lies whatever the data are, if that is known.
    """

    sources: frozenset[str]
    form: Form | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class Sum:
    """A sum over rows without noise, or a public linear map of some."""

    sources: frozenset[str]
    form: Form


@dataclass(frozen=True)
class Noise:
    """The noise that a draw writes."""

    draw: Draw


State = Row | Sum | Noise
"""A wire that is not free."""


def guarantee(plan: Plan, stored: Mapping[str, StoredFacts]) -> Guarantee:
    """Return what a plan tells of the people in stored data, proved.

    Args:
        plan: verified, not bound.
        stored: the wires of stored data that are to be protected; every other input counts as the asker's.

    Raises:
        PlanError: nothing is proved, and why.
    """
    return _Proof(plan, stored).run()


def sensitivities(plan: Plan, stored: Mapping[str, StoredFacts]) -> dict[str, int]:
    """Return D1 for each draw by its gate's name, for whoever writes a plan: its thresholds are not looked at yet.

    Raises:
        PlanError: as `guarantee`, but for thresholds.
    """
    proof = _Proof(plan, stored, drafted=True)
    proof.run()
    return proof.needed


class _Proof:
    """One reading of a plan, gate by gate.

    Args:
        drafted: it is not known yet which noise the plan needs, so any is taken and nothing is guaranteed.
    """

    def __init__(self, plan: Plan, stored: Mapping[str, StoredFacts], drafted: bool = False) -> None:
        self.needed: dict[str, int] = {}
        self._drafted = drafted
        self._plan, self._stored, self._wires = plan, stored, plan.wire
        self._one: dict[str, Wire] = {wire.name: wire.bind(1) for wire in plan.wires}
        self._readers = Counter(name for gate in plan.gates for name in gate.reads)
        self._states: dict[str, State] = {}
        self._atoms: dict[str, Atoms] = {}
        self._vectors: list[Vector] = []
        self._spent = 0

    def run(self) -> Guarantee:
        self._enter()
        last = {name: number for number, gate in enumerate(self._plan.gates) for name in gate.reads}
        outputs = {out.wire: f"output {out.name!r}" for out in self._plan.outputs}
        outputs |= {state.out: f"state {state.name!r}" for state in self._plan.states}
        unheard = {out.wire for out in self._plan.kept if not self._wires[out.wire].holders} - self._plan.carried
        for number, gate in enumerate(self._plan.gates):
            self._read(gate)
            for name in gate.writes:
                state = self._states.get(name)
                if name in outputs and state is not None and not (name in unheard and isinstance(state, Row)):
                    raise self._told(outputs[name], state)
            for name in gate.reads:  # forms are large, and nobody asks again
                if last[name] == number:
                    self._states.pop(name, None)
        for name, state in self._states.items():
            if isinstance(state, Noise):
                raise _bare(state.draw, f"nothing reads the noise {name!r}")
        return Guarantee(tuple(self._vectors))

    def _enter(self) -> None:
        entered = {gate.writes[0] for gate in self._plan.gates if gate.kind == "input"}
        for name in self._stored:
            if name not in entered or not has_rows(self._wires[name]):
                raise PlanError(
                    f"{name!r} is bound to stored data, and is no input of the plan with rows",
                    cause="people are protected row by row",
                    remedy="bind data to inputs whose first axis is the batch",
                )
            self._states[name] = Row(frozenset([name]))
        for given in self._plan.inputs:
            bound = [name for name in given.wires if name in self._stored]
            if bound and len(bound) != len(given.wires):
                raise PlanError(
                    f"input {given.name!r}: its numbers are stored data, and not the marks of missing ones",
                    remedy="let missing numbers be a column of their own",
                )

    def _told(self, end: str, state: State) -> PlanError:
        what = {Row: "tells single rows", Sum: "tells a sum without noise", Noise: "tells the noise"}[type(state)]
        return PlanError(
            f"{end} {what}",
            cause="every way from stored data to an output, or to the next run, has to pass a draw of noise",
            remedy="ask for a noised sum over the rows, or for a grant of this exact question",
        )

    # -- one gate

    def _read(self, gate: Gate) -> None:
        states = {name: self._states[name] for name in gate.reads if name in self._states}
        if isinstance(gate, Draw):
            self._states[gate.out] = Noise(gate)
        elif not states or gate.kind == "input":
            pass
        elif any(isinstance(state, Noise) for state in states.values()):
            self._noised(gate, states)
        elif any(isinstance(state, Sum) for state in states.values()):
            self._states[gate.writes[0]] = self._mapped_sum(gate, states)
        elif isinstance(gate, Rows):
            self._states[gate.out] = self._summed(gate, states[gate.x])
        else:
            check_within(gate, self._wires)
            self._states.update({name: self._row(gate, name, states) for name in gate.writes})

    def _row(self, gate: Gate, name: str, states: Mapping[str, State]) -> Row:
        rows = {name: state for name, state in states.items() if isinstance(state, Row)}
        sources = frozenset().union(*(row.sources for row in rows.values()))
        if isinstance(gate, Bound):
            self._atoms[name] = Atoms((1 << gate.width) - 1, 1, sources)
            return Row(sources, self._itself(name), (0, (1 << gate.width) - 1))
        if isinstance(gate, Step):
            levels = len(gate.levels) if self._falls(gate, rows[gate.x]) else 1
            self._atoms[name] = Atoms(1, levels, sources)
            return Row(sources, self._itself(name), (0, 1))
        if gate.kind == "open":
            return rows[gate.reads[0]]
        found = {name: row.form for name, row in rows.items() if row.form is not None}
        if not isinstance(gate, LinearMap) or gate.kind not in LINEAR or len(found) < len(rows):
            return Row(sources)
        free = len(found) < len(set(gate.reads))
        intervals = [None if free else rows[name].interval for name in gate.reads]
        return Row(sources, self._mapped(gate, found), interval(gate, intervals, self._one))

    def _falls(self, gate: Step, x: Row) -> bool:
        """Are the bits of all levels 1 .. 1 0 .. 0, whatever the data?  Where the compared value is known to keep its
        declared bound, and levels rise: then no comparison ends outside the bits that it is made on."""
        limit = 1 << self._wires[gate.x].bits
        inside = x.interval is not None and -limit < x.interval[0] and x.interval[1] < limit
        return inside and list(gate.levels) == sorted(gate.levels)

    def _summed(self, gate: Rows, x: State) -> Sum:
        if not has_rows(self._wires[gate.x]) or BATCH in self._wires[gate.out].shape:
            raise refuse(gate, "it does not sum over the rows alone")
        if not isinstance(x, Row) or x.form is None:
            raise PlanError(
                f"gate {gate.name!r} (rows): nothing is proved of what a row contributes to this sum",
                cause="its elements are neither bits of comparisons nor bounded, whatever the data are",
                remedy="compile the sum with noise ('mpc compile' puts a bound there), or put a bound before it",
            )
        return Sum(x.sources, self._mapped(gate, {gate.x: x.form}))

    def _mapped_sum(self, gate: Gate, states: Mapping[str, State]) -> Sum:
        if any(isinstance(state, Row) for state in states.values()):
            raise _bare(gate, "it brings a sum over rows back to single rows")
        rows = any(BATCH in self._wires[name].shape for name in gate.writes)
        if not isinstance(gate, LinearMap) or gate.kind not in LINEAR or rows:
            raise _bare(gate, "between a sum over rows and its noise only public linear maps are possible")
        sums = {name: state for name, state in states.items() if isinstance(state, Sum)}
        sources = frozenset().union(*(state.sources for state in sums.values()))
        return Sum(sources, self._mapped(gate, {name: state.form for name, state in sums.items()}))

    # -- noise

    def _noised(self, gate: Gate, states: Mapping[str, State]) -> None:
        """A sum and its own noise become free."""
        draws = {name: state.draw for name, state in states.items() if isinstance(state, Noise)}
        combine, draw = self._own(gate, draws)
        form = self._hidden(combine, {name: state for name, state in states.items() if name not in draws})
        sources = frozenset().union(*(state.sources for state in states.values() if isinstance(state, Sum)))
        total, euclidean = self._sensitivity(form)
        if total == 0:
            raise _bare(gate, "the noised vector says nothing of any row")
        self.needed[draw.name] = total
        if self._drafted:
            return
        law.check_epsilon(draw.epsilon)
        levels = law.thresholds(draw.epsilon, total)
        if draw.width != WORD_BITS or draw.thresholds != levels:
            raise PlanError(
                f"gate {draw.name!r} (draw): its thresholds are not those of epsilon {draw.epsilon}",
                cause=f"one person's rows can change the sum by {total} units, and the noise is for something else",
                remedy="compile the plan anew: thresholds follow from epsilon and from what a row can change",
            )
        elements = count(self._one[gate.writes[0]])
        loss = Loss(draw.epsilon, law.delta(draw.epsilon, len(levels), elements))
        self._vectors.append(Vector(gate.writes[0], elements, sources, total, euclidean, loss, law.variance(levels)))

    def _own(self, gate: Gate, draws: Mapping[str, Draw]) -> tuple[Combine, Draw]:
        """The one draw, if it is read here alone and once, as it is, and each element has its own."""
        if not isinstance(gate, Combine) or len(draws) != 1 or not set(draws) <= set(gate.xs):
            raise _bare(gate, "noise is added as it was drawn, one draw at a time, by a combine and nothing else")
        [(name, draw)] = draws.items()
        if self._readers[name] != 1:
            raise _bare(gate, f"the noise {name!r} is read more than once")
        if gate.factors[gate.xs.index(name)] not in (1, -1):
            raise _bare(gate, f"the noise {name!r} is multiplied")
        if self._wires[gate.out].shape != self._wires[name].shape:
            raise _bare(gate, f"the noise {name!r} is shared by several elements")
        if BATCH in self._wires[name].shape:
            raise _bare(gate, f"the noise {name!r} has rows")
        return gate, draw

    def _hidden(self, gate: Combine, others: Mapping[str, State]) -> Form:
        """The form of what the noise has to hide: sums that nobody else reads."""
        sums: dict[str, Form] = {}
        for name, state in others.items():
            if not isinstance(state, Sum):
                raise _bare(gate, "it adds noise to single rows")
            if self._readers[name] != gate.reads.count(name):
                raise _bare(gate, f"{name!r}, the sum without its noise, is read by another gate too")
            sums[name] = state.form
        if not sums:
            raise _bare(gate, "it adds noise to nothing that is protected")
        return self._mapped(gate, sums)

    def _itself(self, name: str) -> Form:
        self._work(count(self._one[name]))
        return forms.identity(name, count(self._one[name]))

    def _mapped(self, gate: LinearMap, found: Mapping[str, Form]) -> Form:
        read = sum(count(self._one[name]) for name in (*gate.reads, *gate.writes))
        self._work(read * max(1, len(found)))
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

    def _sensitivity(self, form: Form) -> tuple[int, Fraction]:
        """D1 and D2 of one person: their rows in every origin, each of which moves the atoms that depend on it."""
        people: dict[str, int] = {}
        for facts in self._stored.values():
            for origin, rows in facts.people:
                people[origin] = max(people.get(origin, 0), rows)
        first, second = 0, Fraction(0)
        for origin, rows in people.items():
            own = {wire for wire, facts in self._stored.items() if origin in dict(facts.people)}
            moved = {name: matrix for name, matrix in form.items() if self._atoms[name].sources & own}
            self._work(sensitivity.work(moved, self._atoms))
            first += rows * sensitivity.first(moved, self._atoms)
            second += rows * sensitivity.second(moved, self._atoms)
        return first, second


def _bare(gate: Gate, problem: str) -> PlanError:
    """The error for a sum over rows whose noise does not hide it."""
    return PlanError(
        f"gate {gate.name!r} ({gate.kind}) leaves a sum over rows without the noise that it needs: {problem}",
        cause="each element of a sum needs a draw of its own, whole, that nothing else reads, before anything but a "
        "public linear map is done with it",
        remedy="let the compiler place the noise (noise={output: epsilon}), and compute further behind it",
    )
