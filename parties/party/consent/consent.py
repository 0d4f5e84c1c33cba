"""Consent at one party: it takes owners' words, and nothing at rest is read, shown to a provider or told without them.

A session holds a `SessionConsent`.  It is decided when the session opens, and again in the transaction in which the
ledger writes `revealed`: there the charge is written, before any seed of an output leaves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol

from mpc.errors import IntegrityError, MpcError, PolicyError, SessionError
from mpc.plan.plan import Plan
from parties import entropy
from parties.agreed.grants import Budget, Grant, Revocation, grant_id
from parties.agreed.objects import Manifest
from parties.agreed.signed import Signed, key_of
from parties.agreed.terms import Terms
from parties.party.consent import audit, tables
from parties.party.consent.asked import Asked
from parties.party.consent.conditions import House
from parties.party.consent.decide import EXACT, Allowed, Missing, decide, require, to_prove
from parties.party.consent.operator import Operator, Waits
from parties.party.consent.proofs import Proofs
from parties.party.consent.session import SessionConsent
from parties.party.consent.tables import GrantRow
from parties.party.ledger.sessions import Ledger
from parties.party.rules import Rules
from parties.party.vault.ending import unknown
from parties.party.vault.vault import Vault
from parties.telemetry import logger

MOST_GRANTS, MOST_OF_ONE, MOST_REVOCATIONS, MOST_BUDGETS = 4096, 64, 1 << 14, 1024
"""Grants of one owner here, those of them of one dataset, revocations of grants that are not here, and budgets."""
MOST_BYTES = 64 << 20
"""Bytes of one owner's grants."""
_FORGOTTEN = 30 * 86_400.0
"""Seconds after its end in which a grant is still listed."""
_ROUNDS = 4
"""Times that grants may change while a guarantee is proved."""


class Objects(Protocol):
    """Where objects lie."""

    def manifest(self, object_id: bytes) -> Manifest:
        """Return an object's manifest; one error for what is unknown, removed or expired."""

    def owner_key(self, object_id: bytes) -> bytes:
        """Return the digest of the public key that an object belongs to."""


