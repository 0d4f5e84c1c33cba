"""A party: what it was proposed, its sessions, its stocks; `services` has the calls that reach it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

from mpc.errors import HandshakeError, MpcError, PolicyError, SessionError
from mpc.plan.plan import Plan, digest_of
from parties import entropy
from parties.agreed.bindings import Binding, check_bindings
from parties.agreed.keeps import Keep, check_keeps
from parties.agreed.terms import NONCE_BYTES, Terms
from parties.config.models import PartyConfig
from parties.party.consent.consent import Consent
from parties.party.consent.operator import Waits
from parties.party.keeping import SessionKeeping
from parties.party.ledger.sessions import Ledger
from parties.party.peers import Peers
from parties.party.proposals import Proposal, Proposals
from parties.party.rules import Rules
from parties.party.session import PartySession
from parties.party.slots import Slot, Slots
from parties.party.stock.ordering import Orders
from parties.party.stock.shelf import Shelf
from parties.party.stored import StoredRows
from parties.party.supply import LiveSupply, Supply
from parties.party.vault.vault import Vault
from parties.process.budget import MemoryBudget
from parties.telemetry import Counters
from parties.trust.identity import Identity
from parties.wire.direct_listener import Listener

_MOST_ENDINGS = 64


class PartyNode:
    """A party as both of its services see it: identity, ledger, policy, sessions.

    Args:
        draw: fresh random bytes.
        rules: the policy; the config's, for good, if it is not given.
    """

    def __init__(
        self,
        config: PartyConfig,
        identity: Identity,
        ledger: Ledger,
        counters: Counters,
        draw: Callable[[int], bytes] = entropy.token,
        rules: Rules | None = None,
    ) -> None:
        self.config, self.identity, self.ledger, self.counters = config, identity, ledger, counters
        self.rules = rules or Rules(config)
        self.supply = LiveSupply(config, identity)
        self._budget = MemoryBudget(config.limits)
        self.stocks = Shelf(config, identity, ledger)
        self.orders = Orders(config, ledger, self.supply, self._budget, self.stocks)
        self.vault = Vault(config, identity, ledger, draw)
        self.consent = Consent(self.vault, ledger, draw, self.rules)
        self.roster = tuple(peer.name for peer in config.peers)
        self.problem = ""
        self._draw = draw
        self.listener: Listener | None = None
        if config.rounds_port is not None:
            self.listener = Listener(identity, config.tls, config.listen.host, config.rounds_port, draw)
        self.peers = Peers(config, identity)
        self.slots = Slots(config.limits, config.name)
        self.proposals = Proposals(config.limits, config.deadlines, self.slots, self._budget, draw)
        self._sessions: dict[bytes, PartySession] = {}
        self._slots_of: dict[bytes, Slot] = {}
        self._stopping = False
        self._called_off: OrderedDict[tuple[bytes, str], None] = OrderedDict()
        self._endings: OrderedDict[bytes, tuple[frozenset[str], MpcError]] = OrderedDict()
        self._changed = threading.Condition()

    @property
    def budget(self) -> MemoryBudget:
        """Memory that sessions, runs and large calls may take together."""
        return self._budget

    # ----------------------------------------------------------------------- proposals

    def propose(
        self,
        plan_bytes: bytes,
        coordinator: str,
        key: bytes,
        bindings: Sequence[Binding] = (),
        keeps: Sequence[Keep] = (),
        ahead: bool = False,
    ) -> bytes | Waits:
        """Check plan and policy; a nonce for one session, or whose words it waits for.  See `Proposals`.

        key: digest of the coordinator's public key.
        bindings, keeps: what it reads of what lies here, and what it keeps; without any that is left to `open`.
        """
        self._require_serving()
        self.proposals.require_size(plan_bytes)
        self.rules.require_readable(digest_of(plan_bytes), coordinator)

        def consent(plan: Plan) -> Waits | None:
            if (plan.stored and not bindings) or (plan.kept and not keeps):
                self.rules.require_security(plan)
                self.rules.require(plan, coordinator)
                return None
            check_keeps(plan, keeps, coordinator)
            terms = self.imagined(plan, bindings, keeps)
            self.consent.operator.require_asker(plan, coordinator)
            asked = self.consent.asked(plan, terms, coordinator, key, self.vault)
            return self.consent.propose(asked, lambda: StoredRows(plan, terms, self.vault))

        return self.proposals.propose(plan_bytes, coordinator, ahead, consent)

    def imagined(self, plan: Plan, bindings: Sequence[Binding], keeps: Sequence[Keep] = ()) -> Terms:
        """Return terms that a session of a plan would have; the nonces are nobody's.

        Raises:
            HandshakeError: the bindings are not the plan's.
        """
        check_bindings(plan, bindings)
        nonces = tuple(bytes([place]) * NONCE_BYTES for place in range(1, len(self.roster) + 1))
        return Terms(plan.digest, self.config.provider.name, self.roster, nonces, tuple(bindings), tuple(keeps))

    def admit(self, client: str, coordinates: bool) -> None:
        """Raise PolicyError unless the caller may have any part here, or may coordinate: before it is listened to."""
        try:
            self.rules.admit(client)
        except PolicyError:
            if not self._takes_part(client):
                raise
        if coordinates:
            self.rules.admit_coordinator(client)

    def _takes_part(self, client: str) -> bool:
        """Has a client a part in an open session?  Its operator has approved that one, if no rule covers it."""
        with self._changed:
            return any(client in session.members for session in self._sessions.values())

    def _claim(self, terms: Terms, coordinator: str) -> Proposal:
        """The proposal behind this party's nonce."""
        mine = terms.nonces[terms.parties.index(self.config.name)]
        return self.proposals.claim(mine, coordinator, terms.plan_digest)

    # ------------------------------------------------------------------------ sessions

    def order(self, terms: Terms, coordinator: str, batches: Sequence[int]) -> tuple[float, int]:
        """Begin to be dealt a session ahead; (the provider's seconds, bytes stored)."""
        self._require_roster(terms)
        self._require_serving()
        proposal = self._claim(terms, coordinator)
        try:
            return self.orders.order(terms, proposal.plan, coordinator, batches)
        finally:
            self.proposals.give_back(proposal)

    def _require_roster(self, terms: Terms) -> None:
        if terms.parties != self.roster:
            raise HandshakeError(
                "the session's parties are not the ones in this party's config",
                cause=f"this party's roster is {', '.join(self.roster)}",
                remedy="make 'peers' the same, in the same order, in every config",
            )

    def _require_serving(self) -> None:
        if self._stopping:
            raise SessionError("this party is shutting down", remedy="try again once it has started")

    def open(self, terms: Terms, coordinator: str, key: bytes, stocked: bool = False) -> tuple[PartySession, int]:
        """Make the session, meet the peers, receive the weights' masks; (session, bytes received).

        key: digest of the coordinator's public key.
        stocked: with the correlations that were dealt ahead for it.  No byte that depends on them leaves before all
        peers have greeted with this session's id, which each of them can open once.
        """
        self._require_roster(terms)
        self._require_serving()
        make = self._open_stocked if stocked else self._open_proposed
        session = make(terms, coordinator, key)
        try:
            self.peers.meet(session.links)
            dealt = session.receive_weights_masks()
            session.opened()
        except Exception as error:
            known = error if isinstance(error, MpcError) else MpcError("an internal error while opening a session")
            session.abort(known)
            if known is not error:
                raise
            raise session.life.told(known) from None
        self.counters.dealt_bytes.inc(dealt)
        return session, dealt

    def _open_proposed(self, terms: Terms, coordinator: str, key: bytes) -> PartySession:
        proposal = self._claim(terms, coordinator)
        try:
            slot = self.slots.keep(coordinator, proposal.slot)
            proposal.slot = None  # the session's from here on
            return self._make(terms, proposal.plan, coordinator, key, self.supply, slot)
        finally:
            self.proposals.give_back(proposal)

    def _open_stocked(self, terms: Terms, coordinator: str, key: bytes) -> PartySession:
        stock = self.stocks.take(terms, coordinator)
        return self._make(terms, stock.plan, coordinator, key, stock, self.slots.keep(coordinator))

    def _make(self, terms: Terms, plan: Plan, coordinator: str, key: bytes, supply: Supply, slot: Slot) -> PartySession:
        """A session that is in the ledger and that peers can find.  The disk is waited for without any lock."""
        try:
            check_bindings(plan, terms.bindings)
            consent = self.consent.open(
                plan, terms, coordinator, key, self.vault
            )  # before anything else is said of an object
            session = PartySession(
                self.config,
                terms,
                plan,
                coordinator,
                self.ledger,
                supply,
                self.counters,
                self._budget,
                self._draw,
                self._drop,
                StoredRows(plan, terms, self.vault),
                consent,
                SessionKeeping(plan, terms, self.vault, consent.asked),
                self.listener,
            )
        except BaseException:
            self.slots.free(slot)
            raise
        if supply.stored:
            self.stocks.taken(session.id)
        with self._changed:
            self._slots_of[session.id] = slot
            self._sessions[session.id] = session
            self._changed.notify_all()
            called_off = (session.id, coordinator) in self._called_off
        if self._stopping or called_off:
            session.abort(self._ended_by(coordinator) if called_off else self._farewell())
        return session

    def _drop(self, session: PartySession) -> None:
        with self._changed:
            self._sessions.pop(session.id, None)
            self.slots.free(self._slots_of.pop(session.id, None))
            if session.life.error is not None:
                self._endings[session.id] = (session.members, session.life.error)
                while len(self._endings) > _MOST_ENDINGS:
                    self._endings.popitem(last=False)
        self.supply.finish(session.id)
        self.stocks.remove(session.id)

    def session(self, session_id: bytes, client: str) -> PartySession:
        """An open session, for somebody who has a part in it; they are told what ended one of the last."""
        with self._changed:
            session = self._sessions.get(session_id)
            members, error = self._endings.get(session_id, (frozenset(), None))
        if session is None and error is not None and client in members:
            raise error.again()
        if session is None:
            raise SessionError(
                "this party does not know that session",
                cause="it ended, was aborted, or the party was restarted",
                remedy="start a new session",
            )
        if client not in session.members:
            raise PolicyError(f"{client!r} has no part in this session")
        session.renew(client)
        return session

    def has_failed(self, session_id: bytes, client: str) -> bool:
        """Has an error ended a session in which somebody had a part, one of the last?"""
        with self._changed:
            members, _ = self._endings.get(session_id, (frozenset(), None))
        return client in members

    def sessions(self, client: str) -> list[PartySession]:
        """The open sessions that the caller coordinates; all of them for this party's operator.  The oldest first."""
        with self._changed:
            sessions = list(self._sessions.values())
        mine = [session for session in sessions if client in (session.coordinator, self.config.name)]
        return sorted(mine, key=lambda session: session.life.opened_at)

    def renew(self, session_ids: Collection[bytes], client: str) -> None:
        """The caller still wants these; those that are not its own, or not here, are passed over."""
        with self._changed:
            sessions = [self._sessions[each] for each in session_ids if each in self._sessions]
        for session in sessions:
            session.renew(client)

    def end(self, session_id: bytes, client: str) -> None:
        """End one of `sessions`, whatever it is doing."""
        with self._changed:
            found = self._sessions.get(session_id)
            if found is None:  # it may be on its way
                self._called_off[session_id, client] = None
                while len(self._called_off) > _MOST_ENDINGS:
                    self._called_off.popitem(last=False)
        if found is None or client not in (found.coordinator, self.config.name):
            raise SessionError(f"{client} has no open session of that id at {self.config.name}", remedy="mpc sessions")
        found.abort(self._ended_by(client))

    def _ended_by(self, client: str) -> SessionError:
        operator = client == self.config.name
        who = f"the operator of {self.config.name}" if operator else f"{client}, who coordinates it,"
        return SessionError(f"{who} ended the session", remedy="start a new session", peer=client)

    def await_session(self, session_id: bytes) -> PartySession:
        """The session a peer greets with; it may be a moment ahead of the coordinator's call."""
        deadline = time.monotonic() + self.config.deadlines.connect
        with self._changed:
            while session_id not in self._sessions:
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise SessionError("no session of that id was opened here")
            return self._sessions[session_id]

    def open_sessions(self) -> int:
        with self._changed:
            return len(self._sessions)

    def end_overdue(self) -> None:
        """Abort the sessions in which somebody has been silent for too long."""
        now = time.monotonic()
        with self._changed:
            sessions = list(self._sessions.values())
        for session in sessions:
            error = session.overdue(now)
            if error is not None:
                session.abort(error)
        self.proposals.drop_old(now)
        self.vault.ending.tick()
        self.consent.operator.tick()
        self.orders.drop_idle(now - self.config.deadlines.idle)

    def _farewell(self) -> SessionError:
        return SessionError("this party was shut down", peer=self.config.name)

    def stop(self) -> None:
        """The process ends: no session survives it."""
        with self._changed:
            self._stopping = True
            sessions = list(self._sessions.values())
        for session in sessions:
            session.abort(self._farewell())
        self.orders.stop()
        self.supply.close()
        self.peers.close()
        if self.listener is not None:
            self.listener.close()
