"""What is dealt: satisfies its equations, looks uniform to each party, and leaves a bundle once."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from blake3 import blake3

from mpc import field as fp
from mpc import tables
from mpc.at_once import AtOnce
from mpc.correlations import Bundle, BundleId, CorrectionsDigest, corrected_party, dealt_for, expand, sub_seed
from mpc.encoding import canonical
from mpc.entry import entries
from mpc.errors import EncodingError, IntegrityError, LocalProtocolError, ReuseError
from mpc.gates.base import Correlation
from mpc.gates.between import Between
from mpc.gates.convolution import Convolution
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.multiply import Multiply
from mpc.gates.pieces import Pieces
from mpc.gates.relu import Relu
from mpc.gates.select import Select
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.interpret.dealer import SessionMasks, deal
from mpc.kernels.waves import harmonics
from mpc.prg import Seed, expand_field
from mpc.windows import Windows
from mpc.wires import Masking
from tests.support import naive
from tests.support.plans import OWNER, RECIPIENT, Builder, wire
from tests.support.statistics import assert_uniform
from tests.support.vectors import every_gate
from tests.support.worlds import Deal, deal_by_hand, seed

B = "batch"
ROWS = 600
DERIVED = {"masking": Masking.DERIVED}
CLAMP = Clamp(low=-4000, high=9000, below=-5, above=7, shift=5)
LOW = CLAMP.model_copy(update={"high": None})
WINDOWS = Windows(kernel=(2,), strides=(1,), dilations=(1,), pads=((1, 0),), groups=2)
WAVE = {"window": 30, "constant": 3, "cosines": (5, -2), "sines": (1, 9), "dealt_bits": 20}


FLIPPED = [wire(name, (B, 3), 1, masking=Masking.FLIPPED) for name in ("d", "e")]


def plan_of(kind: str) -> Builder:
    """One gate of interest, named g."""
    b, f = Builder(), Fraction(1 << 8)
    b.enter("w", (3, 5), 10, session=True)
    b.enter("x", (B, 3), 20, f)
    b.enter("y", (B, 3), 20, f)
    if "stored" in kind:
        b.enter("v", (3,), 10, session=True)
    if "convolution" in kind or kind == "matmul, secret":
        b.enter("left", (B, 2, 3), 20, f)
    if kind == "matmul, secret":
        b.enter("right", (B, 3, 2), 20, f)
    elif kind == "convolution, secret":
        b.enter("filters", (4, 1, 2), 10)
    elif "convolution" in kind:
        b.enter("k", (4, 1, 2), 10, session=True)
    made: dict[str, Callable[[], None]] = {
        "matmul": lambda: b.gate(Matmul(name="g", x="x", weight="w", out="z"), wire("z", (B, 5), 40, f)),
        "matmul, derived": lambda: b.gate(
            Matmul(name="g", x="x", weight="w", out="z"), wire("z", (B, 5), 40, f, **DERIVED)
        ),
        "matmul, secret": lambda: b.gate(
            Matmul(name="g", x="left", y="right", out="z"), wire("z", (B, 2, 2), 40, f * f)
        ),
        "multiply": lambda: b.gate(Multiply(name="g", x="x", y="y", out="z"), wire("z", (B, 3), 40, f * f)),
        "multiply, stored": lambda: b.gate(Multiply(name="g", x="x", weight="v", out="z"), wire("z", (B, 3), 40, f)),
        "convolution": lambda: b.gate(
            Convolution(name="g", x="left", weight="k", windows=WINDOWS, out="z"), wire("z", (B, 4, 3), 40, f)
        ),
        "convolution, derived": lambda: b.gate(
            Convolution(name="g", x="left", weight="k", windows=WINDOWS, out="z"),
            wire("z", (B, 4, 3), 40, f, **DERIVED),
        ),
        "convolution, secret": lambda: b.gate(
            Convolution(name="g", x="left", y="filters", windows=WINDOWS, out="z"), wire("z", (B, 4, 3), 40, f)
        ),
        "multiply, derived": lambda: b.gate(
            Multiply(name="g", x="x", y="y", out="z"), wire("z", (B, 3), 40, f * f, **DERIVED)
        ),
        "truncate": lambda: b.gate(Truncate(name="g", x="x", out="z", shift=8), wire("z", (B, 3), 13)),
        "relu": lambda: b.gate(Relu(name="g", x="x", out="z", shift=8), wire("z", (B, 3), 13)),
        "relu, at once": lambda: b.gate(Relu(name="g", x="x", out="z", shift=8, at_once=True), wire("z", (B, 3), 13)),
        "fourier": lambda: b.gate(
            Fourier(name="g", x="x", out="z", table=tables.sincos_digest(), **WAVE), wire("z", (B, 3), 50)
        ),
        "fourier, clamped": lambda: b.gate(
            Fourier(name="g", x="x", out="z", table=tables.sincos_digest(), clamp=CLAMP, **WAVE), wire("z", (B, 3), 50)
        ),
        "fourier, one end": lambda: b.gate(
            Fourier(name="g", x="x", out="z", table=tables.sincos_digest(), clamp=LOW, **WAVE), wire("z", (B, 3), 50)
        ),
        "maximum": lambda: b.gate(
            Maximum(name="g", x="x", index="z", value="v", shift=8), wire("v", (B, 1), 13), wire("z", (B, 1), 3)
        ),  # fmt: skip
        "maximum, rectified": lambda: b.gate(
            Maximum(name="g", x="x", value="z", shift=8, rectify=True), wire("z", (B, 1), 13)
        ),
        "between": lambda: b.gate(Between(name="g", x="x", bits=("d", "e"), levels=(-7, 999), shift=8), *FLIPPED),
        "pieces": lambda: b.gate(
            Pieces(name="g", xs=("x", "y"), bits=("d", "e"), shifts=(8, 8), out="z"), wire("z", (B, 3), 14)
        ),
        "step": lambda: b.gate(Step(name="g", x="x", levels=(999, -7, 0), shift=8, out="z"), wire("z", (B, 3, 3), 1)),
    }
    if kind == "pieces":
        b.gate(Between(name="b", x="x", bits=("d", "e"), levels=(-7, 999), shift=8), *FLIPPED)
    made[kind]()
    if kind == "between":
        b.gate(Select(name="s", x="y", bit="d", shift=8, out="z"), wire("z", (B, 3), 13))
    if b.wires[-1].masking is Masking.DERIVED:
        b.gate(Truncate(name="t", x="z", out="t", shift=0), wire("t", b.wires[-1].shape, 41, b.wires[-1].scale))
    b.output(b.wires[-1].name)
    return b


KINDS = ["matmul", "matmul, derived", "matmul, secret", "multiply", "multiply, derived", "multiply, stored",
         "convolution", "convolution, derived", "convolution, secret", "truncate", "relu", "relu, at once", "fourier",
         "fourier, clamped", "fourier, one end", "maximum", "maximum, rectified", "step", "between",
         "pieces"]  # fmt: skip


def dealt(kind: str, parties: int = 3, run: int = 1, batch: int = ROWS, number: int = 1) -> Deal:
    return deal_by_hand(plan_of(kind).build(), parties, run=run, number=number, batch=batch)


# ------------------------------------------------------------------ equations


class Plain:
    """The plain values of one gate's correlations, as reconstructed from the bundles."""

    def __init__(self, deal: Deal) -> None:
        self.deal, self.masks = deal, deal.masks

    def __getitem__(self, name: str) -> np.ndarray:
        return self.deal.plain("g", name)


