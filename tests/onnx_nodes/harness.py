"""onnx's own node tests against this backend: one test in, one outcome out.

A node test is a model of one operator (or of its function body: `*_expanded`) with inputs and expected outputs.
Each runs with as many secret inputs as the compiler accepts; the others become constants of the model.
"""

from __future__ import annotations

import json
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from mpc.compiler.compile import Ranges, compile_model
from mpc.errors import MpcError, PlanError
from mpc.interpret.world import World
from mpc.prg import Seed
from parties.client.cluster import check_feeds, read_output
from parties.client.running.feeds import to_integers

TABLE = Path(__file__).with_name("table.json")
PARTIES = 2
TOLERANCE = 2e-3
"""Floats: |got - want| <= TOLERANCE max(1, max |want|). Integers, bools and strings: equal."""
MARGIN, LEAST_MARGIN = 0.05, 0.1
"""A declared range is wider than the data by 5 % of their spread on each side, and by 0.1 at least."""
WALLS = {"Acos": (-1.0, 1.0), "Acosh": (1.0,), "Asin": (-1.0, 1.0), "Atanh": (-1.0, 1.0)}
"""Ends of what an operator is defined on, where that is not all numbers: no margin reaches beyond."""
STRUCTURE = {"depth", "ratio", "roi", "scales"}
"""Formal names of inputs that may be floats and yet are no data."""
_WHOLE = {number for name, number in TensorProto.DataType.items() if name.startswith(("INT", "UINT", "BOOL"))}
_LONGEST_REASON = 200

Feeds = dict[str, Any]
Secret = tuple[str, ...]
Run = Callable[[Path, Ranges, Feeds], Feeds]
"""(model, ranges, feeds) -> outputs by name."""


