"""Where numbers are missing is as secret as the data: what others see follows from the columns that may miss any."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from mpc.errors import InputError
from mpc.interpret.world import World, WorldRun
from parties import Session
from parties.cli.compiling import compile_blindly
from parties.cli.display import Display
from parties.client.running.feeds import to_integers
from parties.pb.party_pb2 import Frame
from tests.support.graphs import ml_model, node, save_model
from tests.support.parties import InProcess
from tests.support.statistics import assert_uniform
from tests.support.worlds import openings, seed

pytestmark = pytest.mark.timeout(60)
NAN = np.float32("nan")
FULL = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
ROWS = {
    "none": FULL,
    "one": np.where(np.arange(4) == 1, NAN, FULL),
    "another": np.where(np.arange(4) == 2, NAN, FULL),
    "all": np.full(4, NAN, np.float32),
}
"""One row, many times: only masks make its rows differ."""


def imputed(folder: Path) -> Path:
    settings = {"imputed_value_floats": [1.5, -2.0, 0.25, 7.0], "replaced_value_float": float("nan")}
    nodes = [
        node("Imputer", ["x"], ["filled"], domain="ai.onnx.ml", **settings),
        node("MatMul", ["filled", "w"], ["y"]),
    ]
    return save_model(folder, nodes, {"w": np.full((4, 2), 0.3, np.float32)})


def forest(folder: Path, tracks: Sequence[int]) -> Path:
    return ml_model(
        folder, "TreeEnsembleRegressor", {"y": TensorProto.FLOAT}, n_targets=1,
        nodes_treeids=[0] * 5, nodes_nodeids=[0, 1, 2, 3, 4], nodes_featureids=[1, 0, 2, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[0.5, 0.0, 0.25, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 3, 0, 0], nodes_falsenodeids=[2, 0, 4, 0, 0],
        nodes_missing_value_tracks_true=[tracks[0], 0, tracks[1], 0, 0],
        target_treeids=[0] * 3, target_nodeids=[1, 3, 4], target_ids=[0] * 3, target_weights=[1.0, 2.0, 4.0],
    )  # fmt: skip


MODELS = {
    "an imputer": imputed,
    "trees that track": lambda folder: forest(folder, (1, 0)),
    "trees that do not": lambda folder: forest(folder, (0, 0)),
}


def compiled(name: str, folder: Path) -> Compiled:
    made = compile_model(MODELS[name](folder), {"x": (-4, 4)})
    [given] = made.plan.inputs
    assert given.missing is not None and given.missing.columns == (0, 1, 2, 3)
    assert (given.missing.wire is None) == (name == "trees that do not")
    return made


def run(made: Compiled, row: np.ndarray, rows: int, parties: int = 2) -> WorldRun:
    integers = to_integers(made.plan, {"x": np.tile(row, (rows, 1))}, ["x"])
    return World(made.plan, made.weights, parties, seed(5)).run(integers, rows)


# ------------------------------------------------------------------- what parties and provider see


@pytest.mark.parametrize("name", MODELS)
def test_security_22_sizes_order_and_rounds_do_not_tell_what_is_missing(name: str, tmp_path: Path) -> None:
    made, traffic = compiled(name, tmp_path), set()
    for row in ROWS.values():
        done = run(made, row, 5, parties=3)
        sizes = tuple(tuple(map(len, step)) for step in done.payloads)
        entered = tuple((wire, done.public[wire].shape) for given in made.plan.inputs for wire in given.wires)
        traffic.add((tuple(done.sent), done.dealt, sizes, entered))
    assert len(traffic) == 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("row", ["none", "all"])
def test_security_22_what_is_entered_and_opened_is_uniform_whatever_is_missing(
    name: str, row: str, tmp_path: Path
) -> None:
    made, rows = compiled(name, tmp_path), 2000
    done = run(made, ROWS[row], rows)
    for wire in (wire for given in made.plan.inputs for wire in given.wires):
        for number, column in enumerate(done.public[wire].T):
            assert_uniform(np.ascontiguousarray(column), 0, f"{wire}, column {number}")
    found = openings(made.plan.bind(rows), done)
    for key, (opening, values) in found.items():
        assert_uniform(np.ascontiguousarray(values), opening.width, str(key))
    assert found or name == "an imputer"


def test_no_plan_follows_from_what_is_missing(tmp_path: Path) -> None:
    for name, model in MODELS.items():
        (folder := tmp_path / name).mkdir()
        path, plans = model(folder), set()
        for row in ROWS.values():
            feeds = {"x": np.tile(row, (3, 1))}
            plans.add(compile_blindly(Display(), path, feeds, {}, {}, Roles()).plan.canonical)
        assert len(plans) == 1, name


# ------------------------------------------------------------------- between processes


@pytest.mark.parametrize("name", ["an imputer", "trees that do not"])
def test_frames_prices_and_logs_do_not_tell_what_is_missing(
    name: str,
    tmp_path: Path,
    written: io.StringIO,
) -> None:
    made, seen = compiled(name, tmp_path), []
    with InProcess(tmp_path / "cluster", 2, middles=[(0, 1)]) as cluster:
        frames: list[tuple[str, int, int]] = []

        def record(sender: str, number: int, frame: Frame) -> Sequence[Frame]:
            frames.append((sender, number, frame.ByteSize()))
            return [frame]

        cluster.middles[0].tamper = record
        for row in ROWS.values():
            frames.clear()
            written.truncate(0)
            written.seek(0)
            with Session(cluster.client(), made) as session:
                session.run(None, {"x": np.tile(row, (3, 1))})
                price = session.last_run
            assert price is not None
            logged = written.getvalue()
            events = sorted(re.findall(r'"event": "([^"]*)"', logged))
            assert not re.search(r"nan|missing", logged.lower())
            seen.append((sorted(frames), price.rounds, price.sent_bytes, price.dealt_bytes, events))
    assert len(seen[0][0]) > 2 and all(each == seen[0] for each in seen)


@pytest.mark.filterwarnings("ignore:output 'y' has an expected error:mpc.errors.MpcWarning")
def test_a_missing_number_that_may_not_be_is_told_to_its_owner_alone(tmp_path: Path, written: io.StringIO) -> None:
    """The column and what to do: neither the row nor a value, and nothing is sent."""
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    with InProcess(tmp_path / "cluster", 2) as cluster:
        with Session(cluster.client(), compile_model(path, {"x": (-4, 4)})) as session:
            session.run(None, {"x": np.tile(FULL, (3, 1))})
            before = written.getvalue()
            x = np.tile(np.array([1.0, 2.0, 3.5, 3.25], np.float32), (3, 1))
            x[1, 2] = NAN
            with pytest.raises(InputError) as caught:
                session.run(None, {"x": x})
            assert written.getvalue() == before
            text = str(caught.value)
            assert "input 'x'" in text and "column 2" in text and "SimpleImputer" in text
            assert not re.search(r"row 1|\[1|3\.25|3\.5", text)
            session.run(None, {"x": np.tile(FULL, (3, 1))})
