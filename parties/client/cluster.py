"""The SDK, in onnxruntime's shape.

with Cluster.local(parties=3) as cluster:
    session = cluster.session("model.onnx")
    [logits] = session.run(None, {"x": x})
    print(session.last_run)

Where others enter inputs or receive outputs, they join: `Cluster.connect("bob.toml").join(session.ticket).run(feeds)`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence, Set
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mpc.errors import InputError, MpcError, MpcWarning, SessionError, UsageError
from mpc.plan.plan import Plan
from parties.agreed.roles import SECRET, Recipients, assign, refuse_machines
from parties.agreed.ticket import Ticket
from parties.client import stocks as ordering
from parties.client.channels import Parties
from parties.client.coordinated import CoordinatedSession, RunReport, sum_reports
from parties.client.feeds import (
    NodeArg,
    agree_on_batch,
    block,
    check_feeds,
    check_own,
    chosen,
    describe_inputs,
    describe_outputs,
    note_coarse_columns,
    owned,
    read_count,
    read_feeds,
    read_output,
    read_outputs,
    split,
    to_integers,
)
from parties.client.guest import Guest
from parties.client.participant import Progress
from parties.client.stocks import Stock
from parties.config.models import ClusterConfig, load
from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.local.relay import Link, Relay
from parties.trust.identity import Identity

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled, Ranges
    from mpc.compiler.graph.graph import Range
    from mpc.compiler.onnx.load import Source
    from mpc.compiler.onnx.metadata import ModelMeta
    from mpc.compiler.onnx.walk import Shapes

__all__ = ["Cluster", "Guest", "Session", "Stock", "check_feeds", "read_output"]


_CHOICES = {"ranges", "owners", "recipients", "samples", "shapes", "weights"}


class _Closing:
    """A context manager that closes at its end, and does not wait for anybody if that is an error."""

    def close(self) -> None:
        raise NotImplementedError  # pragma: no cover - both subclasses have one

    def abandon(self) -> None:
        raise NotImplementedError  # pragma: no cover

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class Cluster(_Closing):
    """A running cluster, as one client sees it.  A context manager.

    Make one with `local` or `connect`.
    """

    def __init__(self, config: ClusterConfig, layout: LocalLayout | None = None, relay: Relay | None = None) -> None:
        self._layout, self.relay = layout, relay
        self.config = config
        self.parties = Parties(config, Identity.load(config.tls, config.name, members=config.machines))
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    @classmethod
    def local(
        cls,
        parties: int = 3,
        threads: int = 1,
        clients: Sequence[str] = (),
        link: Link | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Self:
        """Start a provider and `parties` parties on this machine, as processes of their own.

        They end with this object, or with this process.

        Args:
            clients: names of others who may take part, each with a certificate and a `client_file`.
            link: what lies between any two processes, for measuring; nothing if None.
            say: told what takes long the first time: a line on stderr if None.

        Raises:
            ConfigError: a daemon does not start.
        """
        parties, threads = read_count(parties, "the number of parties", 2), read_count(threads, "the number of threads")
        if isinstance(clients, str) or not isinstance(clients, Sequence | Set):
            raise UsageError("clients are a list of names", remedy="clients=('bob', 'carol')")
        if link is not None and not isinstance(link, Link):
            raise UsageError("a link is made from its text", remedy="link=Link.parse('wan'), from parties.local.relay")
        folder = Path(tempfile.mkdtemp(prefix="mpc-"))
        layout = relay = None
        try:
            layout = LocalLayout.create(folder, parties, threads=threads, clients=clients, relayed=link is not None)
            relay = Relay(layout.routes, link) if link else None
            launcher.start(layout, say=say or _say)
            cluster = cls(load(ClusterConfig, layout.cluster_file), layout, relay)
        except BaseException:
            if layout is not None:
                _tear_down(layout, relay)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(cluster, _tear_down, layout, relay)
        return cluster

    @classmethod
    def connect(cls, path: str | Path) -> Self:
        """A cluster that runs already, by its `cluster.toml`.

        Raises:
            ConfigError: the file or a certificate in it.
        """
        if not isinstance(path, str | PathLike):
            raise UsageError(f"a cluster file is a path, not of type {type(path).__name__}", remedy="'cluster.toml'")
        return cls(load(ClusterConfig, Path(path)))

    def client_file(self, name: str) -> Path:
        """The cluster file of another client of a local cluster, to `connect` as that client."""
        if self._layout is None:
            raise UsageError(
                "only a local cluster has its clients' files", remedy="Cluster.connect(path) as the client"
            )
        return self._layout.client_file(name)

    def session(
        self,
        model: Source,
        ranges: Ranges | Range | None = None,
        owners: Mapping[str, str] | None = None,
        recipients: Recipients | None = None,
        samples: Mapping[str, np.ndarray] | np.ndarray | None = None,
        shapes: Shapes | Sequence[int | str | None] | None = None,
        batch: int | None = None,
        weights: str = SECRET,
    ) -> Session:
        """Compile a model and share its weights, once, for many runs.

        This client is the coordinator and enters the weights.  Others take part by certificate: they join with
        `session.ticket`.

        Args:
            model: an ONNX file's path, its bytes, an open file, or an `onnx.ModelProto`.
            ranges: input ranges in the model's units, by name, or one pair (low, high) for all; they win over the
                model's own metadata.
            owners: input -> who enters it; this client, unless said.
            recipients: who receives all outputs, or output -> who receives it; this client, unless said.
            samples: data of every input that may become known, since the plan tells of them, for a model whose
                bounds cannot be proved: see `compile_model`.
            shapes: sizes of dimensions that the model leaves open, by input; None for the batch.
            batch: rows of every run, if that is known: what was dealt ahead for them is used (`deal`).
            weights: "public" tells the model to all parties and the provider, and linear layers need no
                communication; other clients are not told.

        Raises:
            ModelError, PolicyError, PeerError: as the CLI's.
        """
        from mpc.compiler.compile import compile_model  # imports onnx: who joins does without it

        roles = assign(self.config.name, owners, recipients, weights)
        return self.open(compile_model(model, ranges, roles, samples, shapes), batch)

    def deal(self, model: Source | Plan, runs: int, batch: int = 1, sessions: int = 1, **choices: Any) -> list[Stock]:
        """Have correlations dealt now, which the parties keep on disk: `session(model, batch=batch)` uses them.

        Args:
            model: as `session`'s, or a plan.
            runs: how many times `Session.run` will be called, all sessions together.
            batch: rows of each.
            sessions: how many sessions they are for, equally; what a session leaves over is lost.
            choices: of `session`, as they will be given there: ranges, owners, recipients, samples, shapes.

        Raises:
            ModelError, PolicyError, PeerError: as `session`.
            PlanError: more than a party keeps, or the plan's weights are public.
        """
        runs, sessions = read_count(runs, "the number of runs"), read_count(sessions, "the number of sessions")
        batch = read_count(batch, "the batch")
        if unknown := set(choices) - _CHOICES:
            raise UsageError(
                f"there is no argument {min(unknown)!r}", remedy=f"possible are {', '.join(sorted(_CHOICES))}"
            )
        if runs % sessions:
            raise UsageError(f"{runs} runs cannot be shared by {sessions} sessions", remedy="make it a multiple")
        if isinstance(model, Plan):
            plan = model
        else:
            from mpc.compiler.compile import compile_model

            said = {name: choices.pop(name) for name in ("owners", "recipients", "weights") if name in choices}
            roles = assign(self.config.name, **said)
            plan = compile_model(model, roles=roles, **choices).plan
        refuse_machines(plan, self.parties.names, self.config.provider.name)
        batches = split(plan, batch) * (runs // sessions)
        return [ordering.order(self.parties, plan, batches) for _ in range(sessions)]

    def stocks(self, plan: Plan | None = None) -> list[Stock]:
        """What was dealt ahead for this client and not used, the oldest first."""
        return ordering.stocks(self.parties, plan)

    def drop(self, stock: Stock) -> None:
        """Give up what was dealt ahead; the parties delete it."""
        ordering.drop(self.parties, stock)

    @property
    def layout(self) -> LocalLayout | None:
        """Where the processes that this object started live; None for a cluster that ran already."""
        return self._layout

    def open(self, compiled: Compiled, batch: int | None = None, calls: int | None = None) -> Session:
        """The same for a model that is compiled already.

        calls: take only what was dealt ahead for exactly so many calls of `run`.
        """
        from mpc.compiler.compile import Compiled

        if not isinstance(compiled, Compiled):
            raise UsageError(
                "this is no compiled model", remedy="cluster.session(model), or open(compile_model(model))"
            )
        refuse_machines(compiled.plan, self.parties.names, self.config.provider.name)
        batch = batch if batch is None else read_count(batch, "the batch")
        session = Session(self.parties, compiled, batch, calls)
        self._sessions.add(session)
        return session

    def join(self, ticket: str, plan: str | None = None) -> Guest:
        """Take part in a session that somebody else coordinates, with what its plan gives this client to do.

        Args:
            ticket: the coordinator's `session.ticket`.
            plan: the digest (hex) of the one plan that is acceptable, as `mpc inspect` prints it.

        Raises:
            PlanError: the ticket was altered, or is for another plan.
            HandshakeError: it is for other parties than this cluster's.
            UsageError: its plan has no part for this client.
        """
        if not isinstance(ticket, str) or not isinstance(plan, str | None):
            raise UsageError("ticket and plan are texts", remedy="cluster.join(session.ticket)")
        return Guest(self.parties, Ticket.parse(ticket), plan)

    def close(self) -> None:
        """End all sessions, as `Session.close` does; stop the processes if this object started them."""
        try:
            for session in list(self._sessions):
                session.close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """The same at once, whoever else still waits for something."""
        for session in list(self._sessions):
            session.abandon()
        self.parties.close()
        if self._layout is not None:
            _tear_down(self._layout, self.relay)


def _say(text: str) -> None:
    sys.stderr.write(f"mpc: {text}\n")


def _tear_down(layout: LocalLayout, relay: Relay | None) -> None:
    """Stop a cluster of our own and remove its folder, keys and all; safe to call twice, and at exit."""
    launcher.stop(layout)
    if relay is not None:
        relay.close()
    shutil.rmtree(layout.folder, ignore_errors=True)


def _are_options(given: object) -> bool:
    """Is this onnxruntime's RunOptions, which stands where a batch may?"""
    return type(given).__name__ == "RunOptions" and type(given).__module__.startswith("onnxruntime")


