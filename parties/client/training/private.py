"""Train logistic regression on others' rows with noise in every step: one plan, whose guarantee every party proves."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import PolicyError, SessionError, UsageError
from mpc.privacy.facts import Loss
from parties.client.at_rest import bound
from parties.client.channels import Parties
from parties.client.consent.granted import as_amount
from parties.client.questions.refusals import Asked, missing, private
from parties.client.running.noised import facts_of
from parties.client.running.roles import PUBLIC, assign, read_link
from parties.client.selection import Selection
from parties.client.session import Session
from parties.client.training.unrolled import (
    MARGIN,
    MOST_STEPS,
    Course,
    X,
    Y,
    in_units,
    noising,
    suited_rate,
    suited_steps,
    write,
)  # fmt: skip

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled
    from mpc.plan.link import Link


@dataclass(frozen=True)
class PrivateModel:
    """A logistic regression that tells of each person no more than its epsilon and delta.

    Args:
        coef: a weight for each column, in its own unit.
        intercept: added to what they weigh.
        rows: that it was trained on.
        epsilon, delta: what was charged.
        rounds, sent_bytes: of the one run, to each peer.
    """

    coef: np.ndarray
    intercept: float
    rows: int
    epsilon: Fraction
    delta: Fraction
    rounds: int
    sent_bytes: int

    def decision(self, x: Any) -> np.ndarray:
        """Return the logit of each row; above 0 it is more likely 1."""
        return np.asarray(np.asarray(x, np.float64) @ self.coef + self.intercept)

    def probability(self, x: Any) -> np.ndarray:
        """Return how likely each row is a 1."""
        return np.asarray(0.5 * (1 + np.tanh(self.decision(x) / 2)))


def fit(
    parties: Parties,
    x: Selection,
    y: Selection,
    epsilon: Any,
    delta: Any,
    steps: int | None = None,
    rate: float | None = None,
    margin: float = MARGIN,
    center: Any = None,
    spread: Any = None,
    wait: float = 0.0,
    link: Link | str | None = None,
) -> PrivateModel:
    """Return a model that was trained on stored columns; the arguments are those of `Cluster.fit_private`.

    Raises:
        UsageError: they make no sense.
        ModelError: nothing is proved of the plan.
        PrivateDataError: an owner's word is missing: whose, and which command says it.
    """
    spent, lost = as_amount(epsilon, "epsilon"), as_amount(delta, "delta")
    _check_columns(x, y)
    many = suited_steps(spent, len(x.bound_rows)) if steps is None else steps
    going = suited_rate(many) if rate is None and isinstance(many, int) else rate
    course = _course(x, many, going, margin, center, spread)
    compiled = compile_training(parties, x, y, spent, lost, course, link)
    data = {X: x, Y: y}
    bindings = bound.bindings(compiled.plan, data)
    text = f"logistic regression on {x.manifest.name} in {many} steps"
    asked = Asked(x.manifest, parties.config.name, text, spent)
    try:
        session = Session(parties, compiled, bindings=bindings, wait=wait, quiet=True)
    except (PolicyError, SessionError) as refused:
        raise private(asked, refused, missing(parties, compiled.plan, bindings)) from refused
    with session:
        [found] = session.run(None, {})
        report = session.last_run
        if report is None:
            raise SessionError("the run left no report", remedy="train again")
    weights = np.asarray(found, np.float64).reshape(-1)
    coef, intercept = in_units(weights, course)
    cost = Loss() if compiled.guarantee is None else compiled.guarantee.of([gate.out for gate in compiled.plan.stored])
    return PrivateModel(
        coef,
        intercept,
        len(x.bound_rows),
        cost.epsilon,
        cost.delta,
        report.rounds,
        report.sent_bytes,
    )


def compile_training(
    parties: Parties,
    x: Selection,
    y: Selection,
    epsilon: Fraction,
    delta: Fraction,
    course: Course,
    link: Link | str | None = None,
) -> Compiled:
    """Compile the whole training to one plan.

    Raises:
        ModelError: nothing is proved of it.
    """
    from mpc.compiler.compile import compile_model

    data, rows = {X: x, Y: y}, len(x.bound_rows)
    noise = noising(course, epsilon, delta, rows, facts_of(data, parties))
    model = write(course, *_ends(x), rows)
    stored = {name: bound.described(each) for name, each in data.items()}
    between = read_link(link)
    whole = None if between is None else between.for_rows(rows)  # each step takes all of them
    roles = assign(
        parties.config.name, bound.owners(data), weights=PUBLIC, security=parties.config.security, link=whole
    )
    return compile_model(model, roles=roles, stored=stored, noise=noise)


def _check_columns(x: Any, y: Any) -> None:
    if not isinstance(x, Selection) or not isinstance(y, Selection):
        raise UsageError("rows and labels are columns of datasets", remedy="cluster.dataset('owner/name')[['age']]")
    [label, *more] = y.columns
    if more or label.low != 0 or label.high != 1 or label.shape:
        raise UsageError("a label is one column of 0 and 1", remedy="y=dataset[['ill']], of the range 0 to 1")
    if any(each.shape for each in x.columns) or len(x.bound_rows) < 2 or len(x.bound_rows) != len(y.bound_rows):
        raise UsageError("rows are columns of numbers, at least two rows, as many as there are labels")


def _course(x: Selection, steps: Any, rate: Any, margin: Any, center: Any, spread: Any) -> Course:
    """Return what a training is asked to be, checked."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise UsageError(
            f"a training of {steps!r} steps", remedy=f"1 to {MOST_STEPS} steps; few are enough under noise"
        )
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 100:
        raise UsageError(f"a rate of {rate!r}", remedy="rate=20")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin <= 10:
        raise UsageError(f"a margin of {margin!r}", remedy="margin=3, or 0 for the loss of plain logistic regression")
    low, high = _ends(x)
    middle, wide = defaults(x)
    middle, wide = _numbers(center, "center", middle), _numbers(spread, "spread", wide)
    if not ((low <= middle) & (middle <= high) & (0 < wide) & (wide <= high - low)).all():
        raise UsageError(
            "a column's center lies outside its range, or its spread is not above 0 or larger than the range",
            remedy="give each column's mean and standard deviation, as far as they are known of such data",
        )
    return Course(steps, float(rate), float(margin), middle, wide)


def _numbers(given: Any, what: str, otherwise: np.ndarray) -> np.ndarray:
    """Return one number a column."""
    if given is None:
        return otherwise
    try:
        found = np.asarray(given, np.float64)
        return np.broadcast_to(found, otherwise.shape)
    except (TypeError, ValueError):
        raise UsageError(f"{what} is not one number, or one for each of {len(otherwise)} columns") from None


def defaults(x: Selection) -> tuple[np.ndarray, np.ndarray]:
    """Return each column's center and spread if none are said: the middle and half of its range."""
    low, high = _ends(x)
    return (low + high) / 2, (high - low) / 2


def _ends(x: Selection) -> tuple[np.ndarray, np.ndarray]:
    ends = [(float(each.low), float(each.high)) for each in x.columns]
    if any(low == high for low, high in ends):
        raise UsageError("a column of x has one value alone", remedy="leave it out")
    low, high = zip(*ends, strict=True)
    return np.array(low), np.array(high)
