"""Inputs that lie at the parties: scales are given, rows are read in order, nothing is dealt or sent for them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.stored import StoredInput
from mpc.errors import InputError, PlanError
from mpc.gates.input import Input
from mpc.interpret.world import World
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.prg import expand_field, expand_field_part
from mpc.stored import BLOCK_ROWS, Layout, expand_rows, join_columns, read_rows
from mpc.wires import Lifetime
from tests.support.effort import examples
from tests.support.graphs import node, save_model
from tests.support.worlds import seed

AGE_RATE_SIZE = StoredInput(
    scales=(Fraction(1), Fraction(1 << 28), Fraction(1 << 14)), low=(0, -0.5, 0), high=(120, 0.5, 1e9)
)


def layer(folder: Path) -> Path:
    weight = np.array([[0.1, -0.02], [3, 4], [2e-9, -1e-9]], np.float32)
    bias = np.array([-1, 2], np.float32)
    nodes = [node("Gemm", ["x", "w", "b"], ["h"]), node("Relu", ["h"], ["y"])]
    return save_model(folder, nodes, {"w": weight, "b": bias}, ("batch", 3))


def table(rows: int) -> np.ndarray:
    draw = np.random.default_rng(rows)
    columns = [draw.integers(0, 121, rows), draw.uniform(-0.5, 0.5, rows), draw.uniform(0, 1e9, rows)]
    return np.stack(columns, axis=1)


def as_stored(stored: StoredInput, values: np.ndarray) -> np.ndarray:
    return np.rint(values * np.array([float(scale) for scale in stored.scales])).astype(np.int64)


def opened(compiled: Compiled, world: World, batches: list[int]) -> np.ndarray:
    out = compiled.plan.outputs[0].wire
    parts = [world.run({}, batch).outputs[out] for batch in batches]
    return np.concatenate(parts) / float(compiled.plan.wire[out].scale)


@pytest.mark.parametrize("parties", [2, 3])
def test_columns_of_any_scale_are_read_as_they_lie(tmp_path: Path, parties: int) -> None:
    path, data = layer(tmp_path), table(50)
    compiled = compile_model(path, stored={"x": AGE_RATE_SIZE})
    given = compiled.plan.inputs[0]
    assert compiled.plan.wire[given.wire].scale == 1 << 28
    assert [float(f) for f in given.factor] == [2.0**-28, 1, 2.0**-14]

    world = World(compiled.plan, compiled.weights, parties, seed(1), {given.wire: as_stored(AGE_RATE_SIZE, data)})
    found = opened(compiled, world, [20, 20, 10, 50])
    exact = ort.InferenceSession(path).run(None, {"x": data.astype(np.float32)})[0]
    assert np.abs(found[:50] - exact).max() < 2e-5
    assert np.abs(found[50:] - exact).max() < 2e-5  # from the start again
    assert compiled.errors["y"] < 1e-5


def test_nothing_is_dealt_or_sent_for_them(tmp_path: Path) -> None:
    path = layer(tmp_path)
    stored = compile_model(path, stored={"x": AGE_RATE_SIZE}).plan
    gate = stored.stored[0]
    assert (gate.lifetime, gate.correlations(stored.bind(7).wire)) == (Lifetime.STORED, ())
    assert stored.owners == frozenset({"coordinator"})  # of the weights
    assert stored.stored_by == frozenset({"coordinator"})
    assert stored.entered == ()
    assert parse_plan(stored.canonical) == stored


def test_whole_numbers_stay_exact(tmp_path: Path) -> None:
    steps = [node("Greater", ["x", "t"], ["b"]), node("Cast", ["b"], ["y"], to=1)]
    path = save_model(tmp_path, steps, {"t": np.array([40.0], np.float32)}, ("batch", 2))
    whole = StoredInput((Fraction(1),), (0,), (120,))
    compiled = compile_model(path, stored={"x": whole})
    data = np.array([[39, 40], [41, 120], [0, 40]])
    world = World(compiled.plan, compiled.weights, 2, seed(2), {compiled.plan.inputs[0].wire: data.astype(np.int64)})
    np.testing.assert_array_equal(opened(compiled, world, [3]), data > 40)


def test_openings_differ_from_run_to_run_of_the_same_rows(tmp_path: Path) -> None:
    """x^ and its mask stay; whatever is opened is masked anew (security.md 38, data at rest)."""
    compiled = compile_model(layer(tmp_path), stored={"x": AGE_RATE_SIZE})
    data = as_stored(AGE_RATE_SIZE, table(40))
    world = World(compiled.plan, compiled.weights, 2, seed(3), {compiled.plan.inputs[0].wire: data})
    words: list[set[bytes]] = []
    for _ in range(4):
        payloads = [p for step in world.run({}, 40).payloads for p in step]
        words.append({payload[i : i + 8] for payload in payloads for i in range(32, len(payload) - 7, 8)})
    for index, one in enumerate(words):
        assert len(one) > 100
        for other in words[:index]:
            assert not one & other


def test_a_stored_weight_is_a_weight_that_nobody_enters(tmp_path: Path) -> None:
    compiled = compile_model(layer(tmp_path))
    plan = compiled.plan.with_stored_weights()
    assert (plan.entered_once, len(plan.weights)) == ((), len(compiled.plan.weights))
    assert plan.owners == frozenset({"coordinator"})  # of x
    wire, data = plan.inputs[0].wire, np.zeros((4, 3))
    data[:, 0] = 1
    entered = np.rint(data * float(plan.wire[wire].scale) * np.array([float(f) for f in plan.inputs[0].factor]))
    runs = [
        World(p, compiled.weights, 3, seed(4)).run({wire: entered.astype(np.int64)}, 4) for p in (plan, compiled.plan)
    ]
    for name in runs[0].outputs:
        assert np.abs(runs[0].outputs[name] - runs[1].outputs[name]).max() <= 1  # rounding coins differ
    assert runs[0].dealt == runs[1].dealt
    assert plan.digest != compiled.plan.digest


def image(shape: tuple[int, ...]) -> StoredInput:
    return StoredInput((Fraction(1),), (0,), (255,))


def test_an_array_a_row(tmp_path: Path) -> None:
    path = save_model(
        tmp_path,
        [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])],
        {"w": np.full((8, 1), 0.5, np.float32)},
        ("batch", 2, 2, 2),
    )
    compiled = compile_model(path, stored={"x": image((2, 2, 2))})
    data = np.arange(24).reshape(3, 2, 2, 2).astype(np.int64)
    world = World(compiled.plan, compiled.weights, 2, seed(5), {compiled.plan.inputs[0].wire: data})
    np.testing.assert_allclose(opened(compiled, world, [3])[:, 0], data.reshape(3, -1).sum(1) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"z": AGE_RATE_SIZE}, "no input 'z'"),
        ({"x": StoredInput((Fraction(3), Fraction(1), Fraction(1)), (0,) * 3, (1,) * 3)}, "no powers of two"),
        ({"x": StoredInput((Fraction(1),) * 2, (0,) * 2, (1,) * 2)}, "there are 2 columns"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, stored: dict[str, StoredInput], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compile_model(layer(tmp_path), stored=stored)


def test_reals_are_no_whole_numbers(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Mul", ["x", "x"], ["y"])], shape=("batch", 1), element=7)
    with pytest.raises(InputError, match="takes whole numbers"):
        compile_model(path, stored={"x": StoredInput((Fraction(2),), (0,), (9,))})


def test_rows_are_the_first_axis(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])], shape=(4, 3))
    with pytest.raises(InputError, match="first axis"):
        compile_model(path, stored={"x": AGE_RATE_SIZE})


def test_a_plan_whose_stored_rows_are_elsewhere_is_refused(tmp_path: Path) -> None:
    plan = compile_model(layer(tmp_path), stored={"x": AGE_RATE_SIZE}).plan
    gates = tuple(
        gate.model_copy(update={"lifetime": Lifetime.STORED_WEIGHT})
        if isinstance(gate, Input) and gate.is_stored
        else gate
        for gate in plan.gates
    )
    wrong = Plan.model_construct(**{**dict(plan), "gates": gates})
    with pytest.raises(PlanError, match="a weight has no batch"):
        parse_plan(wrong.canonical)


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)
LAYOUTS = st.integers(1, 3 * BLOCK_ROWS).map(Layout) | LENGTHS.map(lambda each: Layout(sum(each), each))


@examples(80)
@given(layout=LAYOUTS, data=st.data())
def test_rows_are_found_block_by_block(layout: Layout, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, layout.rows - 1))
    size = data.draw(st.integers(1, layout.rows - first))
    blocks = np.split(np.arange(layout.rows), [layout.start(b) for b in range(1, layout.count)])
    assert [len(block) for block in blocks] == [layout.rows_of(b) for b in range(layout.count)]
    found = read_rows(lambda block, start, stop: blocks[block][start:stop], layout, first, size)
    np.testing.assert_array_equal(found, np.arange(first, first + size))
    assert [b for b in range(layout.count) if {*blocks[b]} & {*found.tolist()}] == [*layout.blocks(first, size)]
    for wrong in (-1, layout.rows):
        with pytest.raises(ValueError, match="row"):
            layout.block_at(wrong)


@pytest.mark.parametrize("lengths", [(), (3, BLOCK_ROWS, 1, 1)])
def test_masks_of_a_few_rows_are_those_of_all(lengths: tuple[int, ...]) -> None:
    layout, shape = Layout(BLOCK_ROWS + 5, lengths), (3,)
    blocks = [expand_field(seed(b), (layout.rows_of(b), *shape)) for b in range(layout.count)]
    every = np.concatenate(blocks)
    for first, count in [(0, layout.rows), (1, 1), (BLOCK_ROWS - 1, 3), (BLOCK_ROWS + 1, 4), (7, 2)]:
        found = expand_rows(seed, layout, shape, first, count)
        np.testing.assert_array_equal(found, every[first : first + count])
    with pytest.raises(ValueError, match="a column of"):
        expand_rows(seed, layout, shape, layout.rows - 1, 2)


@examples(40)
@given(start=st.integers(0, 300), count=st.integers(0, 300))
def test_part_of_an_expansion(start: int, count: int) -> None:
    np.testing.assert_array_equal(
        expand_field_part(seed(9), start, count), expand_field(seed(9), (600,))[start:][:count]
    )


def test_columns_side_by_side_fill_a_wire() -> None:
    images, ages = np.arange(8).reshape(2, 2, 2), np.array([50, 60])
    np.testing.assert_array_equal(join_columns([ages, images], (2, 5)), [[50, 0, 1, 2, 3], [60, 4, 5, 6, 7]])
    with pytest.raises(ValueError, match="reshape"):
        join_columns([ages], (2, 2))
