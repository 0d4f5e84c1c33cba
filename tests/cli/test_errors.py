"""`mpc` as its users meet it when something is wrong: the exit code, one message, nothing left behind."""

from __future__ import annotations

import json
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.graphs import node, save_model
from tests.support.parties import tiny_model
from tests.support.parties_commands import ROOT
from tests.support.parties_commands import mpc_here as mpc

pytestmark = pytest.mark.timeout(90)
LR = ROOT / "examples" / "breast_cancer_lr.onnx"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data of every kind, and no cluster."""
    made = tmp_path_factory.mktemp("work")
    tiny_model(made / "tiny.onnx")
    good = np.zeros((1, 3), dtype=np.float32)
    np.save(made / "good.npy", good)
    np.save(made / "shape.npy", np.zeros((1, 4), dtype=np.float32))
    np.save(made / "rank.npy", np.zeros(3, dtype=np.float32))
    np.save(made / "empty.npy", np.zeros((0, 3), dtype=np.float32))
    np.save(made / "text.npy", np.array([["a", "b", "c"]]))
    np.save(made / "nan.npy", np.array([[0, np.nan, 0]], dtype=np.float32))
    np.save(made / "inf.npy", np.array([[0, np.inf, 0]], dtype=np.float32))
    np.save(made / "large.npy", np.array([[0, 5000, 0]], dtype=np.float32))
    np.save(made / "objects.npy", np.array([[{}, 1, 2]], dtype=object), allow_pickle=True)
    np.savez(made / "objects.npz", x=np.array([[{}, 1, 2]], dtype=object))
    np.savez(made / "two.npz", x=good, other=good)
    np.savez(made / "strangers.npz", a=good, b=good)
    np.savez(made / "nothing.npz")
    (made / "zero.npy").write_bytes(b"")
    (made / "cut.npy").write_bytes((made / "good.npy").read_bytes()[:-3])
    (made / "cut.npz").write_bytes((made / "two.npz").read_bytes()[:-40])
    (made / "pickle.npy").write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07harmful\x94.")
    with zipfile.ZipFile(made / "bomb.npz", "w") as archive:
        archive.writestr(
            "x.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 3), }"
            + b" " * 40
            + b"\n",
        )
    (made / "text.onnx").write_text("this is no model")
    (made / "zero.onnx").write_bytes(b"")
    (made / "cut.onnx").write_bytes((made / "tiny.onnx").read_bytes()[:60])
    nodes = [helper.make_node("Det", ["x"], ["y"], name="the_strange_one")]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [2, 2])], [value("y", TensorProto.FLOAT, [])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), made / "strange.onnx")
    return made


def refused(exit_code: int, *needles: str, words: list, folder: Path, **variables: str) -> str:
    """The command fails as it should; what it said."""
    done = mpc(*words, folder=folder, **variables)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == "", "results only on stdout"
    assert "Traceback" not in done.stderr
    for needle in needles:
        assert needle in done.stderr, done.stderr
    return done.stderr


RUN = ["run", "tiny.onnx", "--range", "-4:4", "--input"]
OWN = ["--parties", "2"]


@pytest.mark.parametrize(
    ("file", "needles"),
    [
        ("absent.npy", ["absent.npy"]),
        ("shape.npy", ["shape", "(1, 4)", "batch"]),
        ("rank.npy", ["shape"]),
        ("empty.npy", ["empty", "shape"]),
        ("text.npy", ["dtype"]),
        ("nan.npy", ["NaN"]),
        ("inf.npy", ["holds infinity", "numpy.clip"]),
        ("large.npy", ["outside the plan's range", "--range"]),
        ("objects.npy", ["objects.npy"]),
        ("objects.npz", ["objects.npz"]),
        ("nothing.npz", ["nothing.npz"]),
        ("zero.npy", ["zero.npy"]),
        ("cut.npy", ["cut.npy"]),
        ("cut.npz", ["cut.npz"]),
        ("pickle.npy", ["pickle.npy"]),
        ("bomb.npz", ["bomb.npz"]),
        ("nobody=good.npy", ["no input 'nobody'", "x"]),
        ("strangers.npz", ["several arrays", "a, b", "--input x="]),
        ("good.npy:x", ["has no array 'x'", "leave out ':x'"]),
        (".", []),
    ],
)
def test_bad_data(folder: Path, file: str, needles: list[str]) -> None:
    """Refused as input (5) before any process is started."""
    shown = refused(5, *needles, "fix:", words=[*RUN, file, *OWN], folder=folder)
    assert shown.startswith("error: ")


def test_nothing_is_said_of_the_range_of_a_table_that_does_not_fit(folder: Path) -> None:
    shown = refused(5, "(1, 4)", words=["run", "tiny.onnx", "--input", "shape.npy", *OWN], folder=folder)
    assert "no range is declared" not in shown


def test_two_arrays_for_one_input(folder: Path) -> None:
    """The archive has one by the input's name, and the file beside it is for no other."""
    refused(5, "two arrays", "'x'", "fix:", words=[*RUN, "two.npz", "--input", "good.npy", *OWN], folder=folder)


