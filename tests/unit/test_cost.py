"""Declared costs against numbers counted by hand; `tests/gates` holds runs to the declarations."""

from __future__ import annotations

from fractions import Fraction

import pytest

from mpc import tables
from mpc.gates import Gate
from mpc.gates.convolution import Convolution
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.input import Input
from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.plan.cost import Cost, gate_cost, plan_cost
from mpc.transcript import DIGEST_BYTES
from mpc.windows import Windows
from mpc.wires import Masking, Wire
from tests.support.plans import Builder, wire
from tests.support.vectors import every_gate

N = 10
X = wire("x", (N,), 40, 1 << 16)
Y = wire("y", (N,), 40, 1 << 16)
WAVES = {"name": "g", "x": "x", "out": "y", "window": 40, "constant": 0, "cosines": (1, 2, 3), "sines": (1, 2, 3),
         "dealt_bits": 10, "table": tables.sincos_digest()}  # fmt: skip
CLAMP = Clamp(low=-1, high=1, below=0, above=1, shift=18)


def grid(name: str, columns: int, bits: int = 40) -> Wire:
    return wire(name, (N, columns), bits)


def check(gate: Gate, wires: list[Wire], cost: Cost) -> None:
    assert gate_cost(gate, {w.name: w for w in wires}) == cost


def test_input() -> None:
    check(Input(name="g", out="x"), [X], Cost(0, 0, 0, 8 * N))


@pytest.mark.parametrize(
    "gate",
    [
        Reshape(name="g", x="x", out="y"),
        Combine(name="g", xs=("x", "x"), factors=(1, 1), out="y"),
        Combine(name="g", xs=("x",), factors=(2,), stored="w", constant=-7, out="y"),
        Total(name="g", x="x", axes=(0,), out="y"),
        Concat(name="g", xs=("x",), axis=0, out="y"),
        Take(name="g", x="x", axis=0, indices=(-1, 3, 3), out="y"),
        Weigh(name="g", x="x", axis=0, factors=(1, 0, -5), out="y"),
    ],
)
def test_linear_maps_are_free(gate: Gate) -> None:
    check(gate, [X, Y, wire("w", (N,), 40)], Cost(0, 0, 0, 0))


@pytest.mark.parametrize(("masking", "dealt", "held"), [("derived", 0, 8), ("drawn", 8, 16)])
def test_products(masking: str, dealt: int, held: int) -> None:
    out = wire("z", (N,), 40, masking=Masking(masking))
    check(Multiply(name="g", x="x", y="y", out="z"), [X, Y, out], Cost(1, 8 * N, dealt * N, held * N))
    check(Multiply(name="g", x="x", weight="w", bias="w", out="z"), [X, grid("w", 1), out],
          Cost(1, 8 * N, dealt * N, held * N))  # fmt: skip
    out = wire("z", (N, 3), 40, masking=Masking(masking))
    gate = Matmul(name="g", x="x", weight="w", out="z")
    check(gate, [grid("x", 7), grid("w", 3), out], Cost(1, 24 * N, 3 * dealt * N, 3 * held * N))
    out = wire("z", (N, 4, 5, 6), 40, masking=Masking(masking))
    windows = Windows(kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=((1, 1), (1, 1)))
    stored = Convolution(name="g", x="x", weight="w", windows=windows, out="z")
    images, filters = wire("x", (N, 2, 5, 6), 9), wire("w", (4, 2, 3, 3), 9)
    check(stored, [images, filters, out], Cost(1, 960 * N, 120 * dealt * N, 120 * held * N))
    secret = Convolution(name="g", x="x", y="w", windows=windows, out="z")
    check(secret, [images, filters, out], Cost(1, 960 * N, 120 * dealt * N, 120 * held * N))


def test_truncate() -> None:
    check(Truncate(name="g", x="x", out="y", shift=16), [X, Y], Cost(1, 8 * N, 16 * N, 24 * N))


