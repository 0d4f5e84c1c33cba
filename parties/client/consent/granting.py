"""Words of owners, as their clients say them, to all parties, and what every client may ask about them.

Words are signed here and told to every party.  One party that has not heard of a grant refuses; one that has heard of a
revocation does.  What parties answer is compared, and of what differs the careful answer is taken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from mpc.errors import ConfigError, IntegrityError, PeerError, SessionError, UsageError
from mpc.plan.plan import Plan
from mpc.privacy.facts import CHARGE_UNIT
from parties.agreed.bindings import Binding, parts_of, write_bindings
from parties.agreed.grants import Budget, Grant, Revocation, Statement
from parties.agreed.keeps import Keep, write_keeps
from parties.agreed.questions import ANY, Bound, ExactPlan, Question
from parties.agreed.signed import Signed
from parties.client.answering import Silent, ask_each
from parties.client.channels import Parties, PartyClient
from parties.client.consent.told import Given, Left, Verdict
from parties.client.running.roles import ACTIVE, read_security
from parties.pb import consent_pb2, party_pb2
from parties.pb.data_pb2 import SignedStatement

FOR_EVER = (1 << 40) - 1


def listed(plan: Plan, bindings: Sequence[Binding], weights: Mapping[str, Bound] | None = None) -> ExactPlan:
    """Describe a plan and all that it reads, for a grant of exactly that.

    Args:
        bindings: of the plan's stored wires.
        weights: of stored weights that are pinned; every other weight is chosen anew for each session.
    """
    weighed = {gate.out for gate in plan.weights}
    bound: dict[str, Bound | tuple[Bound, ...]] = {}
    for wire in dict.fromkeys(each.wire for each in bindings):
        parts = [
            Bound(dataset=each.object.hex(), columns=each.columns, first=each.first, rows=each.rows)
            for each in parts_of(bindings, wire)
        ]
        bound[wire] = parts[0] if len(parts) == 1 else tuple(parts)
    pinned = {wire: found for wire, found in bound.items() if wire in weighed and isinstance(found, Bound)}
    pinned |= weights or {}
    return ExactPlan(
        plan=plan.digest.hex(),
        bindings={wire: found for wire, found in bound.items() if wire not in weighed},
        weights={wire: pinned.get(wire, ANY) for wire in sorted(weighed)},
    )


def give(
    parties: Parties,
    dataset: str,
    question: Question,
    coordinators: Sequence[str],
    recipients: Sequence[str],
    uses: int | None = None,
    expires: int | None = None,
    security: str | None = None,
) -> Grant:
    """Sign a grant and tell it to all parties.

    Args:
        dataset: OWNER/NAME, or an object's id (hex).
        security: "active" for sessions alone whose runs are checked; None: as this client's file says of its own.
        expires: seconds since 1970; None: never.

    Raises:
        UsageError: it makes no sense.
        PolicyError, SessionError, IntegrityError: a party does not take it.
    """
    config, now = parties.config, int(time.time())
    try:
        made = Grant(
            cluster=_cluster(parties),
            owner=config.name,
            dataset=dataset,
            parties=parties.names,
            provider=config.provider.name,
            coordinators=tuple(coordinators),
            recipients=tuple(recipients),
            uses=uses,
            security=ACTIVE if read_security(security, config.security) == ACTIVE else None,
            created=now,
            not_before=max(0, now - _LEEWAY),
            expires=FOR_EVER if expires is None else expires,
            question=question,
        )
    except ValueError as error:
        raise senseless(error, "grant") from None
    _say(parties, "grant", made)
    return made


_LEEWAY = 300
"""Seconds that a party's clock may be behind this one's."""


def revoke(parties: Parties, grant: str) -> str:
    """Take a grant of this client's back, by its id or the first digits of it; its id.

    Raises:
        UsageError: there is no such grant, or several.
    """
    found = grant
    if len(grant) != 64:
        mine = [each.id for each in given(parties) if each.grant.owner == parties.config.name]
        fits = [each for each in mine if each.startswith(grant)] if len(grant) >= _SHORTEST else []
        if len(fits) != 1:
            raise UsageError(f"{len(fits)} grants of yours begin with {grant[:64]!r}", remedy="mpc grant list")
        found = fits[0]
    try:
        said = Revocation(cluster=_cluster(parties), owner=parties.config.name, revokes=found, at=int(time.time()))
    except ValueError as error:
        raise senseless(error, "revocation") from None
    _say(parties, "revocation", said)
    return found


_SHORTEST = 8


def given(parties: Parties, silent: Silent | None = None) -> list[Given]:
    """List the grants that this client has given, and those that name it, as the parties have them.

    Args:
        silent: takes the errors of parties that do not answer; what is used of a grant, and whether it was revoked, is
            what the others know then.

    Raises:
        IntegrityError: a party sends a grant that is none.
        PeerError: no party answers; or, without `silent`, one does not.
    """
    merged: dict[str, Given] = {}
    seconds = parties.config.deadlines.submit

    def ask(party: PartyClient) -> list[consent_pb2.GrantEntry]:
        return list(party.stream(lambda stub: stub.consent.Grants, consent_pb2.GrantsRequest(), seconds))

    for name, grants in ask_each(parties.clients, ask, silent).items():
        for each in grants:
            grant = _read(parties, name, each.grant, Grant)
            spent, delta, key = Fraction(each.epsilon, CHARGE_UNIT), Fraction(each.delta, 10**18), grant.id
            known = merged.get(key) or Given(key, grant, 0, Fraction(0), False, ())
            uses, most = max(known.uses, each.uses), max(known.spent, spent)
            revoked = known.revoked or each.revoked
            told = (*known.parties, name)
            merged[key] = Given(key, grant, uses, most, revoked, told, max(known.spent_delta, delta))
    return list(merged.values())


def budget(parties: Parties, dataset: str) -> Left:
    """Return what is left of a dataset's budget, for its owner and whoever a grant of it names.

    Raises:
        SessionError: there is no such dataset that this client may know of.
    """
    request = consent_pb2.LeftRequest(dataset=dataset)
    try:
        found = parties.each(lambda stub: stub.consent.Left, request, parties.config.deadlines.connect)
    except SessionError:
        raise
    except PeerError as error:
        lacks = "what is left is what the party with least says, so all have to say it"
        raise error.with_(cause=f"{error.cause}; {lacks}" if error.cause else lacks) from error.__cause__
    names = [client.name for client in parties.clients]
    said = [
        _read(parties, name, each.budget, Budget) if each.HasField("budget") else None
        for name, each in zip(names, found, strict=True)
    ]
    totals = [each.epsilon for each in said if each is not None]
    totals += [Fraction(each.cap, CHARGE_UNIT) for each in found if each.cap]
    whole = all(each is not None for each in said)
    return Left(
        dataset=dataset,
        epsilon=min(totals) if whole else None,
        delta=min(each.delta for each in said if each is not None) if whole else None,
        spent=Fraction(max(each.epsilon for each in found), CHARGE_UNIT),
        spent_delta=Fraction(max(each.delta for each in found), 10**18),
        noised=max(each.noised for each in found),
        exact=max(each.exact for each in found),
        sequence=max(each.sequence for each in found),
        group=next((each.datasets for each in said if each is not None), ()),
    )


def set_budget(parties: Parties, dataset: str, epsilon: Fraction, delta: Fraction, group: Sequence[str] = ()) -> Left:
    """Set what all noised answers about a dataset of this client's may tell in all; what is spent stays spent.

    Args:
        group: further datasets of this client's, which share the budget.

    Raises:
        UsageError: it makes no sense.
        SessionError, PolicyError: a party does not take it.
    """
    try:
        last = budget(parties, dataset).sequence
    except SessionError:
        raise SessionError(
            f"nothing of yours lies at the parties as {dataset}",
            remedy="put it first; mpc data list shows what there is",
        ) from None
    try:
        said = Budget(
            cluster=_cluster(parties),
            owner=parties.config.name,
            dataset=dataset,
            sequence=last + 1,
            epsilon=epsilon,
            delta=delta,
            group=tuple(group),
        )
    except ValueError as error:
        raise senseless(error, "budget") from None
    _say(parties, "budget", said)
    return budget(parties, dataset)


def ask(parties: Parties, plan: Plan, bindings: Sequence[Binding], keeps: Sequence[Keep] = ()) -> list[Verdict]:
    """Ask every party whether it would open a session, and if not, whose word is missing; nothing is opened.

    Raises:
        PolicyError: a party's policy does not let this client run the plan, whatever owners say.
    """
    request = consent_pb2.AskRequest(plan=plan.canonical, bindings=write_bindings(bindings), keeps=write_keeps(keeps))
    found = parties.each(lambda stub: stub.consent.Ask, request, parties.config.deadlines.submit)
    return [
        verdict(client.name, each)
        for client, reply in zip(parties.clients, found, strict=True)
        for each in reply.answers
    ]


def verdict(party: str, answer: party_pb2.Answer) -> Verdict:
    """Read what one party answers of one dataset, or of its operator's word."""
    return Verdict(
        party=party,
        dataset=answer.dataset,
        allowed=answer.allowed,
        mechanism=answer.mechanism,
        epsilon=Fraction(answer.epsilon, CHARGE_UNIT),
        whose=f"the operator of {party}" if answer.operator else answer.whose,
        why=answer.why,
        remedy=answer.remedy,
        operator=answer.operator,
        denied=answer.denied,
        lacks_grant=answer.lacks_grant,
        lacks_budget=answer.lacks_budget,
    )