@pytest.mark.parametrize(
    ("model", "needles"),
    [
        ("absent.onnx", ["absent.onnx"]),
        ("text.onnx", ["text.onnx", "ONNX"]),
        ("zero.onnx", ["zero.onnx is empty", "export the model again"]),
        ("cut.onnx", ["cut.onnx"]),
        ("strange.onnx", ["the_strange_one", "Det"]),
        (".", []),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "compile", "run"])
def test_bad_models(folder: Path, command: str, model: str, needles: list[str]) -> None:
    more = {"inspect": [], "compile": ["-o", "plan.json"], "run": ["--input", "good.npy", *OWN]}[command]
    refused(5, *needles, words=[command, model, *more], folder=folder)
    assert not (folder / "plan.json").exists()


def test_bad_plans(folder: Path) -> None:
    for name, content in (("a.json", "{"), ("b.json", "{}"), ("c.json", '{"gates": []}'), ("d.json", "{" * 50_000)):
        (folder / name).write_text(content)
        refused(5, words=["inspect", name], folder=folder)


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "tiny.onnx"],
        ["nonsense"],
        ["up", "--parties", "1"],
        ["run", "tiny.onnx", "--input", "good.npy", "--parties", "1"],
        ["run", "tiny.onnx", "--input", "good.npy", "--security", "none"],
        ["run", "tiny.onnx", "--input", "good.npy", "--parties", "2", "--cluster", "x.toml"],
        ["run", "tiny.onnx", "--input", "good.npy", "--parties", "2", "--output", "no/such/folder/y.npz"],
        ["run", "absent.onnx", "--input", "absent.npy", "--parties", "2", "--output", "y.csv"],
        ["inspect", "tiny.onnx", "--batch", "0"],
        ["party", "serve"],
    ],
    ids=" ".join,
)
def test_usage(folder: Path, words: list[str]) -> None:
    done = mpc(*words, folder=folder)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [*RUN, "good.npy"],
        [*RUN, "good.npy", "--cluster", "absent.toml"],
        ["ps"],
        ["down"],
        ["logs"],
        ["doctor"],
        ["doctor", "--cluster", "absent.toml"],
        ["party", "serve", "--config", "absent.toml"],
        ["provider", "serve", "--config", "absent.toml"],
    ],
    ids=" ".join,
)
def test_no_cluster_and_no_config(folder: Path, words: list[str]) -> None:
    refused(3, "fix:", words=words, folder=folder)


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        ([*RUN, "good.npy", "--json"], 3, "config"),
        ([*RUN, "nan.npy", "--json", *OWN], 5, "input"),
        (["inspect", "strange.onnx", "--json"], 5, "model"),
        (["ps", "--json"], 3, "config"),
        (["doctor", "--json"], 3, "config"),
        (["run", "--json"], 2, "usage"),
    ],
    ids=str,
)
def test_errors_as_json(folder: Path, words: list[str], exit_code: int, code: str) -> None:
    done = mpc(*words, folder=folder)
    assert done.returncode == exit_code
    [line] = done.stdout.splitlines()
    content: dict[str, Any] = json.loads(line)
    assert content["version"] == 1
    assert (content["error"]["code"], content["error"]["exit_code"]) == (code, exit_code)
    assert content["error"]["what"] and set(content["error"]) == {"code", "what", "cause", "fix", "peer", "exit_code"}


