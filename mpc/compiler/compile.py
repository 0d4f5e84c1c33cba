"""The compiler's front door: a model in, a verified plan and its owner's weights out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from mpc.compiler.arguments import as_ranges, as_samples, as_shapes
from mpc.compiler.from_graph import MISTAKEN, PRECISE, compile_graph, imprecision, improved
from mpc.compiler.graph.calibrate import suited_ranges
from mpc.compiler.graph.graph import Graph, Origin, Range
from mpc.compiler.graph.hidden import Floor
from mpc.compiler.graph.noising import Noising, with_noise
from mpc.compiler.graph.states import State, with_states
from mpc.compiler.graph.stored import StoredInput, described
from mpc.compiler.graph.telling import Change, require_untold
from mpc.compiler.lowering.ends import INDISTINCT
from mpc.compiler.onnx.declared import own_sizes
from mpc.compiler.onnx.load import Source, load_model
from mpc.compiler.onnx.metadata import ModelMeta, read_meta
from mpc.compiler.onnx.signature import Shapes, input_types
from mpc.compiler.onnx.split import declared_secret
from mpc.compiler.onnx.walk import import_model
from mpc.compiler.operators.maxima import below
from mpc.compiler.rehearsal.rehearse import Rehearsal
from mpc.compiler.rehearsal.tally import LOST, RARE, Expected
from mpc.compiler.roles import Roles
from mpc.errors import ModelError, UsageError
from mpc.gates.open import Open
from mpc.plan.plan import Plan
from mpc.privacy.facts import Guarantee

DEFAULT_RANGE = (-32.0, 32.0)
_DROWNED = 4
"""An error that so many times is below an output's noise is none to speak of."""
_QUICK_GATES, _QUICK_WEIGHTS = 256, 1 << 20
"""Gates, and numbers of the weights, up to which a model is compiled in a fraction of a second."""
_OFTEN = 0.05
"""The part of answers from which what rounding changes is no matter of rows near a threshold."""
_OWN = (
    "where a model compares a value with its own maximum, ReLU or absolute value, rounding decides: ArgMax, the "
    "indices of TopK and Hardmax find such places exactly"
)
Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Args:
        plan: public; what the parties agree on.
        weights: int64 integers of each weight wire; the model owner's secret.
        origins: the model's node for each gate.
        rehearsal: what each output is expected to be off by, once somebody asks.
        rough: output -> the sum of its roundings as if they were independent, in the model's units: which of several
            plans is taken hangs on it, and nothing else.
        undeclared: inputs that took the default range.
        notes: what the owner should know, such as a denominator that could be zero.
        meta: what the model's file says about itself.
        guarantee: what every party will prove of its noise, if there is any.
        again: compiles the model anew with other ranges of the inputs that it is given, all else as it was; None of a
            model that is too large to do so in passing.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    origins: dict[str, Origin]
    rehearsal: Rehearsal = field(repr=False)
    rough: dict[str, float] = field(default_factory=dict, repr=False)
    undeclared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    meta: ModelMeta = field(default=ModelMeta(), repr=False)
    guarantee: Guarantee | None = None
    again: Callable[[Ranges], Compiled] | None = field(default=None, repr=False, compare=False)

    @property
    def errors(self) -> dict[str, float]:
        """Map each output to its expected error.

        That is the root mean square, in the model's units, where values are no larger than they usually are, of inputs
        spread over their ranges, moving together, small or of one sign, or of the samples.  Of labels and whole numbers
        it is the part that is expected to differ.  The first call rehearses the plan.
        """
        return {name: each.error for name, each in self.rehearsal.expected.items()}

    @property
    def deviations(self) -> dict[str, float]:
        """Map each output that is a noised sum to the standard deviation of its noise, in the model's units."""
        opened = {gate.out: gate.x for gate in self.plan.gates if isinstance(gate, Open)}
        vectors = () if self.guarantee is None else self.guarantee.vectors
        variance = {vector.wire: float(vector.variance) for vector in vectors}
        return {
            out.name: variance[wire] ** 0.5 / float(self.plan.wire[out.wire].scale)
            for out in self.plan.outputs
            if (wire := opened.get(out.wire)) in variance
        }

    @property
    def messages(self) -> list[str]:
        """List what its user should be told: notes, errors that matter, and what was assumed."""
        low, high = DEFAULT_RANGE
        assumed = [
            f"no range is declared for input {name!r}; {low:g}:{high:g} is taken (--range {name}=LOW:HIGH, in Python "
            f"ranges={{{name!r}: (low, high)}}, declares one)"
            for name in self.undeclared
        ]
        expected = self.rehearsal.expected
        noise = self.deviations
        names = [out.name for out in self.plan.outputs]
        told = [name for name in names if not noise.get(name) or _DROWNED * expected[name].error > noise[name]]
        limited = [text for name in told if (text := _limited(name, expected[name]))]
        return [*self.notes, *self.rehearsal.notes, *limited, *assumed]

    @property
    def imprecision(self) -> float:
        """The largest rough error; up to 1 is none to speak of."""
        return imprecision(self.plan, self.rough)


