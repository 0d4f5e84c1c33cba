"""Sessions that keep something, in a cluster in which a hospital's ages lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mpc import field as fp
from mpc.gates.truncate import Truncate
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.prg import expand_field
from mpc.privacy.facts import StoredFacts
from mpc.wires import BATCH
from parties.agreed.bindings import Binding
from parties.agreed.objects import Manifest
from parties.client.at_rest import keeping
from parties.client.at_rest.keeping import Keeping
from parties.client.running.coordinated import CoordinatedSession
from parties.party.vault.vault import Vault
from tests.support.asking import ANALYST, HOSPITAL, ROWS, Kept, stored
from tests.support.parties import InProcess
from tests.support.plans import wire, with_parts
from tests.support.questions import WIDE, fitted
from tests.support.questions import Question as Asking

SCORES = f"{ANALYST}/scores"


def kept_plan(recipients: tuple[str, ...] = (), owner: str = HOSPITAL) -> Plan:
    """Who is at least 60, a bit a row, which stays at the parties."""
    question = Asking((BATCH, 1), bits=7)
    question.step(60)
    question.output("y")
    return as_kept(stored(question.unchecked(), ["x"], owner, ANALYST), recipients)


def counted_plan(owner: str = HOSPITAL) -> Plan:
    """How many are at least 60, which stays at the parties."""
    question = Asking((BATCH, 1), bits=7)
    question.step(60)
    question.rows()
    question.gate(Truncate(name="mask", x="s", out="t", shift=0), wire("t", (1, 1), WIDE))
    question.output("t")
    return as_kept(stored(question.unchecked(), ["x"], owner, ANALYST), ())


def noised_kept(manifest: Manifest, recipient: str = ANALYST, epsilon: Fraction = Fraction(1, 2)) -> Plan:
    """How many bits of a kept object are set, with noise."""
    [column] = manifest.columns
    question = Asking((BATCH, *column.shape), bits=1)
    question.bound(width=2)
    question.rows()
    question.noised(epsilon=epsilon)
    plan = stored(question.unchecked(), ["x"], manifest.owner, recipient)
    plan = with_parts(plan, inputs=[plan.inputs[0].model_copy(update={"low": (column.low,), "high": (column.high,)})])
    return parse_plan(fitted(plan, {"x": StoredFacts(rows=ROWS, rows_per_person=1, origin="one")}).canonical)


def as_kept(plan: Plan, recipients: tuple[str, ...]) -> Plan:
    """The plan with all its outputs kept."""
    wires = {out.wire for out in plan.outputs}
    kept = [w.model_copy(update={"holders": recipients, "kept": True}) if w.name in wires else w for w in plan.wires]
    outputs = [out.model_copy(update={"keep": True}) for out in plan.outputs]
    return parse_plan(with_parts(plan, wires=kept, outputs=outputs).canonical)


def keep(
    kept: Kept,
    plan: Plan,
    name: str | Keeping = SCORES,
    bindings: tuple[Binding, ...] | None = None,
    coordinator: str = ANALYST,
    batches: Sequence[int] = (ROWS,),
) -> tuple[Manifest, list[Mapping[str, np.ndarray]]]:
    """Run a plan whose outputs are kept: (the object, what the coordinator receives of each run)."""
    parties = kept.cluster.client(coordinator)
    said = keeping.read_keep({out.name: name for out in plan.kept}, coordinator)
    made = keeping.keeps(parties, plan, said)
    session = CoordinatedSession(parties, plan, {}, bindings=bindings or kept.binding(), keeps=made)
    try:
        received = [session.run({}, batch, lambda: 0.0)[0] for batch in batches]
    finally:
        session.close()
    return vault(kept.cluster).find(made[0].name), received


def vault(cluster: InProcess, index: int = 0) -> Vault:
    """What one party keeps."""
    return cluster.nodes[index].vault


def opened(cluster: InProcess, whole: Manifest, column: str) -> np.ndarray:
    """The integers of a column, by the masks of all parties: what nobody can do who does not have them all."""
    blocks = []
    for block in range(whole.block_count):
        total = vault(cluster).block(whole.id, column, block)
        for index in range(len(cluster.names)):
            share = expand_field(vault(cluster, index).seed(whole.id, column, block), total.shape)
            total = fp.sub(total, share)
        blocks.append(fp.to_signed(total))
    return np.concatenate(blocks)


def kept_binding(whole: Manifest, **changes: Any) -> tuple[Binding, ...]:
    """All rows of a kept object's first column."""
    fields: dict[str, Any] = {"first": 0, "rows": whole.rows, **changes}
    return (Binding("x", whole.id, (whole.columns[0].name,), fields["first"], fields["rows"]),)
