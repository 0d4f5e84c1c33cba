"""Shapes that a caller gives: sizes for what the model leaves open, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.roles import Roles
from mpc.errors import ModelError
from parties.cli.compiling import compile_for_data
from parties.cli.display import Display
from tests.support.graphs import node, save_model
from tests.support.parties import tiny_model
from tests.support.parties_commands import mpc_here


def entered(folder: Path, shape: tuple, given: object, **more: object) -> tuple:
    """The shape of the only input in the plan."""
    compiled = compile_model(
        save_model(folder, [node("Relu", ["x"], ["y"])], shape=shape), (-1, 1), shapes=given, **more
    )
    [x] = compiled.plan.inputs
    return compiled.plan.wire[x.wire].shape


@pytest.mark.parametrize(
    ("shape", "given", "becomes"),
    [
        (("batch", 4), (None, 4), ("batch", 4)),
        (("batch", 4), ("batch", 4), ("batch", 4)),
        (("batch", 4), (3, 4), (3, 4)),
        ((2, 4), (2, 4), (2, 4)),
        (("batch", "width", 3), (None, 5, 3), ("batch", 5, 3)),
        (("batch", None, 3), {"x": (7, 5, 3)}, (7, 5, 3)),
    ],
)
def test_what_fits_the_model_is_taken(tmp_path: Path, shape: tuple, given: object, becomes: tuple) -> None:
    assert entered(tmp_path, shape, given) == becomes


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        (("batch", 4), (None, 3)),
        (("batch", 4), (None, None)),
        (("batch", 4), (4,)),
        (("batch", 4), (None, 4, 1)),
        (("batch", 4), ()),
        ((2, 4), (None, 4)),
        ((2, 4), (3, 4)),
        (("batch", "width", 3), (None, 5)),
        (("batch", "width", 3), (None, 5, 4)),
    ],
)
def test_what_contradicts_the_model_is_refused(tmp_path: Path, shape: tuple, given: tuple) -> None:
    with pytest.raises(ModelError, match="input 'x' cannot have the shape") as caught:
        entered(tmp_path, shape, given)
    assert f"{len(shape)} dimensions" in caught.value.cause and "leave the shape of 'x' out" in caught.value.remedy


def test_a_shape_for_an_input_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="shape is given for 'z', but the inputs are 'x'"):
        entered(tmp_path, ("batch", 4), {"z": (None, 4)})


def test_samples_give_sizes_to_what_is_open_only(tmp_path: Path) -> None:
    """They are data, not a declaration: a fixed batch takes more rows than it has, one run after another."""
    assert entered(tmp_path, ("batch", "width"), None, samples={"x": np.ones((9, 5), np.float32)}) == ("batch", 5)
    assert entered(tmp_path, (2, 4), None, samples={"x": np.ones((8, 4), np.float32)}) == (2, 4)


@pytest.mark.parametrize("command", [["inspect"], ["run", "--parties", "2", "--input", "x.npy"]])
@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ("x=3", 5, "cannot have the shape 3"),
        ("batch,4", 5, "cannot have the shape batch,4"),
        ("x=batch,3,1", 5, "2 dimensions for it, batch,3"),
        ("z=batch,3", 2, "no input 'z'"),
        ("x=batch,three", 2, "is no shape"),
    ],
)
def test_the_command_line_refuses_them_too(
    tmp_path: Path, command: list[str], given: str, status: int, words: str
) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", np.zeros((1, 3), np.float32))
    name, *options = command
    done = mpc_here(name, "tiny.onnx", *options, "--range", "-1:1", "--shape", given, folder=tmp_path)
    assert done.returncode == status and words in done.stderr and "fix:" in done.stderr, done.stderr
    assert mpc_here("inspect", "tiny.onnx", "--shape", "x=batch,3", folder=tmp_path).returncode == 0


def test_a_file_is_read_once_however_often_it_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data beyond the default range, so that the command compiles for several ranges."""
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    read: list[Path] = []
    content = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: [read.append(path), content(path)][1])
    feeds = {"x": np.array([[1, 2, 3, 4000]], np.float32)}
    compiled = compile_for_data(Display(quiet=True), path, feeds, {}, {}, Roles())
    assert np.max(compiled.plan.inputs[0].high) >= 4000 and read == [path]