def _say(parties: Parties, kind: str, statement: Statement) -> None:
    signed = statement.sign(parties.identity)
    sent = SignedStatement(content=signed.content, signature=signed.signature, certificate=signed.certificate)
    word = consent_pb2.Word(**{kind: sent})
    parties.each(lambda stub: stub.consent.Say, word, parties.config.deadlines.submit)


def _read(parties: Parties, party: str, message: SignedStatement, kind: type[Any]) -> Any:
    """Return a word that a party hands on; its owner signed it at some time, for this cluster."""
    signed = Signed(message.content, message.signature, message.certificate)
    found = kind.parse(signed.content)
    if found.cluster != parties.config.cluster:
        raise IntegrityError(f"{party} hands on a word for another cluster", peer=party)
    return found


def _cluster(parties: Parties) -> str:
    if parties.config.cluster is None:
        raise ConfigError(
            "your cluster file has no cluster id, so nothing can be signed for it",
            remedy="copy 'cluster' from a party's config; locally: mpc down, mpc up",
        )
    return parties.config.cluster


def senseless(error: ValueError, what: str) -> UsageError:
    """Make the error that some words of an owner's make no sense."""
    errors = getattr(error, "errors", None)
    why = errors(include_url=False)[0]["msg"] if callable(errors) else str(error)
    return UsageError(
        f"that is no {what}: {why.removeprefix('Value error, ')}",
        remedy=f"mpc {'budget set' if what == 'budget' else 'grant add'} --help",
    )