@pytest.mark.parametrize(
    ("bits", "table", "leaf", "node", "mask"),
    # products (2^K - 1 - K) + (2^(K-1) - K): 0, 1, 5, 15, 37, 83, 177, 367 bits
    [(6, 8, 0, 0, 1), (7, 3, 1, 1, 1), (11, 5, 1, 1, 1), (18, 12, 1, 2, 1), (24, 32, 1, 2, 1), (25, 20, 2, 5, 2),
     (32, 32, 2, 11, 2), (36, 32, 2, 23, 2), (48, 64, 2, 46, 2)],
)  # fmt: skip
def test_relu(bits: int, table: int, leaf: int, node: int, mask: int) -> None:
    leaves = leaf * N if leaf else 2  # one bit a comparison: packed
    check(
        Relu(name="g", x="x", out="y", shift=8),
        [wire("x", (N,), bits + 8), Y],
        Cost(3, leaves + 2 + 8 * N, (table + node + 40) * N, (table + node + 40 + mask + 8) * N),
    )


def test_fourier() -> None:
    check(Fourier(**WAVES), [X, Y], Cost(1, 8 * N, 6 * 8 * N, 7 * 8 * N))
    # clamped, on 40 + 2 - 18 = 24 bits: two looks at one table
    check(
        Fourier(**WAVES, clamp=CLAMP),
        [X, Y],
        Cost(3, 2 * N + 2 * 2 + 8 * N, (2 * 48 + 16 + 32 + 2 * 2) * N, (2 * 48 + 16 + 32 + 2 * 2 + 2 + 8) * N),
    )
    for end in ("low", "high"):  # the other one alone: one look, one bit, one beta
        check(
            Fourier(**WAVES, clamp=CLAMP.model_copy(update={end: None})),
            [X, Y],
            Cost(3, N + 2 + 8 * N, (2 * 48 + 8 + 32 + 2) * N, (2 * 48 + 8 + 32 + 2 + 1 + 8) * N),
        )