def bit(values: np.ndarray) -> np.ndarray:
    assert set(np.unique(values).tolist()) == {0, 1}  # not constant, either
    return values.astype(np.uint64)


def check_table(p: Plain, name: str, r: np.ndarray, looks: tuple[str, ...] = ("",)) -> list[np.ndarray]:
    """Thermometers of r and nodes of the leaf masks; returns the free bits."""
    gate = next(g for g in p.deal.plan.gates if g.name == name)
    comparison = gate.comparison(p.deal.plan.wire)  # type: ignore[attr-defined]
    free = []
    assert (p["table"] == naive.thermometers(comparison, r)).all()
    for look in looks:
        mask = p[f"{look}leaf_mask"]
        assert (p[f"{look}node"] == naive.products(comparison, mask)).all()
        free.append(comparison.free_bit(mask))
    return free


def times(p: Plain, x: str, y: str) -> np.ndarray:
    """The product of two masks, by Python's integers."""
    return p.masks[x].astype(object) * p.masks[y].astype(object) % fp.P


def matrix(p: Plain, x: str, y: str) -> np.ndarray:
    return p.masks[x].astype(object) @ p.masks[y].astype(object) % fp.P


def convolved(p: Plain, x: str, y: str) -> np.ndarray:
    return naive.convolution(p.masks[x], p.masks[y], WINDOWS) % fp.P