class Session(_Closing):
    """Encrypted inference of one model; `run` behaves as `onnxruntime.InferenceSession.run`.

    A context manager: parties keep a session open until it is closed, dropped, or idle too long.  Thread-safe.

    Args:
        batch: rows of every run, if known; what was dealt ahead for them is used.
        calls: only if it was dealt for exactly so many calls of `run`.
        last_run: the price of the last run; None before the first.
        notes: what the user should know: of bounds and precision (`Compiled.messages`), of data that their ranges
            hardly resolve, of how correlations were come by.  Each is an `MpcWarning` too.
    """

    def __init__(
        self, parties: Parties, compiled: Compiled, batch: int | None = None, calls: int | None = None
    ) -> None:
        self.compiled = compiled
        self.plan: Plan = compiled.plan
        self.last_run: RunReport | None = None
        self.notes: list[str] = []
        for text in compiled.messages:
            self._note(text)
        self._parties, self._me = parties, parties.identity.name
        self._sizes = None if batch is None else split(compiled.plan, batch)
        self._calls = calls
        self._progress: Progress | None = None
        self._running = threading.Lock()
        self._ended: str | None = None
        self._remote = self._begin()

    def _begin(self) -> CoordinatedSession:
        """A session at the parties: of a stock if there is one that fits, else dealt as it goes."""
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
        remote = remote or CoordinatedSession(self._parties, plan, weights)
        remote.on_progress = self._progress
        self._dropping = weakref.finalize(self, remote.drop)
        self._dropping.atexit = False  # an exiting process just hangs up
        return remote

    def _note(self, text: str) -> None:
        """Keep what the user should know, and say it once a session."""
        if text not in self.notes:
            warnings.warn(text, MpcWarning, stacklevel=4)
        self.notes.append(text)

    @property
    def stocked(self) -> int | None:
        """How many runs are left of what was dealt ahead; None for a session that is dealt as it goes."""
        return len(self._remote.left) if self._remote.stock else None

    @property
    def ticket(self) -> str:
        """What others need to `Cluster.join` in.  It is public, and gives no right to anything."""
        return self._remote.ticket.text

    def on_progress(self, report: Progress) -> None:
        """Call `report(rounds done, rounds in all, bytes sent so far)` a few times a second during runs."""
        self._progress = self._remote.on_progress = report

    def get_inputs(self) -> list[NodeArg]:
        """Names, shapes and types of the inputs."""
        return describe_inputs(self.plan)

    def get_outputs(self) -> list[NodeArg]:
        """Names, shapes and types of the outputs."""
        return describe_outputs(self.plan)

    def get_modelmeta(self) -> ModelMeta:
        """What the model's file says about itself; nobody but its owner is told."""
        return self.compiled.meta

    def get_providers(self) -> list[str]:
        """What computes, where onnxruntime names its execution providers."""
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
        """One encrypted inference; waits, within `deadlines.submit`, for the inputs that others enter.

        Threads may share a session: their runs come one after another.  What is wrong with one thread's arguments
        touches no other; a run that fails ends the session for all of them.  Use one session a thread for runs side by
        side.

        Args:
            output_names: which outputs, in which order; None or empty for all that this client receives.
            feeds: one array for every input that this client enters, of the model's type and shape; if it enters one,
                the array alone will do.
            batch: how many rows there are, if none of these inputs says it.  onnxruntime's `RunOptions`, which stand
                here there, are taken and say nothing to the parties.
            input_feed, run_options: onnxruntime's names for `feeds` and its options.

        Raises:
            InputError: a name, shape, type or value is wrong; nothing has been sent.
            UsageError: an output is not for this client, or the batch is not known.
            PeerError, IntegrityError: the run was aborted; the session is over.
        """
        feeds = read_feeds(self.plan, self._me, input_feed if feeds is None else feeds)
        names = chosen(self.plan, self._me, output_names)
        said = None if batch is None or _are_options(batch) else read_count(batch, "the batch")
        rows = agree_on_batch(self.plan, check_own(self.plan, self._me, feeds), said)
        integers = to_integers(self.plan, feeds, owned(self.plan, self._me))
        note_coarse_columns(self.plan, feeds, self.notes)
        with self._running:
            if not self._remote.open:
                raise SessionError(
                    "the session is closed", cause=self._ended, remedy="make a new one: cluster.session(...)"
                )
            self._require_left(split(self.plan, rows))
            try:
                opened, self.last_run = self._run_blocks(integers, rows)
            except BaseException as error:
                if isinstance(error, MpcError):
                    self._ended = f"an earlier run failed: {error.what}"
                self.abandon()
                raise
        return read_outputs(self.plan, rows, opened, names)

    def _require_left(self, sizes: list[int]) -> None:
        """A session of a stock has what was dealt for it and no more; the next one is another session.

        Raises:
            InputError: it was dealt for another number of rows.
            SessionError: it is used up, and others take part, who only know of this session.
        """
        if self._remote.stock is None:
            return
        if sizes != self._sizes:
            raise InputError(
                f"this session was dealt ahead for batches of {sum(self._sizes or ())} rows, not of {sum(sizes)}",
                remedy="give as many, or open a session for the others: cluster.session(...) without batch",
            )
        if self._remote.left:
            return
        if (self.plan.owners | self.plan.recipients) - {self._me}:
            raise SessionError(
                "what was dealt ahead for this session is used up",
                cause="no more can be dealt for it, and those who joined it know of no other",
                remedy="start a new session, and give the others its ticket",
            )
        self._note("what was dealt ahead for the session was used up: a new one was opened")
        self._remote.finish()
        self._dropping.detach()
        self._remote = self._begin()

    def _run_blocks(self, integers: dict[str, np.ndarray], batch: int) -> tuple[list[dict[str, np.ndarray]], RunReport]:
        """One run for every block of rows, so that memory stays bounded: what each opened, and their prices added."""
        opened, reports, start = [], [], 0
        sizes = split(self.plan, batch)
        for number, size in enumerate(sizes):
            self._remote.settle()
            rows = block(self.plan, integers, start, size)
            start += size
            outputs, report = self._remote.run(rows, size, time.perf_counter, sizes[number + 1 :])
            opened.append(outputs)
            reports.append(report)
        return opened, sum_reports(reports)

    def close(self) -> None:
        """End the session at all parties, once the others who receive outputs have them; safe to call twice.

        Raises:
            PeerError: somebody did not take them within `deadlines.submit`; the session has ended all the same.
        """
        self._remote.finish()

    def abandon(self) -> None:
        """End the session at all parties, now."""
        self._remote.close()
