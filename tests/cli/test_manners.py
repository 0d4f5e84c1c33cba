"""The manners of the command line: what it loads, how it ends, what it reads and shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from mpc.errors import ConfigError, InputError
from parties.cli import sessions
from parties.cli.display import Display
from parties.cli.inputs import load_inputs
from parties.cli.outputs import print_outputs
from parties.local.layout import LocalLayout
from tests.support.parties import data, tiny_model
from tests.support.parties_commands import LONG, environment, mpc, mpc_here, start

HEAVY = ("numba", "llvmlite", "onnx", "grpc", "matplotlib", "onnxruntime")
LOADED = """
import sys
from parties import cli
try:
    cli.main(sys.argv[1:])
except SystemExit:
    print("loaded:", *sys.modules, file=sys.stderr)
"""


def finished(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command that has run to its end in a folder."""
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=LONG, check=False
    )


def loaded(*words: str, folder: Path) -> set[str]:
    """The packages that a command has loaded when it ends."""
    command = [sys.executable, "-c", LOADED, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=LONG, check=False
    )
    return {name.partition(".")[0] for name in done.stderr.rpartition("loaded:")[2].split()}


def test_commands_load_what_they_need(tmp_path: Path) -> None:
    """Nobody waits for a compiler to be told what commands there are, or what runs."""
    assert "click" in loaded("--help", folder=tmp_path)
    assert not loaded("--help", folder=tmp_path) & {*HEAVY, "numpy", "cryptography", "pydantic"}
    for words in (("ps",), ("logs",), ("down",), ("cert", "ca", "ca")):
        assert not loaded(*words, folder=tmp_path) & set(HEAVY), words
    tiny_model(tmp_path / "tiny.onnx")
    assert not loaded("inspect", "tiny.onnx", folder=tmp_path) & {"numba", "llvmlite", "matplotlib", "onnxruntime"}


