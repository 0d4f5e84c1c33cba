"""Judge what may be dealt ahead: parties and clients judge it alike."""

from __future__ import annotations

from mpc.errors import PlanError
from mpc.plan.plan import Plan


def refuse_later_known(plan: Plan) -> None:
    """Raise PlanError if correlations depend on what is only known once a session is open."""
    if plan.stored:
        raise PlanError(
            "nothing can be dealt ahead for a plan that reads data at rest",
            cause="which objects it reads is said when a session is opened, and what is dealt depends on their masks",
            remedy="leave 'mpc deal' out: runs are dealt as they come",
        )
    if plan.kept:
        raise PlanError(
            "nothing can be dealt ahead for a plan whose outputs stay at the parties",
            cause="which objects they become is said when a session is opened",
            remedy="leave 'mpc deal' out: runs are dealt as they come",
        )
    if plan.public_weights:
        raise PlanError(
            "nothing can be dealt ahead for a model whose weights are public",
            cause="what is dealt for it depends on its weights, and they are entered when a session is open",
            remedy="leave 'mpc deal' out: runs are dealt as they come; or compile it with --weights secret",
        )
    if plan.is_checked and plan.program is not None:
        raise PlanError(
            "nothing can be dealt ahead for checked runs of a program",
            cause="a check that fails tells a cheater the keys, which lie on disk with what is dealt ahead: if parties "
            "are restored behind that, a client that enters something in a later run only has no list that says so",
            remedy="leave 'mpc deal' out: runs are dealt as they come",
        )
    if plan.is_checked and any(gate.kind == "gaussian" for gate in plan.gates):
        raise PlanError(
            "nothing can be dealt ahead for checked runs with Gaussian noise",
            cause="half of that noise is drawn by what the parties make in common, once a session is open: behind what "
            "is dealt a party could choose its part of that, and so among answers",
            remedy="leave 'mpc deal' out: runs are dealt as they come",
        )
