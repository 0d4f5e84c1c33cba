"""Answer calls about consent: owners' words, what is left, the audit chain, and whether one may ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import grpc

from mpc.errors import ConfigError, InputError, PolicyError, SessionError
from mpc.plan.plan import digest_of
from mpc.privacy.facts import CHARGE_UNIT
from parties.agreed.bindings import read_binding
from parties.agreed.grants import Budget
from parties.agreed.keeps import check_keeps, read_keep
from parties.party.consent import audit, clock, requests, tables
from parties.party.consent.answers import answers, nothing
from parties.party.consent.decide import Missing
from parties.party.node import PartyNode
from parties.party.vault.ending import unknown
from parties.party.vault.service import from_message, key, to_message
from parties.pb import consent_pb2, consent_pb2_grpc
from parties.wire.desk import Desk
from parties.wire.handlers import register
from parties.wire.pieces import pieces
from parties.wire.transport import caller

_WORDS = frozenset({"Say"})
_OPERATORS = frozenset({"Audit", "Requests", "Decide", "Policy", "Clock"})
"""Calls that the party's operator makes, with the party's own certificate."""
_OPERATORS_ALONE = frozenset({"Decide", "Policy", "Clock"})
_LARGEST_NUMBER = (1 << 63) - 1


class ConsentService(consent_pb2_grpc.ConsentServicer):
    """For owners, and for whoever they name; see the proto for what each call is."""

    def __init__(self, node: PartyNode) -> None:
        self._node, self._consent = node, node.consent

    def register(self, server: grpc.Server, desk: Desk) -> None:
        """Answer these calls at this server."""
        service = consent_pb2.DESCRIPTOR.services_by_name["Consent"]
        register(server, service, self, lambda _: desk, self._admit, self._node.config.deadlines.connect)

    def _admit(self, method: str, client: str) -> None:
        if method in _OPERATORS and client == self._node.config.name:
            return
        if method in _OPERATORS_ALONE:
            raise PolicyError(f"{client!r} is not the operator of {self._node.config.name}")
        if self._node.vault.owns(client):  # who has data here is heard, whatever the policy says now
            return
        if method in _WORDS:
            self._node.rules.admit_data_owner(client)
        else:
            self._node.admit(client, coordinates=method == "Ask")

    def Say(self, request: consent_pb2.Word, context: grpc.ServicerContext) -> consent_pb2.SayReply:
        """Keep an owner's word."""
        client, shown, consent = caller(context), key(context), self._consent
        kind = request.WhichOneof("word")
        if kind == "grant":
            said = consent.grant(from_message(request.grant), client, shown)
        elif kind == "revocation":
            said = consent.revoke(from_message(request.revocation), client, shown)
        elif kind == "budget":
            said = consent.set_budget(from_message(request.budget), client, shown)
        else:
            raise InputError("that is no word of an owner's that this party knows")
        return consent_pb2.SayReply(id=said, head=consent.ledger.head)

    def Grants(
        self, request: consent_pb2.GrantsRequest, context: grpc.ServicerContext
    ) -> Iterator[consent_pb2.GrantEntry]:
        """List the grants that the caller has given, and those that name it."""
        ledger = self._consent.ledger
        with ledger.reading() as database:
            found = tables.grants_about(database, caller(context), key(context))
        for each in found:  # one at a time: all of them are as large as their owners like
            with ledger.reading() as database:
                row = tables.grant_of(database, each)
                uses, amount = tables.spent_under(database, each)
            if row is None:
                continue
            yield consent_pb2.GrantEntry(
                grant=to_message(row.signed),
                revoked=row.revoked,
                uses=uses,
                epsilon=amount.epsilon,
                delta=amount.delta,
            )

    def Left(self, request: consent_pb2.LeftRequest, context: grpc.ServicerContext) -> consent_pb2.LeftReply:
        """Say what may be spent through a dataset, and what was."""
        client, most = caller(context), self._node.rules.most_epsilon
        with self._consent.ledger.reading() as database:
            owners_key = tables.key_of_name(database, request.dataset)
            mine = (request.dataset.partition("/")[0], owners_key) == (client, key(context))
            if owners_key is None or not (mine or tables.is_named(database, client, request.dataset, owners_key)):
                raise unknown()
            own = tables.budget_of(database, request.dataset, owners_key)
            budget, spent = tables.tightest(database, request.dataset, owners_key)
            noised, exact = tables.answers_of(database, request.dataset)
        return consent_pb2.LeftReply(
            budget=None if budget is None else to_message(budget),
            epsilon=spent.epsilon,
            delta=spent.delta,
            noised=noised,
            exact=exact,
            sequence=0 if own is None else Budget.parse(own.content).sequence,
            cap=0 if most is None else int(most * CHARGE_UNIT),
        )

    def Audit(self, request: consent_pb2.AuditRequest, context: grpc.ServicerContext) -> Iterator[consent_pb2.AuditRow]:
        """Send rows of the audit chain behind a head; to the operator all of them, to others what is about them.

        Whoever keeps a head of them is to find it again behind a power failure: what is sent is on the disk.
        """
        client, ledger = caller(context), self._consent.ledger
        ledger.settle()
        newest = ledger.head
        reader = None if client == self._node.config.name else client
        with ledger.reading() as database:
            after = audit.number_of(database, request.after) if request.after else min(request.number, _LARGEST_NUMBER)
            last = audit.number_of(database, newest) or 0
            if after is None:
                raise SessionError(
                    "this party's audit chain has no such head",
                    cause="its ledger was put back from a backup, or the head is another party's",
                    remedy="compare with what the other parties say; its operator knows whether a ledger was put back",
                )
            found = [each for each in audit.entries(database, after, reader) if each.number <= last]
        for each in found:
            yield consent_pb2.AuditRow(number=each.number, head=each.head, digest=each.digest, row=each.row)

    def Ask(self, request: consent_pb2.AskRequest, context: grpc.ServicerContext) -> consent_pb2.AskReply:
        """Say whether a session would be opened for the caller, and whose word is missing."""
        node, client = self._node, caller(context)
        node.proposals.require_size(request.plan)
        node.rules.require_readable(digest_of(request.plan), client)
        bindings = [read_binding(each) for each in request.bindings]
        keeps = [read_keep(each) for each in request.keeps]
        with node.proposals.reading(request.plan, client) as plan:
            terms = node.imagined(plan, bindings, keeps)
            if keeps:
                check_keeps(plan, keeps, client)
            self._consent.operator.require_asker(plan, client)
            try:
                asked = self._consent.asked(plan, terms, client, key(context), node.vault)
                silent, found = self._consent.operator.silent(asked), self._consent.ask(asked)
            except SessionError as error:
                return consent_pb2.AskReply(answers=[nothing(error)])
            if any(isinstance(each, Missing) and not each.known for each in found):
                silent = None  # strangers are told nothing of what would be asked
        return consent_pb2.AskReply(answers=answers(found, silent))

    def Requests(
        self, request: consent_pb2.RequestsRequest, context: grpc.ServicerContext
    ) -> Iterator[consent_pb2.RequestEntry]:
        """List requests that wait for a word: to the operator all, to others those of theirs, or about their data."""
        client, now, ledger = caller(context), self._node.vault.times.shown(), self._consent.ledger
        with ledger.reading() as database:
            if client == self._node.config.name:
                found = requests.every(database, now)
            else:
                found = requests.about(database, client, key(context), now)
        for number, id_ in found:  # one at a time: all of them are large
            if request.id not in ("", id_):
                continue
            with ledger.reading() as database:
                each = requests.by_number(database, number)
                plan = requests.plan_of(database, number) if each and request.id and request.plan else b""
            if each is None:
                continue
            first, *others = pieces(plan) if plan else (b"",)
            yield consent_pb2.RequestEntry(
                record=each.record,
                state=each.state,
                operator=each.operator,
                made=each.made,
                expires=each.expires,
                uses=each.uses,
                used=each.used,
                reason=each.reason,
                plan=first,
            )
            yield from (consent_pb2.RequestEntry(plan=piece) for piece in others)

    def Policy(self, request: consent_pb2.PolicyRequest, context: grpc.ServicerContext) -> consent_pb2.PolicyReply:
        """Show the operator the policy that is in force, read again if that is asked for."""
        rules = self._node.rules
        if request.reload:
            with suppress(ConfigError):  # `problem` says it: the operator may be told of paths
                rules.reload()
        return consent_pb2.PolicyReply(
            policy=rules.policy.config.model_dump_json(exclude_none=True),
            read_at=rules.read_at,
            problem="" if rules.problem is None else str(rules.problem),
            changed=rules.changed,
            restart=rules.restart,
        )

    def Decide(self, request: consent_pb2.DecideRequest, context: grpc.ServicerContext) -> consent_pb2.DecideReply:
        """Write the operator's word about a request down."""
        uses = request.uses if request.approve else 0
        if request.approve and not uses:
            raise InputError("an approval is of one run or more")
        head = self._consent.operator.decide(request.id, uses, request.seconds, request.reason)
        return consent_pb2.DecideReply(head=head)

    def Clock(self, request: consent_pb2.ClockRequest, context: grpc.ServicerContext) -> consent_pb2.ClockReply:
        """Show the operator the clock beside the latest time, which it may have begin again from there."""
        ended = clock.accept(self._consent, request.at) if request.accept else clock.Ended()
        times = self._node.vault.times
        return consent_pb2.ClockReply(
            clock=times.clock(),
            latest=times.latest,
            behind=times.behind,
            grants=ended.grants,
            objects=ended.objects,
        )
