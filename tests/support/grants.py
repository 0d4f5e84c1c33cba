"""Words of owners about their data, for tests."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from parties.agreed.grants import Budget, Grant, Revocation
from parties.agreed.questions import Bound, Dp, Exact, ExactPlan, Question, Use
from tests.support.objects import MADE
from tests.support.parties import CLUSTER

ID = "ab" * 32
NAME = "hospital/patients"
LATER = MADE + 3_600_000


def dp(epsilon: Fraction | int = 1, each: Fraction | int | None = None, **changes: Any) -> Question:
    """Noised answers, each at most `each`."""
    limits: dict[str, Any] = {"epsilon": epsilon, "epsilon_each": each or epsilon, "delta": Fraction(1, 1 << 20)}
    return Question(dp=Dp(**{**limits, "outputs": 4, **changes}))


def exact(plan: str = ID, dataset: str = ID, bits: int | None = None, **changes: Any) -> Question:
    """One plan that reads age."""
    bound = Bound(dataset=dataset, columns=("age",), first=0, rows=5)
    listed = ExactPlan(**{"plan": plan, "bindings": {"x": bound}, **changes})
    return Question(exact=Exact(plans=(listed,), outputs_bits=bits))


def use(**changes: Any) -> Question:
    """The use of a model, whoever enters."""
    return Question(use=Use(**changes))


def grant(**changes: Any) -> Grant:
    """A grant of the small table's owner."""
    fields: dict[str, Any] = {
        "cluster": CLUSTER,
        "owner": "hospital",
        "dataset": NAME,
        "parties": ("party-0", "party-1"),
        "provider": "provider",
        "coordinators": ("analyst",),
        "recipients": ("analyst",),
        "created": MADE,
        "not_before": MADE,
        "expires": LATER,
        "question": dp(),
    }
    return Grant(**{**fields, **changes})


def budget(epsilon: Fraction | int = 2, sequence: int = 1, **changes: Any) -> Budget:
    """A budget of the small table's owner."""
    fields: dict[str, Any] = {"cluster": CLUSTER, "owner": "hospital", "dataset": NAME, "delta": Fraction(1, 1 << 10)}
    return Budget(**{**fields, "epsilon": epsilon, "sequence": sequence, **changes})


def revocation(given: Grant, **changes: Any) -> Revocation:
    """The end of a grant."""
    fields: dict[str, Any] = {"cluster": CLUSTER, "owner": given.owner, "revokes": given.id, "at": MADE}
    return Revocation(**{**fields, **changes})
