"""Plans whose runs are checked are compiled as such: fewer bits have tags, answers stay; other plans do not change."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.from_graph import PRECISE
from mpc.compiler.lowering.checked import with_fewest_tags
from mpc.compiler.lowering.tournaments import ROUND_BYTES
from mpc.compiler.roles import Roles
from mpc.entry import EntryId
from mpc.errors import PlanError
from mpc.field import P
from mpc.gates.maximum import Maximum
from mpc.gates.relu import Relu
from mpc.interpret import reference
from mpc.plan.checking import entry_tags
from mpc.plan.choices import choices
from mpc.plan.cost import gate_cost, plan_cost
from mpc.plan.plan import Plan
from mpc.plan.schedule import schedule
from parties.client.running.feeds import to_integers
from tests.support.graphs import node, save_model
from tests.support.vectors import every_gate

ROOT = Path(__file__).parents[2]
FILES = {
    "L": "examples/breast_cancer_lr.onnx",
    "A": "examples/mnist_mlp.onnx",
    "S": "benchmarks/networks/sarda_s.onnx",
    "M": "benchmarks/networks/minionn_m.onnx",
    "C": "benchmarks/networks/lenet_c.onnx",
}
PASSIVE = {
    ("L", False): "d326f4ba743aeb5a20b997d0e302475035bb3196e598b8d3273bf6105267b487",
    ("L", True): "6680382ffbf64b2559f575005d4a98ebaad3807d81a579c56639c72267fe027f",
    ("A", False): "4923248e624f56f771bd3dff8fb58fc9b3a15afb909d30d7b7115d14f41c6308",
    ("A", True): "5fcc9bf5df5550df8099a11373d6d778f8be34a5c83a65dba7a7124f1ea51d3d",
    ("S", False): "1019c602566611c7c2b65c84be9a7abdde88d3f70a2ecde3e85f05a685c62f32",
    ("S", True): "ade8a2780c60e02c8e5d3f5647534c684a9644e81d79815b343d7d62ba4641aa",
    ("M", False): "48f5e66d91e20b1a983272969af41075c887e323435c3016277aaf893074a0b0",
    ("M", True): "59e474a494fbddba5e2d285008fc6c20821e96b3155b3a36374d3561cf4b1bcd",
    ("C", False): "9ce977f855636386fbcc3219c0067e33413839303040404b022314df5213dc3d",
    ("C", True): "35280af54248dec3ae7107f45864d9cb2e1e3e1249a0ccb54ceaa122827abbe2",
}
"""Digests of plans as they were before any plan could be checked."""
MOST_DEALT = {"L": 3_000, "A": 400_000, "S": 1_200_000, "M": 10_500_000, "C": 16_000_000}
MORE_ROUNDS = {"M": 2, "C": 2}
"""For a tournament of the largest pooling; everywhere the check comes on top."""


@cache
def compiled(name: str, security: str = "active", public: bool = False) -> Compiled:
    return compile_model(ROOT / FILES[name], roles=Roles(security=security, public_weights=public))  # type: ignore[arg-type]


def dealt(plan: Plan) -> int:
    """Bytes of one run with its tags, whatever the plan says of itself."""
    bound = plan.bind(1)
    tags = sum(spec.size for specs in entry_tags(bound, EntryId(1)).values() for spec in specs)
    return tags + sum(gate_cost(gate, bound.wire).dealt for gate in bound.online)


def rounds(plan: Plan) -> int:
    return len(schedule(plan.bind(1).online, plan.bind(1).wire).steps)


@pytest.mark.parametrize(("name", "public"), PASSIVE)
def test_a_plan_that_is_not_checked_has_the_bytes_that_it_had(name: str, public: bool) -> None:
    assert compiled(name, "passive", public).plan.digest.hex() == PASSIVE[name, public]


@pytest.mark.parametrize("name", FILES)
def test_what_is_dealt_with_tags_stays_below_its_aim(name: str) -> None:
    plan, plain = compiled(name).plan, compiled(name, "passive").plan
    assert dealt(plan) <= min(MOST_DEALT[name], dealt(plain))
    assert rounds(plan) - rounds(plain) == MORE_ROUNDS.get(name, 0)
    assert plan_cost(plain).sent * 2 > plan_cost(plan.with_security("passive")).sent


def test_a_tournament_is_taken_where_it_saves_more_than_its_rounds_are_worth() -> None:
    """Of C, with 2880 windows and 800: in the second, four are compared at once."""
    first, last, second = (gate for gate in compiled("C").plan.gates if isinstance(gate, Maximum))
    wire = compiled("C").plan.bind(1).wire
    assert [wire[gate.x].sizes[-1] for gate in (first, last, second)] == [2, 2, 4]
    assert [gate.rectify for gate in (first, last, second)] == [False, True, True]
    assert [gate.direct for gate in (first, last, second)] == [False, True, False]
    saved = dealt(compiled("C", "passive").plan) - dealt(compiled("C").plan)
    assert saved > 2 * ROUND_BYTES


def test_of_every_gate_no_other_number_of_chunks_is_dealt_in_fewer_bytes() -> None:
    plan = every_gate()
    gates = with_fewest_tags(plan.gates, plan.wire)
    changed = 0
    for before, after in zip(plan.gates, gates, strict=True):
        if "chunks" not in type(after).model_fields:
            assert after == before
            continue
        costs = {}
        for chunks in (None, *range(1, 9)):
            other = before.model_copy(update={"chunks": chunks})
            try:
                other.check(plan.wire)
            except PlanError:  # not so many bits, or too many in a chunk
                continue
            costs[chunks] = dealt(
                plan.model_copy(update={"gates": tuple(other if g is before else g for g in plan.gates)})
            )
        assert costs[after.chunks] == min(costs.values())  # type: ignore[attr-defined]
        changed += after != before
    assert changed > 3


# -------------------------------------------------------------------- how precise that is


def outputs(found: Compiled, feeds: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """The reference's logits, of random rounding coins."""
    bound, rng = found.plan.bind(len(next(iter(feeds.values())))), np.random.default_rng(seed)
    integers = to_integers(found.plan, feeds, list(feeds))
    coins: dict[str, np.ndarray] = {}

    def coin(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return coins.setdefault(name, rng.integers(0, P, shape, dtype=np.uint64))

    values = reference.evaluate(bound, {**found.weights, **integers}, coin)
    (out,) = found.plan.outputs
    return values[out.wire] / float(found.plan.wire[out.wire].scale)


@pytest.mark.parametrize("name", ["A", "S", "M"])
def test_coarse_comparisons_are_off_by_what_roundings_are(name: str) -> None:
    """On 64 images the logits of both plans differ by little more than those of two runs of one of them do."""
    plan = compiled(name).plan
    assert any(isinstance(gate, Relu | Maximum) and gate.coarse > 3 for gate in plan.gates)
    images = np.load(ROOT / "examples/mnist_sample.npz")["images"][:64].astype(np.float32) / 255
    (given,) = plan.inputs
    feeds = {given.name: images.reshape(64, *(int(size) for size in plan.wire[given.wire].shape[1:]))}
    plain, again = (outputs(compiled(name, "passive"), feeds, seed) for seed in (1, 2))
    coarse = outputs(compiled(name), feeds, 3)
    by_rounding, by_both = (float(np.sqrt(np.square(other - plain).mean())) for other in (again, coarse))
    assert by_both < 2 * by_rounding < PRECISE / 12
    assert np.array_equal(coarse.argmax(axis=-1), plain.argmax(axis=-1))
    ours, theirs = (list(compiled(name, security).errors.values()) for security in ("active", "passive"))
    assert ours[0] < 5 * theirs[0]


READERS = {
    "nobody else": ([], "r", False),
    "a place": ([node("ArgMax", ["r"], ["y"], axis=1)], "y", False),
    "a threshold": ([node("Greater", ["r", "half"], ["b"]), node("Cast", ["b"], ["y"], to=1)], "y", False),
    "a product": ([node("MatMul", ["r", "w"], ["y"])], "y", True),
    "a product of half of it": (
        [node("Mul", ["r", "half"], ["s"]), node("Flatten", ["s"], ["f"]), node("MatMul", ["f", "w"], ["y"])],
        "y",
        True,
    ),
    "a product, and a root": (
        [
            node("MatMul", ["r", "w"], ["p"]),
            node("Sqrt", ["r"], ["q"]),
            node("ReduceSum", ["q", "last"], ["t"], keepdims=1),
            node("Add", ["p", "t"], ["y"]),
        ],
        "y",
        False,
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_only_what_goes_into_products_is_compared_coarsely(reader: str, tmp_path: Path) -> None:
    """Not what is told, and not where a place, a threshold or a root would tell a value below zero from zero."""
    nodes, out, expected = READERS[reader]
    constants = {
        "m": np.ones((4, 4), np.float32),
        "w": np.ones((4, 2), np.float32),
        "half": np.float32(0.5).reshape(1),
        "last": np.array([1]),
    }
    model = save_model(
        tmp_path, [node("MatMul", ["x", "m"], ["z"]), node("Relu", ["z"], ["r"]), *nodes], constants, outputs=[out]
    )
    plan = compile_model(model, roles=Roles(security="active")).plan
    coarse = [gate.coarse > 0 for gate in plan.gates if isinstance(gate, Relu)]
    assert coarse and coarse[0] == expected


def test_what_was_chosen_and_what_it_saves_can_be_read_off_a_plan() -> None:
    """The bytes of all that compares, as they are and as they would be."""
    plan, found = compiled("C").plan, choices(compiled("C").plan)
    first, last, second, relu = found
    assert [each.kind for each in found] == ["maximum"] * 3 + ["relu"]
    assert (first.comparisons, last.comparisons, second.comparisons, relu.comparisons) == (5760, 8640, 8000, 500)
    assert (first.bits, first.chunks, first.passed_over, last.direct) == (13, 4, 5, True)
    of_others = dealt(plan) - sum(each.dealt for each in found)
    assert 0 < of_others < 200_000  # products, the input, the check itself
    assert all(each.otherwise is not None and each.dealt < 0.7 * each.otherwise for each in found)
    assert last.text.startswith(f"{last.gate}: 8,640 comparisons on 13 bits in 4 chunks, without the lowest 5, and a ")
    plain = choices(compiled("C", "passive").plan)
    assert all(each.dealt == each.otherwise and not each.passed_over for each in plain)
