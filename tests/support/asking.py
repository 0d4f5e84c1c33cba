"""A cluster in which a hospital's ages lie, and an analyst who asks about them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.privacy.facts import StoredFacts
from mpc.wires import BATCH, Lifetime
from parties.agreed.bindings import Binding
from parties.agreed.grants import Budget, Grant, Revocation, Statement
from parties.agreed.objects import Manifest
from parties.agreed.questions import Bound, Exact, ExactPlan, Question
from parties.client.running.coordinated import CoordinatedSession
from parties.pb import consent_pb2
from parties.pb.data_pb2 import SignedStatement
from tests.support.grants import budget, dp, grant
from tests.support.objects import AGE, described, put
from tests.support.parties import InProcess
from tests.support.plans import with_parts
from tests.support.questions import Question as Asking
from tests.support.questions import fitted

ROWS = 5
ANALYST, HOSPITAL = "analyst", "hospital"
AGES = np.array([20, 40, 60, 80, 100], dtype=np.int64)


def stored(plan: Plan, names: Iterable[str], owner: str, recipient: str) -> Plan:
    """The plan with inputs that lie at the parties, in the ranges of ages, and outputs for one recipient."""
    names = [*names]
    gates = [g.model_copy(update={"lifetime": Lifetime.STORED}) if {*names} & {*g.writes} else g for g in plan.gates]
    held = {**dict.fromkeys(names, (owner,)), **{out.wire: (recipient,) for out in plan.outputs}}
    wires = [w.model_copy(update={"holders": held.get(w.name, w.holders)}) for w in plan.wires]
    inputs = [each.model_copy(update={"low": (AGE.low,), "high": (AGE.high,)}) for each in plan.inputs]
    return with_parts(plan, gates=gates, wires=wires, inputs=inputs)


def noised_sum(recipient: str = ANALYST, epsilon: Fraction = Fraction(1, 2), owner: str = HOSPITAL) -> Plan:
    """The sum of ages, with noise of that epsilon."""
    question = Asking((BATCH, 1), bits=7)
    question.bound(width=8)
    question.rows()
    question.noised(epsilon=epsilon)
    plan = stored(question.unchecked(), ["x"], owner, recipient)
    return parse_plan(fitted(plan, {"x": StoredFacts(rows=ROWS, rows_per_person=1, origin="one")}).canonical)


def above(recipient: str = ANALYST, level: int = 60, owner: str = HOSPITAL) -> Plan:
    """Who is at least that old: a bit a row, without noise."""
    question = Asking((BATCH, 1), bits=7)
    question.step(level)
    question.output("y")
    return parse_plan(stored(question.unchecked(), ["x"], owner, recipient).canonical)


def exactly(plan: Plan, manifest: Manifest, rows: int = ROWS, bits: int | None = None, **changes: Any) -> Question:
    """A grant's question: this plan, of the ages."""
    bound = Bound(dataset=manifest.id.hex(), columns=("age",), first=0, rows=rows)
    listed = ExactPlan(**{"plan": plan.digest.hex(), "bindings": {"x": bound}, **changes})
    return Question(exact=Exact(plans=(listed,), outputs_bits=bits))


def word(statement: Statement, signer: Any) -> consent_pb2.Word:
    """A statement as it is sent, signed by somebody."""
    signed = statement.sign(signer)
    sent = SignedStatement(content=signed.content, signature=signed.signature, certificate=signed.certificate)
    kinds: dict[type, str] = {Grant: "grant", Revocation: "revocation", Budget: "budget"}
    return consent_pb2.Word(**{kinds[type(statement)]: sent})


@dataclass
class Kept:
    """A cluster with a table at its parties."""

    cluster: InProcess
    manifest: Manifest = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = self.put()

    def put(self, name: str = "patients", owner: str = HOSPITAL, **more: Any) -> Manifest:
        said = described(name, ROWS, (AGE,), **more)
        return put(self.cluster.client(owner), said, {"age": AGES.reshape(ROWS)})

    def say(self, statement: Statement, signer: str = HOSPITAL, only: Iterable[int] | None = None) -> Statement:
        """Tell all parties, or some."""
        for index in range(len(self.cluster.names)) if only is None else only:
            self.cluster.consent(index, signer).Say(word(statement, self.cluster.identity(signer)))
        return statement

    def grant(self, only: Iterable[int] | None = None, **changes: Any) -> Grant:
        now = int(time.time())
        times = {"created": now, "not_before": now - 60, "expires": now + 3600}
        made = grant(**{"parties": self.cluster.names, **times, **changes})
        self.say(made, made.owner, only)
        return made

    def allow(self, epsilon: Fraction | int = 1, total: Fraction | int = 2, **changes: Any) -> Grant:
        """A grant of noised sums, and a budget."""
        self.say(budget(total))
        return self.grant(question=dp(epsilon), **changes)

    def binding(self, manifest: Manifest | None = None, **changes: Any) -> tuple[Binding, ...]:
        return (replace(Binding("x", (manifest or self.manifest).id, ("age",), 0, ROWS), **changes),)

    def open(
        self, plan: Plan, bindings: tuple[Binding, ...] | None = None, coordinator: str = ANALYST
    ) -> CoordinatedSession:
        parties = self.cluster.client(coordinator)
        return CoordinatedSession(parties, plan, {}, bindings=bindings or self.binding())

    def ask(
        self,
        plan: Plan,
        bindings: tuple[Binding, ...] | None = None,
        coordinator: str = ANALYST,
        batch: int = ROWS,
    ) -> np.ndarray:
        """The integers of the only output."""
        session = self.open(plan, bindings, coordinator)
        try:
            return session.run({}, batch, lambda: 0.0)[0][plan.outputs[0].wire]
        finally:
            session.close()

    def spent(self, index: int = 0, dataset: str = "hospital/patients") -> int:
        """Billionths, as one party has it."""
        query = "SELECT coalesce(sum(epsilon), 0) FROM consent_charges WHERE dataset = ?"
        with self.cluster.ledgers[index].reading() as database:
            return int(database.execute(query, (dataset,)).fetchone()[0])

    def revealed(self, index: int = 0) -> int:
        return self.cluster.revealed(index)


def kept_by_two(folder: Path) -> Iterator[Kept]:
    """The table at two parties, with a budget of 20, for fixtures."""
    with InProcess(folder, 2) as cluster:
        found = Kept(cluster)
        found.say(budget(20))
        yield found
