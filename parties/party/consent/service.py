"""What a party answers about consent: owners' words, what is left, the audit chain, and whether one may ask."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import grpc

from mpc.errors import InputError, PlanError, SessionError
from mpc.plan.parse import parse_plan
from mpc.privacy.facts import CHARGE_UNIT
from parties.agreed.bindings import check_bindings, read_binding
from parties.agreed.memory import parsed_memory
from parties.agreed.terms import NONCE_BYTES, Terms
from parties.party.consent import audit, tables
from parties.party.consent.decide import Allowed, Missing
from parties.party.node import PartyNode
from parties.party.vault.service import from_message, key, to_message
from parties.party.vault.vault import unknown
from parties.pb import consent_pb2, consent_pb2_grpc
from parties.wire.server import Desk, register
from parties.wire.transport import caller

_WORDS = frozenset({"Say"})
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
        operator = method == "Audit" and client == self._node.config.name
        if operator or self._node.vault.owns(client):  # who has data here is heard, whatever the policy says now
            return
        if method in _WORDS:
            self._node.admit_data_owner(client)
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
        with consent.ledger.reading() as database:
            return consent_pb2.SayReply(id=said, head=audit.head_of(database))

    def Grants(
        self, request: consent_pb2.GrantsRequest, context: grpc.ServicerContext
    ) -> Iterator[consent_pb2.GrantEntry]:
        """List the grants that the caller has given, and those that name it."""
        with self._consent.ledger.reading() as database:
            found = tables.grants_about(database, caller(context))
            spent = [tables.spent_under(database, row.id) for row in found]
        for row, (uses, amount) in zip(found, spent, strict=True):
            yield consent_pb2.GrantEntry(
                grant=to_message(row.signed), revoked=row.revoked, uses=uses, epsilon=amount.epsilon
            )

    def Left(self, request: consent_pb2.LeftRequest, context: grpc.ServicerContext) -> consent_pb2.LeftReply:
        """Say what may be spent through a dataset, and what was."""
        client, most = caller(context), self._node.config.policy.max_epsilon
        with self._consent.ledger.reading() as database:
            owners_key = tables.key_of_name(database, request.dataset)
            mine = (request.dataset.partition("/")[0], owners_key) == (client, key(context))
            if owners_key is None or not (mine or tables.is_named(database, client, request.dataset, owners_key)):
                raise unknown()
            budget = tables.budget_of(database, request.dataset, owners_key)
            spent = tables.spent_on(database, request.dataset)
            noised, exact = tables.answers_of(database, request.dataset)
        return consent_pb2.LeftReply(
            budget=None if budget is None else to_message(budget),
            epsilon=spent.epsilon,
            delta=spent.delta,
            noised=noised,
            exact=exact,
            cap=0 if most is None else int(Fraction(most) * CHARGE_UNIT),
        )

    def Audit(self, request: consent_pb2.AuditRequest, context: grpc.ServicerContext) -> Iterator[consent_pb2.AuditRow]:
        """Send rows of the audit chain behind a head; to the operator all of them, to others what is about them."""
        client = caller(context)
        reader = None if client == self._node.config.name else client
        with self._consent.ledger.reading() as database:
            after = audit.number_of(database, request.after) if request.after else min(request.number, _LARGEST_NUMBER)
            if after is None:
                raise SessionError(
                    "this party's audit chain has no such head",
                    cause="its ledger was put back from a backup, or the head is another party's",
                    remedy="compare with what the other parties say; its operator knows whether a ledger was put back",
                )
            found = list(audit.entries(database, after, reader))
        for each in found:
            yield consent_pb2.AuditRow(number=each.number, head=each.head, digest=each.digest, row=each.row)

    def Ask(self, request: consent_pb2.AskRequest, context: grpc.ServicerContext) -> consent_pb2.AskReply:
        """Say whether a session would be opened for the caller, and whose word is missing."""
        node, client = self._node, caller(context)
        if len(request.plan) > node.config.limits.max_plan_bytes:
            raise PlanError(f"a plan of {len(request.plan):,} bytes", remedy="raise limits.max_plan_bytes")
        held = parsed_memory(len(request.plan))
        node.budget.take(held)
        try:
            plan = parse_plan(request.plan)
            node.allow(plan, client)
            nonces = tuple(bytes([place]) * NONCE_BYTES for place in range(1, len(node.roster) + 1))
            bindings = tuple(read_binding(each) for each in request.bindings)
            terms = Terms(plan.digest, node.config.provider.name, node.roster, nonces, bindings)
            check_bindings(plan, bindings)
            try:
                found = self._consent.ask(self._consent.asked(plan, terms, client, key(context)))
            except SessionError as error:
                return consent_pb2.AskReply(answers=[_nothing(error)])
        finally:
            node.budget.give(held)
        return consent_pb2.AskReply(answers=[_answer(each) for each in found])


def _nothing(error: SessionError) -> consent_pb2.Answer:
    return consent_pb2.Answer(why=error.what, remedy=error.remedy or "")


def _answer(found: Allowed | Missing) -> consent_pb2.Answer:
    if isinstance(found, Allowed):
        return consent_pb2.Answer(
            dataset=found.part.name,
            allowed=True,
            mechanism=found.mechanism,
            grant=found.grant or "",
            epsilon=found.amount.epsilon,
            delta=found.amount.delta,
        )
    if not found.known:
        return _nothing(unknown())
    return consent_pb2.Answer(dataset=found.part.name, whose=found.whose, why=found.why, remedy=found.remedy)