def bilinear(product: Callable[[Plain, str, str], np.ndarray], x: str, y: str) -> Callable[[Plain], None]:
    """A drawn mask and the dealt product, or the mask derived from both."""

    def holds(p: Plain) -> None:
        if p.deal.plan.wire["z"].masking is Masking.DERIVED:
            assert (p.masks["z"].astype(object) == (p["s"] - product(p, x, y)) % fp.P).all()
        else:
            assert (p["product"] == product(p, x, y)).all() and (p["mask:z"] == p.masks["z"]).all()

    return holds


def truncate(p: Plain) -> None:
    r = p.masks["x"]
    assert (p["r1"] == r >> np.uint64(8)).all()
    assert (bit(p["m"]) == (r >= np.uint64(1 << 60))).all()


def relu(p: Plain) -> None:
    r1 = p.masks["x"].reshape(-1) >> np.uint64(8)
    beta, m = bit(p["beta"]), bit(p["m"])
    assert (p["r1"] == r1).all() and (m == p.masks["x"].reshape(-1) >> np.uint64(60)).all()
    assert (p["beta_r1"] == beta * r1).all() and (p["beta_m"] == beta * m).all()
    (free,) = check_table(p, "g", r1)
    assert (free == beta ^ (r1 >> np.uint64(12) & np.uint64(1))).all()


def relu_at_once(p: Plain) -> None:
    """The tables are those of r1, and what hides the opened bit is what the masks of the words say."""
    r1, mask, shape = p.masks["x"].reshape(-1) >> np.uint64(8), p["leaf_mask"], AtOnce(12)
    assert (p["table"] == naive.tables_at_once(shape, r1, mask)).all()
    assert (naive.settled(shape, mask) ^ (r1 >> np.uint64(12) & np.uint64(1)) == bit(p["beta"])).all()


def waves(r: np.ndarray) -> np.ndarray:
    return fp.from_signed(harmonics(r, 30, 2, 10))


def fourier(p: Plain) -> None:
    assert (p["waves"] == waves(p.masks["x"].reshape(-1))).all()


def fourier_clamped(p: Plain) -> None:
    r = p.masks["x"].reshape(-1)
    out, over = bit(p["beta_out"]), bit(p["beta_over"])
    assert (p["beta_waves"] == waves(r) * out).all() and (p["waves"] == waves(r)).all()
    r1 = r >> np.uint64(5)
    free_over, free_under = check_table(p, "g", r1, ("over_", "under_"))
    assert (free_over == over ^ (r1 >> np.uint64(17) & np.uint64(1))).all() and (free_over ^ free_under == out).all()


def fourier_one_end(p: Plain) -> None:
    r = p.masks["x"].reshape(-1)
    out, r1 = bit(p["beta_out"]), r >> np.uint64(5)
    assert (p["beta_waves"] == waves(r) * out).all() and (p["waves"] == waves(r)).all()
    [free] = check_table(p, "g", r1, ("under_",))
    assert (free == out ^ (r1 >> np.uint64(17) & np.uint64(1))).all()


def step(p: Plain) -> None:
    r1 = p.masks["x"].reshape(-1) >> np.uint64(8)
    looks = ("0:", "1:", "2:")
    beta = [bit(row) for row in p["beta"]]
    for free, row in zip(check_table(p, "g", r1, looks), beta, strict=True):
        assert (free == row ^ (r1 >> np.uint64(14) & np.uint64(1))).all()
    assert (p["mask:z"] == p.masks["z"]).all()


def between(p: Plain) -> None:
    """Each bit is opened under its own free bit and the next one's."""
    r1, beta = p.masks["x"].reshape(-1) >> np.uint64(8), [bit(row) for row in p["beta"]]
    free = [found ^ (r1 >> np.uint64(14) & np.uint64(1)) for found in check_table(p, "g", r1, ("0:", "1:"))]
    assert (free[0] ^ free[1] == beta[0]).all() and (free[1] == beta[1]).all()
    assert all((p.masks[name].reshape(-1) == row).all() for name, row in zip("de", beta, strict=True))


