"""A rehearsal holds each wire to its bound: what would go round silently is a refusal at the model's owner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler import compile as front
from mpc.compiler.compile import compile_model
from mpc.compiler.graph.graph import GraphInput
from mpc.compiler.lowering.lower import Lowered
from mpc.compiler.rehearsal import rehearse
from mpc.compiler.rehearsal.clear import Clear
from mpc.compiler.rehearsal.drawing import CORNERS, Draws, corner_runs
from mpc.errors import ModelError
from mpc.plan.plan import Plan
from mpc.wires import BATCH, Wire
from parties.client.compiling.record import read_record, write_record
from tests.support.graphs import node, save_model

SIZE = 64
SIGNS = np.tile([1.0, -1.0], SIZE // 2)


def sums(folder: Path, weights: np.ndarray) -> Path:
    """y = relu(x w): of x from -1 to 1 it is |w|_1 at most."""
    nodes = [node("MatMul", ["x", "w"], ["h"], "product"), node("Relu", ["h"], ["y"], "relu")]
    return save_model(folder, nodes, {"w": weights[:, None].astype(np.float32)}, (BATCH, len(weights)))


@pytest.fixture
def narrowed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the compiler believe that products are smaller, by so many bits."""
    whole = front.compile_graph

    def narrow(bits: int) -> None:
        def compiled(*arguments: object) -> Lowered:
            found = whole(*arguments)  # type: ignore[arg-type]
            [product] = [gate.out for gate in found.plan.gates if gate.kind == "matmul"]
            wires = tuple(
                wire.model_copy(update={"bits": wire.bits - bits}) if wire.name == product else wire
                for wire in found.plan.wires
            )
            fields = {name: getattr(found.plan, name) for name in Plan.model_fields}
            return replace(found, plan=Plan(**{**fields, "wires": wires}))

        monkeypatch.setattr(front, "compile_graph", compiled)

    return narrow


@pytest.mark.parametrize("signs", [np.ones(SIZE), SIGNS, -SIGNS, np.sign(np.arange(SIZE) - SIZE / 2 + 0.5)])
def test_a_bound_that_does_not_hold_at_a_corner_is_a_fault_that_names_gate_and_node(
    narrowed: Callable[[int], None], signs: np.ndarray, tmp_path: Path
) -> None:
    """What is drawn all over the range comes nowhere near: the largest sum is where all terms have one sign."""
    path = sums(tmp_path, 1.05 * signs)
    assert not compile_model(path, (-1.0, 1.0)).rehearsal.notes
    narrowed(1)
    with pytest.raises(ModelError, match=r"gate '.*matmul' of node 'product' \(MatMul\) writes wire") as caught:
        _ = compile_model(path, (-1.0, 1.0)).messages
    assert "beyond the bound that was proved" in caught.value.what
    with pytest.raises(ModelError):  # nor is it kept for another time
        list(write_record(compile_model(path, (-1.0, 1.0))))


def test_what_is_told_of_it_is_the_same_whatever_the_weights_are(
    narrowed: Callable[[int], None], tmp_path: Path
) -> None:
    narrowed(8)
    told = []
    for factor in (0.99, 0.51):
        with pytest.raises(ModelError) as caught:
            _ = compile_model(sums(tmp_path, factor * SIGNS), (-1.0, 1.0)).errors
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_samples_that_leave_a_bound_are_a_note_which_stays_with_the_compiled_model(
    narrowed: Callable[[int], None], tmp_path: Path
) -> None:
    """A first product that is too wide for proofs, so that its bound rests on the samples."""
    rng = np.random.default_rng(3)
    nodes = [node("MatMul", ["x", "w"], ["h"], "product"), node("Exp", ["h"], ["y"], "exp")]
    weights = {"w": np.full((SIZE, 1), 0.9, np.float32)}
    path = save_model(tmp_path, nodes, weights, (BATCH, SIZE))
    samples = rng.uniform(-0.1, 0.1, (40, SIZE)).astype(np.float32)
    held = compile_model(path, (-1.0, 1.0), samples=samples)
    assert any("bounds rest on the samples" in text for text in held.messages)
    assert not held.rehearsal.notes  # beyond the samples there is no bound to hold
    narrowed(5)
    left = compile_model(path, (-1.0, 1.0), samples=samples)
    [note] = left.rehearsal.notes
    assert note.startswith("on the samples themselves gate ")
    assert note in left.messages
    again = read_record(memoryview(b"".join(bytes(part) for part in write_record(left))))
    assert again is not None
    assert note in again.messages


@pytest.mark.parametrize(
    ("values", "left"),
    [
        (np.array([(1 << 59) - 1, -(1 << 59) + 1]), False),  # which no float64 tells from the bound itself
        (np.array([0, 1 << 59]), True),
        (np.array([-(1 << 59)]), True),
        (np.array([0.0, np.nan]), True),
        (np.array([np.inf]), True),
    ],
)
def test_a_value_is_within_its_bound_if_it_is_smaller(values: np.ndarray, left: bool) -> None:
    wire = Wire(name="w", shape=values.shape, scale=1, bits=59)
    clear = Clear({"w": wire}, {}, Draws())
    with np.errstate(invalid="ignore"):
        clear.set("w", values)
    assert clear.left == ["w"] * left


def test_a_sign_needs_room_for_its_rounding() -> None:
    clear = Clear({"w": Wire(name="w", shape=(1,), scale=1, bits=20)}, {}, Draws())
    clear.set("w", np.array([(1 << 20) - 1025]))
    clear.require_room("w", 10)
    assert not clear.left
    clear.require_room("w", 10, units=2)
    assert clear.left == ["w"]


@pytest.mark.parametrize("ends", [(-3.0, 5.0), (2.0, 5.0), ((-1.0, 2.0, -8.0, 0.0), (1.0, 3.0, -7.0, 0.0))])
@pytest.mark.parametrize("shape", [(BATCH, 4), (4,), (BATCH, 3, 4)])
def test_corners_are_within_the_ranges_and_reach_their_ends(ends: tuple, shape: tuple) -> None:
    given = GraphInput("x", shape, "float64", ends)
    runs = corner_runs([given], 4 * CORNERS, Draws())
    rows = np.concatenate([np.broadcast_to(run["x"], run["x"].shape).reshape(-1, 4) for run in runs])
    low, high = (np.broadcast_to(np.asarray(end), (4,)) for end in ends)
    assert np.all((low <= rows) & (rows <= high))
    for end in (low, high, np.clip(0.0, low, high), np.where(np.arange(4) % 2 == 0, low, high)):
        assert np.any(np.all(rows == end, axis=1))


def test_of_a_large_model_parts_are_rehearsed_side_by_side(
    narrowed: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What one thread finds is told like what is found one after another, twice the same; and a fault is raised."""
    path = sums(tmp_path, SIGNS)
    few = compile_model(path, (-1.0, 1.0)).rehearsal.expected["y"]
    monkeypatch.setattr(rehearse, "MOST_WORK", 1)
    first, again = (compile_model(path, (-1.0, 1.0)).rehearsal.expected["y"] for _ in range(2))
    assert first == again and few.error / 4 < first.error < 4 * few.error
    narrowed(8)
    with pytest.raises(ModelError, match="beyond the bound that was proved"):
        _ = compile_model(path, (-1.0, 1.0)).messages
