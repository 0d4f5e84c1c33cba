"""The SDK, in onnxruntime's shape.

with Cluster.local(parties=3) as cluster:
    session = cluster.session("model.onnx")
    [logits] = session.run(None, {"x": x})
    print(session.last_run)
"""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mpc import fixedpoint
from mpc.compiler.compile import Compiled, Ranges, compile_model
from mpc.compiler.lower import Roles
from mpc.compiler.plan import Plan, PlanInput, PlanOutput
from mpc.errors import InputError, SessionError, UsageError
from parties import launcher
from parties.certificates import Identity
from parties.config import ClusterConfig, load
from parties.coordinator import CoordinatedSession, Parties, Progress, RunReport, sum_reports
from parties.layout import LocalLayout

BLOCK_ROWS = 1024
"""Rows of one run; more are split."""
_ORT_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)", "float16": "tensor(float16)"}


def blocks(batch: int) -> list[int]:
    """The sizes of the runs that a batch is split into."""
    full, rest = divmod(batch, BLOCK_ROWS)
    return [BLOCK_ROWS] * full + [rest] * (rest > 0)


@dataclass(frozen=True)
class NodeArg:
    """An input or output, as onnxruntime describes it."""

    name: str
    shape: list[int | str]
    type: str


class _Closing:
    """A context manager that closes at its end."""

    def close(self) -> None:
        raise NotImplementedError  # pragma: no cover - both subclasses have one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cluster(_Closing):
    """A running cluster, as one client sees it.  A context manager.

    Make one with `local` or `connect`.
    """

    def __init__(self, config: ClusterConfig, layout: LocalLayout | None = None) -> None:
        self._layout = layout
        self.config = config
        self.parties = Parties(config, Identity.load(config.tls, config.name))
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    @classmethod
    def local(cls, parties: int = 3, threads: int = 1) -> Self:
        """Start a provider and `parties` parties on this machine, as processes of their own.

        They end with this object, or with this process.

        Raises:
            ConfigError: a daemon does not start.
        """
        folder = Path(tempfile.mkdtemp(prefix="mpc-"))
        layout = None
        try:
            layout = LocalLayout.create(folder, parties, threads=threads)
            launcher.start(layout)
            cluster = cls(load(ClusterConfig, layout.cluster_file), layout)
        except BaseException:
            if layout is not None:
                launcher.stop(layout)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(cluster, _tear_down, layout)
        return cluster

    @classmethod
    def connect(cls, path: str | Path) -> Self:
        """A cluster that runs already, by its `cluster.toml`.

        Raises:
            ConfigError: the file or a certificate in it.
        """
        return cls(load(ClusterConfig, Path(path)))

    def session(self, model: str | Path, ranges: Ranges | None = None) -> Session:
        """Compile a model and share its weights, once, for many runs.

        Args:
            model: an ONNX file.
            ranges: input ranges in the model's units, by name; they win over the model's own metadata.

        Raises:
            ModelError, PolicyError, PeerError: as the CLI's.
        """
        me = self.config.name
        return self.open(compile_model(model, ranges, Roles(me, me, (me,))))

    def open(self, compiled: Compiled) -> Session:
        """The same for a model that is compiled already."""
        session = Session(self.parties, compiled)
        self._sessions.add(session)
        return session

    def close(self) -> None:
        """End all sessions; stop the processes if this object started them."""
        for session in list(self._sessions):
            session.close()
        self.parties.close()
        if self._layout is not None:
            _tear_down(self._layout)


def _tear_down(layout: LocalLayout) -> None:
    """Stop a cluster of our own and remove its folder, keys and all; safe to call twice, and at exit."""
    launcher.stop(layout)
    shutil.rmtree(layout.folder, ignore_errors=True)


