"""SDK in onnxruntime's shape.

with Cluster.local(parties=3) as cluster:
    session = cluster.session("model.onnx")
    [logits] = session.run(None, {"x": x})
    print(session.last_run)

Where others enter inputs or receive outputs, they join: `Cluster.connect("bob.toml").join(session.ticket).run(feeds)`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mpc.errors import UsageError
from mpc.plan.link import Link
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding
from parties.agreed.keeps import Keep
from parties.agreed.ticket import Ticket
from parties.client import own
from parties.client.at_parties import AtParties
from parties.client.channels import Parties
from parties.client.closing import Closing
from parties.client.guest import Guest
from parties.client.running import stocks as ordering
from parties.client.running.feeds import check_feeds, read_count, read_output
from parties.client.running.roles import PASSIVE, SECRET, Recipients, read_security, refuse_machines
from parties.client.running.stocks import Stock
from parties.client.session import Session
from parties.config.load import load
from parties.config.models import ClusterConfig
from parties.local.layout import LocalLayout
from parties.local.relay import Relay
from parties.trust.identity import Identity

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled, Ranges
    from mpc.compiler.graph.graph import Range
    from mpc.compiler.onnx.load import Source
    from mpc.compiler.onnx.signature import Shapes
    from parties.client.at_rest.keeping import Keeping
    from parties.client.dataset import Dataset
    from parties.client.model import Model, Placed
    from parties.client.running.states import States
    from parties.client.selection import Selection
    from parties.client.training.trainer import Trainer

__all__ = ["Cluster", "Guest", "Session", "Stock", "check_feeds", "read_output"]


class Cluster(AtParties, Closing):
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
        threads: int | None = None,
        clients: Sequence[str] = (),
        link: Link | None = None,
        say: Callable[[str], None] | None = None,
        security: str = PASSIVE,
    ) -> Self:
        """Start a provider and `parties` parties on this machine, as processes of their own.

        They end with this object, or with this process.

        Args:
            threads: that compute at one time in each of them; None: as many as each has cores of this machine.
            clients: names of others who may take part, each with a certificate and a `client_file`.
            link: what lies between any two processes, for measuring; nothing if None.
            say: told what takes long the first time: a line on stderr if None.
            security: "active": each run of every session is checked before anything of it is told, and the parties take
                no others.

        Raises:
            ConfigError: a daemon does not start.
        """
        layout, relay = own.start(parties, threads, clients, link, say, security)
        try:
            cluster = cls(load(ClusterConfig, layout.cluster_file), layout, relay)
        except BaseException:
            own.tear_down(layout, relay)
            raise
        weakref.finalize(cluster, own.tear_down, layout, relay)
        return cluster

    @classmethod
    def connect(cls, path: str | Path, security: str | None = None) -> Self:
        """Connect to a cluster that runs already, by its `cluster.toml`.

        Args:
            security: "active" has each run of all that is done here checked, trainings and questions too, before
                anything of it is told; None: as the file says.

        Raises:
            ConfigError: the file or a certificate in it.
            UsageError: less security than the file says.
        """
        if not isinstance(path, str | PathLike):
            raise UsageError(f"a cluster file is a path, not of type {type(path).__name__}", remedy="'cluster.toml'")
        config = load(ClusterConfig, Path(path))
        return cls(config.model_copy(update={"security": read_security(security, config.security)}))

    def client_file(self, name: str) -> Path:
        """Return the path of the cluster file of another client of a local cluster, to `connect` as that client."""
        if self._layout is None:
            raise UsageError(
                "only a local cluster has its clients' files", remedy="Cluster.connect(path) as the client"
            )
        return self._layout.client_file(name)

    def session(
        self,
        model: Source | Model | Placed,
        ranges: Ranges | Range | None = None,
        owners: Mapping[str, str] | None = None,
        recipients: Recipients | None = None,
        samples: Mapping[str, np.ndarray] | np.ndarray | None = None,
        shapes: Shapes | Sequence[int | str | None] | None = None,
        batch: int | None = None,
        weights: str = SECRET,
        data: Mapping[str, Selection | Dataset] | Selection | Dataset | None = None,
        state: States | None = None,
        keep: Mapping[str, str | Keeping] | None = None,
        wait: float = 0.0,
        epsilon: Mapping[str, Any] | None = None,
        mechanism: str | None = None,
        delta: Any = None,
        security: str | None = None,
        sample: Any = None,
        secret_weights: str | Sequence[str] = (),
        link: Link | str | None = None,
    ) -> Session:
        """Compile a model and share its weights, once, for many runs; or use one that lies at the parties.

        This client is the coordinator and enters the weights.  Others take part by certificate: they join with
        `session.ticket`.

        Args:
            model: an ONNX file's path, its bytes, an open file, an `onnx.ModelProto`, or a PyTorch module; or a model
                at the parties: "OWNER/NAME", "@OWNER/NAME", `cluster.model(NAME)`.  Of that one nothing is compiled.
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
            data: input -> columns of a dataset at the parties (`cluster.dataset(NAME)[["age", "bmi"]]`), or a
                dataset for all of its columns: it is read from there, and its owner takes no part.  The dataset's
                scales and ranges are taken.  Columns that the model names are matched by name; a dataset alone is the
                one input, or each input the column of its name.
            state: output -> the input as which the next run reads it, masked as it is: `{"w_out": "w"}`.  The first
                run reads zeros, or what a `State("w", start=array)` begins with.  Nobody receives such an output but
                those that `recipients` names for it.
            keep: output -> the name of a dataset of this client's that it becomes at the parties, or a `Keeping`.
                Nobody receives it unless `recipients` names somebody; outputs of one name are its columns.
            wait: seconds to wait for the words of operators and owners, where they are missing.
            epsilon: output -> what it may tell of a person: it is made of sums over rows (ReduceSum over the first
                axis), each of which gets noise.
            mechanism, delta: "laplace", or "gaussian" with the most delta of an output.
            security: "active" has each run checked before anything of it is told: a party that deviates is caught then,
                and the session ends (THREATS.md has what that promises); as the cluster file says, unless said.
            sample: rows of a PyTorch module's input, or of each by its name: their shapes are taken.
            secret_weights: with public weights, names of constants and nodes of the model whose weights stay secret, as
                an adapter's beside a public backbone: `["*lora_A*", "*lora_B*"]`; a name that is nowhere is refused.
            link: what lies between the processes, "lan", "wan" or "MS:MBIT", milliseconds there and back and megabits
                a second: comparisons take a round less for more bytes where a run of one row is faster by that.

        Raises:
            WaitingError: somebody's word is missing still, who is shown what was asked; the message says whose.
            ModelError, PolicyError, PeerError: as the CLI's.
        """
        from parties.client.running import modules, opening  # who joins does without them

        model = modules.as_source(model, sample)
        noise = {"epsilon": epsilon, "mechanism": mechanism, "delta": delta}
        compiling = {"ranges": ranges, "samples": samples, "shapes": shapes, "state": state, "keep": keep, **noise}
        compiling |= {"security": security, "secret_weights": secret_weights, "link": link}
        ready = opening.prepare(self.parties, model, owners, recipients, data, weights, compiling)
        return self.open(ready.of, batch, bindings=ready.bindings, keeps=ready.keeps, wait=wait)

    def trainer(self, model: Source, *, sample: Any = None, **choices: Any) -> Trainer:
        """Compile one step of training of a model, whose weights this client enters and nobody sees from then on.

        Args:
            model: an ONNX file's path, its bytes, an open file, an `onnx.ModelProto`, or a PyTorch module, which stays
                as it is.
            sample: rows of a PyTorch module's input, or of each by its name: their shapes are taken.
            choices: loss, "one_vs_all" (the default), "cross_entropy" or "mse"; optimizer, an `SGD`; batch, rows of a
                step; ranges and shapes of the inputs, as `session`'s; frozen, names of weights that stay as they are;
                precision, a `Precision`; samples, (x, y) as `fit` takes arrays, a batch or more, for a model too deep
                for bounds that are proved: rows that may become known, since the plan tells how large values are on
                them; link, as `session`'s.

        Raises:
            ModelError: a node has no derivative, or a bound does not fit.
            UsageError: an argument says nothing.
        """
        from parties.client.running import modules
        from parties.client.training.trainer import CHOICES, Trainer  # joining and running do without it

        if unknown := set(choices) - CHOICES:
            raise UsageError(
                f"there is no argument {min(unknown)!r}", remedy=f"possible are {', '.join(sorted(CHOICES))}"
            )
        source, idle = modules.as_source(model, sample), modules.idle(model)
        return Trainer(self.parties, self._sessions.add, source, idle=idle, **choices)

    def deal(self, model: Source | Plan, runs: int, batch: int = 1, sessions: int = 1, **choices: Any) -> list[Stock]:
        """Have correlations dealt now, which the parties keep on disk: `session(model, batch=batch)` uses them.

        Args:
            model: as `session`'s, or a plan.
            runs: how many times `Session.run` will be called, all sessions together.
            batch: rows of each.
            sessions: how many sessions they are for, equally; what a session leaves over is lost.
            choices: of `session`, as they will be given there: ranges, owners, recipients, samples, shapes, weights,
                secret_weights, state, security, link, and of a PyTorch module its sample.

        Raises:
            ModelError, PolicyError, PeerError: as `session`.
            PlanError: more than a party keeps, or the plan's weights are public.
        """
        from parties.client.running import dealing, modules  # running does without them

        source = modules.as_source(model, choices.pop("sample", None))
        return dealing.deal(self.parties, source, runs, batch, sessions, choices)

    def stocks(self, plan: Plan | None = None) -> list[Stock]:
        """List the stocks of this client that nobody has used, the oldest first."""
        return ordering.stocks(self.parties, plan)

    def drop(self, stock: Stock) -> None:
        """Give up what was dealt ahead; the parties delete it."""
        ordering.drop(self.parties, stock)

    @property
    def layout(self) -> LocalLayout | None:
        """Places of the processes that this object started; None for a cluster that ran already."""
        return self._layout

    def open(
        self,
        compiled: Compiled | Placed,
        batch: int | None = None,
        calls: int | None = None,
        bindings: Sequence[Binding] = (),
        keeps: Sequence[Keep] = (),
        wait: float = 0.0,
    ) -> Session:
        """Open a session as `session` does, of a model that is compiled already, or placed (`Model.place`).

        Args:
            calls: take only what was dealt ahead for exactly so many calls of `run`.
            bindings: of the plan's stored wires, in its order.
            keeps: objects that its kept outputs become.
            wait: seconds to wait for words that are missing.
        """
        from mpc.compiler.compile import Compiled
        from parties.client.model import Placed

        if isinstance(compiled, Placed):
            bindings = bindings or compiled.bindings
        elif not isinstance(compiled, Compiled):
            raise UsageError(
                "this is no compiled model", remedy="cluster.session(model), or open(compile_model(model))"
            )
        refuse_machines(compiled.plan, self.parties.names, self.config.provider.name)
        batch = batch if batch is None else read_count(batch, "the batch")
        session = Session(self.parties, compiled, batch, calls, bindings, keeps, read_wait(wait))
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
        given: tuple[object, object] = (ticket, plan)
        if not isinstance(given[0], str) or not isinstance(given[1], str | None):
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
        """Close at once, whoever else still waits for something."""
        for session in list(self._sessions):
            session.abandon()
        self.parties.close()
        if self._layout is not None:
            own.tear_down(self._layout, self.relay)


def read_wait(wait: Any) -> float:
    """Return how many seconds to wait for words that are missing; `UsageError` if that is no time."""
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= _LONGEST_WAIT:
        raise UsageError("wait is a number of seconds, a month at most", remedy="wait=600")
    return float(wait)


_LONGEST_WAIT = 31 * 86_400
