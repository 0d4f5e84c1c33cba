"""A user's first ten minutes: nothing is compiled, no home, a program folder that cannot be written to."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError, UsageError
from parties.cli.outputs import require_output, write_outputs
from tests.support.effort import patient
from tests.support.graphs import node, save_model
from tests.support.parties import data, tiny_answer, tiny_model
from tests.support.parties_commands import ROOT, environment, mpc

NOWHERE = "/proc/nowhere"
COMPILING = "compiling the kernels for this machine, once"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The packages as a wheel has them: without their tests, and without anything compiled."""
    folder = tmp_path / "site-packages"
    for package in ("mpc", "parties"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_first_run_compiles_once_and_aloud(tmp_path: Path, installed: Path) -> None:
    """Two commands at once, of an installation that is read-only, without a home; then a third."""
    tiny_model(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", data(4))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environ = environment(HOME=NOWHERE, XDG_CACHE_HOME="", TMPDIR=str(temporary)) | {"PYTHONPATH": str(installed)}
    words = ["run", "tiny.onnx", "--range", "-4:4", "--input", "x.npy", "--parties", "2", "--json"]
    command = [sys.executable, "-P", "-m", "parties.cli", *words]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=patient(400))
        assert process.returncode == 0, err
        assert np.abs(np.array(json.loads(out)["outputs"]["y"]) - tiny_answer(data(4))).max() < 1e-3
        assert err.count("cannot be kept in the usual place") == 1
        return err

    both = [start(), start()]
    assert all(COMPILING in finish(process) for process in both)
    [cache] = temporary.glob("mpc-*/kernels-*")
    compiled = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.nbc")}
    assert len(compiled) > 50
    assert COMPILING not in finish(start())
    assert {path.name: path.stat().st_mtime_ns for path in cache.glob("*.nbc")} == compiled
    assert not [path for path in temporary.iterdir() if path != cache.parent]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "--help"],
        ["ps"],
        ["inspect", str(ROOT / "examples" / "mnist_mlp.onnx"), "--json"],
        ["compile", str(ROOT / "examples" / "breast_cancer_lr.onnx"), "-o", "lr.plan"],
        ["cert", "ca", "ca"],
        ["doctor"],
    ],
    ids=lambda words: " ".join(words[:2]).split("/")[0],
)
def test_commands_that_compute_nothing_on_shares_compile_nothing(tmp_path: Path, words: list[str]) -> None:
    done = mpc(*words, folder=tmp_path, MPC_KERNEL_CACHE=str(tmp_path / "cache"))
    assert "internal error" not in done.stderr
    assert done.returncode == (3 if words[0] in ("ps", "doctor") else 0), done.stderr
    assert not (tmp_path / "cache").exists()


def test_outputs_of_any_name_are_written_for_their_reader_alone(tmp_path: Path) -> None:
    """numpy.savez takes names as arguments, and has one called "file" itself."""
    names = ["file", "args", "kwds", "a/b", "../up", "ä ö", "allow_pickle", "x" * 60_000]
    outputs = {name: np.arange(position + 1.0) for position, name in enumerate(names)}
    write_outputs(tmp_path / "y.npz", {**outputs, "labels": np.array(["red", "blue"], dtype=object), "empty": []})
    assert stat.S_IMODE((tmp_path / "y.npz").stat().st_mode) == 0o600
    with np.load(tmp_path / "y.npz", allow_pickle=False) as found:
        assert sorted(found.files) == sorted([*names, "labels", "empty"])
        assert all(np.array_equal(found[name], outputs[name]) for name in names)
        assert found["labels"].tolist() == ["red", "blue"]


def test_what_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    plan = compile_model(model, (-1, 1)).plan
    me = plan.wire[plan.outputs[0].wire].holders[0]
    for path, problem in (
        (tmp_path / "y.csv", "arrays are written as .npz"),
        (tmp_path / "absent" / "y.npz", "there is no folder"),
        (tmp_path, "it is a folder"),
        (Path("/proc/y.npz"), "you may not write"),
    ):
        if problem != "you may not write" or not os.access("/proc", os.W_OK):
            with pytest.raises(UsageError, match=problem):
                require_output(path, plan, me)
    require_output(tmp_path / "y.npz", plan, me)


def test_a_name_that_no_plan_has_room_for_is_refused_as_the_models(tmp_path: Path) -> None:
    model = save_model(tmp_path, [node("Relu", ["x"], ["y" * 300])], outputs=["y" * 300])
    with pytest.raises(ModelError, match="300 characters"):
        compile_model(model, (-1, 1))