class Session(_Closing):
    """Encrypted inference of one model; `run` behaves as `onnxruntime.InferenceSession.run`.

    A context manager: parties keep a session open until it is closed, dropped, or idle too long.

    Args:
        last_run: the price of the last run; None before the first.
    """

    def __init__(self, parties: Parties, compiled: Compiled) -> None:
        self.compiled = compiled
        self.plan: Plan = compiled.plan
        self.last_run: RunReport | None = None
        self._remote = CoordinatedSession(parties, compiled.plan, compiled.weights)
        weakref.finalize(self, self._remote.close).atexit = False  # an exiting process just hangs up

    def on_progress(self, report: Progress) -> None:
        """Call `report(rounds done, rounds in all, bytes sent so far)` a few times a second during runs."""
        self._remote.on_progress = report

    def get_inputs(self) -> list[NodeArg]:
        """Names, shapes and types of the inputs."""
        return [
            NodeArg(given.name, [*self.plan.wire[given.wire].shape], _ort_type(given.dtype))
            for given in self.plan.inputs
        ]

    def get_outputs(self) -> list[NodeArg]:
        """Names, shapes and types of the outputs."""
        return [
            NodeArg(out.name, [*out.shape], "seq(map)" if out.keys else _ort_type(out.dtype))
            for out in self.plan.outputs
        ]

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        """One encrypted inference.

        Args:
            output_names: which outputs, in which order; None or empty for all.
            feeds: one array for every input, of the model's type and shape.

        Raises:
            InputError: a name, shape, type or value is wrong; nothing has been sent.
            PeerError, IntegrityError: the run was aborted; the session is over.
        """
        known = {out.name: out for out in self.plan.outputs}
        names = list(output_names or known)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(f"the model has no output {unknown[0]!r}", remedy=f"its outputs are {', '.join(known)}")
        batch = check_feeds(self.plan, feeds)
        if not self._remote.open:
            raise SessionError("the session is closed", remedy="make a new one: cluster.session(...)")
        integers = {
            given.wire: fixedpoint.encode(feeds[given.name], self.plan.wire[given.wire].scale)
            for given in self.plan.inputs
        }
        try:
            opened, self.last_run = self._run_blocks(integers, batch)
        except BaseException:
            self.close()
            raise
        bound = self.plan.bind(batch)
        outputs = {out.name: out for out in bound.outputs}
        return [read_output(outputs[name], bound, opened[outputs[name].wire]) for name in names]

    def _run_blocks(self, integers: dict[str, np.ndarray], batch: int) -> tuple[dict[str, np.ndarray], RunReport]:
        """One run for every block of rows, so that memory stays bounded; their outputs joined, their prices added."""
        opened, reports = [], []
        size = batch if any(_is_fixed(self.plan, out.wire) for out in self.plan.outputs) else BLOCK_ROWS
        for start in range(0, batch, size):
            rows = slice(start, min(start + size, batch))
            block = {name: v if _is_fixed(self.plan, name) else v[rows] for name, v in integers.items()}
            outputs, report = self._remote.run(block, rows.stop - rows.start, time.perf_counter)
            opened.append(outputs)
            reports.append(report)
        joined = {name: np.concatenate([part[name] for part in opened]) for name in opened[0]}
        return (joined if len(opened) > 1 else opened[0]), sum_reports(reports)

    def close(self) -> None:
        """End the session at all parties; safe to call twice."""
        self._remote.close()


def _is_fixed(plan: Plan, wire: str) -> bool:
    """Has this wire no batch dimension?"""
    return "batch" not in plan.wire[wire].shape


def check_feeds(plan: Plan, feeds: Mapping[str, np.ndarray]) -> int:
    """Names, types, shapes and ranges of all inputs; returns the batch size.

    Raises:
        InputError: naming what is wrong.
    """
    expected = {given.name: given for given in plan.inputs}
    for name in feeds:
        if name not in expected:
            raise InputError(f"the model has no input {name!r}", remedy=f"its inputs are {', '.join(expected)}")
    batches = set()
    for name, given in expected.items():
        if name not in feeds:
            raise InputError(f"input {name!r} is missing", remedy=f"the model's inputs are {', '.join(expected)}")
        batches.add(_check_feed(plan, given, np.asarray(feeds[name])))
    batches.discard(None)
    if len(batches) > 1:
        raise InputError(f"the inputs have different batch sizes: {sorted(batches)}")
    return batches.pop() if batches else 1


def _check_feed(plan: Plan, given: PlanInput, array: np.ndarray) -> int | None:
    """One input; its batch size, or None if its shape is fixed."""
    shape = plan.wire[given.wire].shape
    if array.dtype != np.dtype(given.dtype):
        raise InputError(
            f"input {given.name!r} has dtype {array.dtype}, the model takes {given.dtype}",
            remedy=f"convert it: x.astype(numpy.{given.dtype})",
        )
    if 0 in array.shape:
        raise InputError(f"input {given.name!r} is empty: its shape is {array.shape}", remedy="give at least one row")
    fits = len(array.shape) == len(shape) and all(d in ("batch", n) for d, n in zip(shape, array.shape, strict=False))
    if not fits:
        raise InputError(
            f"input {given.name!r} has shape {array.shape}, the model takes ({', '.join(map(str, shape))})",
            remedy="reshape the data",
        )
    fixedpoint.check_range(array, given.low, given.high, given.name)
    return next((int(n) for d, n in zip(shape, array.shape, strict=True) if d == "batch"), None)


def read_output(out: PlanOutput, plan: Plan, integers: np.ndarray) -> Any:
    """Opened integers as the model's own output."""
    shape = tuple(int(d) for d in out.shape)
    if out.labels is not None:
        chosen = [out.labels[int(index)] for index in integers.reshape(-1)]
        return np.array(chosen, dtype=object if out.dtype == "string" else out.dtype).reshape(shape)
    reals = fixedpoint.decode(integers, plan.wire[out.wire].scale).reshape(shape)
    if out.keys is not None:
        return [dict(zip(out.keys, map(float, row), strict=True)) for row in reals]
    return np.rint(reals).astype(out.dtype) if out.dtype.startswith("int") else reals.astype(out.dtype)


def _ort_type(dtype: str) -> str:
    return _ORT_TYPES.get(dtype, f"tensor({dtype})")
