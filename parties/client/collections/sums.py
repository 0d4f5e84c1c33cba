"""The one plan of a collection: the sum of its rows, with noise."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mpc.privacy.facts import StoredFacts
from parties.agreed.columns import Column
from parties.client.running.roles import PASSIVE, PUBLIC, assign
from parties.client.tables.integers import real_scale

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled
    from mpc.plan.plan import Security

COLUMN, SUM = "x", "sum"


@dataclass(frozen=True)
class Wishes:
    """A collection, as whoever collects says it.

    Args:
        size: numbers of a row.
        low, high: that each of them lies between, in the rows' own unit.
        width: bits that each is held to, whatever a client enters.
    """

    size: int
    low: Fraction
    high: Fraction
    at_least: int
    at_most: int
    epsilon: Fraction
    delta: Fraction
    mechanism: Any
    width: int

    @property
    def column(self) -> Column:
        """Column of the rows."""
        scale = real_scale(self.low, self.high)
        return Column(name=COLUMN, type="array", scale=scale, low=self.low, high=self.high, shape=(self.size,))


def compiled(me: str, wishes: Wishes, security: Security = PASSIVE) -> Compiled:
    """Compile the sum of a collection's rows, with noise: one plan, whoever enters and however many there are.

    Raises:
        ModelError: nothing is proved of it.
    """
    from mpc.compiler.compile import compile_model
    from mpc.compiler.graph.noising import Noising
    from mpc.compiler.graph.stored import StoredInput
    from parties.client.questions import expression, model

    ends = float(wishes.low), float(wishes.high)
    column = wishes.column
    node = expression.column(COLUMN, expression.REAL, (wishes.size,), ends)
    noise = Noising(
        {SUM: wishes.epsilon},
        width=wishes.width,
        most=wishes.at_most,
        stored={COLUMN: StoredFacts(wishes.at_most, 1, "collection")},
        mechanisms=(wishes.mechanism,),
        delta=wishes.delta,
    )
    roles = assign(me, {COLUMN: me}, weights=PUBLIC, security=security)
    stored = {COLUMN: StoredInput((column.scale,), ends[:1], ends[1:])}
    return compile_model(model.write({SUM: node}, True), roles=roles, stored=stored, noise=noise)
