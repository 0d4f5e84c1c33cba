"""Grants, budgets and verdicts as the parties tell of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpc.privacy.facts import Loss
from parties.agreed.grants import Grant


class Amount(Fraction):
    """Epsilon or delta, exact, which prints as people write it: 0.5."""

    def __str__(self) -> str:
        return f"{float(self):.6g}"

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Given:
    """Grant, as the parties have it.

    Args:
        uses: runs that told an answer under it, at the party that knows of most.
        spent, spent_delta: epsilon and delta, likewise.
        revoked: at any party.
        parties: names of those that have it.
    """

    id: str
    grant: Grant
    uses: int
    spent: Fraction
    revoked: bool
    parties: tuple[str, ...]
    spent_delta: Fraction = Fraction(0)

    def content(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        said = self.grant.model_dump(mode="json")
        spent = {"spent": str(self.spent), "spent_delta": str(self.spent_delta)}
        answered = {"used": self.uses, **spent, "revoked": self.revoked, "at": list(self.parties)}
        return {"id": self.id, **said, **answered}


@dataclass(frozen=True)
class Together:
    """Loss of noised answers together.

    Args:
        answers: how many there were.
        delta: of all of them together.
        plain: sum of their epsilons, which the budget counts.
        epsilon: what they tell together, had their number been fixed before; None: they have different epsilons, and
            nothing less than the sum holds for whoever chose these as it went.
    """

    answers: int
    delta: Amount
    plain: Amount
    epsilon: Amount | None

    def __str__(self) -> str:
        if self.epsilon is None:
            return f"together: epsilon {self.plain}, the plain sum: answers have different epsilons, or there are none"
        of = f"{self.answers:,} answers of one epsilon"
        return f"together: epsilon {self.epsilon} at delta {self.delta}, of {of}; the budget counts {self.plain}"

    def content(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        epsilon = None if self.epsilon is None else float(self.epsilon)
        return {"answers": self.answers, "delta": float(self.delta), "plain": float(self.plain), "epsilon": epsilon}


@dataclass(frozen=True)
class Left:
    """Budget of a dataset and what was spent of it, by the party that has spent most.

    Args:
        epsilon, delta: in all, as the owner has signed, within what every operator allows; None: no budget is set.
        spent, spent_delta: in all.
        noised, exact: answers that were given.
        sequence: of the last budget that was signed for this very dataset.
        group: datasets that share the budget, this one among them.
        together: what its noised answers tell together, where that was asked for.
    """

    dataset: str
    epsilon: Fraction | None
    delta: Fraction | None
    spent: Fraction
    spent_delta: Fraction
    noised: int
    exact: int
    sequence: int = 0
    group: tuple[str, ...] = ()
    together: Together | None = None

    @property
    def left(self) -> Amount:
        """Epsilon that is left."""
        return Amount(max(Fraction(0), (self.epsilon or Fraction(0)) - self.spent))

    @property
    def answers(self) -> str:
        """Number of answers so far, in words."""
        noised = f"{self.noised:,} noised answer{'s' if self.noised != 1 else ''}"
        return f"{noised} and {self.exact:,} exact one{'s' if self.exact != 1 else ''} were given"

    def __str__(self) -> str:
        if self.epsilon is None:
            return f"{self.dataset}: no budget is set; {self.answers}"
        of = f"{self.dataset}: epsilon {self.left} of {Amount(self.epsilon)} left"
        if self.delta:
            left = Amount(max(Fraction(0), self.delta - self.spent_delta))
            of = f"{of}, delta {left} of {Amount(self.delta)}"
        return f"{of}; {self.answers}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def more(self, epsilon: Fraction) -> int:
        """Return how many more questions of that epsilon there may be."""
        return int(self.left / epsilon)

    def more_of(self, cost: Loss) -> int:
        """Return how many more questions there may be that cost so much, delta included."""
        found = self.more(cost.epsilon)
        if self.delta is None or not cost.delta:
            return found
        return min(found, int(max(Fraction(0), self.delta - self.spent_delta) / cost.delta))

    def content(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        total = None if self.epsilon is None else float(self.epsilon)
        delta = None if self.delta is None else float(self.delta)
        spent = {"spent": float(self.spent), "left": float(self.left), "spent_delta": float(self.spent_delta)}
        return {
            "dataset": self.dataset,
            "epsilon": total,
            "delta": delta,
            **spent,
            "noised_answers": self.noised,
            "exact_answers": self.exact,
            **({"group": list(self.group)} if len(self.group) > 1 else {}),
            **({} if self.together is None else {"together": self.together.content()}),
        }


@dataclass(frozen=True)
class Verdict:
    """Whether something may be read of one dataset, as one party says.

    Args:
        dataset: its name; "" if there is none that the caller may know of.
        mechanism: "own", "exact" or which noise.
        epsilon: that a run spends.
        whose: whose word is missing.
        operator: it is the word of the party's operator, about all of it.
        denied: and that was no.
        lacks_grant, lacks_budget: which of the owner's words would help, a grant or a budget.
    """

    party: str
    dataset: str
    allowed: bool
    mechanism: str
    epsilon: Fraction
    whose: str
    why: str
    remedy: str
    operator: bool = False
    denied: bool = False
    lacks_grant: bool = False
    lacks_budget: bool = False