def test_a_port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(3, str(port), "fix:", words=["up", "--parties", "2", "--port", port, "--dir", "taken"], folder=folder)


@pytest.mark.parametrize(
    ("line", "needles"),
    [
        ('lisen = "127.0.0.1:1"\n', ["lisen", "did you mean listen?"]),
        ("[policy]\nrecipient = []\n", ["policy.recipient", "did you mean recipients?"]),
        ("[deadlines]\nstep = -1\n", ["deadlines.step"]),
        ("[limits]\nmax_batch = 'many'\n", ["limits.max_batch"]),
        ("nonsense\n", ["not TOML"]),
        ("threads = 0\n", ["threads"]),
    ],
    ids=lambda value: value.split("=")[0].strip() if isinstance(value, str) else "",
)
def test_configs(folder: Path, line: str, needles: list[str]) -> None:
    (folder / "bad.toml").write_text(line)
    refused(3, *needles, "fix:", words=["party", "serve", "--config", "bad.toml"], folder=folder)


def test_a_variable_that_is_nearly_a_setting(folder: Path) -> None:
    (folder / "empty.toml").write_text("")
    words = ["party", "serve", "--config", "empty.toml"]
    refused(3, "MPC_LISTENN", "MPC_LISTEN", words=words, folder=folder, MPC_LISTENN="127.0.0.1:1")


def test_inspect_and_compile(folder: Path) -> None:
    """Results on stdout; as JSON one versioned object; the same digest from model and plan."""
    shown = json.loads(mpc("inspect", LR, "--json", "--batch", "4", "--parties", "3").stdout)
    assert (shown["version"], shown["batch"], shown["parties"]) == (1, 4, 3)
    done = mpc("compile", LR, "-o", folder / "lr.plan")
    assert done.returncode == 0 and done.stdout.strip() == shown["digest"]
    again = json.loads(mpc("inspect", folder / "lr.plan", "--json", "--batch", "4", "--parties", "3").stdout)
    assert {**again, "gates": []} == {**shown, "gates": []}
    text = mpc("inspect", LR)
    assert text.returncode == 0 and "learns" in text.stdout and shown["digest"] in text.stdout
    assert "Sigmoid" not in text.stderr


def test_no_colour_no_escape_sequences(folder: Path) -> None:
    for variables in ({}, {"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": ""}):
        done = mpc("inspect", "absent.onnx", folder=folder, **variables)
        assert "\x1b" not in done.stderr + done.stdout


def test_quiet_keeps_errors(folder: Path) -> None:
    assert "error:" in mpc("--quiet", "inspect", "absent.onnx", folder=folder).stderr


def test_help_and_version(folder: Path) -> None:
    for words in (["--help"], ["run", "--help"], ["--version"], ["party", "serve", "--help"]):
        done = mpc(*words, folder=folder)
        assert done.returncode == 0 and done.stdout


def test_inspect_tells_which_columns_may_miss_numbers(tmp_path: Path) -> None:
    """Those that only an Imputer reads; another operator reads the third."""
    settings = {"imputed_value_floats": [1.5, -2.0, 0.25], "replaced_value_float": float("nan")}
    nodes = [
        node("Gather", ["x", "some"], ["a"], axis=1),
        node("Imputer", ["a"], ["filled"], domain="ai.onnx.ml", **settings),
        node("Gather", ["x", "third"], ["b"], "other", axis=1),
        node("Concat", ["filled", "b"], ["y"], axis=1),
    ]
    path = save_model(tmp_path, nodes, {"some": np.array([0, 1, 3]), "third": np.array([2])})
    words = ("inspect", path, "--range", "-4:4")
    assert "input 'x' in -4:4, where numbers of columns 0-1, 3 may be missing (NaN)" in mpc(*words).stdout
    [entered] = json.loads(mpc(*words, "--json").stdout)["enters"]
    assert entered["missing"] == [0, 1, 3]
    whole = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    assert "missing" not in mpc("inspect", whole).stdout
    assert [entry["missing"] for entry in json.loads(mpc("inspect", whole, "--json").stdout)["enters"]] == [[]]
