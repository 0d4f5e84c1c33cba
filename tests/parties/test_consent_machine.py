"""Budgets and grants against a model: never above the total, never refunded, through revocations and restarts."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mpc.errors import MpcError, PolicyError
from mpc.plan.plan import Plan
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee
from parties.agreed.grants import Grant
from parties.agreed.objects import Manifest
from parties.agreed.signed import Signed, key_of
from parties.agreed.terms import Terms
from parties.config.models import Limits, PartyConfig, Peer, PolicyConfig, ProviderPeer
from parties.party.consent import audit, tables
from parties.party.consent.consent import Consent
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import RunState
from parties.party.vault.vault import Vault
from parties.trust import authority
from parties.trust.identity import Identity
from tests.support.asking import ANALYST, HOSPITAL, ROWS, noised_sum
from tests.support.effort import FULL
from tests.support.grants import budget, dp, grant, revocation
from tests.support.objects import AGE, manifest, schema
from tests.support.parties import CLUSTER

NAMES = ("party-0", "party-1")
UNIT = Fraction(1, 10**9)
EPSILONS = (Fraction(1, 2), Fraction(1, 4), Fraction(1, 3))
PLANS: dict[Fraction, Plan] = {}
amounts = st.sampled_from([Fraction(n, 4) for n in range(9)])


class Objects:
    """One object of the hospital's."""

    def __init__(self, found: Manifest, signed: Signed) -> None:
        self.found, self.statement = found, signed

    def manifest(self, object_id: bytes) -> Manifest:
        return self.found

    def signed(self, object_id: bytes) -> Signed:
        return self.statement

    def owner_key(self, object_id: bytes) -> bytes:
        return key_of(self.statement.certificate)


