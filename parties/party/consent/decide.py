"""May this be asked?  One function says so, when a session opens and again when a run is about to tell its answer.

For every dataset that a session reads, its owner must have granted it: these plans and rows exactly, or answers with
noise, within what the grant, the owner's budget and the operator allow; for every model, the use of it as it was put.
A grant's own words decide, never what a coordinator says.  Strangers are told nothing, not even that it is there.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from mpc.errors import InputError, IntegrityError, MpcError, PlanError, PolicyError
from mpc.privacy.facts import Loss
from parties.agreed.grants import Budget, Grant
from parties.party.consent import tables
from parties.party.consent.asked import Asked, Part, Protected
from parties.party.consent.collected import collected
from parties.party.consent.conditions import (
    House,
    conditions,
    exact_fault,
    first,
    granted_use_fault,
    noise_conditions,
    price,
    shown,
)
from parties.party.consent.tables import Amount
from parties.party.vault.ending import unknown

OWN, EXACT = "own", "exact"
OPERATOR = "the operator"


@dataclass(frozen=True)
class Allowed:
    """A dataset that may be read.

    Args:
        grant: the id of the grant; None: its owner asks for itself.
        mechanism: "own", "exact", or which noise; "gaussian+laplace" for both.
        amount: what a run spends.
    """

    part: Part
    grant: str | None
    mechanism: str
    amount: Amount = Amount()


@dataclass(frozen=True)
class Missing:
    """A dataset that may not be read.

    Args:
        known: who asks may know of it, and why it is refused.
        whose: whose word is missing: the owner's, or the operator's.
        why, remedy: for who asks.
        lacks_grant, lacks_budget: which of the owner's words would help, a grant or a budget.
    """

    part: Part
    known: bool
    whose: str
    why: str
    remedy: str
    lacks_grant: bool = False
    lacks_budget: bool = False

    def error(self) -> MpcError:
        """Return the refusal as it is told."""
        if not self.known:
            return unknown()
        return PolicyError(f"{self.part.name} may not be used for this: {self.why}", remedy=self.remedy)


@dataclass(frozen=True)
class _Offer:
    """A grant whose words about who, where and when hold."""

    grant: Grant
    id: str


@dataclass
class _Reading:
    """One dataset while it is decided about: exact offers and noised ones, or the nearest thing to one."""

    part: Part
    exact: _Offer | None
    noised: list[_Offer]
    fault: str
    known: bool


def decide(
    database: sqlite3.Connection, asked: Asked, house: House, batch: int | None = None
) -> list[Allowed | Missing]:
    """Say of each dataset that a session reads whether it may; nothing is written.

    Args:
        batch: rows of the run that is about to tell its answer; None when a session opens.
    """
    own = [part for part in asked.parts if asked.is_own(part)]
    readings = [_read(database, asked, part, house, batch) for part in asked.parts if part not in own]
    people = protected(readings)
    found: list[Allowed | Missing] = [Allowed(part, None, OWN) for part in own]
    for reading in readings:
        if reading.exact is not None:
            found.append(Allowed(reading.part, reading.exact.id, EXACT))
        elif reading.noised:
            found.append(_noised(database, asked, reading, people, house))
        else:
            found.append(_missing(asked, reading, reading.fault))
    return found


def require(found: list[Allowed | Missing]) -> list[Allowed]:
    """Return what is allowed, if all of it is.

    Raises:
        SessionError: something is not here, or not for who asks to know of.
        PolicyError: an owner, a budget or the operator does not allow it.
    """
    missing = [each for each in found if isinstance(each, Missing)]
    for each in sorted(missing, key=lambda each: each.known):
        raise each.error()
    return [each for each in found if isinstance(each, Allowed)]


def protected(readings: list[_Reading]) -> Protected:
    """Return the people of all datasets of which noised answers alone may be told."""
    noised = [each for each in readings if each.exact is None and each.noised]
    stated = {each.part.name: _apart(each) for each in noised}
    owner = {each.part.name: each.part.owner for each in noised}
    apart = {
        frozenset((one, other))
        for one in stated
        for other in stated[one]
        if other in stated and one in stated[other] and owner[one] != owner[other]
    }
    return Protected(frozenset(wire for each in noised for wire in each.part.wires), frozenset(apart))


def _apart(reading: _Reading) -> set[str]:
    """Datasets in which nobody of this one is, as its owner states in a grant under which it may be asked."""
    questions = [offer.grant.question.dp for offer in reading.noised]
    return {name for dp in questions if dp is not None for name in dp.apart}


def to_prove(database: sqlite3.Connection, asked: Asked, house: House) -> Protected:
    """Return the people for whom `decide` will want a guarantee, so that it is found without holding the tables."""
    return protected([_read(database, asked, part, house, None) for part in asked.parts if not asked.is_own(part)])


# -- grants


def _read(database: sqlite3.Connection, asked: Asked, part: Part, house: House, batch: int | None) -> _Reading:
    if asked.gathered(part) is not None:
        word, why = collected(database, asked, part, house, batch)
        living = all(tables.is_living(database, each, house.now) for each in part.objects)
        known = living and asked.is_seen(part)
        return _Reading(part, None, [_Offer(word, asked.gathered(part) or "")] if word else [], why, known)
    named_by = (part.name, *asked.ids(part), *asked.origins(part))
    rows = tables.grants_of(database, part.owner, part.key, named_by)
    offers = [(row, Grant.parse(row.signed.content)) for row in rows]
    named = any(asked.coordinator in (*grant.coordinators, *grant.recipients) for _, grant in offers)
    reading = _Reading(part, None, [], "", named or asked.is_seen(part))
    if not all(tables.is_living(database, each, house.now) for each in part.objects):
        return replace(reading, known=False)
    lapsed = [each for each in part.objects if tables.is_lapsed(database, each)]
    if lapsed:
        return replace(reading, fault="a grant under which it was kept has been revoked")
    nearest = -1
    for row, grant in offers:
        exact, use = grant.question.exact, grant.question.use
        checks = conditions(database, row, grant, asked, house)
        if exact is not None:
            checks.append(partial(exact_fault, grant, exact, asked, part, batch))
        if use is not None:
            checks.append(partial(granted_use_fault, grant, use, asked, part, batch))
        fault, passed = first(checks)
        if fault is None and grant.question.dp is None:
            reading.exact = reading.exact or _Offer(grant, row.id)
        elif fault is None:
            reading.noised.append(_Offer(grant, row.id))
        elif passed > nearest:
            nearest, reading.fault = passed, fault
    return reading


# -- noise and budgets


def _noised(
    database: sqlite3.Connection, asked: Asked, reading: _Reading, people: Protected, house: House
) -> Allowed | Missing:
    part = reading.part
    try:
        loss = asked.loss(part, people)
        fault, whose = _over(database, asked, part, people, house)
    except PlanError as error:
        return _missing(asked, reading, f"{error.what} ({error.cause})" if error.cause else error.what)
    if loss is None:
        return _missing(asked, reading, "its grants have changed since the session was opened")
    amount = Amount.charged(loss)
    if fault:
        more = "mpc budget set" if whose == part.owner else "policy.max_epsilon"
        remedy = f"ask {whose}: {more} {part.name} --epsilon E" if whose == part.owner else f"ask {whose}: {more}"
        return Missing(part, reading.known, whose, fault, remedy, lacks_budget=whose == part.owner)
    mechanisms, nearest = asked.mechanisms(part, people), -1
    for offer in reading.noised:
        dp = offer.grant.question.dp
        if dp is None:
            continue
        unmet, passed = first(noise_conditions(database, offer.id, dp, asked, loss, mechanisms))
        if unmet is None:
            return Allowed(part, offer.id, "+".join(mechanisms) or dp.mechanisms[0], amount)
        if passed > nearest:
            nearest, reading.fault = passed, unmet
    return _missing(asked, reading, reading.fault)


def _over(database: sqlite3.Connection, asked: Asked, part: Part, people: Protected, house: House) -> tuple[str, str]:
    """(why a run may not be charged, whose word that is)."""
    if asked.gathered(part) is not None:  # a client's only charge is this one, and it has consented to it
        loss = asked.loss(part, people)
        amount, most = Amount.charged(loss or Loss()), house.most
        if most is None or amount.within(Amount.allowed(most, Fraction(1))):
            return "", part.owner
        return f"it costs epsilon {shown(amount.epsilon)}, and {float(most):g} is what the operator allows", OPERATOR
    return ("", part.owner) if part.kept else _over_budget(database, asked, part, people, house)  # theirs are elsewhere


def _over_budget(
    database: sqlite3.Connection, asked: Asked, part: Part, people: Protected, house: House
) -> tuple[str, str]:
    """(why a run may not be charged, whose word that is): every budget that is of the dataset has to have enough."""
    budgets = tables.budgets_of(database, part.name, part.key)
    if not budgets:
        return "its owner has set no budget", part.owner
    for signed in budgets:
        try:
            budget = Budget.verify(house.trust, signed, house.cluster, lambda: house.now)
        except (IntegrityError, InputError):
            return "its owner's certificate, with which the budget was signed, is not good any more", part.owner
        limit, whose = _limit(budget, house)
        spent = tables.spent_on_all(database, budget.datasets)
        amount = Amount()
        for other in asked.parts:
            if (other.name in budget.datasets and other.key == part.key) and set(other.wires) & people.wires:
                amount += Amount.charged(asked.loss(other, people) or Loss())
        if not (spent + amount).within(limit):
            shared = f" of {budget.dataset} and {len(budget.group)} more" if budget.group else ""
            return f"it costs {price(amount, spent, limit)} of its budget{shared} is left", whose
    return "", part.owner


def _limit(budget: Budget, house: House) -> tuple[Amount, str]:
    """(what may be spent in all, whose word that is)."""
    whole = Amount.allowed(budget.epsilon, budget.delta)
    most = whole if house.most is None else Amount.allowed(house.most, Fraction(1))
    if most.epsilon < whole.epsilon:
        return replace(whole, epsilon=most.epsilon), OPERATOR
    return whole, budget.owner


def _missing(asked: Asked, reading: _Reading, why: str) -> Missing:
    part, who = reading.part, asked.coordinator
    receivers = " ".join(f"--recipient {name}" for name in sorted(asked.receivers))
    plan = asked.terms.plan_digest.hex()[:16]
    if asked.gathered(part) is not None:
        return Missing(part, reading.known, part.owner, why, "open another collection for another question")
    if asked.is_model(part):
        remedy = f"ask {part.owner}: mpc model grant {part.name} --coordinator {who} {receivers}"
        why = why or f"{part.owner} has granted {who} no use of it"
        return Missing(part, reading.known, part.owner, why, remedy, lacks_grant=True)
    remedy = (
        f"ask {part.owner}: mpc grant add {part.name} --coordinator {who} {receivers} "
        f"--epsilon E for noised answers, or --plan FILE for this plan ({plan}) exactly"
    )
    said = why or f"{part.owner} has granted {who} nothing of it"
    return Missing(part, reading.known, part.owner, said, remedy, lacks_grant=True, lacks_budget=not why)