@dataclass(frozen=True)
class NodeTest:
    """One test.

    Args:
        operator: with its domain, unless that is ONNX's own; of an expanded test, the one that was expanded.
        node: that operator's node.
        opsets: domain -> version, of the model that has this node.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    node: onnx.NodeProto
    opsets: Mapping[str, int]
    inputs: Feeds
    outputs: Feeds


@dataclass(frozen=True)
class Outcome:
    """What came of one test.

    Args:
        status: passed, refused (by an error that blames model, plan or input) or failed (anything else).
        secret: the inputs that were secret; if no choice of them was accepted, those of the last one.
        reason: why it was refused or failed, in one line that reads the same on every machine.
        error: the end of the traceback, if an exception made it fail.
    """

    name: str
    operator: str
    status: str
    secret: Secret
    reason: str = ""
    error: str = ""


# --------------------------------------------------------------------------------- tests


@cache
def node_tests() -> dict[str, NodeTest]:
    """All node tests of the installed onnx, by name; their data are the same in every process."""
    state = np.random.get_state()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    np.random.set_state(state)
    models = {case.name: case.model for case in cases}
    return {case.name: _node_test(case, models) for case in sorted(cases, key=lambda case: case.name)}


def _node_test(case: Any, models: Mapping[str, Any]) -> NodeTest:
    plain = models[case.name.rsplit("_expanded", 1)[0]]
    node = plain.graph.node[0]
    [(inputs, outputs)] = case.data_sets
    return NodeTest(
        case.name,
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        case.model,
        node,
        {entry.domain: entry.version for entry in plain.opset_import},
        _named(case.model.graph.input, inputs),
        _named(case.model.graph.output, outputs),
    )


def _named(described: Iterable[onnx.ValueInfoProto], values: Iterable[Any]) -> Feeds:
    return {value.name: _array(given) for value, given in zip(described, values, strict=True)}


def _array(given: Any) -> Any:
    """A tensor as an array; sequences and optionals as they are."""
    if isinstance(given, TensorProto):
        return numpy_helper.to_array(given)
    return np.asarray(given) if isinstance(given, np.ndarray | np.generic) else given


# --------------------------------------------------------------------- what is secret


def choices(test: NodeTest) -> list[Secret]:
    """Sets of inputs that may be secret together, the largest first.

    All data inputs; then without the last one, without the last two, ... until only the first is left; and in between,
    if they are several, those of the output's type: Where's two branches without its condition.
    """
    roles = list(_roles(test))
    data = tuple(name for name, _ in roles)
    alike = tuple(name for name, like_output in roles if like_output)
    found = [data, *(data[:count] for count in range(len(data) - 1, 0, -1)), *([alike] if len(alike) > 1 else [])]
    return sorted(dict.fromkeys(found), key=len, reverse=True)


def _roles(test: NodeTest) -> Iterator[tuple[str, bool]]:
    """(name, has it the output's type?) of each data input.

    What is not data is structure: integers and bools that are neither the first input nor of the type of the first
    input or output - axes, shapes, indices, pads, a number of repeats - and what `STRUCTURE` names.
    """
    schema = onnx.defs.get_schema(test.node.op_type, test.opsets[test.node.domain], domain=test.node.domain)
    computed = {_type_variable(formal) for formal in (*schema.inputs[:1], *schema.outputs[:1])} - {""}
    written = _type_variable(schema.outputs[0]) if schema.outputs else ""
    for index, given in enumerate(test.model.graph.input):
        formal = schema.inputs[min(list(test.node.input).index(given.name), len(schema.inputs) - 1)]
        variable = _type_variable(formal)
        computes = given.type.tensor_type.elem_type not in _WHOLE or variable in computed
        if index == 0 or (computes and formal.name not in STRUCTURE):
            yield given.name, variable == written != ""


def _type_variable(formal: Any) -> str:
    """The variable, such as T, that an operator's schema has for the type of an input or output; empty if none."""
    return "" if "(" in formal.type_str else formal.type_str


def bind(model: onnx.ModelProto, constants: Mapping[str, Any]) -> onnx.ModelProto:
    """The model with these inputs as initializers; what is not a tensor stays an input."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    fixed = {name: value for name, value in constants.items() if isinstance(value, np.ndarray)}
    kept = [given for given in model.graph.input if given.name not in fixed]
    del bound.graph.input[:]
    bound.graph.input.extend(kept)
    bound.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in fixed.items())
    bound.ir_version = max(bound.ir_version, 4)  # before, an initializer was an input as well
    return bound


def calibrated(values: Any, walls: Iterable[float] = ()) -> tuple[float, float] | None:
    """The range to declare for data: theirs with a margin that crosses neither zero nor a wall by itself."""
    try:
        reals = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    finite = reals[np.isfinite(reals)]
    if not finite.size:
        return None
    if np.asarray(values).dtype == bool:
        return 0.0, 1.0
    least, most = float(finite.min()), float(finite.max())
    margin = max(MARGIN * (most - least), LEAST_MARGIN)
    low, high = least - margin, most + margin
    for wall in (0.0, *walls):
        if low < wall <= least:
            low = (least + wall) / 2
        elif most <= wall < high:
            high = (most + wall) / 2
    kind = np.asarray(values).dtype
    if kind.kind in "iu":  # no input has numbers beyond its type
        low, high = max(low, float(np.iinfo(kind).min)), min(high, float(np.iinfo(kind).max))
    return low, high


# ------------------------------------------------------------------------------- one run


def run_test(test: NodeTest, run: Run | None = None) -> Outcome:
    """The outcome with the first choice of secret inputs that is not refused."""
    for secret in choices(test):
        outcome = run_with(test, secret, run or in_world)
        if outcome.status != "refused":
            break
    return outcome


OTHERWISE = frozenset({"test_resize_downsample_scales_linear_align_corners"})
"""Tests that expect other outputs than those of onnxruntime, which is what models are run with: it places the corners
of an axis that scales make 2.4 elements long as if it had 2."""


BY_A_TIE = frozenset({"test_dynamicquantizelinear"})
"""Tests with a whole number that lies half way between two, but for how float32 rounds a scale that is computed: either
is right."""


def _wanted(test: NodeTest) -> Feeds:
    """The outputs that are right: the test's own, or onnxruntime's where that disagrees."""
    if test.name not in OTHERWISE:
        return test.outputs
    session = onnxruntime.InferenceSession(test.model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip(test.outputs, session.run(list(test.outputs), dict(test.inputs)), strict=True))
    if not difference(found, test.outputs):
        raise ValueError(f"onnxruntime agrees with {test.name}")
    return found


def run_with(test: NodeTest, secret: Secret, run: Run) -> Outcome:
    """The outcome with these inputs secret."""
    with tempfile.TemporaryDirectory(prefix="mpc-node-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            path.write_bytes(bind(test.model, _without(test.inputs, secret)).SerializeToString())
            feeds = {name: value for name, value in test.inputs.items() if name in secret}
            limits = {name: calibrated(value, WALLS.get(test.operator, ())) for name, value in feeds.items()}
            got = run(path, {name: ends for name, ends in limits.items() if ends is not None}, feeds)
            problem = difference(got, _wanted(test), int(test.name in BY_A_TIE))
        except MpcError as error:
            if error.exit_code == PlanError.exit_code:
                return Outcome(test.name, test.operator, "refused", secret, _line(error.what, path))
            return _failed(test, secret, error, path)
        except Exception as error:  # a crash of the compiler or the runtime is what this looks for
            return _failed(test, secret, error, path)
    return Outcome(test.name, test.operator, "failed" if problem else "passed", secret, problem)


def in_world(path: Path, ranges: Ranges, feeds: Feeds) -> Feeds:
    """Compile, and run in the in-memory world."""
    compiled = compile_model(path, ranges)
    plan = compiled.plan
    batch = check_feeds(plan, feeds)
    integers = to_integers(plan, feeds, list(feeds))
    opened = World(plan, compiled.weights, PARTIES, Seed(bytes(32))).run(integers, batch).outputs
    bound = plan.bind(batch)
    return {out.name: read_output(out, bound, opened[out.wire]) for out in bound.outputs}


def _without(inputs: Feeds, secret: Secret) -> Feeds:
    return {name: value for name, value in inputs.items() if name not in secret}


def _failed(test: NodeTest, secret: Secret, error: Exception, path: Path) -> Outcome:
    reason = _line(f"{type(error).__name__}: {error}", path)
    return Outcome(test.name, test.operator, "failed", secret, reason, "".join(traceback.format_exception(error)[-5:]))


def _line(text: str, path: Path) -> str:
    """The first line, without what differs from machine to machine."""
    line = text.strip().split("\n", 1)[0].replace(str(path), "the model")
    return re.sub(r"0x[0-9a-f]+", "0x..", line)[:_LONGEST_REASON]


# ---------------------------------------------------------------------------- comparing


def difference(got: Feeds, want: Feeds, units: int = 0) -> str:
    """What is wrong with the outputs, in one line; empty if nothing is.  Whole numbers may be so many units apart."""
    for name, expected in want.items():
        if name not in got:
            return f"output {name!r} is missing"
        problem = _differs(got[name], expected, units)
        if problem:
            return f"output {name!r} {problem}"
    return ""


def _differs(got: Any, want: Any, units: int) -> str:
    if not isinstance(want, np.ndarray):
        return f"should be a {type(want).__name__}, which is not compared"
    if not isinstance(got, np.ndarray):
        return f"is a {type(got).__name__}, not an array"
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        return f"is {got.dtype}{list(got.shape)}, not {want.dtype}{list(want.shape)}"
    if want.dtype.kind in "biuOUS":
        near = units and want.dtype.kind in "iu"
        wrong = int((np.abs(got.astype(np.int64) - want.astype(np.int64)) > units if near else got != want).sum())
        return f"has {wrong} of {want.size} values wrong" if wrong else ""
    ours, theirs = got.astype(np.float64), want.astype(np.float64)
    if not np.isfinite(theirs).all():
        return "should have infinities or NaNs"
    worst = float(np.abs(ours - theirs).max(initial=0))
    allowed = TOLERANCE * max(1.0, float(np.abs(theirs).max(initial=0)))
    return "" if worst <= allowed else f"is off by {worst:.3g} where {allowed:.3g} is allowed"


# -------------------------------------------------------------------------------- table


def write_table(outcomes: Iterable[Outcome], path: Path = TABLE) -> None:
    """The checked-in table: sorted by name, one line a test."""
    rows = [
        f"{json.dumps(o.name)}: {json.dumps([o.operator, o.status, list(o.secret), o.reason])}"
        for o in sorted(outcomes, key=lambda o: o.name)
    ]
    path.write_text(f'{{"onnx": {json.dumps(onnx.__version__)}, "tests": {{\n' + ",\n".join(rows) + "\n}}\n")


def read_table(path: Path = TABLE) -> tuple[str, dict[str, Outcome]]:
    """(version of onnx, outcome by name)."""
    table = json.loads(path.read_text())
    rows = table["tests"].items()
    return table["onnx"], {n: Outcome(n, op, status, tuple(secret), why) for n, (op, status, secret, why) in rows}
