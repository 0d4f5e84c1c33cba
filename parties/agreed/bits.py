"""One bit: what a grant of bits lets a plan tell, read off the plan's public bytes by clients and parties alike."""

from __future__ import annotations

from math import prod

from mpc.gates.open import Open
from mpc.gates.step import Step
from mpc.plan.plan import Plan


def tells_one_bit(plan: Plan, batch: int | None = None) -> bool:
    """Is all that a run tells one bit, which a comparison writes and nothing but its opening reads?

    A comparison's bit is 0 or 1 whatever was entered, so nothing else fits into the answer; and nothing stays behind.

    Args:
        batch: rows of the run; None while they are not known: then of a run of one row.
    """
    if len(plan.outputs) != 1 or plan.outputs[0].keep or plan.states:
        return False
    wire = plan.outputs[0].wire
    if prod(plan.wire[wire].bind(batch or 1).sizes) != 1:
        return False
    writers = {name: gate for gate in plan.gates for name in gate.writes}
    opening, bits = writers[wire], {wire}
    if isinstance(opening, Open):
        bits.add(opening.x)
    writer = writers[opening.x] if isinstance(opening, Open) else opening
    passed_on = any(bits & {*gate.reads} for gate in plan.gates if gate is not opening)
    return isinstance(writer, Step) and not passed_on
