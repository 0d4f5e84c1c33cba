"""What the wire shows depends on the plan alone: sizes, order, rounds; and opened values are uniform."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mpc import field as fp
from mpc import tables
from mpc.field import P
from mpc.gates.base import Gate, Opening
from mpc.gates.between import Between
from mpc.gates.bound import Bound
from mpc.gates.convolution import Convolution
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.linear import Combine
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Reshape
from mpc.gates.multiply import Multiply
from mpc.gates.pieces import Pieces
from mpc.gates.relu import Relu
from mpc.gates.select import Select
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.plan.plan import Plan
from mpc.windows import Windows
from mpc.wires import Masking, Wire
from tests.support.plans import Builder, wire
from tests.support.statistics import assert_uniform, assert_uniform_words, chi_square
from tests.support.vectors import every_gate
from tests.support.worlds import OpeningKey, make_world, openings

B = "batch"
ROWS = 2000
Opened = dict[OpeningKey, tuple[Opening, np.ndarray]]


def plan_of(kind: str) -> Plan:
    b, f = Builder(), Fraction(1 << 8)
    b.enter("w", (4, 4), 12, session=True)
    b.enter("x", (B, 4), 30, f)
    wave = {"window": 30, "constant": 3, "cosines": (5, -2), "sines": (1, 9), "dealt_bits": 20}
    table = tables.sincos_digest()
    clamp = Clamp(low=-(1 << 20), high=1 << 21, below=0, above=1 << 30, shift=8)
    derived, inherited = {"masking": Masking.DERIVED}, {"masking": Masking.INHERITED}
    x = "x"
    if kind.startswith("convolution") or kind == "matmul, secret":
        x = "grid"
        b.gate(Reshape(name="r", x="x", out="grid"), wire("grid", (B, 2, 2), 30, f, **inherited))
    if kind.startswith("convolution"):
        b.enter("k", (2, 1, 2), 12, session=True)
    if kind == "convolution, secret":
        b.gate(Combine(name="s", xs=(), factors=(), stored="k", out="y"), wire("y", (2, 1, 2), 12, **inherited))
    slide = {"windows": Windows(kernel=(2,), strides=(1,), dilations=(1,), pads=((1, 0),), groups=2)}
    at_once, ones = {"at_once": True}, wire("z", (B, 4, 2), 1)
    made: dict[str, tuple[Gate, Wire]] = {
        "matmul": (Matmul(name="g", x="x", weight="w", out="z"), wire("z", (B, 4), 50, f)),
        "matmul, derived": (Matmul(name="g", x="x", weight="w", out="z"), wire("z", (B, 4), 50, f, **derived)),
        "matmul, secret": (Matmul(name="g", x=x, y=x, out="z"), wire("z", (B, 2, 2), 59, f * f)),
        "convolution": (Convolution(name="g", x=x, weight="k", out="z", **slide), wire("z", (B, 2, 2), 50, f)),
        "convolution, derived": (
            Convolution(name="g", x=x, weight="k", out="z", **slide),
            wire("z", (B, 2, 2), 50, f, **derived),
        ),
        "convolution, secret": (Convolution(name="g", x=x, y="y", out="z", **slide), wire("z", (B, 2, 2), 50, f)),
        "multiply": (Multiply(name="g", x="x", y="x", out="z"), wire("z", (B, 4), 59, f * f)),
        "truncate": (Truncate(name="g", x="x", out="z", shift=8), wire("z", (B, 4), 23)),
        "relu": (Relu(name="g", x="x", out="z", shift=8), wire("z", (B, 4), 23)),
        "bound": (Bound(name="g", x="x", out="z", width=12, shift=8), wire("z", (B, 4), 23)),
        "fourier": (Fourier(name="g", x="x", out="z", table=table, **wave), wire("z", (B, 4), 50)),
        "fourier, clamped": (
            Fourier(name="g", x="x", out="z", table=table, clamp=clamp, **wave),
            wire("z", (B, 4), 50),
        ),
        "fourier, one end": (
            Fourier(name="g", x="x", out="z", table=table, clamp=clamp.model_copy(update={"low": None}), **wave),
            wire("z", (B, 4), 50),
        ),
        "maximum": (Maximum(name="g", x="x", value="z", shift=8), wire("z", (B, 1), 23)),
        "maximum, rectified": (Maximum(name="g", x="x", value="z", shift=8, rectify=True), wire("z", (B, 1), 23)),
        "relu, at once": (Relu(name="g", x="x", out="z", shift=8, ceiling=1 << 12, **at_once), wire("z", (B, 4), 23)),
        "maximum, at once": (Maximum(name="g", x="x", value="z", shift=8, **at_once), wire("z", (B, 1), 23)),
        "step, at once": (Step(name="g", x="x", levels=(0, 1 << 20), shift=8, out="z", **at_once), ones),
        "fourier, at once": (
            Fourier(name="g", x="x", out="z", table=table, clamp=clamp, **at_once, **wave),
            wire("z", (B, 4), 50),
        ),
        "relu, ceiling": (Relu(name="g", x="x", out="z", shift=8, ceiling=1 << 12), wire("z", (B, 4), 23)),
        "pieces": (
            Pieces(name="g", xs=("f", "x"), bits=("d", "e"), shifts=(16, 8), out="z"),
            wire("z", (B, 4), 50),
        ),
        "select": (Select(name="g", x="x", bit="d", shift=8, out="z"), wire("z", (B, 4), 23)),
        "select, window": (Select(name="g", x="x", bit="d", shift=8, out="z"), wire("z", (B, 4), 23)),
        "step": (Step(name="g", x="x", levels=(0, 1 << 20), shift=8, out="z"), ones),
    }
    flipped = wire("d", (B, 4), 1, masking=Masking.FLIPPED)
    if kind == "select":
        b.gate(Relu(name="r", x="x", out="h", bit="d", shift=8), wire("h", (B, 4), 23), flipped)
    if kind == "select, window":
        b.gate(Maximum(name="r", x="x", value="h", bit="d", shift=8), wire("h", (B, 1), 23), flipped)
    if kind == "pieces":
        bits = [wire(name, (B, 4), 1, masking=Masking.FLIPPED) for name in ("d", "e")]
        b.gate(Between(name="b", x="x", bits=("d", "e"), levels=(-(1 << 20), 1 << 21), shift=8), *bits)
        b.gate(Fourier(name="f", x="x", out="f", table=table, **wave), wire("f", (B, 4), 50, Fraction(1 << 16)))
    gate, out = made[kind]
    b.gate(gate, out)
    if out.masking is Masking.DERIVED:
        b.gate(Truncate(name="t", x="z", out="t", shift=0), wire("t", out.shape, 51, f))
    b.output(b.wires[-1].name)
    return b.build()


KINDS = ["matmul", "matmul, derived", "matmul, secret", "convolution", "convolution, derived", "convolution, secret",
         "multiply", "truncate", "relu", "bound", "fourier", "fourier, clamped", "fourier, one end", "maximum",
         "maximum, rectified", "pieces", "relu, ceiling", "relu, at once", "maximum, at once", "step, at once",
         "fourier, at once", "select", "select, window", "step"]  # fmt: skip
SQUARES = {"multiply", "matmul, secret"}
# how far results of two runs lie apart: a truncation's coin; a series' integer factors, rounded at other points
ROUNDING = {
    "truncate": 1,
    "relu": 1,
    "relu, ceiling": 1,
    "relu, at once": 1,
    "maximum, at once": 1,
    "fourier, at once": 1 << 23,
    "pieces": 1 << 8,
    "select": 1,
    "select, window": 1,
    "bound": 1,
    "maximum": 1,
    "maximum, rectified": 1,
    "matmul, derived": 1,
    "convolution, derived": 1,
    "fourier": 1 << 23,
    "fourier, clamped": 1 << 23,
    "fourier, one end": 1 << 23,
}
WEIGHTS = {
    "w": np.random.default_rng(0).integers(-4000, 4000, (4, 4)),
    "k": np.random.default_rng(1).integers(-4000, 4000, (2, 1, 2)),
}
# the same secret in every row, so that only masks make rows differ: zero, ties, extremes of either sign
SECRETS = {
    "zero": [0, 0, 0, 0],
    "largest": [(1 << 30) - 257] * 4,
    "smallest": [257 - (1 << 30)] * 4,
    "mixed": [(1 << 30) - 257, 257 - (1 << 30), 1 << 8, -1],
}


def opened(kind: str, row: list[int], number: int = 1, rows: int = ROWS) -> Opened:
    plan = plan_of(kind)
    inputs = {"x": np.tile(np.array([v >> 2 for v in row] if kind in SQUARES else row), (rows, 1))}
    world = make_world(plan, WEIGHTS, 3, number)
    return openings(plan.bind(rows), world.run(inputs, rows))


# ------------------------------------------------------------------ uniform


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secret", SECRETS)
def test_opened_values_are_uniform_whatever_the_secret(kind: str, secret: str) -> None:
    found = opened(kind, SECRETS[secret])
    assert found
    for key, (opening, values) in found.items():
        columns = by_row(kind, opening, values)
        for number, column in enumerate(columns.T):
            assert_uniform(np.ascontiguousarray(column), opening.width, f"{key}, column {number}")
        assert_uniform(values, opening.width, str(key))


# bits of c = x^ + 2^k whose carries a masked comparison could betray: around the shift, the sign, the top
C_BITS = {
    "relu": (30, (0, 7, 29, 30, 59)),
    "relu, ceiling": (30, (0, 7, 29, 30, 59)),
    "select": (30, (0, 7, 29, 30, 59)),
    "maximum": (30, (0, 7, 29, 30, 59)),
    "maximum, rectified": (30, (0, 7, 29, 30, 59)),
    "step": (32, (0, 7, 20, 31, 32, 59)),
    "bound": (30, (0, 7, 19, 20, 59)),
    "pieces": (32, (0, 7, 20, 31, 32, 59)),
    "fourier, clamped": (32, (0, 7, 20, 31, 32, 59)),
    "relu, at once": (30, (0, 7, 29, 30, 59)),
    "maximum, at once": (30, (0, 7, 29, 30, 59)),
    "step, at once": (32, (0, 7, 20, 31, 32, 59)),
    "fourier, at once": (32, (0, 7, 20, 31, 32, 59)),
    "fourier, one end": (32, (0, 7, 20, 31, 32, 59)),
}


@pytest.mark.parametrize("kind", list(C_BITS))
@pytest.mark.parametrize("secret", SECRETS)
def test_openings_of_one_element_are_independent(kind: str, secret: str) -> None:
    """A few bits of each of two openings, together: neither says anything about the other, nor about x^."""
    plan, rows = plan_of(kind), 4 * ROWS if kind.endswith("at once") else ROWS  # more pairs are looked at in those
    run = make_world(plan, WEIGHTS, 3).run({"x": np.tile(np.array(SECRETS[secret]), (rows, 1))}, rows)
    shown: dict[str, np.ndarray] = {}
    for (_, _, name), (opening, values) in openings(plan.bind(rows), run).items():
        columns = by_row(kind, opening, values, rows)
        step = 1 if opening.width else 59
        for low in range(0, max(1, (opening.width or 61) - 1), step):
            bits = columns[:, 0].astype(np.uint64) >> np.uint64(low)
            if opening.width == 1 and columns.shape[1] > 1:
                bits = bits * np.uint64(2) + columns[:, 1]
            shown[f"{name} from bit {low}"] = (bits & np.uint64(3)).astype(np.int64)
    bits, positions = C_BITS[kind]
    c = fp.add_int(run.public["x"][:, 0], 1 << bits)
    shown |= {f"c from bit {low}": (c >> np.uint64(low) & np.uint64(3)).astype(np.int64) for low in positions}
    names = list(shown)
    for i, first in enumerate(names):
        for second in names[:i]:
            if first.split()[0] == second.split()[0]:
                continue  # one value's own bits are `test_opened_values_are_uniform`
            size = 4 * (1 + int(shown[first].max()))
            counts = np.bincount(shown[first] * 4 + shown[second], minlength=size)
            counts = counts[counts.reshape(-1, 4).any(axis=1).repeat(4)].reshape(-1, 4)
            counts = counts[:, counts.any(axis=0)]
            assert chi_square(counts.reshape(-1)) < 8, f"{first} and {second}"


def by_row(kind: str, opening: Opening, values: np.ndarray, rows: int = ROWS) -> np.ndarray:
    """(rows, values of that row)."""
    if kind.startswith(("maximum", "select, window")) and opening.width:
        return values.reshape(-1, rows).T
    if kind == "step" and opening.width == 1:  # one element's bits at all levels beside each other
        return np.moveaxis(values.reshape(len(values), rows, -1), 0, -1).reshape(rows, -1)
    return values.reshape(rows, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_partys_messages_are_uniform(kind: str) -> None:
    plan = plan_of(kind)
    run = make_world(plan, WEIGHTS, 3).run({"x": np.zeros((ROWS, 4), dtype=np.int64)}, ROWS)
    for payloads in run.payloads:
        for payload in payloads:
            if len(payload) % 8:
                continue
            assert_uniform_words(np.frombuffer(payload, dtype=np.uint8) & np.uint8(15), 4, "a message")


def test_masked_inputs_are_uniform_and_masks_are_not_reused_by_rows() -> None:
    plan = plan_of("relu")
    run = make_world(plan, WEIGHTS, 2).run({"x": np.zeros((ROWS, 4), dtype=np.int64)}, ROWS)
    assert_uniform(run.public["x"], 0, "the masked input")
    for values in run.public.values():
        assert len(np.unique(values)) == values.size


# ------------------------------------------------------------------ fresh every time


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_twice_opens_nothing_twice(kind: str) -> None:
    plan = plan_of(kind)
    world = make_world(plan, WEIGHTS, 3)
    x = {"x": np.random.default_rng(1).integers(-(1 << 28), 1 << 28, (40, 4))}
    first, second = (world.run(x, 40) for _ in range(2))
    for name in first.outputs:
        assert np.abs(first.outputs[name] - second.outputs[name]).max() <= ROUNDING.get(kind, 0)
    for name in first.public:
        if name == "y":  # made of a weight alone, it is masked once a session as the weight is
            assert (first.public[name] == second.public[name]).all()
        elif plan.wire[name].masking is Masking.FLIPPED:  # bits, half of which are equal by chance
            assert 0.25 < (first.public[name] == second.public[name]).mean() < 0.75
        else:
            assert not (first.public[name] == second.public[name]).any(), name
    bound = plan.bind(40)
    one, two = openings(bound, first), openings(bound, second)
    for key, (opening, values) in one.items():
        others = two[key][1]
        if opening.width == 0:
            assert not np.intersect1d(values, others).size, key
        else:
            assert (values != others).any(), key
    assert first.transcripts[0] != second.transcripts[0]
    flat = [payload for run in (first, second) for step in run.payloads for payload in step if len(payload) > 8]
    assert len(set(flat)) == len(flat)


def test_sessions_mask_the_same_weights_differently() -> None:
    plan = plan_of("matmul")
    publics = [make_world(plan, WEIGHTS, 3, number).sessions[0].masked["w"].public for number in (1, 2)]
    assert not np.intersect1d(*publics).size


def test_masked_weights_are_the_same_for_every_run_of_a_session() -> None:
    plan = plan_of("matmul")
    world = make_world(plan, WEIGHTS, 2)
    before = world.sessions[0].masked["w"].public.copy()
    for _ in range(2):
        world.run({"x": np.ones((2, 4), dtype=np.int64)}, 2)
    assert (world.sessions[0].masked["w"].public == before).all()


# ------------------------------------------------------------------ the shape of the traffic


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parties", [2, 3])
def test_traffic_depends_on_shapes_alone(kind: str, parties: int) -> None:
    plan = plan_of(kind)
    traffic = set()
    for secret in SECRETS.values():
        row = [v >> 2 for v in secret] if kind in SQUARES else secret
        run = make_world(plan, WEIGHTS, parties).run({"x": np.tile(np.array(row), (7, 1))}, 7)
        traffic.add((tuple(run.sent), run.dealt, tuple(tuple(map(len, step)) for step in run.payloads)))
    assert len(traffic) == 1


def test_traffic_of_a_whole_plan_depends_on_shapes_alone() -> None:
    plan, rng, traffic = every_gate(), np.random.default_rng(2), set()
    for scale in (0, 1, 100):
        weights = {g.out: rng.integers(-5, 6, plan.wire[g.out].shape) * scale for g in plan.weights}
        x = rng.integers(-9, 10, (5, 2, 2)) * scale
        run = make_world(plan, weights, 3).run({"x": x}, 5)
        traffic.add((tuple(run.sent), run.dealt, tuple(tuple(map(len, step)) for step in run.payloads)))
    assert len(traffic) == 1


def test_what_the_provider_deals_does_not_depend_on_inputs() -> None:
    """Corrections are made before inputs exist: the same bytes whatever is then entered."""
    plan = plan_of("relu")
    publics = []
    for value in (0, 12345):
        run = make_world(plan, WEIGHTS, 2).run({"x": np.full((3, 4), value)}, 3)
        publics.append(fp.sub(run.public["x"], np.full((3, 4), value % P, dtype=np.uint64)))
    assert (publics[0] == publics[1]).all()  # the masks
