"""One session at one party: from agreed terms to released outputs, and what ends it.

    opening -> open -> closed
         \\        \\-> aborted        an abort is terminal: there is no retry, only a new session

A run within it:  prepared -> (inputs arrive) -> running -> done.  Correlations are burnt in the
ledger, durably, before the first mask seed leaves this process; `revealed` is durable before
the first output seed does.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from mpc.correlations import Bundle, BundleId
from mpc.encoding import decode_field, digest, encode_field, field_size
from mpc.errors import EncodingError, InputError, IntegrityError, MpcError, PeerError, PolicyError, SessionError
from mpc.gates.base import mask_name
from mpc.gates.input import Input
from mpc.interpret.party import Buffer, PartyRun, SessionWires
from mpc.plan.plan import Plan
from mpc.plan.schedule import Step
from mpc.prg import Seed
from mpc.shares import Lane
from mpc.wires import Masking
from parties import telemetry
from parties.agreed.memory import plan_memory, run_memory
from parties.agreed.terms import PROTOCOL, Terms
from parties.alarms import ALARMS, Alarm
from parties.config.models import PartyConfig
from parties.party import agreement
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import RunState
from parties.party.link import Link, exchange
from parties.party.run import Released, Run, RunStatus
from parties.party.supply import Receipt, Supply
from parties.pb.party_pb2 import Hello
from parties.pb.party_pb2 import Manifest as SignedManifest
from parties.process.budget import MemoryBudget
from parties.telemetry import Counters
from parties.wire.transport import patience

_PROGRESS_SECONDS = 0.25
_FAREWELL_SECONDS = 5.0
_KEPT_RUNS = 8
"""Runs whose outputs can still be fetched."""
Arg = TypeVar("Arg")
TRANSITIONS = {
    "opening": frozenset({"open", "aborted"}),
    "open": frozenset({"closed", "aborted"}),
    "closed": frozenset(),
    "aborted": frozenset(),
}


class PartySession:
    """A session at one party.  RPC handlers call its methods, concurrently.

    Args:
        supply: the provider's, or a stock: then the ledger opens what it lists as stocked, once.
        budget: shared by all sessions of this process.
        salt: 32 fresh random bytes; all parties' together key the transcript, see `_transcript_key`.
        finished: called once when the session has ended.
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
        salt: bytes,
        finished: Callable[[PartySession], None],
    ) -> None:
        self.id = terms.session_id
        self.terms, self.plan, self.coordinator = terms, plan, coordinator
        self.members = plan.owners | plan.recipients | {coordinator}
        self.state = "opening"
        self.error: MpcError | None = None
        self.used_at = self.opened_at = self.renewed_at = time.monotonic()
        self._config, self._ledger, self._supply, self._counters = config, ledger, supply, counters
        self._budget, self._salt, self._finished = budget, salt, finished
        self._granted = plan_memory(plan, config.limits)
        self._lock = threading.RLock()
        self._preparing = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._index = terms.parties.index(config.name)
        self._wires = SessionWires()
        self._weights: Bundle | None = None
        self._weights_signed = SignedManifest()
        self._asked: set[str] = set()
        self._receiving: set[tuple[int, str]] = set()
        self._attached: set[str] = set()
        self._handed_over = False
        self._farewells: list[Alarm] = []
        self._runs: dict[int, Run] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="online")
        self._log = telemetry.logger(session=self.id.hex()[:16])
        hello = Hello(
            protocol=PROTOCOL,
            session_id=self.id,
            plan_digest=terms.plan_digest,
            field=plan.field,
            roster=terms.roster_digest,
            salt=salt,
        )
        self.links = {
            name: Link(name, hello, _weakly(self.abort), _weakly(self._peer_ended))
            for name in terms.parties
            if name != config.name
        }
        budget.take(self._granted)
        try:
            enter = ledger.open_stocked if supply.stored else ledger.open_session
            enter(self.id, plan.digest, coordinator)
        except BaseException:
            budget.give(self._granted)
            raise

    # ------------------------------------------------------------------------- opening

    def receive_weights_masks(self) -> int:
        """Fetch the weights' bundle, the masks of what lives for the session; bytes received."""
        delivery = self._supply.fetch_weights(self.id, self.terms, self.plan)
        bundle = Bundle(BundleId(self.id, 0, 1), delivery.seed, self.plan.weights, self.plan.wire, delivery.corrections)
        receipt = delivery.finish()
        self._check_seeds(bundle, receipt)
        self._weights, self._weights_signed = bundle, receipt.signed
        return receipt.size

    def opened(self) -> None:
        """Peers agreed and the weights' masks are here."""
        self._move("open")
        self._counters.sessions.labels(state="open").inc()
        self._log.info("session open", plan=self.plan.digest.hex()[:16], coordinator=self.coordinator)

    def _check_seeds(self, bundle: Bundle, receipt: Receipt) -> None:
        for wire, seed in bundle.held_seeds():
            receipt.manifest.check_seed(wire, self._config.name, seed)

    def attach(self, peer: str) -> None:
        """A peer's stream has come; a second one is refused."""
        with self._lock:
            if peer in self._attached:
                raise PeerError(f"{peer} opened a second stream for one session", peer=peer)
            self._attached.add(peer)

    # ---------------------------------------------------------------------------- runs

    def prepare(self, number: int, batch: int, following: int = 0) -> tuple[float, int]:
        """Deal and expand one run; (the provider's seconds, bytes received).

        following: rows of the same batch that later runs will bring, for those who ask for the run's status.
        """
        self._require_open()
        limits = self._config.limits
        held = run_memory(self.plan, batch, limits)
        self._await_weights()
        with self._preparing:
            if number != max(self._runs, default=0) + 1:
                raise SessionError(f"run {number} was prepared before, or comes too early; runs never repeat")
            self._shrink_done(number)
            self._budget.take(held)
            try:
                receipt = self._prepare(number, batch, following, held)
            except BaseException:
                self._budget.give(held)
                raise
        self._counters.dealt_bytes.inc(receipt.size)
        return receipt.deal_seconds, receipt.size

    def _prepare(self, number: int, batch: int, following: int, held: int) -> Receipt:
        plan = self.plan.bind(batch)
        bundle_id = BundleId(self.id, number, batch)
        self._hand_over()
        delivery = self._supply.fetch(self.terms, bundle_id, self._wires.public_digest(plan))
        if not self._supply.stored:  # then it is there since it was dealt
            self._ledger.advance(self.id, number, RunState.DEALT)
        bundle = Bundle(bundle_id, delivery.seed, plan.online, plan.wire, delivery.corrections)
        party = PartyRun(plan, Lane.passive(self._index), bundle, self._wires, self._transcript_key())
        try:
            party.prepare()  # while corrections arrive; nothing leaves before they are checked
        except MpcError:
            delivery.finish()  # says first if they were altered
            raise
        receipt = delivery.finish()
        self._check_seeds(bundle, receipt)
        with self._lock:
            self._require_open()
            self._runs[number] = Run(number, batch, following, plan, receipt.signed, held, party)
        return receipt

    def _hand_over(self) -> None:
        """Tell the provider the public weights, once, if it is this party that does."""
        mine = bool(self.plan.public_weights) and self._index == 0
        if mine and not self._handed_over:
            self._supply.hand_over(self.terms, self._wires.public(self.plan))
            self._handed_over = True

    def _transcript_key(self) -> bytes:
        """A value that all parties know and nobody else: without it a digest of the openings would let whoever
        knows the masks, the provider, and any client test guesses of the data."""
        salts = [self._salt if name not in self.links else self.links[name].peer_salt for name in self.terms.parties]
        return digest("mpc/v1/transcript-key", *salts)

    def _shrink_done(self, number: int) -> None:
        """Give back the memory of runs that are over; recipients may still fetch the latest ones' outputs."""
        with self._lock:
            for run in [run for run in self._runs.values() if run.done.is_set()]:
                self._budget.give(run.shrink())
                if run.number < number - _KEPT_RUNS:
                    del self._runs[run.number]

    def masks(self, number: int, owner: str) -> tuple[list[tuple[str, Seed]], SignedManifest]:
        """The sub-seeds of the caller's own inputs; burns the correlations first."""
        self._require_open()
        with self._lock:
            run = self._run(number) if number else None
            gates = run.plan.online if run else self.plan.weights
            entered = [gate.out for gate in gates if isinstance(gate, Input)]
            masked = [wire for wire in entered if self.plan.wire[wire].masking is not Masking.PUBLIC]
            owned = [wire for wire in masked if self.plan.wire[wire].holders == (owner,)]
            if not owned:
                raise PolicyError(f"{owner!r} owns no input of run {number} that is masked")
        if run is not None:
            self._burn(run)
        with self._lock:
            self._require_open()
            if run is not None:
                run.asked_at = run.asked_at or time.monotonic()
                bundle, signed, asked = run.party.bundle, run.signed, run.asked
            else:
                bundle, signed, asked = self._weights_bundle(), self._weights_signed, self._asked
            asked.update(owned)
            return [(wire, bundle.mask_seed(wire)) for wire in owned], signed

    def _weights_bundle(self) -> Bundle:
        if self._weights is None:
            raise SessionError("the weights' masks are not here yet")
        return self._weights

    def _burn(self, run: Run) -> None:
        """Enter the run as burnt, once; the disk is waited for without the session's lock."""
        with run.burning:
            if not run.burnt:
                self._ledger.advance(self.id, run.number, RunState.BURNT)
                run.burnt = True

    def input_size(self, number: int, wire: str, owner: str) -> int:
        """Bytes that this input has; refuses a wire that the caller does not own or has sent."""
        self._require_open()
        with self._lock:
            run = self._run(number) if number else None
            plan = run.plan if run else self.plan
            gates = plan.online if run else plan.weights
            if not any(isinstance(gate, Input) and gate.out == wire for gate in gates):
                raise InputError(f"run {number} has no input wire of that name")
            if plan.wire[wire].holders != (owner,):
                raise PolicyError(f"{owner!r} does not own the input wire {wire}")
            if wire in (run.given if run else self._wires.masked):
                raise InputError(f"the input wire {wire} was submitted before")
            masked = plan.wire[wire].masking is not Masking.PUBLIC
            if masked and wire not in (run.asked if run else self._asked):
                raise SessionError(f"the input wire {wire} was submitted before its mask was asked for")
            return field_size(plan.wire[wire].sizes)

    @contextmanager
    def receiving(self, number: int, wire: str, owner: str) -> Iterator[int]:
        """While one input of the caller's arrives: bytes that it has.  Nobody makes this party hold it twice."""
        with self._lock:
            size = self.input_size(number, wire, owner)
            if (number, wire) in self._receiving:
                raise InputError(f"the input wire {wire} is being submitted", remedy="wait for it, or hang up")
            self._receiving.add((number, wire))
        try:
            yield size
        finally:
            with self._lock:
                self._receiving.discard((number, wire))

    def submit(self, number: int, wire: str, owner: str, data: Buffer) -> None:
        """x^ of one input; starts the run when it was the last one."""
        with self._ready:
            self.input_size(number, wire, owner)
            run = self._run(number) if number else None
            plan = run.plan if run else self.plan
            public = decode_field(data, plan.wire[wire].sizes)
            if run is None:
                gate = next(gate for gate in plan.weights if gate.out == wire)
                masked = not gate.is_public(plan.wire)
                mask = self._weights_bundle().take(gate.name, mask_name(wire)) if masked else None
                self._wires.add(plan.wire[wire], public, mask)
                self._ready.notify_all()
                return
            run.given[wire] = public
            complete = run.complete
        if complete:
            self._burn(run)
            with self._lock:
                self._start_complete()

    def _start_complete(self) -> None:
        """Start runs in the order of their numbers, which is the same at every party."""
        for number in sorted(self._runs):
            run = self._runs[number]
            if run.started:
                continue
            if not (run.complete and run.burnt):
                return
            run.started = True
            self._worker.submit(self._execute, run)

    def _await_weights(self) -> None:
        deadline = time.monotonic() + patience(self._config.deadlines.submit)
        with self._ready:
            while len(self._wires.masked) < len(self.plan.weights):
                self._require_open()
                if not self._ready.wait(min(1.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise SessionError("the model's owner has not submitted all weights")

    # -------------------------------------------------------------------------- online

    def _execute(self, run: Run) -> None:
        """The online phase, in a thread of its own; any failure aborts the session."""
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            self._ledger.advance(self.id, run.number, RunState.OPENED)
            self._evaluate(run)
            self.before_reveal(run)
            self._ledger.advance(self.id, run.number, RunState.CHECKED)
            self._ledger.advance(self.id, run.number, RunState.REVEALED)
            run.reveal()
            run.online_seconds, run.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
            run.ended_at = time.monotonic()
            self._counters.runs.labels(state="revealed").inc()
            self._counters.rounds.inc(run.rounds)
            self._counters.sent_bytes.inc(run.sent_bytes)
            self._log_end(run)
            run.done.set()
        except MpcError as error:
            self.abort(error)
        except Exception as error:
            self._log.error("unexpected error in a run", exc_info=error)
            self.abort(MpcError("an internal error; the party's own log has more"))

    def _log_end(self, run: Run) -> None:
        self._log.info(
            "run ended",
            run=run.number,
            rows=run.batch,
            rounds=run.rounds,
            sent_bytes=run.sent_bytes,
            seconds=round(run.online_seconds, 3),
            cpu_seconds=round(run.cpu_seconds, 3),
            coordinator=self.coordinator,
            owners=sorted(self.plan.owners),
            recipients=sorted(self.plan.recipients),
        )

    def _evaluate(self, run: Run) -> None:
        steps = run.party.schedule.steps
        links = [self.links[name] for name in self.terms.parties if name in self.links]
        for link in links:
            link.inbox.begin(run.number, [step.size for step in steps])
        evaluation = run.party.steps(run.given)
        received: Sequence[Buffer] | None = None
        for step in steps:
            payload = self._advance(run, evaluation, links, received)
            received = exchange(links, run.number, step.number, payload, self._config.deadlines.step)
            run.rounds += 1
            run.sent_bytes += len(payload) * len(links)
        try:
            self._advance(run, evaluation, links, received)
        except StopIteration:
            return
        raise MpcError("the plan has more rounds than its schedule")

    def _advance(
        self,
        run: Run,
        evaluation: Generator[Buffer, Sequence[Buffer], None],
        links: list[Link],
        received: Sequence[Buffer] | None,
    ) -> Buffer:
        try:
            return next(evaluation) if received is None else evaluation.send(received)
        except EncodingError as error:
            step = run.party.schedule.steps[run.rounds - 1]
            answers = zip(links, received or (), strict=True)
            error.peer = next((link.peer for link, payload in answers if not _fits(step, payload)), None)
            raise
        except IntegrityError:  # the first payloads say that not all parties were sent the same
            raise agreement.find_owners(run, links, self._config.deadlines.step) from None

    def before_reveal(self, run: Run) -> None:
        """The barrier between the last opening and the first released seed.

        Nothing in passive mode; in active mode the MAC check stands here.
        """

    def status(self, number: int) -> tuple[int, RunStatus | None]:
        """(the last run that was prepared, how the run of that number is doing, or the last one if it is 0).

        Whoever asks keeps nothing alive by it.
        """
        with self._lock:
            if self.state != "open":
                raise self.ending()
            latest = max(self._runs, default=0)
            run = self._runs.get(number or latest)
            return latest, None if run is None else run.status

    def run(self, number: int) -> Run:
        """A run that was prepared; `SessionError` if it was not, or is long over."""
        with self._lock:
            return self._run(number)

    def follow(self, run: Run, client: str, active: Callable[[], bool]) -> Iterator[Run]:
        """The run, a few times a second until it ends, as long as `active` says that the caller is still there.

        From now on somebody waits for it, and so its inputs have to come in time.  A caller waits for a run once: who
        asks again, after its connection broke, takes the place of its earlier call.
        """
        mine = object()
        with self._lock:
            run.asked_at = run.asked_at or time.monotonic()
            run.waiting[client] = mine
        while not run.done.wait(_PROGRESS_SECONDS):
            if not active():
                raise SessionError("the caller is gone")
            self.renew(client)
            if run.waiting[client] is not mine:
                raise SessionError(f"{client} asked for the result of run {run.number} again, and waits there")
            yield run

    def renew(self, client: str) -> None:
        """A sign of life of whoever that is; it counts if it is the coordinator."""
        if client == self.coordinator:
            self.renewed_at = time.monotonic()

    @property
    def latest(self) -> int:
        """The last run that was prepared; 0 if none was."""
        with self._lock:
            return max(self._runs, default=0)

    def tell(self, run: Run, client: str) -> None:
        """The caller was told the run's result."""
        with self._lock:
            run.heard.add(client)

    def result(self, run: Run) -> Run:
        """A run that has ended well; otherwise what ended it."""
        if not run.revealed:
            raise self.ending(SessionError("the session was closed before this run was revealed"))
        self.used_at = time.monotonic()
        return run

    def released(self, run: Run, recipient: str) -> dict[str, Released]:
        """The outputs that the caller is a recipient of, by wire; as often as it asks."""
        return {wire: out for wire, out in run.outputs.items() if recipient in self.plan.wire[wire].holders}

    # -------------------------------------------------------------------------- ending

    def close(self) -> None:
        """End in good order."""
        self._move("closed")
        try:
            self._ledger.close_session(self.id)
        finally:
            self._log.info("session closed", runs=max(self._runs, default=0))
            self._end("closed")

    def abort(self, error: MpcError) -> None:
        """End with an error: peers are told the code, waiting clients get the error.  Idempotent."""
        with self._lock:
            if self.state in ("closed", "aborted"):
                return
            error = self._first_hand(error)
            self.error = error.again()
            self.state = "aborted"
        try:
            self._ledger.abort_session(self.id, error.code)
        except MpcError as failed:  # a full disk must not keep peers and clients waiting; a restart burns it
            self._log.error("the ledger did not take an abort", exc_info=failed)
        self._log.warning("session aborted", code=error.code, about=error.peer, why=str(error))
        self._counters.count_abort(error.code)
        for link in self.links.values():
            link.abort(error)
        self._end("aborted")

    def ending(self, otherwise: MpcError | None = None) -> MpcError:
        """Return the error that ended it, to be raised; `otherwise` if none did."""
        if self.error is not None:
            return self.error.again()
        return otherwise or SessionError(f"the session is {self.state}", remedy="start a new session")

    def _peer_ended(self, peer: str) -> None:
        """A peer closed its side in good order: the coordinator's own call may be on its way, so wait a moment."""
        error = PeerError(f"{peer} ended the session", peer=peer)
        lost = _weakly(self._abort_aside)
        with self._lock:
            if self.state in ("opening", "open"):
                self._farewells.append(ALARMS.set(_FAREWELL_SECONDS, lambda: lost(error)))

    def _abort_aside(self, error: MpcError) -> None:
        """`abort` in a thread of its own: the ledger is written."""
        if self.state == "open":
            threading.Thread(target=self.abort, args=(error,), name="abort", daemon=True).start()

    def _end(self, state: str) -> None:
        self._counters.sessions.labels(state=state).inc()
        for alarm in self._farewells:
            alarm.cancel()
        for link in self.links.values():
            link.close()
            link.inbox.end()
        with self._ready:
            for run in self._runs.values():
                run.done.set()
            self._ready.notify_all()
        self._shrink_done(0)
        self._budget.give(self._granted)
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._finished(self)

    def overdue(self, now: float) -> MpcError | None:
        """Return the error that ends the session, if somebody has been silent for too long."""
        with self._lock:
            for run in self._runs.values():
                if run.entering and now - (run.asked_at or now) > self._config.deadlines.submit:
                    return run.overdue()
            if self.state == "open" and now - self.renewed_at > self._config.deadlines.grace and not self._awaited(now):
                return SessionError(
                    f"{self.coordinator}, who coordinates the session, is gone",
                    cause=f"there was no sign of its life for {self._config.deadlines.grace:g} s (deadlines.grace)",
                    remedy="start a new session",
                    peer=self.coordinator,
                )
            running = any(run.asked_at and not run.done.is_set() for run in self._runs.values())
            if not running and now - self.used_at > self._config.deadlines.idle:
                return SessionError("the session was idle for too long")
            return None

    def _awaited(self, now: float) -> bool:
        """Does anybody but the coordinator still wait for something that may come?  With the lock."""
        if self._preparing.locked():
            return True
        for run in self._runs.values():
            if run.asked_at and not run.done.is_set() and set(run.entering) != {self.coordinator}:
                return True
            others = run.unheard - {self.coordinator}
            if run.revealed and others and now - run.ended_at < self._config.deadlines.submit:
                return True
        return False

    def _first_hand(self, error: MpcError) -> MpcError:
        """Prefer own evidence: if this party misses that peer's input too, it says so and does not repeat the abort."""
        if error.code == IntegrityError.code and error.peer in self.plan.owners and error.heard_from:
            return agreement.differing([error.peer])
        late = [run for run in self._runs.values() if run.asked_at and error.peer in run.entering]
        return late[0].overdue() if late and error.code == PeerError.code else error

    def told(self, error: MpcError) -> MpcError:
        """Return the error that a failed call answers with: the one that ended the session, unless `error` says more.

        A peer that ended it for the same reason gives a code and a name only: what this party found itself says more,
        unless it found no more than that a peer is gone, or that the session is not open any longer.
        """
        ended = self.error
        found = not error.heard_from and error.code not in (PeerError.code, SessionError.code)
        if ended is None or ended.peer == error.peer or (ended.heard_from and found):
            return error
        return ended.again()

    # ------------------------------------------------------------------------- helpers

    def _move(self, state: str) -> None:
        with self._lock:
            if state not in TRANSITIONS[self.state]:
                raise self.ending()
            self.state = state

    def _require_open(self) -> None:
        if self.state != "open":
            raise self.ending()
        self.used_at = time.monotonic()

    def _run(self, number: int) -> Run:
        if number not in self._runs:
            raise SessionError(f"run {number} is not prepared, or is over")
        return self._runs[number]


def _weakly(method: Callable[[Arg], None]) -> Callable[[Arg], None]:
    """The method of an object that it does not keep: nothing happens once that is gone."""
    kept = weakref.WeakMethod(method)

    def call(argument: Arg) -> None:
        if (found := kept()) is not None:
            found(argument)

    return call


def _fits(step: Step, payload: Buffer) -> bool:
    """Is this the canonical encoding of what a peer opens in a step?"""
    view, position = memoryview(payload), step.agreement
    try:
        for opening in (opening for turn in step.turns for opening in turn.openings):
            opening.decode(view[position : position + opening.size])
            position += opening.size
    except EncodingError:
        return False
    return True


def encode_output(public: np.ndarray) -> bytes:
    """z^ as it travels and as it is hashed."""
    return encode_field(public)