def _percent(part: float) -> str:
    return f"{float(f'{100 * part:.1g}'):g} %"


def _limited(name: str, expected: Expected) -> str | None:
    """Word what is told of an output whose expected error matters."""
    remedy = "narrower input ranges, or one a column, make it more precise"
    if expected.whole:
        if expected.error <= MISTAKEN:
            return None
        often = f"; {_OWN}" if expected.error > _OFTEN else ""
        return f"fixed point is expected to change {_percent(expected.error)} of output {name!r}; {remedy}{often}"
    rare = _rare(expected)
    if expected.tiny > PRECISE * min(1.0, expected.size):
        tiny = (
            f"of inputs that are all very small beside their ranges it is off by about {expected.tiny:.1g}, a large "
            "part of its own small values"
        )
        return _odd(name, expected.error, f"{tiny}, and {rare}" if rare else tiny, remedy)
    lost = expected.smooth > expected.size / LOST > 0
    if expected.error <= PRECISE and not lost:
        if not rare:
            return None
        return _odd(name, expected.error, rare, remedy)
    said = f"fixed point limits output {name!r} to an expected error of {expected.error:.1g}"
    if expected.jumps > expected.smooth and expected.changed > RARE:
        jump = expected.jumps / expected.changed**0.5
        own = f"; {_OWN}" if expected.changed > _OFTEN else ""
        return (
            f"{said}: it jumps where comparisons in the model come out otherwise, by about {jump:.1g}, which rounding "
            f"does in {_percent(expected.changed)} of the rows; for rows that lie just on a threshold, as data that "
            f"the model was trained on may, it cannot be estimated; {remedy}{own}"
        )
    if lost:
        said += f", which leaves hardly a digit of values that are typically {expected.size:.2g}"
    return f"{said}{f', in odd rows more: {rare}' if rare else ''}; {remedy}"


def _odd(name: str, error: float, rare: str, remedy: str) -> str:
    """Word that ordinary rows are as exact as somebody wants them, and which others are not."""
    return (
        f"output {name!r} has an expected error of {error:.1g} in ordinary rows; only odd rows lose more: {rare}; data "
        f"without such rows are not affected, and where there are some, {remedy}"
    )


def _rare(expected: Expected) -> str:
    """Word what is told of rows with a tiny number, of equal numbers, and of zeros."""
    texts = []
    if expected.part > PRECISE:
        texts.append(
            f"where one number of a row, as one column of a table, is very small beside its range, it is off by about "
            f"{expected.part:.1g}"
        )
    if expected.alike > PRECISE:
        texts.append(
            f"where the numbers of a row are all equal it is off by about {expected.alike:.1g}, as differences that "
            "should be 0 are rounded"
        )
    if expected.empty > PRECISE:
        texts.append(
            f"where inputs are exactly 0, or some of them, it is off by about {expected.empty:.1g}, as what lies on a "
            "threshold there, or on a divisor that is nearly 0, is rounded"
        )
    return ", and ".join(texts)


