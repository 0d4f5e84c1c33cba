"""Refresh: the identity plan on a whole object, its outputs kept as the next version of the object's name.

Values stay, and x^ and every seed of their masks are new: what anybody had of the old ones opens nothing any more.  The
gate is a truncation by no bits, which adds shares that are dealt for this run to what each party sends.  A bare opening
would let a peer that kept messages turn an old seed, stolen later, into the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from mpc.errors import InputError
from mpc.gates.base import Gate
from mpc.gates.input import Input
from mpc.gates.truncate import Truncate
from mpc.plan.ends import PlanInput, PlanOutput
from mpc.plan.plan import Plan
from mpc.wires import BATCH, MAX_BITS, Lifetime, Wire
from parties.agreed.bindings import Binding
from parties.agreed.keeps import Keep
from parties.agreed.objects import Manifest, Schema
from parties.agreed.terms import Terms

MOST_COLUMNS = 256
"""Columns of the largest object that is refreshed: as many as a plan has inputs."""


def identity_plan(schema: Schema) -> Plan:
    """Return the plan that reads every column of an object, and keeps it.

    Raises:
        InputError: the object has too many columns for one plan.
    """
    if len(schema.columns) > MOST_COLUMNS:
        raise InputError(
            f"{schema.name} has {len(schema.columns):,} columns; up to {MOST_COLUMNS} are refreshed",
            remedy="put it again, as several objects",
        )
    inputs, outputs = list[PlanInput](), list[PlanOutput]()
    wires, gates = list[Wire](), list[Gate]()
    for number, column in enumerate(schema.columns):
        shape = (BATCH, *column.shape)
        bits = max(1, *(abs(end).bit_length() for end in column.ends))
        said = {"shape": shape, "scale": column.scale, "bits": min(bits, MAX_BITS)}
        wires += [
            Wire(name=f"x{number}", holders=(schema.owner,), **said),
            Wire(name=f"y{number}", kept=True, **said),
        ]
        gates += [
            Input(name=f"read{number}", out=f"x{number}", lifetime=Lifetime.STORED),
            Truncate(name=f"mask{number}", x=f"x{number}", out=f"y{number}", shift=0),
        ]
        low, high = Fraction(column.low), Fraction(column.high)
        inputs.append(PlanInput(name=f"x{number}", wire=f"x{number}", dtype="float64", low=(low,), high=(high,)))
        outputs.append(PlanOutput(name=f"y{number}", wire=f"y{number}", shape=shape, dtype="float64", keep=True))
    return Plan(inputs=tuple(inputs), outputs=tuple(outputs), wires=tuple(wires), gates=tuple(gates))


def refresh_bindings(manifest: Manifest) -> tuple[Binding, ...]:
    """Return the bindings of the identity plan to all of an object."""
    return tuple(
        Binding(f"x{number}", manifest.id, (column.name,), 0, manifest.rows)
        for number, column in enumerate(manifest.columns)
    )


def refresh_outputs(schema: Schema) -> tuple[str, ...]:
    """List the outputs of the identity plan, in the order of the columns."""
    return tuple(f"y{number}" for number in range(len(schema.columns)))


def refreshed(keep: Keep, plan: Plan, terms: Terms, manifests: Mapping[bytes, Manifest]) -> Manifest | None:
    """Return the object that a session refreshes; None if it makes something else.

    The name, the plan, the columns and the rows decide: all of the newest version, unchanged.
    """
    if len(manifests) != 1 or len(terms.keeps) != 1:
        return None
    [whole] = manifests.values()
    if keep.name != whole.name or keep.previous != whole.id.hex() or len(whole.columns) > MOST_COLUMNS:
        return None
    same = terms.bindings == refresh_bindings(whole) and keep.outputs == refresh_outputs(whole)
    return whole if same and plan.digest == identity_plan(whole).with_security(plan.security).digest else None