@pytest.mark.parametrize("module", ["mpc", "parties", "parties.cli"])
def test_packages_are_commands(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=LONG, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("mpc"), done.stderr


def test_a_mistyped_command_is_answered_with_the_right_one(tmp_path: Path) -> None:
    for typed, meant in (("insepct", "inspect"), ("docter", "doctor"), ("runn", "run")):
        done = mpc_here(typed, folder=tmp_path)
        assert done.returncode == 2 and f"did you mean {meant}?" in done.stderr
    assert "the commands are up, ps" in mpc_here("zzzz", folder=tmp_path).stderr


@pytest.mark.parametrize("words", [["--help"], ["inspect", "tiny.onnx", "--json"], ["inspect", "tiny.onnx"]])
def test_a_reader_that_has_enough_is_no_error(tmp_path: Path, words: list[str]) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    process = start(*words, folder=tmp_path)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(LONG) == 0 and "Error" not in err and "Exception" not in err


def test_a_path_that_the_locale_cannot_write(tmp_path: Path) -> None:
    odd = os.fsdecode(b"gr\xfc\xdfe.onnx")
    for variables in ({"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}):
        for name in (odd, "größe.onnx"):
            done = mpc("inspect", name, folder=tmp_path, **variables)
            assert done.returncode == 5 and "no model file" in done.stderr, done.stderr


def test_a_narrow_terminal_loses_nothing(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    wide, narrow = (mpc("inspect", "tiny.onnx", folder=tmp_path, COLUMNS=columns).stdout for columns in ("200", "40"))
    assert wide == narrow and "…" not in narrow


# ------------------------------------------------------------------------------------- files


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_tables_that_are_piped_are_not_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `mpc sessions` and `mpc ps` print them, where no terminal says how wide it is."""
    parties = [f"party-{number}" for number in range(20)]
    coordinator = "a-coordinator-with-a-rather-long-name.example.org"
    sessions.show(Display(), [sessions.Found("5e" * 32, "ab" * 32, coordinator, "open", 5.0, 4000.0, 12, parties)])
    shown = capsys.readouterr().out
    assert coordinator in shown and ", ".join(parties) in shown and "4000.00 s ago" in shown
    folder = tmp_path / "c"
    layout = LocalLayout.create(folder, 2)
    listed = mpc_here("ps", "--dir", folder, COLUMNS="20")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["name", *(m.name for m in layout.members)]
    assert all(str(member.address) in listed.stdout for member in layout.members)


def test_outputs_that_are_cut_say_where_all_of_them_are(capsys: pytest.CaptureFixture[str]) -> None:
    for path, where in ((None, "--output FILE.npz keeps all"), (Path("answer.npz"), "all are in answer.npz")):
        print_outputs(Display(), {"y": np.zeros((12, 1))}, path)
        assert f"... 2 more rows; {where}\n" in capsys.readouterr().out


@pytest.mark.parametrize("environ", [{}, {"MPC_DIR": "the one"}], ids=["option", "variable"])
def test_hints_name_the_folder_of_the_cluster_that_was_asked_for(tmp_path: Path, environ: dict[str, str]) -> None:
    """In a form that a shell takes, and only where it is needed."""
    tiny_model(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", data(2))
    where = [] if environ else ["--dir", "the one"]
    named = "" if environ else " --dir 'the one'"
    run = ["run", "tiny.onnx", "--input", "x.npy"]
    for words in (["ps"], ["down"], ["logs"], ["doctor"], ["sessions"], ["deal", "--list"], run):
        told = mpc_here(*words, *where, folder=tmp_path, **environ)
        assert told.returncode == 3 and f"mpc up{named} --detach" in told.stderr, (words, told.stderr)
        assert "--dir" not in mpc_here(*words, folder=tmp_path).stderr, words
    folder = tmp_path / "the one"
    with chdir(tmp_path), mock.patch.dict(os.environ, environ):
        layout = LocalLayout.create(folder, 2)
        with pytest.raises(ConfigError, match=re.escape(f"mpc down{named}, mpc up{named} --client bob")):
            layout.client_file("bob")
        with mock.patch("parties.local.layout.running", return_value=7):
            with pytest.raises(ConfigError, match=re.escape(f"stop it: mpc down{named}")):
                LocalLayout.create(folder, 2)
    found = mpc_here("doctor", *where, folder=tmp_path, **environ)
    assert found.returncode == 6 and f"(locally: mpc up{named} --detach)" in found.stdout


def test_inspect_says_that_a_run_may_take_another_range(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    told = mpc_here("inspect", "tiny.onnx", folder=tmp_path)
    assert "no range is declared for 'x': 'mpc run' may take another one" in told.stdout
    assert json.loads(mpc_here("inspect", "tiny.onnx", "--json", folder=tmp_path).stdout)["undeclared"] == ["x"]
    told = mpc_here("inspect", "tiny.onnx", "--range", "-4:4", folder=tmp_path)
    assert told.returncode == 0 and "may take" not in told.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "1,2.5,-3\n4,5,6\n"),
        ("x.csv", "age,income,rate\n1,2.5,-3\n4,5,6"),
        ("x.csv", '\ufeff"age","income, yearly","rate"\r\n1, 2.5 ,-3\r\n\r\n4,5,6e0\r\n'),
        ("x.csv", "1;2.5;-3\n4;5;6\n"),
        ("x.tsv", "a\tb\tc\n1\t2.5\t-3\n4\t5\t6\n"),
        ("X.CSV", "1,2.5,-3\n4,5,6\n"),
    ],
)
def test_tables_of_numbers(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path, name, text)
    found = load_inputs((path,), ["x"], types={"x": "float32"})["x"]
    assert found.dtype == np.float32 and found.tolist() == [[1, 2.5, -3], [4, 5, 6]]
    assert load_inputs((f"x={path}",), ["w", "x"])["x"].shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5.1,3.5,red\n4.9,3.0,1\n", ("line 1", "column 2 (the first is column 0) is no number, and others are")),
        ("0,1,2\n7,8,9\n", ("line 1 counts 0, 1, 2", "header=False")),
        ("5,1;3,5\n", ("line 1: column 1 (the first is column 0) is no number, and others are",)),
        ("red,blue\n", ("no row of numbers", "taken for names")),
        ("a,b\n1,x\n", ("line 2: column 'b'", "leave it empty where a number is missing")),
    ],
)
def test_no_row_is_taken_for_names_nor_names_for_a_row(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        load_inputs((write(tmp_path, "x.csv", text),), ["x"])
    assert all(word in str(caught.value) + str(caught.value.remedy) + str(caught.value.cause) for word in words)


@pytest.mark.parametrize("missing", ["", "NA", "NaN", "null", "N/A", "None"])
def test_a_first_row_may_miss_a_number(tmp_path: Path, missing: str) -> None:
    found = load_inputs((write(tmp_path, "x.csv", f"5.1,{missing},3\n1,2,3\n"),), ["x"])["x"]
    assert found.shape == (2, 3) and np.isnan(found[0, 1])


@pytest.mark.parametrize(
    ("array", "kind", "taken"),
    [
        (np.array([[0.1, 1e300]]), "float32", "float64"),  # would become infinite: refused later, by name
        (np.array([[0.1, 2.0]]), "float32", "float32"),
        (np.array([[1, 255]], np.uint8), "float32", "float32"),
        (np.array([[1, 1 << 30 | 1]]), "float32", "float32"),  # as in a table, and in lists
        (np.array([[1, 300]]), "int8", "int64"),
        (np.array([[1, 100]]), "int8", "int8"),
        (np.array([[1.5]]), "int64", "float64"),
    ],
)
def test_arrays_enter_in_the_models_type_if_only_a_floats_rounding_changes_them(
    tmp_path: Path, array: np.ndarray, kind: str, taken: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    found = load_inputs((str(tmp_path / "x.npy"),), ["x"], types={"x": kind})["x"]
    assert found.dtype == taken


def test_columns_are_inputs_by_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, "people.csv", "income,other,age\n2.5,9,40\n3,9,50\n")
    found = load_inputs((path,), ["age", "income"], types={"age": "int64", "income": "float32"})
    assert found["age"].tolist() == [[40], [50]] and found["age"].dtype == np.int64
    assert found["income"].tolist() == [[2.5], [3]] and found["income"].dtype == np.float32


def test_an_empty_cell_is_no_number_but_a_table(tmp_path: Path) -> None:
    found = load_inputs((write(tmp_path, "x.csv", "1,,3\n"),), ["x"])["x"]
    assert np.isnan(found[0, 1]) and found[0, 2] == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,red\n", ("line 2", "column 'b'", "no number", "categor")),
        ("1,2\n3\n", ("line 2", "1 cells")),
        ("a,b\n", ("no row",)),
        ("", ("no row",)),
    ],
)
def test_tables_that_are_none_are_refused_without_their_values(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        load_inputs((write(tmp_path, "x.csv", text),), ["x"])
    told = str(caught.value)
    assert all(word in told for word in words), told
    assert "red" not in told.replace("numbered", "").replace("required", "")


def test_names_inside_an_archive_are_used(tmp_path: Path) -> None:
    path = tmp_path / "all.npz"
    np.savez(path, x=np.ones(1), labels=np.zeros(2), z=np.ones(3))
    assert load_inputs((str(path),), ["x"]).keys() == {"x"}
    assert {name: len(value) for name, value in load_inputs((str(path),), ["x", "z"]).items()} == {"x": 1, "z": 3}
    assert len(load_inputs((f"z={path}",), ["x", "z"])["z"]) == 3
    assert len(load_inputs((f"x={path}:labels",), ["x", "z"])["x"]) == 2
    assert len(load_inputs((f"{path}:labels",), ["y"])["y"]) == 2
    with pytest.raises(InputError, match="several arrays") as caught:
        load_inputs((str(path),), ["y"])
    assert "x, labels, z" in str(caught.value) and f"--input y={path}:" in str(caught.value)
    with pytest.raises(InputError, match="no array 'no'"):
        load_inputs((f"{path}:no",), ["y"])


def test_a_run_with_a_table_as_its_input_is_checked_as_any(tmp_path: Path) -> None:
    """Up to where a cluster would be needed."""
    tiny_model(tmp_path / "tiny.onnx")
    np.savetxt(tmp_path / "x.csv", data(4), delimiter=",")
    done = mpc("run", "tiny.onnx", "--input", "x.csv", "--range", "-1:1", "--parties", "2", folder=tmp_path)
    assert done.returncode == 5 and "outside the plan's range" in done.stderr
