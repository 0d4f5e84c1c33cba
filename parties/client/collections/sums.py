"""The one plan of a collection: the sum of its rows, with noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mpc.plan.bands import MOST_BANDS, in_bands
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee
from parties.agreed.columns import Column
from parties.client.running.roles import ACTIVE, PASSIVE, PUBLIC, assign
from parties.client.tables.integers import real_scale

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled
    from mpc.plan.plan import Security

COLUMN, SUM = "x", "sum"
BAND = 1 << 22
"""Numbers of all rows together that are summed at once: some 270 bytes of memory each, and 90 of what is dealt."""
CHECKED_BAND = 1 << 20
"""Those of a band where there are several and runs are checked: tags are ten times what they belong to."""

BANDS: dict[str, int] = {PASSIVE: BAND, ACTIVE: CHECKED_BAND}


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

    def bands(self, security: Security) -> int:
        """Return how many bands of numbers are summed one after another."""
        every = self.size * self.at_most
        return 1 if every <= BAND else min(self.size, MOST_BANDS, -(-every // BANDS[security]))

    @property
    def facts(self) -> StoredFacts:
        """Facts of the rows that are public: each is another client's."""
        return StoredFacts(self.at_most, 1, "collection")

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
    return banded(undivided(me, wishes, security), wishes, security)


def undivided(me: str, wishes: Wishes, security: Security = PASSIVE) -> Compiled:
    """Compile the sum of all numbers at once; raises as `compiled`."""
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
        stored={COLUMN: wishes.facts},
        mechanisms=(wishes.mechanism,),
        delta=wishes.delta,
    )
    roles = assign(me, {COLUMN: me}, weights=PUBLIC, security=security)
    stored = {COLUMN: StoredInput((column.scale,), ends[:1], ends[1:])}
    return compile_model(model.write({SUM: node}, True), roles=roles, stored=stored, noise=noise)


def banded(whole: Compiled, wishes: Wishes, security: Security = PASSIVE) -> Compiled:
    """Return the sum in as many bands as its size asks for; `PlanError` if nothing is proved of it."""
    plan = in_bands(whole.plan, wishes.bands(security))
    if plan is whole.plan:
        return whole
    proved = guarantee(plan, {given.wire: wishes.facts for given in plan.inputs})
    return replace(whole, plan=plan, guarantee=proved, origins={}, again=None)
