"""Into which groups a maximum of many is put, and that what is found is the largest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.lowering import tournaments
from mpc.compiler.lowering.tournaments import levels
from mpc.gates.maximum import Maximum
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees


def largest(folder: Path, rows: int, candidates: int) -> Compiled:
    path = save_model(folder, [node("ReduceMax", ["x"], ["y"], axes=[2])], shape=("batch", rows, candidates), opset=13)
    return compile_model(path, {"x": (-4.0, 4.0)})


def groups(found: Compiled) -> list[int]:
    wire = found.plan.bind(1).wire
    return [wire[gate.x].sizes[-1] for gate in found.plan.gates if isinstance(gate, Maximum)]


def test_groups_are_small_where_there_are_many_rows(tmp_path: Path) -> None:
    few, many = largest(tmp_path, 2, 16), largest(tmp_path, 1536, 128)
    assert groups(few) == [16]
    assert groups(many) == [4, 4, 8]


@pytest.mark.parametrize(("rows", "candidates"), [(1, 128), (64, 64), (1536, 128), (2000, 9), (3, 300), (90, 17)])
def test_no_tournament_of_equal_groups_is_cheaper(
    rows: int, candidates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worth(found: Compiled) -> int:
        cost = plan_cost(found.plan)
        return cost.dealt + 4 * cost.sent + tournaments.ROUND_BYTES * cost.rounds

    chosen = worth(largest(tmp_path, rows, candidates))
    for size in (2, 3, 4, 5, 8, 16):
        taken, left = [], candidates
        while left > size:
            left = -(-left // size)
            taken.append(left)
        with monkeypatch.context() as patch:
            patch.setattr("mpc.compiler.lowering.rules.comparisons.levels", lambda *_, found=tuple(taken): found)
            # all groups round once more, so a level's bits may differ by one from what was priced
            assert chosen <= worth(largest(tmp_path, rows, candidates)) * 1.01
    assert levels is tournaments.levels


@pytest.mark.parametrize("candidates", [37, 64])
def test_the_largest_of_many_is_found(candidates: int, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("ReduceMax", ["x"], ["y"], axes=[2])], shape=("batch", 400, candidates), opset=13)
    assert len(groups(compile_model(path, {"x": (-4.0, 4.0)}))) > 1
    x = np.random.default_rng(1).uniform(-4, 4, (1, 400, candidates)).astype(np.float32)
    assert_agrees(path, {"x": x}, {"x": (-4.0, 4.0)}, tolerance=1e-4)