def pieces(p: Plain) -> None:
    r, beta = (np.stack([p.masks[name].reshape(-1) for name in names]) for names in ("xy", "de"))
    assert (p["r1"] == r >> np.uint64(8)).all() and (p["m"] == r >> np.uint64(60)).all()
    assert (p["beta_r1"] == beta * (r >> np.uint64(8))).all() and (p["beta_m"] == beta * (r >> np.uint64(60))).all()


def maximum(p: Plain) -> None:
    rectified = p.deal.plan.gates[-1].rectify  # type: ignore[attr-defined]
    r1 = (p.masks["x"] >> np.uint64(8)).T
    m = (p.masks["x"] >> np.uint64(60)).T
    gamma = bit(p["gamma"])
    assert (p["r1"] == r1).all() and (p["m"] == m).all()
    assert (p["gamma_r1"] == gamma * r1).all() and (p["gamma_m"] == gamma * m).all()
    count = 4 if rectified else 3
    compared = [*r1, np.zeros_like(r1[0])][:count]  # with zero, whose mask is 0
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    differences = np.concatenate([(compared[i] - compared[j]) & np.uint64((1 << 14) - 1) for i, j in pairs])
    (free,) = check_table(p, "g", differences)
    beta = (free ^ (differences >> np.uint64(13) & np.uint64(1))).astype(np.uint8).reshape(len(pairs), ROWS)
    by_candidate = np.stack([[row for pair, row in zip(pairs, beta, strict=True) if i in pair] for i in range(3)])
    node, fresh = p["node0"], p["fresh0"]
    for subset in range(1, 16):  # the node's last inputs are not there: mask 0
        product = np.ones((3, ROWS), dtype=bool)
        for k in range(4):
            if subset >> k & 1:
                product &= by_candidate[:, k].astype(bool) if k < count - 1 else False
        assert ((node >> (subset - 1) & 1).astype(bool) == product).all()
    assert (fresh == gamma).all()


