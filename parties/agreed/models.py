"""Models at rest: which objects are the weights of a plan, and which sessions use one as it was put.

A model is an object of one row.  Its columns w1, w2, ... are the plan's weights in the plan's order, and its manifest
names the plan's template, in which its owner has every part (`mpc/plan/placing.py`).  So consent to use a model is
consent to one plan, whoever enters and receives, and however many rows a run has: any other plan is a function of the
weights that their owner has not agreed to, such as the weights themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from mpc.errors import InputError
from mpc.plan.parse import parse_plan
from mpc.plan.placing import template
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding
from parties.agreed.columns import Column
from parties.agreed.objects import Manifest, Schema


def weight_columns(plan: Plan) -> tuple[Column, ...]:
    """Return the columns that a plan's weights are put as: shapes, scales and bounds are the plan's.

    Raises:
        InputError: it has none, or one that is not stored.
    """
    if not plan.weights or any(not gate.is_stored for gate in plan.weights):
        raise InputError(
            "the plan's weights are not all secret ones that lie at the parties",
            cause="there are none, or they are public",
            remedy="put models whose weights are secret; public ones are entered by whoever opens a session",
        )
    columns = []
    for number, gate in enumerate(plan.weights, 1):
        wire = plan.wire[gate.out]
        most = Fraction((1 << wire.bits) - 1) / wire.scale
        columns.append(
            Column(name=f"w{number}", type="array", scale=wire.scale, low=-most, high=most, shape=wire.sizes)
        )
    return tuple(columns)


def read_model(schema: Schema, content: bytes) -> Plan:
    """Parse the plan of a model, and hold it to what the model's owner has signed, or is about to sign.

    Raises:
        PlanError: it is no plan.
        InputError: it is another one, or not one of that owner's weights.
    """
    plan = parse_plan(content)
    holders = {plan.wire[gate.out].holders for gate in plan.weights}
    if plan.digest.hex() != schema.plan or plan.digest != template(plan, schema.owner).digest:
        raise InputError(f"the plan is not the one that {schema.name} is for", remedy="put the model again")
    if holders != {(schema.owner,)} or weight_columns(plan) != schema.columns:
        raise InputError(f"the plan's weights are not those of {schema.name}", remedy="put the model again")
    return plan


def uses_as_put(plan: Plan, bindings: Sequence[Binding], manifest: Manifest) -> bool:
    """Does a session use this model as it was put: its plan, each weight in its place, and nothing else of it?

    Its runs may be checked where its owner has not asked for that.
    """
    if manifest.plan is None or len(plan.weights) != len(manifest.columns):
        return False
    plans = [plan, plan.with_security("passive")] if plan.is_checked else [plan]
    if manifest.plan not in [template(each, manifest.owner).digest.hex() for each in plans]:
        return False
    expected = [(gate.out, (column.name,)) for gate, column in zip(plan.weights, manifest.columns, strict=True)]
    found = [(each.wire, each.columns) for each in bindings if each.object == manifest.id]
    return found == expected


def weight_bindings(plan: Plan, manifest: Manifest) -> tuple[Binding, ...]:
    """Return the bindings of a plan's weights to the model's columns, in the plan's order."""
    return tuple(
        Binding(gate.out, manifest.id, (column.name,), 0, 1)
        for gate, column in zip(plan.weights, manifest.columns, strict=True)
    )