class Consent:
    """Words of owners at this party, and sums that were spent.  Thread-safe.

    Args:
        draw: fresh random bytes.
    """

    def __init__(
        self,
        vault: Vault,
        ledger: Ledger,
        draw: Callable[[int], bytes] = entropy.token,
        rules: Rules | None = None,
    ) -> None:
        self.vault, self.ledger, self.draw = vault, ledger, draw
        self.config, self._trust = vault.config, vault.identity.trust
        self.operator = Operator(self.config, rules or Rules(self.config), ledger, vault.times, draw)
        self._proofs = Proofs()

    def house(self) -> House:
        """Say what this party knows of itself, and what time it is; `SessionError` if its clock was set back."""
        config, most = self.config, self.operator.rules.most_epsilon
        roster = tuple(peer.name for peer in config.peers)
        return House(self._trust, config.cluster, config.provider.name, roster, most, self.vault.times.now())

    # -- sessions

    def asked(self, plan: Plan, terms: Terms, coordinator: str, key: bytes, objects: Objects | None = None) -> Asked:
        """Read what a session asks; the objects' one error if one of them is not here.

        objects: where they lie, if not in the vault.
        """
        objects = objects or self.vault
        manifests: dict[bytes, Manifest] = {}
        keys: dict[bytes, bytes] = {}
        for binding in terms.bindings:
            if binding.object not in manifests:
                manifests[binding.object] = objects.manifest(binding.object)
                keys[binding.object] = objects.owner_key(binding.object)
        return Asked(plan, terms, coordinator, key, manifests, keys, self._proofs)

    def ask(self, asked: Asked) -> list[Allowed | Missing]:
        """Say of each dataset whether a session may read it, and if not, whose word is missing."""
        if not asked.parts:
            return []  # nothing that could have expired, so no time is needed
        for _ in range(_ROUNDS):
            with self.ledger.reading() as database:
                people = to_prove(database, asked, self.house())
            asked.prove(people)  # takes a while, and holds nothing
            with self.ledger.reading() as database:
                if to_prove(database, asked, self.house()) == people:
                    return decide(database, asked, self.house())
        raise SessionError("grants of these datasets are changing", remedy="try again")

    def propose(self, asked: Asked, fits: Callable[[], object] = tuple) -> Waits | None:
        """Say whose words are missing before a session may be opened, and keep it as a request until they are said.

        Args:
            fits: holds what is bound to the plan, and says of it what strangers are not told; so it is called once
                who asks may know of everything, and before a request is kept.

        Returns:
            None if no word is missing.

        Raises:
            SessionError: something is not here, or not for who asks to know of; or no more requests are kept.
            PolicyError: the policy does not allow it, and who asks may not wait.
        """
        silent = self.operator.silent(asked)
        missing = [each for each in self.ask(asked) if isinstance(each, Missing)]
        if not all(each.known for each in missing):
            raise unknown()
        self.operator.require_read(asked)
        fits()
        if silent is None and not missing:
            return None
        return self.operator.waiting(asked, missing, silent)

    def open(
        self, plan: Plan, terms: Terms, coordinator: str, key: bytes, objects: Objects | None = None
    ) -> SessionConsent:
        """Require that a session may read all that it asks for.

        Raises:
            PolicyError: an owner, a budget or the operator does not allow it.
            SessionError: likewise, to strangers, or there is no such object.
        """
        try:
            self.operator.require_asker(plan, coordinator)
            asked = self.asked(plan, terms, coordinator, key, objects)
            found = self.ask(asked) if asked.parts else []
            if any(isinstance(each, Missing) and not each.known for each in found):
                raise unknown()  # before the operator's word, which tells that it is there
            self.operator.require(asked)
            if any(each.mechanism == EXACT for each in require(found)):
                asked.look_at_rows()
        except MpcError as refusal:
            logger().info("a session was refused", coordinator=coordinator, why=str(refusal))
            raise
        self.operator.settle(asked)
        return SessionConsent(self, asked)

    # -- owners' words

    def grant(self, signed: Signed, client: str, key: bytes) -> str:
        """Keep a grant of the caller's; its id.

        Raises:
            IntegrityError, InputError: it is not the caller's, malformed or another cluster's.
            SessionError: it has expired, or there are too many.
        """
        now = self.vault.times.now()
        found = Grant.verify(self._trust, signed, self.config.cluster, lambda: now)
        self._require_own(signed, found.owner, client, key)
        if found.expires <= now:
            raise SessionError("that grant has expired", remedy="grant it anew")
        row = GrantRow(grant_id(signed.content), client, key, signed, False)
        with self.ledger.writing(durable=True) as database:
            tables.drop_expired(database, now - _FORGOTTEN)
            self._require_key(database, found.dataset, client, key)
            if tables.has_grant(database, row.id):
                return row.id
            every, these, size = tables.count_grants(database, client, found.dataset)
            if every >= MOST_GRANTS or these >= MOST_OF_ONE:
                raise SessionError(
                    f"{client} has {every} grants here, {these} of them of {found.dataset}, as many as there may be",
                    remedy="grants that have expired make room after a month; one grant may list many plans and names",
                )
            if size + len(signed.content) + len(signed.certificate) > MOST_BYTES:
                raise SessionError(
                    f"the {every} grants of {client} here have {size:,} bytes, as many as there may be",
                    remedy="a grant of noised answers, or of fewer plans and rows, is smaller; those that have expired "
                    "make room after a month",
                )
            named = {*found.coordinators, *found.recipients}
            tables.add_grant(database, row, found.dataset, found.expires, named)
            self.note(database, audit.GRANT, {client, *named}, grant=row.id, dataset=found.dataset, owner=client)
        logger().info("a grant was given", grant=row.id, dataset=found.dataset, owner=client)
        return row.id

    def revoke(self, signed: Signed, client: str, key: bytes) -> str:
        """Keep a revocation of the caller's, also of a grant that is not here yet; the grant's id.

        Whatever is here can be revoked, however much was before.

        Raises:
            IntegrityError, InputError: it is not the caller's, malformed or another cluster's.
            SessionError: there are too many of grants that are not here.
        """
        now = self.vault.times.now()
        found = Revocation.verify(self._trust, signed, self.config.cluster, lambda: now)
        self._require_own(signed, found.owner, client, key)
        with self.ledger.writing(counted=True) as database:
            tables.drop_expired(database, now - _FORGOTTEN)
            loose = tables.is_loose(database, found.revokes, client, key)
            if loose and tables.count_loose_revocations(database, client) >= MOST_REVOCATIONS:
                raise SessionError(
                    f"{client} has revoked {MOST_REVOCATIONS:,} grants that are not here, as many as one owner may",
                    remedy="give this party the grant, and then revoke it: those that are here can always be revoked",
                )
            if tables.add_revocation(database, found.revokes, client, key, signed):
                self.note(database, audit.REVOKE, {client}, grant=found.revokes, owner=client)
        logger().info("a grant was revoked", grant=found.revokes, owner=client)
        return found.revokes

    def set_budget(self, signed: Signed, client: str, key: bytes) -> str:
        """Keep a budget of the caller's in the place of the one before; the dataset's name.

        Raises:
            IntegrityError, InputError: it is not the caller's, malformed or another cluster's.
            SessionError: its sequence is not higher than the last one's.
        """
        now = self.vault.times.now()
        found = Budget.verify(self._trust, signed, self.config.cluster, lambda: now)
        self._require_own(signed, found.owner, client, key)
        with self.ledger.writing(counted=True) as database:
            self._require_key(database, found.dataset, client, key)
            before = tables.budget_of(database, found.dataset, key)
            if before is not None and before.content == signed.content:
                return found.dataset
            if before is None and tables.count_budgets(database, client) >= MOST_BUDGETS:
                raise SessionError(
                    f"{client} has set {MOST_BUDGETS:,} budgets here, as many as one owner may",
                    remedy="one budget may be of many datasets: mpc budget set --with",
                )
            last = 0 if before is None else Budget.parse(before.content).sequence
            if found.sequence <= last:
                raise SessionError(
                    f"budget {found.sequence} of {found.dataset} is not newer than the one here, {last}",
                    cause="it was set again meanwhile, or this one is replayed",
                    remedy=f"set it with a sequence above {last}",
                )
            tables.set_budget(database, found.dataset, client, key, signed)
            amounts = {"epsilon": f"{float(found.epsilon):.9g}", "delta": f"{float(found.delta):.9g}"}
            facts = {"dataset": found.dataset, "sequence": found.sequence, "owner": client, **amounts}
            self.note(database, audit.BUDGET, {client}, **facts)
        logger().info("a budget was set", dataset=found.dataset, owner=client, epsilon=str(found.epsilon))
        return found.dataset

    def _require_own(self, signed: Signed, owner: str, client: str, key: bytes) -> None:
        if owner != client or key_of(signed.certificate) != key:
            raise IntegrityError(f"{client} brings a word of {owner}'s, or of another key", peer=client)

    def _require_key(self, database: sqlite3.Connection, dataset: str, client: str, key: bytes) -> None:
        known = tables.key_of_name(database, dataset)
        if known is not None and known != key:
            raise PolicyError(
                f"{dataset} was put with another key of {client!r}",
                cause="a certificate that is issued again, with a new key, inherits nothing",
            )

    def note(self, database: sqlite3.Connection, kind: str, about: set[str], **facts: object) -> bytes:
        """Add a row to the audit chain, within the caller's transaction; the new head."""
        return audit.append(database, self.draw, kind, self.vault.times.shown(), about, **facts)
