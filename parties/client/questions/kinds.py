"""Choose a question's noise: of the kinds that are granted the one of less variance, and what delta it costs."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.compiler.graph.noising import DELTA
from mpc.errors import MpcError
from mpc.privacy.facts import GAUSSIAN, LAPLACE, Mechanism
from mpc.privacy.gaussian import MOST_DELTA
from parties.agreed.objects import Manifest
from parties.client.consent import granting, remaining
from parties.client.consent.granted import as_amount, as_mechanisms
from parties.client.questions.expression import Node

if TYPE_CHECKING:
    from parties.client.channels import Parties

_LONG = 12
"""Elements of a sum below which Laplace noise is the better one at every delta that there may be."""


def kinds(
    parties: Parties | None, manifest: Manifest, sums: list[Node], epsilon: Fraction, mechanism: Any, delta: Any
) -> tuple[tuple[Mechanism, ...], Fraction]:
    """Return (the kinds of noise that may be, the most delta of an answer).

    Args:
        mechanism: one that is asked for; None: those under which this client may be answered.
        delta: likewise; None: of what is granted and budgeted as large a part as the epsilon is.

    Raises:
        UsageError: there is no such kind, or delta is no number.
    """
    named = None if mechanism is None else as_mechanisms(mechanism)
    asked = None if delta is None else as_amount(delta, "delta")
    longest = max((int(np.prod(node.shape[1:], dtype=int)) for node in sums), default=1)
    if named == (LAPLACE,) or (named is None and longest < _LONG):
        return (LAPLACE,), asked or DELTA
    granted = None if parties is None else _granted(parties, manifest, epsilon)
    if granted is None:
        return named or (LAPLACE,), asked or DELTA
    found, most = granted
    return named or found, asked or most


def _granted(parties: Parties, manifest: Manifest, epsilon: Fraction) -> tuple[tuple[Mechanism, ...], Fraction] | None:
    """Return what grants and the budget allow; None if they allow nothing, or the parties do not tell."""
    if manifest.owner == parties.config.name:
        return (LAPLACE, GAUSSIAN), DELTA
    with suppress(MpcError):
        given = [each.grant.question.dp for each in remaining.noised_grants(parties, manifest)]
        offers = [dp for dp in given if dp is not None and epsilon <= dp.epsilon_each]
        budget = granting.budget(parties, manifest.name)
        best = max((dp.delta * epsilon / dp.epsilon for dp in offers if GAUSSIAN in dp.mechanisms), default=None)
        if best is None:
            return ((LAPLACE,), DELTA) if offers else None
        if budget.epsilon and budget.delta:
            best = min(best, budget.delta * epsilon / budget.epsilon)
        only = all(LAPLACE not in dp.mechanisms for dp in offers)
        return (GAUSSIAN,) if only else (LAPLACE, GAUSSIAN), min(best, MOST_DELTA)
    return None
