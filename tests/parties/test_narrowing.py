"""Whoever enters data that hardly fill their declared range is told what a narrower one would save, and nobody else."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from mpc.plan.cost import Cost, plan_cost
from parties import MpcWarning, Session
from parties.client.running.narrowing import Narrowing
from parties.local.layout import COORDINATOR
from tests.support.graphs import save_model
from tests.support.parties import InProcess
from tests.support.parties_commands import ROOT
from tests.support.parties_commands import mpc_here as mpc

C = ROOT / "benchmarks" / "networks" / "lenet_c.onnx"
SEED = 14


def uniform(low: float, high: float, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(SEED)).uniform(low, high, shape).astype(np.float32)


def row(*values: float) -> np.ndarray:
    return np.resize(np.array(values, np.float32), (1, 4))


def hint_of(compiled: Compiled, *runs: np.ndarray, me: str = COORDINATOR) -> str | None:
    """What the owner of an input `x` is told after these runs."""
    narrowing = Narrowing(compiled.plan, me, 2, compiled.again)
    for x in runs:
        narrowing.see({compiled.plan.inputs[0].name: x}, len(x))
    hint = narrowing.hint()
    return None if hint is None else hint.whole


def numbers(before: Cost, after: Cost) -> str:
    return f"{after.total_dealt(2):,} bytes dealt instead of {before.total_dealt(2):,}"


def test_c_is_told_what_both_ranges_cost() -> None:
    wide, narrow = (compile_model(C, (-32.0, 32.0)), compile_model(C, (0.0, 1.0)))
    before, after = plan_cost(wide.plan), plan_cost(narrow.plan)
    assert before.dealt > 1.3 * after.dealt
    name, shape = wide.plan.inputs[0].name, wide.plan.wire[wide.plan.inputs[0].wire].shape[1:]
    told = hint_of(wide, uniform(0.0, 0.9, 1, *map(int, shape)))
    assert told is not None and numbers(before, after) in told and f"--range {name}=0:1 " in told
    assert hint_of(narrow, uniform(0.0, 0.9, 1, *map(int, shape))) is None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """relu(x w): its comparisons are as wide as the range of x has them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    return save_model(tmp_path_factory.mktemp("model"), nodes, {"w": uniform(-1, 1, 4, 8)}, ("batch", 4))


def test_what_was_entered_in_all_runs_is_rounded_outwards(model: Path) -> None:
    compiled = compile_model(model, (-1024.0, 1024.0))
    for runs, expected in (
        ([row(-0.3, 0.9)], "x=-0.5:1 "),
        ([row(-0.3, 0.9), row(-1.0)], "x=-1:1 "),
        ([row(0.5)], "x=0:0.5 "),
        ([row(-3.0)], "x=-4:0 "),
        ([row(0.0)], f"x=0:{2.0**-10:g} "),
    ):
        told = hint_of(compiled, *runs)
        assert told is not None and f"--range {expected}" in told


def test_a_range_of_each_column_is_hinted_at_column_by_column(model: Path) -> None:
    compiled = compile_model(model, {"x": ((-1024.0,) * 4, (1024.0,) * 4)})
    told = hint_of(compiled, np.array([[1, -2, 3, 0], [0.5, 0, 4, 0]], np.float32))
    assert told is not None and f"--range x=0:1,-2:0,0:4,0:{2.0**-10:g} " in told


def test_nothing_is_said_where_little_is_saved_and_of_what_others_enter(model: Path) -> None:
    compiled = compile_model(model, (-1.0, 1.0))
    assert hint_of(compiled, uniform(-1, 1, 5, 4)) is None, "nothing is narrower"
    assert hint_of(compiled, uniform(-0.4, 0.4, 5, 4)) is None, "a bit of ten is not worth it"
    assert hint_of(compile_model(model, (-1024.0, 1024.0))) is None, "nothing was entered"
    theirs = compile_model(model, (-1024.0, 1024.0), Roles(owners={"x": "bob"}))
    assert hint_of(theirs, uniform(0, 1, 5, 4)) is None
    assert hint_of(theirs, uniform(0, 1, 5, 4), me="bob") is not None


def test_a_model_that_takes_long_to_compile_is_not_compiled_again(model: Path) -> None:
    plan = compile_model(model, (-1024.0, 1024.0)).plan
    for x, expected in ((uniform(-1, 1, 5, 4), True), (uniform(-256, 256, 5, 4), False)):
        narrowing = Narrowing(plan, COORDINATOR, 2, None)
        narrowing.see({"x": x}, len(x))
        hint = narrowing.hint()
        assert (hint is not None) == expected
        assert hint is None or "mpc inspect MODEL --range x=LOW:HIGH" in hint.discreet


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as made:
        yield made


def run_one(cluster: InProcess, compiled: Compiled, quiet: bool = False) -> tuple[Session, list[str]]:
    """A session of two runs, closed, and what Python warned of meanwhile; nothing while it ran."""
    x = uniform(0, 0.9, 3, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session = Session(cluster.client(), compiled, quiet=quiet)
        session.run(None, {"x": x})
        session.run(None, {"x": x})
        assert not [each for each in caught if "narrower" in str(each.message)]
        session.close()
        session.close()
    return session, [str(each.message) for each in caught if each.category is MpcWarning]


def test_a_session_tells_once_behind_its_runs_and_keeps_the_range_for_its_notes(
    cluster: InProcess, model: Path
) -> None:
    compiled = compile_model(model, (-1024.0, 1024.0))
    digest = compiled.plan.digest
    session, warned = run_one(cluster, compiled)
    [told], [note] = ([text for text in texts if "narrower" in text] for texts in (warned, session.notes))
    assert numbers(plan_cost(compiled.plan, 3), plan_cost(compile_model(model, (0.0, 1.0)).plan, 3)) in told
    assert "--range x=0:1 " in note and "0:1" not in told, "what others may read has the price, and no range"
    assert session.plan.digest == digest
    assert run_one(cluster, compiled, quiet=True)[1] == []


def test_notes_that_are_read_between_runs_have_it(cluster: InProcess, model: Path) -> None:
    with Session(cluster.client(), compile_model(model, (-1024.0, 1024.0))) as session:
        assert session.notes == []
        session.run(None, {"x": uniform(0, 0.9, 3, 4)})
        with pytest.warns(MpcWarning, match="narrower declared range"):
            assert len(session.notes) == 1
        session.run(None, {"x": uniform(-1000, 1000, 3, 4)})
        assert len(session.notes) == 1


def test_mpc_run_says_it_behind_the_answer_and_no_log_has_the_range(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", uniform(0, 0.9, 3, 4))
    result = mpc("run", model, "--input", tmp_path / "x.npy", "--parties", 2, "--range", "x=-1024:1024", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outputs"]
    notes = [line for line in result.stderr.splitlines() if "narrower declared range" in line]
    assert len(notes) == 1 and "bytes dealt instead of" in notes[0] and "0:1" not in result.stderr
