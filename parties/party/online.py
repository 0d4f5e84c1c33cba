"""The online phase of a session's runs, in a thread of the session's own.

`revealed`, with what it costs the owners of stored data, is durable before the first output seed leaves this process;
of a run that costs nobody anything, a row which names it is, since it was burnt (`SessionConsent.burn`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mpc.errors import EncodingError, IntegrityError, MpcError
from mpc.interpret.party import Buffer
from mpc.plan.schedule import Step
from parties.party import agreement
from parties.party.consent.session import SessionConsent
from parties.party.evaluating import failed_check, require_checked
from parties.party.keeping import SessionKeeping
from parties.party.ledger.states import RunState
from parties.party.life import SessionFacts, SessionLife
from parties.party.link import Link, exchange
from parties.party.run import Run
from parties.party.runs import Runs

_OTHERS_FIRST = 0.001
"""Seconds before the log has a run's end: a line takes as long as an answer, in one interpreter, and those wait."""


class Online:
    """Evaluates the runs of one session, one after another, with the other parties.

    Args:
        links: to every peer.
        abort: ends the session with an error; keeps nothing alive.
        consent: says for each run whether its answer may be told.
        keeping: what of it stays at the parties.
    """

    def __init__(
        self,
        facts: SessionFacts,
        life: SessionLife,
        runs: Runs,
        links: Mapping[str, Link],
        abort: Callable[[MpcError], None],
        consent: SessionConsent,
        keeping: SessionKeeping,
    ) -> None:
        self._facts, self._life, self._runs, self._abort = facts, life, runs, abort
        self._consent, self._keeping = consent, keeping
        self._links = [links[name] for name in facts.terms.parties if name in links]
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="online")

    def start_complete(self) -> None:
        """Start runs in the order of their numbers, which is the same at every party."""
        with self._life.lock:
            for number in sorted(self._runs.kept):
                run = self._runs.kept[number]
                if run.started:
                    continue
                if not (run.entry.complete and run.entry.burnt):
                    return
                run.started = True
                self._worker.submit(self._execute, run)

    def stop(self) -> None:
        """Start no more runs."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _execute(self, run: Run) -> None:
        """The online phase of one run; any failure aborts the session."""
        ledger, counters, session_id = self._facts.ledger, self._facts.counters, self._facts.terms.session_id
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            ledger.advance(session_id, run.number, RunState.OPENED)
            self._evaluate(run)
            self.before_reveal(run)
            ledger.advance(session_id, run.number, RunState.CHECKED)
            self._settle(run)
            run.reveal()
            run.online_seconds, run.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
            run.ended_at = time.monotonic()
            counters.runs.labels(state="revealed").inc()
            counters.rounds.inc(run.rounds)
            counters.sent_bytes.inc(run.sent_bytes)
            run.done.set()
            time.sleep(_OTHERS_FIRST)
            self._log_end(run)
        except MpcError as error:
            self._abort(error)
        except Exception as error:
            self._facts.log.error("unexpected error in a run", exc_info=error)
            self._abort(MpcError("an internal error; the party's own log has more"))

    def _settle(self, run: Run) -> None:
        """Make what a run costs durable, and with it what is kept of it; that exists once all parties have signed.

        A run of which nothing is told costs nothing: all of it stays masked.
        """
        ledger, kept = self._facts.ledger, self._keeping.take(run, self._links)
        if not run.plan.outputs:
            ledger.advance(self._facts.terms.session_id, run.number, RunState.KEPT)
            return
        if kept is None:
            run.head = self._consent.reveal(ledger, run.number, run.batch)
            return
        with kept:
            run.head = self._consent.reveal(ledger, run.number, run.batch, kept.enter)
        kept.settle()

    def _log_end(self, run: Run) -> None:
        self._facts.log.info(
            "run ended",
            run=run.number,
            rows=run.batch,
            rounds=run.rounds,
            sent_bytes=run.sent_bytes,
            seconds=round(run.online_seconds, 3),
            cpu_seconds=round(run.cpu_seconds, 3),
            coordinator=self._facts.coordinator,
            owners=sorted(self._facts.plan.owners),
            recipients=sorted(self._facts.plan.recipients),
        )

    def _evaluate(self, run: Run) -> None:
        """Exchange what the run opens, and then what its check does."""
        sizes = run.party.exchanges
        for link in self._links:
            link.begin(run.number, sizes, self._keeping.tells(run.number))
        evaluation = run.party.steps(run.entry.given)
        received: Sequence[Buffer] | None = None
        for number in range(len(sizes)):
            payload = self._advance(run, evaluation, received)
            received = exchange(self._links, run.number, number, payload, self._facts.config.deadlines.step)
            run.rounds += 1
            run.sent_bytes += len(payload) * len(self._links)
        try:
            self._advance(run, evaluation, received)
        except StopIteration:
            return
        raise MpcError("the plan has more rounds than its schedule")

    def _advance(
        self,
        run: Run,
        evaluation: Generator[Buffer, Sequence[Buffer], None],
        received: Sequence[Buffer] | None,
    ) -> Buffer:
        try:
            return next(evaluation) if received is None else evaluation.send(received)
        except (EncodingError, IntegrityError) as error:
            step = run.party.step_at(run.rounds - 1) if received is not None else None
            if received is not None and step is None:
                self._facts.log.warning("the check of a run failed", run=run.number, why=error.what)
                raise failed_check() from None
            if isinstance(error, IntegrityError) and (received is None or run.party.agreed):
                raise  # what was dealt of a segment is not what was signed
            if isinstance(error, IntegrityError):  # the first payloads say that not all parties were sent the same
                raise agreement.find_owners(run, self._links, self._facts.config.deadlines.step) from None
            answers = zip(self._links, received or (), strict=True)
            peer = next((link.peer for link, payload in answers if step and not _fits(step, payload)), None)
            raise error.with_(peer=peer) from error.__cause__

    def before_reveal(self, run: Run) -> None:
        """Require, between the last exchange and the first released seed, that a run which is checked has passed."""
        require_checked(run.plan, run.party)


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
