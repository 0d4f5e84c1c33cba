"""The proof that a plan's outputs are differentially private, read off its public bytes.

Neighbours: one person's rows are replaced by any others, field elements of any size among them; the number of rows is
public.  Whoever writes the plan is the adversary, and enters everything else that the plan reads.  Each wire is one of

    free     does not depend on protected rows but through what has been noised before: anything may be done with it
    row      row i follows from row i of stored wires alone; perhaps a known linear form of hard atoms
    sum      no rows any more: a known linear form of atoms, summed over the rows
    noise    drawn, and not yet added

and only free wires may be outputs, or state that the next run reads: so what a run reads of the one before is free.
But rows may stay at the parties, masked, where nobody receives them: their history is kept with them, and is asked of
whoever reads them later.  A sum becomes free by exactly one gate: a combine with noise of its own for every element,
which is that of its epsilon and of the sensitivity that is found here (`noise`).  Values that are free may be read by
anything, also by what is noised later: the proof holds for each value of theirs, so epsilons add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mpc.errors import PlanError
from mpc.gates.base import Gate, count
from mpc.gates.draw import Draw
from mpc.gates.gaussian import Gaussian
from mpc.gates.linear import Combine, LinearMap
from mpc.gates.open import Open
from mpc.gates.rows import Rows
from mpc.gates.truncate import Truncate
from mpc.plan.plan import Plan
from mpc.privacy import sensitivity
from mpc.privacy.facts import Guarantee, StoredFacts, Vector
from mpc.privacy.forms import LINEAR, Form
from mpc.privacy.intervals import of_rows
from mpc.privacy.noise import worth
from mpc.privacy.rows import RowProof
from mpc.privacy.states import MOST_APART, Moved, Noise, Row, State, Sum, bare, most
from mpc.privacy.within import check_within, has_rows, refuse
from mpc.wires import BATCH


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
    """Return D1 for each gate of noise by its name, for whoever writes a plan: its noise is not looked at yet.

    Raises:
        PlanError: as `guarantee`, but for how much noise there is.
    """
    return {name: moved.first for name, moved in hidden(plan, stored).items()}


def hidden(plan: Plan, stored: Mapping[str, StoredFacts]) -> dict[str, Moved]:
    """Return what each gate of noise has to hide, D1 and D2, by its name; raises as `sensitivities`."""
    proof = _Proof(plan, stored, drafted=True)
    proof.run()
    return proof.needed


class _Proof(RowProof):
    """One reading of a plan, gate by gate.

    Args:
        drafted: it is not known yet which noise the plan needs, so any is taken and nothing is guaranteed.
    """

    def __init__(self, plan: Plan, stored: Mapping[str, StoredFacts], drafted: bool = False) -> None:
        super().__init__(plan)
        self.needed: dict[str, Moved] = {}
        self._drafted = drafted
        self._plan, self._stored = plan, stored
        self._paced = {each.gate for each in plan.program.paced} if plan.program is not None else set()
        self._readers = Counter(name for gate in plan.gates for name in gate.reads)
        self._states: dict[str, State] = {}
        self._vectors: list[Vector] = []

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
                raise bare(state.gate, f"nothing reads the noise {name!r}")
        return Guarantee(tuple(self._vectors)).checked()

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
        if states and gate.name in self._paced:
            raise bare(gate, "its factors change from run to run, and nothing is proved of them")
        if isinstance(gate, Draw | Gaussian):
            self._states[gate.out] = Noise(gate)
        elif not states or gate.kind == "input":
            pass
        elif any(isinstance(state, Noise) for state in states.values()):
            self._noised(gate, states)
        elif any(isinstance(state, Sum) for state in states.values()):
            self._states[gate.writes[0]] = self._of_sums(gate, states)
        elif isinstance(gate, Rows):
            self._states[gate.out] = self._summed(gate, states[gate.x])
        else:
            check_within(gate, self._wires)
            self._states.update({name: self._row(gate, name, states) for name in gate.writes})

    def _summed(self, gate: Rows, x: State) -> Sum:
        if not has_rows(self._wires[gate.x]) or BATCH in self._wires[gate.out].shape:
            raise refuse(gate, "it does not sum over the rows alone")
        if not isinstance(x, Row) or x.form is None:
            raise PlanError(
                f"gate {gate.name!r} (rows): nothing is proved of what a row contributes to this sum",
                cause="its elements are neither bits of comparisons nor bounded, whatever the data are",
                remedy="compile the sum with noise ('mpc compile' puts a bound there), or put a bound before it",
            )
        between = None if x.interval is None else of_rows(x.interval, gate.most)
        return Sum(x.sources, self._mapped(gate, {gate.x: x.form}), between)

    def _of_sums(self, gate: Gate, states: Mapping[str, State]) -> Sum:
        """A sum under another mask, a public linear map of sums, or a sum that is rounded."""
        if any(isinstance(state, Row) for state in states.values()):
            raise bare(gate, "it brings a sum over rows back to single rows")
        sums = {name: state for name, state in states.items() if isinstance(state, Sum)}
        if isinstance(gate, Open):
            return sums[gate.x]
        if any(state.shift for state in sums.values()):
            raise bare(gate, "what was rounded is no linear map any more: noise comes next")
        if isinstance(gate, Truncate) and gate.shift:
            return self._rounded_sum(gate, sums[gate.x])
        rows = any(BATCH in self._wires[name].shape for name in gate.writes)
        if not isinstance(gate, LinearMap) or gate.kind not in LINEAR or rows:
            raise bare(gate, "between a sum over rows and its noise only public linear maps are possible")
        sources = frozenset().union(*(state.sources for state in sums.values()))
        mapped = self._mapped(gate, {name: state.form for name, state in sums.items()})
        return Sum(sources, mapped, self._interval(gate, sums))

    def _rounded_sum(self, gate: Truncate, x: Sum) -> Sum:
        """A rounding is one for values within the declared bound only: elsewhere it may be anything."""
        limit = 1 << self._wires[gate.x].bits
        if x.interval is None or not -limit < x.interval[0] <= x.interval[1] < limit:
            raise bare(gate, f"it rounds a sum that may leave the bound of {gate.x!r}")
        return Sum(x.sources, x.form, None, gate.shift)

    # -- noise

    def _noised(self, gate: Gate, states: Mapping[str, State]) -> None:
        """A sum and its own noise become free."""
        noises = {name: state.gate for name, state in states.items() if isinstance(state, Noise)}
        combine, noise = self._own(gate, noises)
        sums = self._hidden(combine, {name: state for name, state in states.items() if name not in noises})
        elements = count(self._one[gate.writes[0]])
        form = self._mapped(combine, {name: state.form for name, state in sums.items()})
        shift = max(state.shift for state in sums.values())
        moved = self._moved(form)
        if not moved.first:
            raise bare(gate, "the noised vector says nothing of any row")
        self.needed[noise.name] = moved = moved.rounded(shift, elements)
        if self._drafted:
            return
        loss, variance, mechanism = worth(noise, moved, elements)
        sources = frozenset().union(*(state.sources for state in sums.values()))
        facts = (moved.first, moved.second, loss, variance, mechanism, getattr(noise, "sigma", None))
        self._vectors.append(Vector(gate.writes[0], elements, sources, *facts))

    def _own(self, gate: Gate, noises: Mapping[str, Draw | Gaussian]) -> tuple[Combine, Draw | Gaussian]:
        """The one noise, if it is read here alone and once, as it is, and each element has its own."""
        if not isinstance(gate, Combine) or len(noises) != 1 or not set(noises) <= set(gate.xs):
            raise bare(gate, "noise is added as it was drawn, one noise at a time, by a combine and nothing else")
        [(name, noise)] = noises.items()
        if self._readers[name] != 1:
            raise bare(gate, f"the noise {name!r} is read more than once")
        if gate.factors[gate.xs.index(name)] not in (1, -1):
            raise bare(gate, f"the noise {name!r} is multiplied")
        if self._wires[gate.out].shape != self._wires[name].shape:
            raise bare(gate, f"the noise {name!r} is shared by several elements")
        if BATCH in self._wires[name].shape:
            raise bare(gate, f"the noise {name!r} has rows")
        return gate, noise

    def _hidden(self, gate: Combine, others: Mapping[str, State]) -> dict[str, Sum]:
        """The sums that the noise has to hide, which nobody else reads; one that was rounded is by itself, as it is."""
        sums: dict[str, Sum] = {}
        for name, state in others.items():
            if not isinstance(state, Sum):
                raise bare(gate, "it adds noise to single rows")
            if self._readers[name] != gate.reads.count(name):
                raise bare(gate, f"{name!r}, the sum without its noise, is read by another gate too")
            sums[name] = state
        if not sums:
            raise bare(gate, "it adds noise to nothing that is protected")
        for name in [name for name, state in sums.items() if state.shift]:
            alone = len(sums) == 1 and gate.reads.count(name) == 1 and gate.factors[gate.xs.index(name)] in (1, -1)
            if not alone or self._wires[name].shape != self._wires[gate.out].shape:
                raise bare(gate, f"{name!r}, which was rounded, is repeated, multiplied or added to another sum")
        return sums

    def _moved(self, form: Form) -> Moved:
        """One person's part: the rows in every origin, each of which moves the atoms that depend on it."""
        people: dict[str, int] = {}
        apart: dict[str, frozenset[str]] = {}
        for facts in self._stored.values():
            for origin, rows in facts.people:
                people[origin] = max(people.get(origin, 0), rows)
                apart[origin] = apart.get(origin, facts.apart) & facts.apart
        found: dict[str, Moved] = {}
        for origin, rows in people.items():
            own = {wire for wire, facts in self._stored.items() if origin in dict(facts.people)}
            moved = {name: matrix for name, matrix in form.items() if self._atoms[name].sources & own}
            self._work(sensitivity.work(moved, self._atoms))
            found[origin] = Moved.by(moved, self._atoms, rows)
        self._work(1 << min(len(found), MOST_APART))
        return most(found, apart)