@pytest.mark.parametrize(
    ("candidates", "levels"),
    [(2, []), (3, [1]), (5, [1]), (6, [2, 1]), (17, [4, 1]), (18, [5, 2, 1]), (128, [32, 8, 2, 1])],
)
def test_maximum(candidates: int, levels: list[int]) -> None:
    n, pairs = candidates, candidates * (candidates - 1) // 2 * N
    nodes = sum(levels) * n * N
    packed = sum(-(-level * n * N // 8) for level in levels)
    both = Maximum(name="g", x="x", value="v", index="i", shift=17)  # compares on 24 bits
    wires = [grid("x", n), grid("v", 1), grid("i", 1)]
    dealt = pairs * (4 * 8 + 2) + 2 * nodes
    check(
        both,
        wires,
        Cost(
            rounds=3 + len(levels),
            sent=pairs + -(-pairs // 8) + packed + 2 * 8 * N,
            dealt=dealt + 5 * 8 * n * N,
            held=dealt + 5 * 8 * n * N + pairs + packed + 2 * 8 * N,
        ),
    )
    index = Maximum(name="g", x="x", index="i", shift=17)
    found = gate_cost(index, {w.name: w for w in wires})
    assert (found.sent, found.dealt) == (pairs + -(-pairs // 8) + packed + 8 * N, dealt + 8 * n * N)


@pytest.mark.parametrize(("candidates", "levels"), [(2, [1]), (4, [1]), (5, [2, 1]), (128, [32, 8, 2, 1])])
def test_zero_is_one_more_candidate_that_is_never_selected(candidates: int, levels: list[int]) -> None:
    n, pairs = candidates, (candidates + 1) * candidates // 2 * N
    nodes, packed = sum(levels) * n * N, sum(-(-level * n * N // 8) for level in levels)
    dealt = pairs * (4 * 8 + 2) + 2 * nodes + 5 * 8 * n * N
    check(
        Maximum(name="g", x="x", value="v", shift=17, rectify=True),
        [grid("x", n), grid("v", 1)],
        Cost(
            rounds=3 + len(levels),
            sent=pairs + -(-pairs // 8) + packed + 8 * N,
            dealt=dealt,
            held=dealt + pairs + packed + 8 * N,
        ),
    )


@pytest.mark.parametrize("levels", [1, 2, 64])
def test_step(levels: int) -> None:
    """One table for all levels; a leaf word, a node and a bit for each."""
    gate = Step(name="g", x="x", levels=tuple(range(1, levels + 1)), shift=18, out="y")  # on 40 + 2 - 18 = 24 bits
    own = 8 + 2  # beta and the node's two bytes
    check(
        gate,
        [X, wire("y", (N, levels), 1)],
        Cost(
            rounds=3,
            sent=levels * N + -(-levels * N // 8) + 8 * levels * N,
            dealt=(4 * 8 + levels * own) * N,
            held=(4 * 8 + levels * (own + 1 + 8)) * N,
        ),
    )
    zero = Step(name="g", x="x", levels=(0, 0), shift=18, out="y")
    assert zero.comparison({"x": X}).bits == 40 + 1 - 18  # |x| needs less room than |x - level|


def network_a() -> Builder:
    """784-128-128-10 with ReLUs (SecureML's), q = 24 in both."""
    b, f16, f32 = Builder(), Fraction(1 << 16), Fraction(1 << 32)
    sizes = [784, 128, 128, 10]
    for i in range(3):
        b.enter(f"w{i}", (sizes[i], sizes[i + 1]), 18, f16, session=True)
    b.enter("y0", ("batch", 784), 17, f16)
    for i in range(3):
        last = i == 2
        masking = {} if last else {"masking": Masking.DERIVED}
        b.gate(Matmul(name=f"a{i}", x=f"y{i}", weight=f"w{i}", out=f"z{i}"),
               wire(f"z{i}", ("batch", sizes[i + 1]), 40, f32, **masking))  # fmt: skip
        if not last:
            b.gate(Relu(name=f"r{i}", x=f"z{i}", out=f"y{i + 1}", shift=16),
                   wire(f"y{i + 1}", ("batch", sizes[i + 1]), 24, f16))  # fmt: skip
    b.output("z2")
    return b


@pytest.mark.parametrize("batch", [1, 128])
def test_the_design_documents_network(batch: int) -> None:
    """9 rounds, 4,384 bytes (and the output, 80; and 32 a run for the agreement), 19 KB dealt for one."""
    cost = plan_cost(network_a().build(), batch)
    assert cost.rounds == 9
    assert cost.sent == batch * (4384 + 80) + DIGEST_BYTES
    assert cost.dealt == batch * (256 * 74 + 80)  # 74 bytes a ReLU, and the output's product


def test_weights_cost_a_run_nothing() -> None:
    plan = network_a().build()
    online = [gate_cost(gate, plan.bind(1).wire) for gate in plan.online]
    assert plan_cost(plan, 1).held == sum(cost.held for cost in online)


def test_shared_rounds_count_once_and_bytes_all() -> None:
    plan = every_gate()
    bound = plan.bind(3)
    parts = [gate_cost(gate, bound.wire) for gate in bound.online]
    cost = plan_cost(plan, 3)
    assert cost.rounds < sum(part.rounds for part in parts)
    assert (cost.sent, cost.dealt, cost.held) == tuple(
        sum(getattr(p, k) for p in parts) + more for k, more in (("sent", DIGEST_BYTES), ("dealt", 0), ("held", 0))
    )


def test_totals() -> None:
    cost = Cost(rounds=2, sent=10, dealt=100, held=1000)
    assert [cost.total_sent(n) for n in (2, 3, 5)] == [10, 20, 40]
    assert [cost.total_dealt(n) for n in (2, 3, 5)] == [100 + 64, 100 + 96, 100 + 160]