class Budgets(RuleBasedStateMachine):
    """One party's tables, in a file."""

    trust: Path | None = None
    identities: dict[str, Identity] = {}

    @initialize()
    def begin(self) -> None:
        self.temporary = TemporaryDirectory()
        folder = Path(self.temporary.name)
        if not Budgets.identities:
            kept = TemporaryDirectory()
            Budgets.folder = kept
            ca = Path(kept.name) / "ca"
            authority.make_ca(ca, "test-ca")
            for name in (*NAMES, HOSPITAL, ANALYST):
                files = authority.issue(ca, name, Path(kept.name) / name)
                Budgets.identities[name] = Identity.load(files, name, members=(*NAMES, "provider"))
                Budgets.tls = files
            PLANS.update({epsilon: noised_sum(epsilon=epsilon) for epsilon in EPSILONS})
        self.config = PartyConfig(
            name=NAMES[0],
            cluster=CLUSTER,
            listen="127.0.0.1:1",
            data_dir=folder / "data",
            tls=Budgets.tls,
            limits=Limits(),
            provider=ProviderPeer(name="provider", address="127.0.0.1:2"),
            peers=tuple(Peer(name=name, address=f"127.0.0.1:{3 + place}") for place, name in enumerate(NAMES)),
            policy=PolicyConfig(plans=("any",), coordinators=("any",), owners=("any",), recipients=("any",)),
        )
        plain = schema(NAMES, rows=ROWS, columns=(AGE,))
        found = manifest(plain)
        self.objects = Objects(found, found.sign(self.identities[HOSPITAL]))
        self.key = key_of(self.identities[HOSPITAL].certificate_pem)
        self.start()
        with self.ledger.writing() as database:
            row = (
                1,
                b"p",
                "living",
                found.id.hex(),
                HOSPITAL,
                self.key,
                found.name,
                1,
                plain.content,
                1,
                None,
                0.0,
                b"",
            )
            columns = "number, put, state, object, owner, owner_key, name, version, schema, size, expires, touched, key"
            database.execute(f"INSERT INTO data_objects ({columns}) VALUES ({', '.join('?' * 13)})", row)
            database.execute("INSERT INTO data_names VALUES (?, ?, 1, ?)", (found.name, self.key, found.id.hex()))
        self.total: Fraction | None = None
        self.sequence, self.spent, self.made = 0, Fraction(0), 0
        self.grants: dict[str, list[Any]] = {}
        self.heads = [audit.START]

    def start(self) -> None:
        self.ledger = Ledger.open(self.config.data_dir)
        vault = Vault.__new__(Vault)
        vault.config, vault.identity, vault.ledger, vault.draw = (
            self.config,
            self.identities[NAMES[0]],
            self.ledger,
            os.urandom,
        )
        from parties.party.vault.times import Times

        vault.times = Times(time.time)
        self.consent = Consent(vault, self.ledger, os.urandom)

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.start()

    @rule(total=amounts, newer=st.booleans())
    def set_budget(self, total: Fraction, newer: bool) -> None:
        sequence = self.sequence + 1 if newer else max(1, self.sequence)
        said = budget(total, sequence).sign(self.identities[HOSPITAL])
        try:
            self.consent.set_budget(said, HOSPITAL, self.key)
        except MpcError:
            assert not newer
            return
        if newer or self.sequence == 0:
            self.total, self.sequence = total, sequence

    @rule(total=amounts.filter(bool), uses=st.none() | st.integers(1, 3))
    def give(self, total: Fraction, uses: int | None) -> None:
        now = int(time.time())
        self.made += 1
        made = grant(
            question=dp(total), uses=uses, created=self.made, not_before=now - 60, expires=now + 36_000, parties=NAMES
        )
        self.consent.grant(made.sign(self.identities[HOSPITAL]), HOSPITAL, self.key)
        self.grants[made.id] = [made, total, uses]

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        if self.grants:
            gone = data.draw(st.sampled_from(sorted(self.grants)))
            made: Grant = self.grants[gone][0]
            self.consent.revoke(revocation(made).sign(self.identities[HOSPITAL]), HOSPITAL, self.key)
            self.consent.grant(made.sign(self.identities[HOSPITAL]), HOSPITAL, self.key)  # again: it stays revoked
            del self.grants[gone]

    @rule(epsilon=st.sampled_from(EPSILONS), told=st.booleans())
    def ask(self, epsilon: Fraction, told: bool) -> None:
        plan, cost = PLANS[epsilon], -(-epsilon // UNIT) * UNIT
        nonces = (os.urandom(32), os.urandom(32))
        bound = self.binding()
        terms = Terms(plan.digest, "provider", NAMES, nonces, bound)
        analyst = key_of(self.identities[ANALYST].certificate_pem)
        fits = [
            key
            for key, (_, left, uses) in sorted(self.grants.items())
            if uses != 0 and epsilon <= self.grants[key][0].question.dp.epsilon_each and cost <= left
        ]
        allowed = bool(fits) and self.total is not None and self.spent + cost <= self.total
        try:
            held = self.consent.open(plan, terms, ANALYST, analyst, self.objects)
        except PolicyError:
            assert not allowed
            return
        assert allowed
        self.ledger.open_session(terms.session_id, plan.digest, ANALYST, held.opened)
        for state in (RunState.DEALT, RunState.BURNT, RunState.OPENED, RunState.CHECKED):
            self.ledger.advance(terms.session_id, 1, state)
        if told:
            self.heads.append(held.reveal(self.ledger, 1, ROWS))
            self.spent += cost
            kept = self.grants[fits[0]]
            kept[1] -= cost
            kept[2] = None if kept[2] is None else kept[2] - 1

    def binding(self) -> tuple[Any, ...]:
        from parties.agreed.bindings import Binding

        return (Binding("x", self.objects.found.id, ("age",), 0, ROWS),)

    @invariant()
    def what_is_spent_is_spent(self) -> None:
        if not hasattr(self, "ledger"):
            return
        with self.ledger.reading() as database:
            assert tables.spent_on(database, "hospital/patients").epsilon == self.spent / UNIT
            numbers = [audit.number_of(database, head) for head in self.heads]
        assert None not in numbers and numbers == sorted(numbers)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.temporary.cleanup()


def test_costs_are_those_that_are_proved() -> None:
    for epsilon in EPSILONS:
        facts = {"x": StoredFacts(ROWS, 1, "one")}
        assert guarantee(noised_sum(epsilon=epsilon), facts).of(["x"]).epsilon == epsilon


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=200 if FULL else 12, stateful_step_count=25, deadline=None)
