"""A session as its coordinator's user sees it: inputs in, outputs out."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import InputError, MpcError, SessionError, warn
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding, rows_of
from parties.agreed.keeps import Keep
from parties.client.at_rest.matching import match_frames
from parties.client.channels import Parties
from parties.client.closing import Closing
from parties.client.running import stocks as ordering
from parties.client.running.coordinated import CoordinatedSession, RunReport, sum_reports
from parties.client.running.feeds import (
    NodeArg,
    agree_on_batch,
    block,
    check_own,
    chosen,
    describe_inputs,
    describe_outputs,
    note_coarse_columns,
    owned,
    read_count,
    read_feeds,
    read_outputs,
    to_integers,
)
from parties.client.running.narrowing import Narrowing
from parties.client.running.participant import Progress
from parties.client.running.room import sizes
from parties.client.running.states import repeats

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled
    from mpc.compiler.onnx.metadata import ModelMeta
    from parties.client.model import Placed
    from parties.client.running.prepared import Prepared


class Session(Closing):
    """Private inference of one model; `run` behaves as `onnxruntime.InferenceSession.run`.

    A context manager: parties keep a session open until it is closed, dropped, or idle too long.  Thread-safe.

    Args:
        batch: rows of every run, if known; what was dealt ahead for them is used.  With state the next run is prepared
            while one is online, where all runs have equally many rows.
        calls: only if it was dealt for exactly so many calls of `run`.
        bindings: of the plan's stored wires; each run goes through all their rows.
        keeps: objects that kept outputs become, with the first run.
        wait: seconds to wait for the words of operators and owners, where they are missing.
        quiet: nothing is said of what is entered, run by run: whoever opens the session has seen all of it.
        last_run: the price of the last run; None before the first.
        narrowing: what the data say of their declared ranges; None tells nothing of that.  `notes`, when it is read
            after a run, and `close` have it once: never a run, which nothing delays.
    """

    def __init__(
        self,
        parties: Parties,
        compiled: Compiled | Placed | Prepared,
        batch: int | None = None,
        calls: int | None = None,
        bindings: Sequence[Binding] = (),
        keeps: Sequence[Keep] = (),
        wait: float = 0.0,
        quiet: bool = False,
    ) -> None:
        self.compiled = compiled
        self.plan: Plan = compiled.plan
        self.last_run: RunReport | None = None
        self._notes: list[str] = []
        for text in compiled.messages:
            self._note(text)
        self._parties, self._me = parties, parties.identity.name
        again = getattr(compiled, "again", None)
        self.narrowing = None if quiet else Narrowing(self.plan, self._me, len(parties.names), again)
        self._bindings, self.keeps = tuple(bindings), tuple(keeps)
        read_in_turn = compiled.plan.program is None or compiled.plan.program.rows is None
        self._stored_rows = rows_of(compiled.plan, self._bindings) if read_in_turn else None
        self._sizes = None if batch is None or self._bindings or self.keeps else sizes(parties, compiled.plan, batch)
        self._calls, self._wait, self._quiet = calls, wait, quiet
        self._progress: Progress | None = None
        self._running = threading.Lock()
        self._ended: str | None = None
        self.remote = self._begin()

    def _begin(self) -> CoordinatedSession:
        """Open a session at the parties: of a stock if one fits, else dealt as it goes."""
        plan, weights = self.plan, self.compiled.weights
        stock = ordering.find(self._parties, plan, self._sizes, self._calls) if self._sizes else None
        remote = None
        if stock is None and self._sizes and self._calls and ordering.find(self._parties, plan, self._sizes):
            self._note(
                "what was dealt ahead is for sessions of more runs, which would be lost with this one: "
                "mpc deal --runs N without --sessions is for mpc run"
            )
        if stock is not None:
            try:
                remote = CoordinatedSession(self._parties, plan, weights, stock)
            except SessionError as error:
                self._note(f"what was dealt ahead could not be used, and is dealt now: {error.what}")
        remote = remote or CoordinatedSession(
            self._parties, plan, weights, bindings=self._bindings, keeps=self.keeps, wait=self._wait
        )
        remote.on_progress = self._progress
        self._dropping = weakref.finalize(self, remote.drop)
        self._dropping.atexit = False  # an exiting process just hangs up
        return remote

    def _note(self, text: str) -> None:
        """Keep what the user should know, and say it once a session."""
        if text not in self._notes:
            warn(text)
        self._notes.append(text)

    @property
    def notes(self) -> list[str]:
        """List what the user should know: of bounds and precision (`Compiled.messages`), of data that their ranges
        hardly resolve or hardly fill, of how correlations were come by.

        Each is an `MpcWarning` too; that of ranges which data hardly fill says less, since others may read warnings.
        """
        self._say_narrowing()
        return self._notes

    def _say_narrowing(self) -> None:
        """Say once what a narrower declared range would save, if there was a run."""
        narrowing = self.narrowing
        if narrowing is None or self.last_run is None:
            return
        self.narrowing = None
        if (hint := narrowing.hint()) is not None:
            warn(f"{hint.discreet}; session.notes says which one")
            self._notes.append(hint.whole)

    @property
    def stocked(self) -> int | None:
        """Number of runs that are left of what was dealt ahead; None for a session that is dealt as it goes."""
        return len(self.remote.left) if self.remote.stock else None

    @property
    def ticket(self) -> str:
        """Ticket with which others `Cluster.join`.  A ticket is public, and gives no right to anything."""
        return self.remote.ticket.text

    def on_progress(self, report: Progress) -> None:
        """Call `report(rounds done, rounds in all, bytes sent so far)` a few times a second during runs."""
        self._progress = self.remote.on_progress = report

    def get_inputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of the inputs."""
        return describe_inputs(self.plan)

    def get_outputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of the outputs."""
        return describe_outputs(self.plan)

    def get_modelmeta(self) -> ModelMeta:
        """Return the metadata of the model's file, as onnxruntime does; only its owner is told them."""
        return self.compiled.meta

    def get_providers(self) -> list[str]:
        """Name what computes, where onnxruntime names its execution providers."""
        return ["MpcExecutionProvider"]

    def run(
        self,
        output_names: Sequence[str] | None = None,
        feeds: Mapping[str, np.ndarray] | np.ndarray | None = None,
        batch: int | None = None,
        *,
        input_feed: Mapping[str, np.ndarray] | None = None,
        run_options: object = None,
    ) -> list[Any]:
        """Run the model once on private data; wait, within `deadlines.submit`, for the inputs that others enter.

        Threads may share a session: their runs come one after another.  What is wrong with one thread's arguments
        touches no other; a run that fails ends the session for all of them.  Use one session a thread for runs side by
        side.

        Args:
            output_names: which outputs, in which order; None or empty for all that this client receives.
            feeds: one array for every input that this client enters, of the model's type and shape; if it enters one,
                the array alone will do.  Columns of data frames are matched by name, if the model names its columns.
            batch: how many rows there are, if none of these inputs says it.  onnxruntime's `RunOptions`, which stand
                here there, are taken and say nothing to the parties.
            input_feed, run_options: onnxruntime's names for `feeds` and its options.

        Raises:
            InputError: a name, shape, type or value is wrong; nothing has been sent.
            UsageError: an output is not for this client, or the batch is not known.
            PeerError, IntegrityError: the run was aborted; the session is over.
        """
        plan, given = self.plan.at(self.remote.following), input_feed if feeds is None else feeds
        named, told = match_frames(given, self.compiled.meta.columns, owned(plan, self._me))
        for note in told:
            if note not in self._notes:
                self._note(note)
        feeds = read_feeds(plan, self._me, named)
        names = chosen(plan, self._me, output_names)
        said = None if batch is None or _are_options(batch) else read_count(batch, "the batch")
        rows = agree_on_batch(plan, check_own(plan, self._me, feeds) or self._stored_rows, said)
        if self._stored_rows not in (None, rows):
            raise InputError(
                f"the inputs have {rows} rows, and the datasets {self._stored_rows}",
                remedy="give as many, or open a session on those rows: data={'x': dataset[['age']][:100]}",
            )
        self._require_whole(rows)
        integers = to_integers(plan, feeds, owned(plan, self._me))
        if not self._quiet:
            note_coarse_columns(plan, feeds, self._notes)
        with self._running:
            if not self.remote.open:
                raise SessionError(
                    "the session is closed", cause=self._ended, remedy="make a new one: cluster.session(...)"
                )
            self._require_expected(rows)
            self._require_left(sizes(self._parties, self.plan, rows))
            try:
                opened, self.last_run = self._run_blocks(integers, rows)
            except BaseException as error:
                if isinstance(error, MpcError):
                    self._ended = f"an earlier run failed: {error.what}"
                self.abandon()
                raise
            if self.narrowing is not None:
                self.narrowing.see(feeds, rows)
        return read_outputs(plan, rows, opened, names)

    @property
    def _every(self) -> int | None:
        """Rows of every run of a session with state, where that is known; of others it does not matter."""
        if not self.plan.states:
            return None
        if repeats(self.plan):
            return 1
        return self._stored_rows if self._sizes is None else self._sizes[0]

    def _require_expected(self, rows: int) -> None:
        """Raise InputError if the next run of a session with state may be prepared, and for another number of rows."""
        if self._every not in (None, rows):
            raise InputError(
                f"every run of this session has {self._every} rows, not {rows}",
                cause="the next run is prepared before it is called for",
                remedy="give as many, or open a session without batch",
            )

    def _require_whole(self, rows: int) -> None:
        """Require that what is kept of rows that are entered is whole with one run."""
        if self.keeps and self._stored_rows is None and len(sizes(self._parties, self.plan, rows)) > 1:
            raise InputError(
                f"{rows:,} rows are more than one run takes, and what is kept of rows that are entered is of one run",
                remedy="put the rows as a dataset, and open the session with data={'x': dataset}",
            )

    def _require_left(self, runs: list[int]) -> None:
        """Require that a session of a stock has been dealt these runs; begin another session if it is used up.

        Raises:
            InputError: it was dealt for another number of rows.
            SessionError: it is used up, and others take part, who only know of this session; or its state ends with it.
        """
        if self.remote.stock is None:
            return
        if runs != self._sizes:
            raise InputError(
                f"this session was dealt ahead for batches of {sum(self._sizes or ())} rows, not of {sum(runs)}",
                remedy="give as many, or open a session for the others: cluster.session(...) without batch",
            )
        if self.remote.left:
            return
        if self.plan.states:
            raise SessionError(
                "what was dealt ahead for this session is used up",
                cause="no more can be dealt for it, and its state ends with it",
                remedy="have more runs dealt for one session: mpc deal --runs N --sessions 1",
            )
        if (self.plan.owners | self.plan.recipients) - {self._me}:
            raise SessionError(
                "what was dealt ahead for this session is used up",
                cause="no more can be dealt for it, and those who joined it know of no other",
                remedy="start a new session, and give the others its ticket",
            )
        self._note("what was dealt ahead for the session was used up: a new one was opened")
        self.remote.finish()
        self._dropping.detach()
        self.remote = self._begin()

    def _run_blocks(self, integers: dict[str, np.ndarray], batch: int) -> tuple[list[dict[str, np.ndarray]], RunReport]:
        """Run once for every block of rows, so that memory stays bounded; return what each opened, and their prices
        added up."""
        opened, reports, start = [], [], 0
        parts = sizes(self._parties, self.plan, batch)
        for number, size in enumerate(parts):
            self.remote.settle()
            rows = block(self.plan, integers, start, size)
            start += size
            goes_on = self._every is not None and self.plan.computes(self.remote.following + 1)
            expected = (self._every,) if goes_on and self._every is not None else ()
            outputs, report = self.remote.run(rows, size, time.perf_counter, parts[number + 1 :], expected)
            opened.append(outputs)
            reports.append(report)
        return opened, sum_reports(reports)

    def close(self) -> None:
        """End the session at all parties, once the others who receive outputs have them; safe to call twice.

        Raises:
            PeerError: somebody did not take them within `deadlines.submit`; the session has ended all the same.
        """
        self.remote.finish()
        self._say_narrowing()

    def abandon(self) -> None:
        """End the session at all parties, now."""
        self.remote.close()


def _are_options(given: object) -> bool:
    """Is this onnxruntime's RunOptions, which stands where a batch may?"""
    return type(given).__name__ == "RunOptions" and type(given).__module__.startswith("onnxruntime")
