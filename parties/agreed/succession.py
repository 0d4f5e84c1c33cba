"""Hold a program that goes on to the one object that the plan before it has left: whole, each state in its place.

A training in several sessions is a chain of plans, each of which names the one before by its digest.  So no coordinator
leaves out a stretch of it, makes one twice, or takes them out of turn: every party holds what is bound to the chain, by
public bytes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpc.errors import InputError
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding, parts_of
from parties.agreed.objects import Manifest

_REMEDY = "begin with what the stretch before has left: trainer.resume(...); or train from the beginning"


def require_succession(plan: Plan, bindings: Sequence[Binding], manifests: Mapping[bytes, Manifest]) -> None:
    """Require that a program which goes on begins with what the plan that it names has kept.

    Args:
        manifests: of what is bound, by id.

    Raises:
        InputError: it begins with what another plan has kept, with parts of several objects, or with one state in the
            place of another.
    """
    program = plan.program
    if program is None or program.previous is None:
        return
    left, found = _left(plan), set[bytes]()
    for state in plan.states:
        [binding] = parts_of(bindings, state.init or "")
        whole = manifests[binding.object]
        if whole.kept is None or whole.kept.plan != program.previous:
            raise InputError(
                f"{whole.name} is not what the steps before these have left: {program.after:,} of them",
                cause="steps were left out, made twice or taken out of turn, or it is another training's",
                remedy=_REMEDY,
            )
        if binding.columns != (left.get(state.out),):
            raise InputError(f"state {state.name!r} begins with something else than itself", remedy=_REMEDY)
        found.add(binding.object)
    if len(found) > 1:
        raise InputError("states begin with what several sessions have left", remedy=_REMEDY)


def _left(plan: Plan) -> dict[str, str]:
    """Return the output that the next value of each state is kept as, by its wire: a plan's stretches keep alike."""
    kept = {out.wire: out.name for out in plan.kept}
    return {wire: kept[out] for gate in plan.gates for out in gate.writes if out in kept for wire in gate.reads}