EQUATIONS: dict[str, Callable[[Plain], None]] = {
    "matmul": bilinear(matrix, "x", "w"), "matmul, derived": bilinear(matrix, "x", "w"),
    "matmul, secret": bilinear(matrix, "left", "right"),
    "multiply": bilinear(times, "x", "y"), "multiply, derived": bilinear(times, "x", "y"),
    "multiply, stored": bilinear(times, "x", "v"),
    "convolution": bilinear(convolved, "left", "k"), "convolution, derived": bilinear(convolved, "left", "k"),
    "convolution, secret": bilinear(convolved, "left", "filters"),
    "truncate": truncate, "relu": relu, "relu, at once": relu_at_once,
    "fourier": fourier, "fourier, clamped": fourier_clamped, "fourier, one end": fourier_one_end,
    "maximum": maximum, "maximum, rectified": maximum, "step": step,
    "between": between, "pieces": pieces,
}  # fmt: skip


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_correlations_satisfy_their_equations(kind: str, parties: int) -> None:
    for run in range(1, parties + 1):  # whoever is corrected
        EQUATIONS[kind](Plain(dealt(kind, parties, run)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_dealt_is_constant_or_repeats(kind: str) -> None:
    """Constant masks were left in by Falcon and Piranha; so none of ours is, nor equal in two runs."""
    first, second = (dealt(kind, run=run) for run in (1, 2))
    for gate in first.plan.online:
        for spec in gate.correlations(first.plan.wire):
            values = first.plain(gate.name, spec.name)
            if not values.size:
                continue
            if spec.name.startswith("node") and spec.width == 15:
                assert len(np.unique(values)) > 2  # the products with inputs that are not there are 0
            else:
                assert len(np.unique(values.reshape(-1, values.shape[-1])[:, 0])) > 1 or len(np.unique(values)) > 1
            assert not (values == second.plain(gate.name, spec.name)).all(), f"{gate.name}/{spec.name}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", [1, 2, 3])
def test_every_share_of_every_party_looks_uniform(kind: str, run: int) -> None:
    """The corrected party's too: its share is the plain value minus uniform ones."""
    deal = dealt(kind, run=run)
    assert deal.corrected == run % 3
    for gate in deal.plan.online:
        for spec in gate.correlations(deal.plan.wire):
            for index, share in enumerate(deal.shares(gate.name, spec.name)):
                if share.size:
                    assert_uniform(share, spec.width, f"{gate.name}/{spec.name} of party {index}")


@pytest.mark.parametrize("kind", ["relu", "matmul", "convolution", "step"])
def test_two_of_three_shares_are_independent_of_the_value(kind: str) -> None:
    """Any two parties' shares add up to something uniform, whoever is corrected."""
    for run in (1, 2, 3):
        deal = dealt(kind, run=run)
        for spec in next(g for g in deal.plan.gates if g.name == "g").correlations(deal.plan.wire):
            shares = deal.shares("g", spec.name)
            for i, j in ((0, 1), (0, 2), (1, 2)):
                assert_uniform(Deal.combine([shares[i], shares[j]], spec.width), spec.width, f"{spec.name} of {i}, {j}")


# ------------------------------------------------------------------ who receives what


def test_what_is_dealt_for_a_gate_is_computed_once_over_a_plan_s_own_wires() -> None:
    """For this very gate: another one of its name has its own."""
    plan = plan_of("relu").build().bind(4)
    gate = next(each for each in plan.online if each.correlations(plan.wire))
    first = dealt_for(gate, plan.wire)
    assert first == gate.correlations(plan.wire) and dealt_for(gate, plan.wire) is first
    other = gate.model_copy()
    assert dealt_for(other, plan.wire) == first and dealt_for(other, plan.wire) is not first
    assert dealt_for(gate, dict(plan.wire)) is not first


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_corrections_go_round(parties: int) -> None:
    ids = [BundleId(bytes(32), each, 1) for each in entries(3 * parties - 1)]
    found = [corrected_party(each, parties) for each in ids]
    assert found == list(range(parties)) * 3


def test_an_uncorrected_party_needs_its_seed_only() -> None:
    """Its bundle is a function of the seed: no byte of the provider's is in it."""
    plan = plan_of("relu").build().bind(4)
    bundle = BundleId.of_run(b"s" * 32, 1, 4)
    mine = Bundle(bundle, seed(5), plan.online, plan.wire, None)
    draws = bundle.draws(seed(5))
    for gate in plan.online:
        for spec in gate.correlations(plan.wire):
            take = mine.take_bits if spec.width else mine.take
            assert (take(gate.name, spec.name).values == expand(sub_seed(draws, gate.name, spec), spec)).all()


def test_what_leaves_the_provider() -> None:
    plan = every_gate().bind(2)
    session, seeds = SessionMasks(), [seed(i) for i in range(3)]
    deal(plan.weights, plan.wire, BundleId.of_weights(bytes(32)), seeds, session)
    assert session.masks.keys() == {"w", "b", "k"}  # a public weight has none
    session.public["r"] = fp.zeros((3, 4))
    found = deal(plan.online, plan.wire, BundleId.of_run(bytes(32), 4, 2), seeds, session)
    assert found.corrected == 1
    assert len(found.corrections) == sum(
        spec.size for gate in plan.online for spec in gate.correlations(plan.wire) if spec.dependent
    )
    assert set(found.commitments) == {
        *"xvigon",
        "m2",
        "m3",
        "f4",
        "f5",
        "g4",
        "y3",
        "y6",
    }  # held wires: inputs and outputs
    for index, each in enumerate(seeds):
        bundle = Bundle(
            BundleId.of_run(bytes(32), 4, 2), each, plan.online, plan.wire, found.corrections if index == 1 else None
        )
        for name, commitments in found.commitments.items():
            assert bundle.mask_seed(name).commitment() == commitments[index]


def test_the_masks_of_a_held_wire_add_up_from_its_sub_seeds() -> None:
    deal = dealt("relu", 3)
    for name in ("x", "z"):
        total = fp.zeros(deal.plan.wire[name].sizes)
        for bundle in deal.bundles:
            total = fp.add(total, expand_field(bundle.mask_seed(name), total.shape))
        assert (total == deal.masks[name]).all()


def test_sessions_runs_and_batches_draw_different_masks() -> None:
    plan = plan_of("truncate").build()
    ids = [
        BundleId.of_run(b"a" * 32, 1, 4),
        BundleId.of_run(b"b" * 32, 1, 4),
        BundleId.of_run(b"a" * 32, 2, 4),
        BundleId.of_run(b"a" * 32, 1, 5),
    ]
    masks = []
    for each in ids:
        bound = plan.bind(each.batch)
        masks.append(Bundle(each, seed(1), bound.online, bound.wire, None).take("in:x", "mask:x").values[:4])
    assert len({mask.tobytes() for mask in masks}) == len(ids)
    assert not np.intersect1d(masks[0], np.concatenate(masks[1:])).size


def test_every_value_of_a_bundle_has_a_seed_of_its_own() -> None:
    """Two gates of one kind share names and shapes of values; masks that they shared would show differences."""
    b = Builder()
    b.enter("x", (B, 3), 20)
    for name in ("a", "b"):
        b.gate(Relu(name=name, x="x", out=f"y{name}", shift=8), wire(f"y{name}", (B, 3), 13, Fraction(1, 256)))
        b.output(f"y{name}")
    deal = deal_by_hand(b.build(), 2, batch=4)
    bundle = BundleId.of_run(bytes(32), 1, 4)
    draws = bundle.draws(seed(1))
    specs = [(gate, spec) for gate in deal.plan.online for spec in gate.correlations(deal.plan.wire)]
    assert len({sub_seed(draws, gate.name, spec).secret for gate, spec in specs}) == len(specs)
    for name in ("r1", "m", "beta", "beta_r1", "beta_m", "table", "leaf_mask", "node"):
        for first, second in zip(deal.shares("a", name), deal.shares("b", name), strict=True):
            assert (first != second).any(), name


def test_a_sub_seed_belongs_to_its_holder() -> None:
    """Another holder of the same wire means another mask: an owner's seed opens nothing of another's."""
    bundle = BundleId.of_run(bytes(32), 1, 1)
    gate = every_gate().gates[2]
    specs = [
        Correlation("mask:x", (2,), holders=holders) for holders in ((), (OWNER,), (RECIPIENT,), (OWNER, RECIPIENT))
    ]
    assert len({sub_seed(bundle.draws(seed(1)), gate.name, spec).secret for spec in specs}) == len(specs)


# ------------------------------------------------------------------ once


def bundles(kind: str = "relu") -> list[Bundle]:
    return dealt(kind, 3, batch=2).bundles


@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_value_is_taken_once(party: int) -> None:
    bundle = bundles()[party]
    bundle.take("g", "r1")
    bundle.take_bits("g", "table")
    for again in (lambda: bundle.take("g", "r1"), lambda: bundle.take_bits("g", "table")):
        with pytest.raises(ReuseError, match="taken before"):
            again()
    bundle.take("g", "m")  # others are still there


def test_a_mask_seed_is_given_once() -> None:
    bundle = bundles()[0]
    bundle.mask_seed("x")
    with pytest.raises(ReuseError):
        bundle.mask_seed("x")
    bundle.mask_seed("z")


def test_looking_at_the_held_seeds_gives_nothing_out() -> None:
    bundle = bundles()[0]
    assert {name for name, _ in bundle.held_seeds()} == {"x", "y", "z"}
    held = dict(bundle.held_seeds())
    assert bundle.mask_seed("x") == held["x"]
    assert {name for name, _ in bundle.held_seeds()} == {"y", "z"}


def test_the_mask_of_a_wire_that_nobody_holds_is_not_given_out() -> None:
    plan = every_gate()
    bundle = deal_by_hand(plan, 2).bundles[0]
    for name in ("y", "p", "t", "f", "c", "h", "e"):
        with pytest.raises(ReuseError):
            bundle.mask_seed(name)


@pytest.mark.parametrize(("gate", "name"), [("g", "r2"), ("h", "r1"), ("in:x", "r1"), ("g", "mask:x")])
def test_what_was_not_dealt_cannot_be_taken(gate: str, name: str) -> None:
    with pytest.raises(LocalProtocolError, match="dealt no"):
        bundles()[0].take(gate, name)


# ------------------------------------------------------------------ damaged corrections


def rebuild(corrections: bytes | None) -> Bundle:
    plan = plan_of("relu").build().bind(2)
    return Bundle(
        BundleId.of_run(seed(1).derive("session").secret, 1, 2),
        seed(1).derive("party", 1, 1),
        plan.online,
        plan.wire,
        corrections,
    )


CORRECTIONS = dealt("relu", 3, batch=2).corrections


def take_all(bundle: Bundle) -> None:
    plan = plan_of("relu").build().bind(2)
    for gate in plan.online:
        for spec in gate.correlations(plan.wire):
            (bundle.take_bits if spec.width else bundle.take)(gate.name, spec.name)


def test_the_corrections_of_this_plan_fit() -> None:
    take_all(rebuild(CORRECTIONS))


@pytest.mark.parametrize("size", [0, 1, 7, 8, len(CORRECTIONS) // 2, len(CORRECTIONS) - 8, len(CORRECTIONS) - 1])
def test_short_corrections_are_refused(size: int) -> None:
    with pytest.raises(IntegrityError, match="shorter"):
        rebuild(CORRECTIONS[:size])


@pytest.mark.parametrize("more", [b"\0", b"\0" * 8, CORRECTIONS])
def test_long_corrections_are_refused(more: bytes) -> None:
    with pytest.raises(IntegrityError, match="longer"):
        rebuild(CORRECTIONS + more)


def test_corrections_of_another_batch_are_refused() -> None:
    for batch in (1, 3):
        with pytest.raises(IntegrityError, match="longer|shorter"):
            rebuild(dealt("relu", 3, batch=batch).corrections)


def test_corrections_for_a_plan_without_dependent_values_are_refused() -> None:
    plan = plan_of("matmul, derived").build().bind(1)
    gates = [gate for gate in plan.online if gate.name != "t"]
    Bundle(BundleId.of_run(bytes(32), 1, 1), seed(1), gates, plan.wire, b"")
    with pytest.raises(IntegrityError, match="longer"):
        Bundle(BundleId.of_run(bytes(32), 1, 1), seed(1), gates, plan.wire, b"\0")


@pytest.mark.parametrize("element", [fp.P, fp.P + 1, (1 << 64) - 1])
def test_an_element_that_is_not_canonical_is_refused(element: int) -> None:
    with pytest.raises(EncodingError):  # the last correction of this plan is field elements
        take_all(rebuild(CORRECTIONS[:-8] + element.to_bytes(8, "little")))


@pytest.mark.parametrize("position", [0, 1, len(CORRECTIONS) // 2, len(CORRECTIONS) - 1])
def test_any_changed_byte_changes_the_digest_in_the_manifest(position: int) -> None:
    """Changed in value alone, a correction is caught by the signed digest, not by its shape."""
    damaged = bytearray(CORRECTIONS)
    damaged[position] ^= 1
    assert digest_of(bytes(damaged)) != digest_of(CORRECTIONS)
    assert digest_of(CORRECTIONS) != digest_of(CORRECTIONS + b"\0")


KEY = BundleId.of_run(bytes(32), 1, 2).digest_key(Seed(bytes(32)))


def digest_of(corrections: bytes, size: int | None = None, cut: int = 0, key: Seed = KEY) -> bytes:
    digest = CorrectionsDigest(key, len(corrections) if size is None else size)
    digest.update(corrections[:cut])
    digest.update(memoryview(corrections)[cut:])
    return digest.value


def test_the_digest_is_of_the_bytes_and_their_number_however_they_come() -> None:
    assert len({digest_of(CORRECTIONS, cut=cut) for cut in (0, 1, 8, len(CORRECTIONS))}) == 1
    assert digest_of(CORRECTIONS) != digest_of(CORRECTIONS, size=len(CORRECTIONS) + 1)


def test_security_30_the_digest_needs_the_key_of_this_bundle_and_party() -> None:
    """Whoever has the corrections but not the corrected party's seed cannot compute what the manifest lists."""
    keys = [
        BundleId.of_run(session, run, batch).digest_key(Seed(bytes([first]) + bytes(31)))
        for session, run, batch, first in (
            (bytes(32), 1, 2, 0),
            (bytes(32), 1, 2, 1),
            (b"\1" * 32, 1, 2, 0),
            (bytes(32), 2, 2, 0),
            (bytes(32), 1, 3, 0),
        )
    ]
    assert keys[0] == KEY and len({key.secret for key in keys}) == 5
    found = {digest_of(CORRECTIONS, key=key) for key in keys}
    assert len(found) == 5
    assert found.isdisjoint(
        {blake3(CORRECTIONS).digest(), blake3(canonical("mpc/v1/corrections", len(CORRECTIONS)) + CORRECTIONS).digest()}
    )


def test_the_digests_key_is_no_sub_seed_that_anybody_is_given() -> None:
    bundle, mine = BundleId.of_run(bytes(32), 1, 2), seed(7)
    draws = bundle.draws(mine)
    given = {draws.sub_seed(*label).secret for label in ((), ("corrections-digest",), (bytes(32), 1, 2))}
    assert bundle.digest_key(mine).secret not in given | {mine.secret}
