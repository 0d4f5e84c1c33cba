"""What commands say aloud the SDK warns of, in the same words, once a session."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from mpc.compiler.compile import Compiled, compile_model
from parties import Cluster, MpcWarning, Session
from tests.support.graphs import save_model
from tests.support.parties import InProcess
from tests.support.parties_commands import mpc_here as mpc


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as made:
        yield made


def loose(folder: Path) -> Path:
    """1 / relu(x w) of a denominator that can be zero, times much: a note, an expected error, and no declared range."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["d"]),
        helper.make_node("Relu", ["d"], ["positive"]),
        helper.make_node("Reciprocal", ["positive"], ["r"]),
        helper.make_node("Mul", ["r", "much"], ["y"]),
    ]
    constants = {"w": np.full((3, 2), 0.3, np.float32), "much": np.array([700.3, 300.7], np.float32)}
    return save_model(folder, nodes, constants, ("batch", 3))


def said(path: Path, folder: Path) -> list[str]:
    """The notes of `mpc compile`."""
    result = mpc("compile", path, "-o", folder / "plan.json")
    assert result.returncode == 0, result.stderr
    return [line.removeprefix("note: ") for line in result.stderr.splitlines() if line.startswith("note: ")]


def opened(cluster: InProcess, compiled: Compiled) -> tuple[Session, list[str]]:
    """A session, and what Python warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session = Session(cluster.client(), compiled)
    return session, [str(each.message) for each in caught if each.category is MpcWarning]


def test_a_session_warns_in_the_words_of_the_command_line(cluster: InProcess, tmp_path: Path) -> None:
    path = loose(tmp_path)
    session, warned = opened(cluster, compile_model(path))
    session.close()
    assert warned == session.notes == said(path, tmp_path)
    assert [any(word in text for text in warned) for word in ("counts as", "expected error", "no range")] == [True] * 3


def test_warnings_name_the_line_that_called_the_library(
    cluster: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a session was made by hand or by a cluster, and whatever warns: bounds, data, a stock."""
    made = Cluster(cluster.client().config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.session(loose(tmp_path), {"x": (-4, 4)}).close()
        Session(cluster.client(), compile_model(loose(tmp_path), {"x": (-4, 4)})).close()
        with made.session(loose(tmp_path), {"x": (-(2.0**30), 2.0**30)}) as session:
            session.run(None, {"x": np.random.Generator(np.random.PCG64(0)).normal(size=(16, 3)).astype(np.float32)})
    warned = [each for each in caught if each.category is MpcWarning]
    assert any("varies by" in str(each.message) for each in warned) and len({each.lineno for each in warned}) == 4
    assert {each.filename for each in warned} == {__file__}


def test_a_precise_model_with_a_range_says_nothing(cluster: InProcess) -> None:
    session, warned = opened(cluster, cluster.compiled())
    session.close()
    assert warned == session.notes == []


def test_data_that_their_range_hardly_resolves_are_warned_of_once(cluster: InProcess, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save_model(tmp_path, nodes, {"w": np.full((2, 1), 0.3, np.float32)}, ("batch", 2))
    compiled = compile_model(path, {"x": (-(2.0**30), 2.0**30)})
    x = np.random.Generator(np.random.PCG64(0)).uniform(0, [[1e9, 1e-4]], (16, 2)).astype(np.float32)
    session, before = opened(cluster, compiled)
    with pytest.warns(MpcWarning, match=r"column 1 .* of input 'x'") as caught:
        session.run(None, {"x": x})
        session.run(None, {"x": x})
    session.close()
    assert len([each for each in caught if each.category is MpcWarning]) == 1
    assert session.notes[:-1] == before and "column 1" in session.notes[-1]
