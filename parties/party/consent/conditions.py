"""Check what has to hold of a grant, one condition after another: a refusal tells of the grant that came nearest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from mpc.errors import InputError, IntegrityError
from mpc.privacy.facts import DELTA_UNIT, Loss, Mechanism
from parties.agreed.bits import tells_one_bit
from parties.agreed.grants import Grant
from parties.agreed.questions import Dp, Exact, Use
from parties.party.consent import tables
from parties.party.consent.asked import Asked, Part
from parties.party.consent.tables import Amount, GrantRow
from parties.party.consent.uses import use_fault
from parties.trust.chains import Trust

CHECKED_ALONE = "of sessions whose runs are checked, and this one's are not: ask with --security active"
KEPT_CHECKED = (
    "of sessions whose runs are checked, and something that is read was kept in one whose runs were not: keep it anew "
    "with --security active"
)


@dataclass(frozen=True)
class House:
    """Facts that a party knows of itself, beside its tables.

    Args:
        cluster: the cluster's id.
        most: the most epsilon that the operator lets a dataset spend; None: as its owner says.
        now: seconds since 1970.
    """

    trust: Trust
    cluster: str | None
    provider: str
    parties: tuple[str, ...]
    most: Fraction | None
    now: float


def first(checks: list[Callable[[], str | None]]) -> tuple[str | None, int]:
    for number, check in enumerate(checks):
        fault = check()
        if fault is not None:
            return fault, number
    return None, len(checks)


def conditions(
    database: sqlite3.Connection, row: GrantRow, grant: Grant, asked: Asked, house: House
) -> list[Callable[[], str | None]]:
    """List what has to hold of a grant whatever is asked, in the order in which people would look."""
    terms, name = asked.terms, row.id[:16]
    others = sorted(asked.receivers - {*grant.recipients})
    here = (grant.cluster, grant.provider, grant.parties) == (house.cluster, house.provider, house.parties)
    return [
        lambda: None if asked.coordinator in grant.coordinators else f"grant {name} names other coordinators",
        lambda: f"grant {name} does not name the recipient {', '.join(others)}" if others else None,
        lambda: None if here and terms.parties == grant.parties else f"grant {name} is for other parties or providers",
        lambda: None if asked.plan.is_checked or grant.security is None else f"grant {name} is {CHECKED_ALONE}",
        lambda: f"grant {name} was revoked" if row.revoked else None,
        lambda: f"grant {name} does not hold yet" if house.now < grant.not_before else None,
        lambda: f"grant {name} has expired" if house.now >= grant.expires else None,
        lambda: _unsigned(row, house),
        lambda: _used_up(database, row, grant, asked),
        lambda: f"grant {name} is {KEPT_CHECKED}" if grant.security is not None and asked.reads_unchecked else None,
    ]


def _unsigned(row: GrantRow, house: House) -> str | None:
    try:
        Grant.verify(house.trust, row.signed, house.cluster, lambda: house.now)
    except (IntegrityError, InputError):
        return f"{row.owner}'s certificate, with which grant {row.id[:16]} was signed, is not good any more"
    return None


def _used_up(database: sqlite3.Connection, row: GrantRow, grant: Grant, asked: Asked) -> str | None:
    this = asked.terms.session_id.hex() if asked.is_one_question else None
    runs, _ = tables.spent_under(database, row.id, besides=this)
    return None if grant.uses is None or runs < grant.uses else f"grant {row.id[:16]} is used up"


def exact_fault(grant: Grant, exact: Exact, asked: Asked, part: Part, batch: int | None) -> str | None:
    if not asked.follows(part, grant.dataset, frozenset(listed.plan for listed in exact.plans)):
        return "the grant is of another version, or several versions are read at once"
    if not any(asked.is_exactly(listed) for listed in exact.plans):
        return "it is not one of the plans that are granted, or reads other rows, columns, datasets or weights"
    if batch is not None and batch != (asked.rows_of_a_run or batch):
        return f"it is granted of all {asked.rows_of_a_run:,} rows together, and a run of {batch:,} would tell of fewer"
    if exact.outputs_bits is not None and not tells_one_bit(asked.plan, batch):
        return "the grant is of one bit a run, which a comparison writes, and the plan tells something else"
    return None


def granted_use_fault(grant: Grant, use: Use, asked: Asked, part: Part, batch: int | None) -> str | None:
    if not grant.by_name and (len(part.objects) != 1 or grant.dataset not in asked.ids(part)):
        return "the grant is of another version, or several versions are read at once"
    fault = use_fault(use, asked, part, batch)
    return None if fault is None else f"grant {grant.id[:16]}: {fault}"


def noise_conditions(
    database: sqlite3.Connection, grant: str, dp: Dp, asked: Asked, loss: Loss, mechanisms: tuple[Mechanism, ...]
) -> list[Callable[[], str | None]]:
    """List what has to hold of a grant's question beside that, if it is of noised answers; `grant` is its id."""
    name = f"grant {grant[:16]}"
    outputs, amount, whole = len(asked.plan.outputs), Amount.charged(loss), Amount.allowed(dp.epsilon, dp.delta)
    other = f"{name} is of {' or '.join(dp.mechanisms)} noise, and the plan has {' and '.join(mechanisms)}"
    dear = f"it costs epsilon {shown(amount.epsilon)}, and {name} allows {float(dp.epsilon_each):g} a run"

    def used_up() -> str | None:
        _, used = tables.spent_under(database, grant)
        fits = (used + amount).within(whole)
        return None if fits else f"{name} has less left: it costs {price(amount, used, whole)} is"

    return [
        lambda: None if {*mechanisms} <= {*dp.mechanisms} else other,
        lambda: f"{name} is of {dp.outputs} outputs, and the plan has {outputs}" if outputs > dp.outputs else None,
        lambda: dear if loss.epsilon > dp.epsilon_each else None,
        used_up,
    ]


def price(amount: Amount, spent: Amount, limit: Amount) -> str:
    """Say what a run costs, and what is left, of whichever there is not enough of."""
    if spent.epsilon + amount.epsilon > limit.epsilon:
        left = max(0, limit.epsilon - spent.epsilon)
        return f"epsilon {shown(amount.epsilon)}, and {shown(left)}"
    left = max(0, limit.delta - spent.delta)
    return f"delta {amount.delta / DELTA_UNIT:.3g}, and {left / DELTA_UNIT:.3g}"


def shown(epsilon: int) -> str:
    return f"{epsilon / 10**9:.9g}"
