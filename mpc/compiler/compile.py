"""The compiler's front door: a model in, a verified plan and its owner's weights out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mpc.compiler.arguments import as_ranges, as_samples, as_shapes
from mpc.compiler.graph.calibrate import MARGIN, bounded_by, suited_ranges
from mpc.compiler.graph.columns import separate_columns
from mpc.compiler.graph.graph import Graph, GraphInput, Origin, Range
from mpc.compiler.graph.passes import run_passes
from mpc.compiler.lowering.lower import Lowered, lower
from mpc.compiler.onnx.declared import own_sizes
from mpc.compiler.onnx.load import Source, load_model
from mpc.compiler.onnx.metadata import ModelMeta, read_meta
from mpc.compiler.onnx.walk import Shapes, import_model, input_types
from mpc.compiler.operators.missing import with_marks
from mpc.compiler.roles import Roles
from mpc.errors import InputError, ModelError
from mpc.plan.plan import Plan, PlanOutput
from mpc.wires import BATCH

DEFAULT_RANGE = (-32.0, 32.0)
PRECISE = 1e-3
"""An expected error up to this, in the model's units, is none to speak of."""
MISTAKEN = 1e-2
"""Bounds the expected share of labels or whole numbers that rounding changes, above which a note says so."""
_CALIBRATED = (
    f"bounds rest on the samples, with a margin of {MARGIN:g}, where none is proved: "
    "data much unlike them can give a wrong answer"
)

_LONGEST_NAME = 200
Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Args:
        plan: public; what the parties agree on.
        weights: int64 integers of each weight wire; the model owner's secret.
        origins: the model's node for each gate.
        errors: output -> expected (RMS) rounding error, in the model's units, where values are as large
            as they usually are: of a divisor, one in eight is smaller.  Of labels and whole numbers the part that is
            expected to differ.  Inputs are taken to be spread over their ranges.
        undeclared: inputs that took the default range.
        notes: what the owner should know, such as a denominator that could be zero.
        meta: what the model's file says about itself.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    origins: dict[str, Origin]
    errors: dict[str, float] = field(default_factory=dict)
    undeclared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    meta: ModelMeta = field(default=ModelMeta(), repr=False)

    @property
    def messages(self) -> list[str]:
        """List what its user should be told: notes, errors that matter, and what was assumed."""
        low, high = DEFAULT_RANGE
        assumed = [
            f"no range is declared for input {name!r}; {low:g}:{high:g} is taken (--range {name}=LOW:HIGH, in Python "
            f"ranges={{{name!r}: (low, high)}}, declares one)"
            for name in self.undeclared
        ]
        return [*self.notes, *filter(None, (_limited(out, self.errors) for out in self.plan.outputs)), *assumed]

    @property
    def imprecision(self) -> float:
        """The largest expected error; up to 1 is none to speak of."""
        return imprecision(self.plan, self.errors)


def imprecision(plan: Plan, errors: Mapping[str, float]) -> float:
    """The largest of the outputs' expected errors, in units of what is none to speak of."""
    return max(errors.get(out.name, 0.0) / (PRECISE if _real(out) else MISTAKEN) for out in plan.outputs)


def _real(out: PlanOutput) -> bool:
    return out.dtype.startswith("float")


def _limited(out: PlanOutput, errors: Mapping[str, float]) -> str | None:
    """Word what is told of an output whose expected error matters."""
    error = errors.get(out.name, 0.0)
    if error <= (PRECISE if _real(out) else MISTAKEN):
        return None
    remedy = "narrower input ranges, or one a column, make it more precise"
    if _real(out):
        return f"fixed point limits output {out.name!r} to an expected error of {error:.1g}; {remedy}"
    return f"fixed point is expected to change {100 * error:.1g} % of output {out.name!r}; {remedy}"