def compile_model(
    model: Source,
    ranges: Ranges | Range | None = None,
    roles: Roles | None = None,
    samples: Mapping[str, np.ndarray] | np.ndarray | None = None,
    shapes: Shapes | Sequence[int | str | None] | None = None,
    stored: Mapping[str, StoredInput] | None = None,
    noise: Mapping[str, Fraction | float | str] | Noising | None = None,
    states: Mapping[str, State] | None = None,
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
        stored: by input name, those that lie at the parties: their scales and ranges are what they are.
        noise: epsilon by output: then sums over the rows are possible (ReduceSum over the first axis of what has
            open rows), each with noise of its own, and an output may be made of them.
        states: by output name, what the next run reads it as.  Nobody receives such an output but those that the
            roles name for it.

    Raises:
        ModelError: the file, a node, or a bound is refused; a sum over rows has no epsilon.
        UsageError, InputError: an argument has a form that says nothing.
    """
    loaded = load_model(model)
    types = input_types(loaded)
    known, sizes = as_ranges(ranges, types), as_shapes(shapes, [*types])
    data = None if samples is None else as_samples(samples, types)
    around = {} if data is None else suited_ranges(data)
    assumed = {**dict.fromkeys(types, DEFAULT_RANGE), **around}
    noising = _noising(noise)
    sizes = {**own_sizes(loaded, data or {}), **sizes}
    lying, needing = stored or {}, set[str]()
    given_roles, kept = roles or Roles(), declared_secret(loaded)
    roles = given_roles
    kept = tuple(dict.fromkeys((*roles.secret_weights, *kept)))
    secret = kept if roles.public_weights and kept else None
    if secret is not None:  # each node says of its own weights
        roles = replace(roles, public_weights=False)
    numbers = None if noising.epsilon else {state.input for state in (states or {}).values()}
    undeclared: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    floor, hidden, unhidden, staying = Floor(), *[frozenset[str]()] * 3
    floored: Mapping[str, frozenset[float]] = {}

    def imported(change: Change | None = None) -> Graph:
        nonlocal undeclared, noted, floored, unhidden
        sums = bool(noising.epsilon)
        graph = import_model(
            loaded, known, sizes, assumed, sums, needing, lying, numbers, secret, change, floor=floor, kept=staying
        )
        floored, unhidden = graph.floored, graph.unhidden
        noted, graph.inputs = graph.notes, described(graph.inputs, lying)
        undeclared = tuple(given.name for given in graph.inputs if given.declared is None and given.name not in around)
        graph.inputs = [replace(given, declared=given.declared or assumed[given.name]) for given in graph.inputs]
        return with_states(graph, states or {})

    while True:
        try:
            made = [imported()]  # whoever compiles it lets go of it
            if not floor.is_known:
                hidden, near = frozenset(floored), unhidden
            else:
                near = hidden - floored.keys()  # these numbers are nearer than what would stand for them
            if not near:
                found = compile_graph(made.pop(), roles, data, noising)
                if floor.is_known or not floored:
                    break
                reach = found.reach
                del found  # another one takes its place
                if reach is not None:
                    floor = below(reach, floored.values())
                    continue
                near = hidden
            floor, staying = Floor(), staying | near
        except ModelError as error:
            if error.attribute != INDISTINCT or error.node is None or error.node in needing:
                raise
            needing.add(error.node)  # numbers of its range are too near to what would stand for missing ones
    if secret is not None:
        require_untold(found.graph, lambda change: improved(with_noise(imported(change), noising)))
    rehearsal = Rehearsal(found.graph, found.plan, found.weights, found.wires, data, found.origins, proved=found.proved)
    meta, notes, proved = read_meta(loaded), (*noted, *found.notes), found.guarantee
    again = None
    if len(found.plan.gates) <= _QUICK_GATES and sum(each.size for each in found.weights.values()) <= _QUICK_WEIGHTS:

        def again(others: Ranges) -> Compiled:
            return compile_model(loaded, {**known, **others}, given_roles, samples, shapes, stored, noise, states)

    return Compiled(
        found.plan, found.weights, found.origins, rehearsal, found.rough, undeclared, notes, meta, proved, again
    )


def _noising(noise: Mapping[str, Fraction | float | str] | Noising | None) -> Noising:
    """Return what is asked of noise, an epsilon as it is written: 0.1 is a tenth."""
    if isinstance(noise, Noising):
        return noise
    if noise is not None and not isinstance(noise, Mapping):
        raise UsageError("an epsilon is for an output", remedy="name it, as in noise={'y': 0.5}")
    try:
        return Noising({name: Fraction(str(epsilon)) for name, epsilon in (noise or {}).items()})
    except ValueError:
        raise UsageError("an epsilon is no number", remedy="give numbers, as in noise={'y': 0.5}") from None
