"""One session at one party: from agreed terms to released outputs, and what ends it.

A run within it:  prepared -> (inputs arrive) -> running -> done.  `Entries` has what owners enter, `Online` the
rounds, `Silence` who is late, and `SessionLife` the states.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mpc.correlations import Bundle, BundleId
from mpc.encoding import digest, encode_field
from mpc.errors import LocalProtocolError, MpcError, PeerError, SessionError
from mpc.gates.base import mask_name
from mpc.gates.input import Input
from mpc.interpret.active.run import CheckedRun
from mpc.interpret.session_wires import SessionWires
from mpc.plan.checking import dealt_tags
from mpc.plan.plan import Plan
from parties import telemetry
from parties.agreed.memory import plan_memory, prepared_ahead, run_memory
from parties.agreed.terms import PROTOCOL, Terms, roster_digest
from parties.config.models import PartyConfig
from parties.party.consent.session import SessionConsent
from parties.party.delivery import Delivery, Receipt, given_up
from parties.party.entries import Entries
from parties.party.entry import Entry
from parties.party.evaluating import Evaluations
from parties.party.keeping import SessionKeeping
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import RunState
from parties.party.life import Farewells, SessionFacts, SessionLife, weakly
from parties.party.link import SALT_BYTES, Link
from parties.party.online import Online
from parties.party.run import Released, Run, RunStatus
from parties.party.runs import Runs
from parties.party.silence import Silence
from parties.party.stored import StoredRows
from parties.party.supply import Supply
from parties.pb.party_pb2 import Hello
from parties.process.budget import MemoryBudget
from parties.telemetry import Counters
from parties.wire.direct_listener import Listener
from parties.wire.transport import patience

_PROGRESS_SECONDS = 0.25


class PartySession:
    """A session at one party.  RPC handlers call its methods, concurrently.

    Args:
        supply: the provider's, or a stock: then the ledger opens what it lists as stocked, once.
        budget: shared by all sessions of this process.
        draw: fresh random bytes: a salt, of which all parties' together key the transcript (`transcript_key`), and
            what checks of runs need.
        finished: called once when the session has ended.
        stored: what of the plan lies here already.
        consent: of those whose data these are.
        keeping: what of its outputs stays at the parties.
        listener: takes peers' connections for rounds; None if this party has none.
    """

    def __init__(
        self,
        config: PartyConfig,
        terms: Terms,
        plan: Plan,
        coordinator: str,
        ledger: Ledger,
        supply: Supply,
        counters: Counters,
        budget: MemoryBudget,
        draw: Callable[[int], bytes],
        finished: Callable[[PartySession], None],
        stored: StoredRows,
        consent: SessionConsent,
        keeping: SessionKeeping,
        listener: Listener | None = None,
    ) -> None:
        self.id = terms.session_id
        self.terms, self.plan, self.coordinator = terms, plan, coordinator
        self.members = plan.owners | plan.recipients | {coordinator}
        self._log = telemetry.logger(session=self.id.hex()[:16])
        facts = SessionFacts(config, terms, plan, coordinator, ledger, counters, self._log)
        self._config, self._ledger, self._supply, self._counters = config, ledger, supply, counters
        self._budget, self._salt, self._finished = budget, draw(SALT_BYTES), finished
        self._stored, self._keeping, self._listener = stored, keeping, listener
        self._granted = plan_memory(plan, config.limits)
        self._index = terms.parties.index(config.name)
        self._handed_over = False
        self._preparing = threading.Lock()
        self._attached: set[str] = set()
        self._early: object = None
        self.wires = SessionWires()
        self.evaluations = Evaluations(terms, self._index, self.wires, config.cluster, draw)
        self.life = SessionLife()
        self.runs = Runs(self.life, lambda count: budget.give(count, coordinator))
        self._farewells = Farewells(self.life, self.coordinator, weakly(self.abort))
        self.links = self.make_links()
        self.online = Online(facts, self.life, self.runs, self.links, weakly(self.abort), consent, keeping)
        self.entries = Entries(facts, self.life, self.runs, self.online, consent)
        self._silence = Silence(facts, self.life, self.runs, self._preparing.locked)
        try:
            self._enter(consent)
        except BaseException:
            for link in self.links.values():
                link.close()  # no peer is waited for
            raise

    def _enter(self, consent: SessionConsent) -> None:
        """Take the memory that the plan needs, and enter the session into the ledger."""
        self._budget.take(self._granted, self.coordinator)
        try:
            enter = self._ledger.open_stocked if self._supply.stored else self._ledger.open_session
            enter(self.id, self.plan.digest, self.coordinator, consent.opened)
        except BaseException:
            self._budget.give(self._granted, self.coordinator)
            raise

    def make_links(self) -> dict[str, Link]:
        """Return a link to each peer, by name; none has greeted yet."""
        own = self.terms.parties.index(self._config.name)
        names = [name for name in self.terms.parties if name != self._config.name]
        return {name: self._make_link(name, self.terms.parties.index(name) < own) for name in names}

    def _make_link(self, name: str, dials: bool) -> Link:
        """Return the link to one peer; `dials` says that it is the one who opens the stream."""
        offer = self._listener.offer(name) if self._listener and dials else None
        hello = Hello(
            protocol=PROTOCOL,
            session_id=self.id,
            plan_digest=self.terms.plan_digest,
            field=self.plan.field,
            roster=roster_digest(self.terms.provider, self.terms.parties, self._config.cluster),
            salt=self._salt,
            window=self._config.limits.max_window_bytes,
            rounds_port=self._listener.port if self._listener else 0,
            rounds_token=offer.token if offer else b"",
        )
        return Link(name, hello, weakly(self.abort), weakly(self._farewells.heard), self.coordinator, offer)

    # ------------------------------------------------------------------------- opening

    def receive_weights_masks(self) -> int:
        """Fetch the weights' bundle, the masks of what lives for the session; bytes received."""
        delivery = self._supply.fetch_weights(self.id, self.terms, self.plan, self._stored)
        with given_up(delivery):
            bundle = self._bundle(BundleId.of_weights(self.id), self.plan, delivery)
            delivery.check_all()
            receipt = delivery.receipt
            self._check_seeds(bundle, receipt)
            self.evaluations.open(self.plan, bundle, delivery.seed, delivery.newest)
        for wire, masked in self._stored.weights().items():
            self.wires.add(self.plan.wire[wire], masked.public, masked.known_mask())
        keep = partial(_keep_weight, self.wires, self.plan, bundle)
        self.entries.weights = Entry(bundle.id.entry, self.plan, bundle, receipt.signed, keep, burnt=True)
        return receipt.size

    def _bundle(self, id: BundleId, plan: Plan, delivery: Delivery) -> Bundle:
        gates = [gate for segment in delivery.segments for gate in segment.gates]
        return Bundle(id, delivery.seed, gates, plan.wire, delivery.corrections, dealt_tags(plan, id.entry))

    def opened(self) -> None:
        """Peers agreed and the weights' masks are here."""
        self.life.move("open")
        self._counters.sessions.labels(state="open").inc()
        direct = sorted(link.peer for link in self.links.values() if link.direct is not None)
        self._log.info("session open", direct=direct, plan=self.plan.digest.hex()[:16], coordinator=self.coordinator)

    def _check_seeds(self, bundle: Bundle, receipt: Receipt) -> None:
        for wire, seed in bundle.held_seeds():
            receipt.manifest.check_seed(wire, self._config.name, seed)

    def attach(self, peer: str) -> None:
        """A peer's stream has come; a second one is refused."""
        with self.life.lock:
            if peer in self._attached:
                raise PeerError(f"{peer} opened a second stream for one session", peer=peer)
            self._attached.add(peer)

    # ----------------------------------------------------------------------- preparing

    def prepare(self, number: int, batch: int, following: int = 0) -> tuple[float, int]:
        """Deal and expand one run; (the provider's seconds, bytes received).

        following: rows of the same batch that later runs will bring, for those who ask for the run's status.
        """
        self.life.require_open()
        limits = self._config.limits
        held = run_memory(self.plan.at(number), batch, limits)
        self.entries.await_weights()
        with self._preparing:
            self.runs.await_whole(number - 1, patience(self._config.deadlines.setup))
            if number != self.runs.latest + 1:
                raise SessionError(f"run {number} was prepared before, or comes too early; runs never repeat")
            self.runs.shrink_done(number)
            self._budget.take(held, self.coordinator)
            try:
                receipt = self._prepare(number, batch, following, held)
            except BaseException:
                self._budget.give(held, self.coordinator)
                raise
        self._counters.dealt_bytes.inc(receipt.size)
        return receipt.deal_seconds, receipt.size

    def _prepare(self, number: int, batch: int, following: int, held: int) -> Receipt:
        plan = self.plan.at(number).bind(batch)
        self._keeping.begin(self.transcript_key())
        self._keeping.require(number, batch)
        bundle_id = BundleId.of_run(self.id, number, batch)
        self._hand_over()
        with given_up(self._supply.fetch(self.terms, bundle_id, self.wires.public_digest(plan))) as delivery:
            if not self._supply.stored:  # then it is there since it was dealt
                self._ledger.advance(self.id, number, RunState.DEALT)
            bundle = self._bundle(bundle_id, plan, delivery)
            stored = self._stored.run(plan, batch, number)
            window = prepared_ahead(plan, self.window)
            party = self.evaluations.make(plan, bundle, self.transcript_key(), stored, delivery, window)
            party.prepare()  # while corrections arrive; nothing leaves before they are checked
            receipt = delivery.receipt
            self._check_seeds(bundle, receipt)
            self._keeping.dealt(number, receipt.manifest)
            if isinstance(party, CheckedRun):
                party.newest = lambda: delivery.newest
            with self.life.lock:
                self.life.require_open()
                entry = Entry(bundle_id.entry, plan, bundle, receipt.signed)
                self.runs.add(Run(number, batch, following, entry, held, party, delivery))
        return receipt

    def _hand_over(self) -> None:
        """Tell the provider the public weights, once, if it is this party that does."""
        mine = bool(self.plan.public_weights) and self._index == 0
        if mine and not self._handed_over:
            self._supply.hand_over(self.terms, self.wires.public(self.plan))
            self._handed_over = True

    @property
    def window(self) -> int:
        """Bytes of correlations that each party prepares before inputs exist, once all have greeted: what the one with
        least room has room for.  One that prepared more would wait for what another reads only while the run goes on.
        """
        return min((self._config.limits.max_window_bytes, *(link.peer_window for link in self.links.values())))

    def transcript_key(self) -> bytes:
        """Return a value that all parties know and nobody else: without it a digest of the openings would let whoever
        knows the masks, the provider, and any client test guesses of the data."""
        salts = [self._salt if name not in self.links else self.links[name].peer_salt for name in self.terms.parties]
        if any(len(salt) != SALT_BYTES for salt in salts):
            raise LocalProtocolError("what the parties know in common is asked for before all have greeted")
        return digest("mpc/v1/transcript-key", *salts)

    # ------------------------------------------------------------------------- results

    def status(self, number: int) -> tuple[int, RunStatus | None]:
        """(the last run that was prepared, how the run of that number is doing, or the last one if it is 0).

        Whoever asks keeps nothing alive by it.
        """
        with self.life.lock:
            if self.life.state != "open":
                raise self.life.ending()
            latest = self.runs.latest
            run = self.runs.kept.get(number or latest)
            return latest, None if run is None else run.status

    def follow(self, run: Run, client: str, active: Callable[[], bool]) -> Iterator[Run]:
        """The run, a few times a second until it ends, as long as `active` says that the caller is still there.

        From now on somebody waits for it, and so its inputs have to come in time.  A caller waits for a run once: who
        asks again, after its connection broke, takes the place of its earlier call.
        """
        mine = object()
        with self.life.lock:
            run.entry.wait()
            run.waiting[client] = mine
        self.entries.begin(run)
        while not run.done.wait(_PROGRESS_SECONDS):
            if not active():
                raise SessionError("the caller is gone")
            self.renew(client)
            if run.waiting[client] is not mine:
                raise SessionError(f"{client} asked for the result of run {run.number} again, and waits there")
            yield run

    def await_prepared(self, number: int, client: str, active: Callable[[], bool]) -> Run:
        """The run of that number, which its coordinator may ask for while it is being prepared: of several such calls
        the newest waits."""
        with self.life.changed:
            if client == self.coordinator and number == self.runs.latest + 1:
                mine = self._early = object()
                while number > self.runs.latest and self.life.state == "open" and self._early is mine:
                    if not active():
                        raise SessionError("the caller is gone")
                    self.life.changed.wait(_PROGRESS_SECONDS)
                if number > self.runs.latest and self.life.state != "open":
                    raise self.life.ending()
            return self.runs.get(number)

    def renew(self, client: str) -> None:
        """A sign of life of whoever that is; it counts if it is the coordinator."""
        if client == self.coordinator:
            self.life.renewed_at = time.monotonic()

    def tell(self, run: Run, client: str) -> None:
        """The caller was told the run's result."""
        with self.life.lock:
            run.heard.add(client)

    def result(self, run: Run) -> Run:
        """A run that has ended well; otherwise what ended it."""
        if not run.revealed:
            raise self.life.ending(SessionError("the session was closed before this run was revealed"))
        self.life.used_at = time.monotonic()
        return run

    def released(self, run: Run, recipient: str) -> dict[str, Released]:
        """The outputs that the caller is a recipient of, by wire; as often as it asks."""
        return {wire: out for wire, out in run.outputs.items() if recipient in self.plan.wire[wire].holders}

    # -------------------------------------------------------------------------- ending

    def close(self) -> None:
        """End in good order."""
        self.life.move("closed")
        try:
            self._ledger.close_session(self.id)
        finally:
            self._log.info("session closed", runs=self.runs.latest, coordinator=self.coordinator)
            self._end("closed")

    def abort(self, error: MpcError) -> None:
        """End with an error: peers are told the code, waiting clients get the error.  Idempotent."""
        kept = self.life.fail(error, self._silence.first_hand)
        if kept is None:
            return
        try:
            self._ledger.abort_session(self.id, kept.code)
        except MpcError as failed:  # a full disk must not keep peers and clients waiting; a restart burns it
            self._log.error("the ledger did not take an abort", exc_info=failed)
        self._log.warning("session aborted", code=kept.code, about=kept.peer, why=str(kept))
        self._counters.count_abort(kept.code)
        for link in self.links.values():
            link.abort(kept)
        self._end("aborted")

    def overdue(self, now: float) -> MpcError | None:
        """Return the error that ends the session, if somebody has been silent for too long."""
        return self._silence.overdue(now)

    def _end(self, state: str) -> None:
        self._counters.sessions.labels(state=state).inc()
        self._farewells.cancel()
        for link in self.links.values():
            link.close()
            link.inbox.end()
        with self.life.changed:
            self.runs.end()
            self.life.changed.notify_all()
        self.runs.shrink_done(0)
        self._budget.give(self._granted, self.coordinator)
        self.online.stop()
        self._keeping.end()
        self._finished(self)


def _keep_weight(wires: SessionWires, plan: Plan, bundle: Bundle, gate: Input, public: np.ndarray) -> None:
    """Put a weight where all runs find it, with this party's share of its mask."""
    mask = None if gate.is_public(plan.wire) else bundle.take(gate.name, mask_name(gate.out))
    wires.add(plan.wire[gate.out], public, mask)


def encode_output(public: np.ndarray) -> bytes:
    """z^ as it travels and as it is hashed."""
    return encode_field(public)
