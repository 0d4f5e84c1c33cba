"""From a graph to a verified plan: passes, units of columns, bounds that are proved or follow from samples.

Nothing here knows how a model is stored; whatever makes a graph with declared ranges can be compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.calibrate import MARGIN, bounded_by
from mpc.compiler.graph.columns import separate_columns
from mpc.compiler.graph.graph import Graph, GraphInput
from mpc.compiler.graph.levels import join_levels
from mpc.compiler.graph.noising import Noising, with_noise
from mpc.compiler.graph.passes import run_passes
from mpc.compiler.lowering.lower import Lowered, lower
from mpc.compiler.operators.missing import with_marks
from mpc.compiler.rehearsal.rehearse import Rehearsal
from mpc.compiler.roles import Roles
from mpc.compiler.threads import on_one_thread
from mpc.errors import InputError, ModelError
from mpc.fixedpoint import column_of
from mpc.plan.ends import PlanOutput
from mpc.plan.plan import Plan
from mpc.privacy.facts import StoredFacts
from mpc.wires import BATCH

PRECISE = 1e-3
"""An expected error up to this, in the model's units, is none to speak of."""
MISTAKEN = 1e-2
"""Bounds the expected share of labels or whole numbers that rounding changes, above which a note says so."""
CALIBRATED = (
    f"bounds rest on the samples, with a margin of {MARGIN:g}, where none is proved: "
    "data much unlike them can give a wrong answer"
)
"""Says that a plan's bounds are no proof."""
_LONGEST_NAME = 200


def compile_graph(
    graph: Graph,
    roles: Roles | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
    noising: Noising | None = None,
) -> Lowered:
    """Compile a graph.

    Args:
        graph: its inputs all have ranges.
        samples: data by input name, as `compile_model` has them.
        noising: what is asked of noise, of a graph with sums over rows.

    Raises:
        ModelError: there is no input, a name is too long, or a node or a bound is refused.
        InputError: the samples do not fit the inputs.
    """
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
    _require_known(roles.owners, [given.name for given in graph.inputs if given.of == given.name], "input")
    _require_known(roles.readers, [out.name for out in graph.outputs], "output")
    _require_known(roles.keeps, [out.name for out in graph.outputs], "output")
    _check_samples(graph.inputs, samples or {})
    with on_one_thread():
        noising = noising or Noising({})
        protected = noising.protected(graph)
        graph = with_noise(graph, noising)  # each step lets go of the graph before it, whose weights are as large
        if roles.public_weights:
            graph = join_levels(graph, bool(noising.epsilon))
        graph = improved(graph)
        entered = None if samples is None else with_marks(graph.inputs, dict(samples))
        return _bounded(graph, roles, entered, protected, samples)


def improved(graph: Graph) -> Graph:
    """Return a graph that computes equal values for less, its inputs in units of their columns."""
    return separate_columns(run_passes(graph))


def imprecision(plan: Plan, errors: Mapping[str, float]) -> float:
    """Return the largest of the outputs' errors, in units of what is none to speak of."""
    return max((errors.get(out.name, 0.0) / (PRECISE if is_real(out) else MISTAKEN) for out in plan.outputs), default=0)


def is_real(out: PlanOutput) -> bool:
    """Tell whether an output holds real numbers, not labels or whole ones."""
    return out.dtype.startswith("float")


def _bounded(
    graph: Graph,
    roles: Roles,
    samples: Mapping[str, np.ndarray] | None,
    protected: Mapping[str, StoredFacts],
    entered: Mapping[str, np.ndarray] | None,
) -> Lowered:
    """By proved bounds; where there are none, or they leave too few digits, by the samples'.

    Args:
        entered: the samples as a rehearsal takes them.
    """
    if samples is None:
        return lower(graph, roles, protected)
    try:
        proved = lower(graph, roles, protected)
        error = imprecision(proved.plan, proved.rough)
    except ModelError:
        proved, error = None, np.inf
    if proved is None or error > 1:
        calibrated = lower(bounded_by(graph, samples), roles, protected)
        rough = imprecision(calibrated.plan, calibrated.rough)
        if proved is None or 2 * rough < error or _is_finer(calibrated, proved, entered):
            return replace(calibrated, notes=[*calibrated.notes, CALIBRATED], proved=False)
    return proved


def _is_finer(calibrated: Lowered, proved: Lowered, samples: Mapping[str, np.ndarray] | None) -> bool:
    """Tell by rehearsals whether proved bounds leave too few digits, and others twice as many.

    Rough errors, added up as if nothing were ever smaller than its bound, may be beyond all that a value can be.
    """
    kept = _rehearsed(proved, samples)
    return kept > 1 and 2 * _rehearsed(replace(calibrated, proved=False), samples) < kept


def _rehearsed(found: Lowered, samples: Mapping[str, np.ndarray] | None) -> float:
    rehearsal = Rehearsal(
        found.graph, found.plan, found.weights, found.wires, samples, found.origins, proved=found.proved
    )
    return imprecision(found.plan, {name: each.error for name, each in rehearsal.expected.items()})


def _check_samples(inputs: list[GraphInput], samples: Mapping[str, np.ndarray]) -> None:
    """Raise InputError if samples do not have their input's shape, but for how many rows: of one run or several."""
    runs: set[float] = set()
    missing = {given.of: given.columns for given in inputs if given.of != given.name}
    for given in inputs:
        values = samples.get(given.name)
        if values is None or given.of != given.name:
            continue
        shape = given.given
        rows, *rest = (*shape, 1)[: max(1, len(shape))]
        fits = values.ndim == len(shape) and (not shape or values.shape[1:] == tuple(rest))
        whole = rows == BATCH or not values.ndim or len(values) % int(rows) == 0
        if not (fits and whole):
            shown = ", ".join("rows" if size == BATCH else str(size) for size in shape)
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
        missing_one = bool(np.isnan(values[wild]).any())
        raise InputError(
            f"the samples of input {given.name!r} hold {'NaN' if missing_one else 'infinity'} in "
            f"{column_of(wild & np.isnan(values) if missing_one else wild)}",
            cause="nothing can be bounded by them"
            + ("; NaN may stand in columns that only an Imputer of NaN or trees read" if missing_one else ""),
            remedy="leave those rows out, or "
            + ("fill the numbers in" if missing_one else "cut them to a number that is large enough (numpy.clip)"),
        )


def _require_known(named: Iterable[str], known: list[str], what: str) -> None:
    for name in named:
        if name not in known:
            raise ModelError(f"the model has no {what} {name!r}", remedy=f"its {what}s are {', '.join(known)}")