def compile_model(
    model: Source,
    ranges: Ranges | Range | None = None,
    roles: Roles | None = None,
    samples: Mapping[str, np.ndarray] | np.ndarray | None = None,
    shapes: Shapes | Sequence[int | str | None] | None = None,
) -> Compiled:
    """Compile an ONNX model.

    Args:
        model: a path, the file's bytes, an open file, or an `onnx.ModelProto`.
        ranges: (low, high) in the model's units by input name, or one for all inputs; each end one
            number or one a column; they win over those the model declares in its metadata (`mpc.range.NAME`).
            Undeclared inputs take -32:32, or powers of two around their samples.
        samples: data of every input, for a model whose bounds cannot be proved, or only so loosely
            that precision suffers: its sums and products are then bounded by what they are on the
            samples, times a margin, and a note says so.  The plan, which parties see, tells of them: never
            what is to stay private, but data that may become known.
        shapes: sizes by input name for dimensions that the model leaves open, None for the batch;
            those of the samples, if there are any.  They must agree with what the model fixes.

    Raises:
        ModelError: the file, a node, or a bound is refused.
        UsageError, InputError: an argument has a form that says nothing.
    """
    loaded = load_model(model)
    types = input_types(loaded)
    known, sizes = as_ranges(ranges, [*types]), as_shapes(shapes, [*types])
    data = None if samples is None else as_samples(samples, types)
    around = {} if data is None else suited_ranges(data)
    assumed = {**dict.fromkeys(types, DEFAULT_RANGE), **around}
    graph = import_model(loaded, known, {**own_sizes(loaded, data or {}), **sizes}, assumed)
    undeclared = tuple(given.name for given in graph.inputs if given.declared is None and given.name not in around)
    graph.inputs = [
        replace(given, declared=given.declared or around.get(given.name, DEFAULT_RANGE)) for given in graph.inputs
    ]
    if not graph.inputs:
        raise ModelError(
            "the model has no inputs",
            remedy=(
                "list what is secret among the inputs of its graph, without an initializer of that "
                "name; a model of constants needs no secure computation"
            ),
        )
    for name in [given.name for given in graph.inputs] + [out.name for out in graph.outputs]:
        if len(name) > _LONGEST_NAME:
            raise ModelError(
                f"an input or output has a name of {len(name)} characters, {name[:20]!r}...",
                remedy=f"rename it: names have up to {_LONGEST_NAME}",
            )
    roles = roles or Roles()
    _require_known(roles.owners, [given.name for given in graph.inputs if not given.marks], "input")
    _require_known(roles.readers, [out.name for out in graph.outputs], "output")
    _check_samples(graph.inputs, data or {})
    graph = separate_columns(run_passes(graph))
    data = None if data is None else with_marks(graph.inputs, data)
    lowered, notes = _lower(graph, roles, data)
    return Compiled(
        lowered.plan, lowered.weights, lowered.origins, lowered.errors, undeclared, notes, read_meta(loaded)
    )


def _lower(graph: Graph, roles: Roles, samples: Mapping[str, np.ndarray] | None) -> tuple[Lowered, tuple[str, ...]]:
    """By proved bounds; where there are none, or they leave too few digits, by the samples'."""
    if samples is None:
        lowered = lower(graph, roles)
        return lowered, tuple(lowered.notes)
    try:
        proved = lower(graph, roles)
        error = imprecision(proved.plan, proved.errors)
    except ModelError:
        proved, error = None, np.inf
    if proved is None or error > 1:
        calibrated = lower(bounded_by(graph, samples), roles)
        if proved is None or 2 * imprecision(calibrated.plan, calibrated.errors) < error:
            return calibrated, (*calibrated.notes, _CALIBRATED)
    return proved, tuple(proved.notes)


def _check_samples(inputs: list[GraphInput], samples: Mapping[str, np.ndarray]) -> None:
    """Raise InputError if samples do not have their input's shape, but for how many rows: of one run or several."""
    runs: set[float] = set()
    missing = {given.marks: given.columns for given in inputs}
    for given in inputs:
        values = samples.get(given.name)
        if values is None or given.marks:
            continue
        rows, *rest = (*given.shape, 1)[: max(1, len(given.shape))]
        fits = values.ndim == len(given.shape) and (not given.shape or values.shape[1:] == tuple(rest))
        whole = rows == BATCH or not values.ndim or len(values) % int(rows) == 0
        if not (fits and whole):
            shown = ", ".join("rows" if size == BATCH else str(size) for size in given.shape)
            raise InputError(
                f"the samples of input {given.name!r} have shape {values.shape}, and the model takes ({shown})",
                remedy="give samples of that shape, or of several runs: a multiple of its rows",
            )
        _require_numbers(given, values, missing.get(given.name, given.columns))
        runs.add(0 if rows == BATCH or not values.ndim else len(values) // int(rows))
    if len(runs) > 1 and max(runs) > 1:
        raise InputError(
            "the samples of the inputs are of different numbers of runs",
            cause="the model fixes how many rows it takes",
            remedy="give as many runs of each input",
        )


def _require_numbers(given: GraphInput, values: np.ndarray, missing: tuple[int, ...]) -> None:
    """Raise InputError if samples are infinite somewhere, or miss a number in a column that may not."""
    wild = ~np.isfinite(values)
    if missing:
        wild[..., [*missing]] &= ~np.isnan(values[..., [*missing]])
    if wild.any():
        raise InputError(
            f"the samples of input {given.name!r} hold NaN or infinity in column {np.argwhere(wild)[0][-1]}",
            cause="nothing can be bounded by them; NaN may stand in columns that only an Imputer of NaN or trees read",
            remedy="leave those rows out, or fill the numbers in",
        )


def _require_known(named: Iterable[str], known: list[str], what: str) -> None:
    for name in named:
        if name not in known:
            raise ModelError(f"the model has no {what} {name!r}", remedy=f"its {what}s are {', '.join(known)}")
