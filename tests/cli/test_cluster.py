"""`mpc up`, `ps`, `run`, `doctor`, `logs`, `down` with real processes, in the right order and in the wrong one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from mpc.errors import PeerError, SessionError
from parties import Cluster
from parties.config.load import dump_toml, load
from parties.config.models import ClusterConfig, PartyConfig
from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.local.processes import birth_of, running
from tests.support.effort import patient
from tests.support.parties import data, deadlines, eventually, tiny_answer, tiny_model
from tests.support.parties_commands import LONG, mpc, mpc_here, start

pytestmark = pytest.mark.timeout(120)


def pids(folder: Path) -> dict[str, int]:
    """Who runs in a cluster's folder."""
    layout = LocalLayout.open(folder / ".mpc")
    return {member.name: pid for member in layout.members if (pid := running(member.folder))}


def alive(pid: int) -> bool:
    return birth_of(pid) is not None


def prepare(folder: Path) -> None:
    tiny_model(folder / "tiny.onnx")
    np.save(folder / "x.npy", data(4))


RUN = ("run", "tiny.onnx", "--range", "-4:4", "--input", "x.npy")


def shorten(layout: LocalLayout) -> None:
    """Short deadlines for every party and client."""
    quick = deadlines(connect=5, setup=20, step=5, submit=15)
    paths = [(layout.cluster_file, ClusterConfig), *((member.config, PartyConfig) for member in layout.members[1:])]
    for path, cls in paths:
        path.write_text(dump_toml(load(cls, path, environ={}).model_copy(update={"deadlines": quick})))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of three, with short deadlines."""
    folder = tmp_path_factory.mktemp("cluster")
    prepare(folder)
    shorten(LocalLayout.create(folder / ".mpc", parties=3))
    yield folder
    launcher.stop(LocalLayout.open(folder / ".mpc"), grace=3)


@pytest.fixture
def folder(made: Path) -> Path:
    """That cluster, detached and serving: started again, if another test has left it otherwise."""
    layout = LocalLayout.open(made / ".mpc")
    if any(member.state != "serving" for member in launcher.status(layout)):
        launcher.stop(layout, grace=3)
        launcher.start(layout, detach=True)
    return made


def test_run_on_the_running_cluster(folder: Path) -> None:
    """Results on stdout, nothing but results; the same numbers as JSON and in the file."""
    done = mpc(*RUN, "--json", "--output", "y.npz", folder=folder)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["version"] == 1
    assert np.abs(np.array(content["outputs"]["y"]) - tiny_answer(data(4))).max() < 1e-3
    for key in ("plan", "rounds", "sent_bytes", "dealt_bytes", "online_s", "offline_s", "setup_s", "recipients"):
        assert key in content
    with np.load(folder / "y.npz") as saved:
        assert np.array_equal(saved["y"], np.array(content["outputs"]["y"], dtype=np.float32))
    shown = mpc("--quiet", *RUN, folder=folder)
    assert shown.returncode == 0 and shown.stderr == "" and "y  4x2" in shown.stdout and "rounds" not in shown.stdout
    assert "\x1b" not in shown.stdout


def test_checked_runs_on_the_running_cluster(folder: Path) -> None:
    """Dealt as they go, and ahead; what they cost is what `mpc inspect` says."""
    active = ("--security", "active", "--json")
    plan = ("tiny.onnx", "--range", "-4:4")
    report = json.loads(mpc_here("inspect", *plan, "--batch", "4", "--parties", "3", *active, folder=folder).stdout)
    assert mpc_here("deal", *plan, "--runs", "1", "--batch", "4", *active, folder=folder).returncode == 0
    for stocked in (True, False):
        done = mpc_here(*RUN, *active, folder=folder)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["security"], found["plan"], found["stocked"]) == ("active", report["digest"], stocked)
        assert (found["rounds"], found["sent_bytes"]) == (report["rounds"], report["sent_bytes"])
        assert np.abs(np.array(found["outputs"]["y"]) - tiny_answer(data(4))).max() < 1e-3
    shown = mpc_here("inspect", *plan, "--security", "active", folder=folder).stdout
    assert "checked       each run before anything of it is told: of this 4 rounds, 208 B to each peer" in shown
    assert "not promised are an answer, an honest provider, or true inputs" in shown
    assert "checked" not in mpc_here("inspect", *plan, folder=folder).stdout


def test_a_column_that_never_changes(folder: Path) -> None:
    """A range of one value, given for its column, and one for the whole input."""
    x = data(4)
    x[:, 0] = 0
    np.save(folder / "constant.npy", x)
    words = ("run", "tiny.onnx", "--input", "constant.npy", "--json", "--range")
    done = mpc_here(*words, "x=0:0,-4:4,-4:4", folder=folder)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)["outputs"]["y"]) - tiny_answer(x)).max() < 1e-3
    outside = mpc_here(*words, "x=1:1,-4:4,-4:4", folder=folder)
    assert outside.returncode == 5 and "outside the plan's range 1:1" in outside.stderr


def test_an_input_without_rows(folder: Path) -> None:
    """Beside one that has some: it ended in an internal error."""
    shapes: dict[str, list[str | int]] = {"x": ["n", 3], "factor": [], "y": ["n", 3]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    product = helper.make_node("Mul", ["x", "factor"], ["y"])
    graph = helper.make_graph([product], "scaled", [values["x"], values["factor"]], [values["y"]])
    (folder / "scaled.onnx").write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    np.savez(folder / "scaled.npz", x=data(4), factor=np.float32(-1.5))
    done = mpc_here("run", "scaled.onnx", "--input", "scaled.npz", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)["outputs"]["y"]) + 1.5 * data(4)).max() < 1e-3


def test_ps_and_logs(folder: Path) -> None:
    members = json.loads(mpc("ps", "--json", folder=folder).stdout)["members"]
    assert [(m["name"], m["state"]) for m in members] == [
        (name, "serving") for name in ("provider", "party-0", "party-1", "party-2")
    ]
    assert {m["pid"] for m in members} == set(pids(folder).values())
    table = mpc_here("ps", folder=folder)
    assert table.returncode == 0 and "party-2" in table.stdout
    everyone, one = mpc("logs", folder=folder), mpc_here("logs", "party-1", folder=folder)
    assert "party-0" in everyone.stdout and "party-1" in one.stdout and "party-0 " not in one.stdout
    nobody = mpc_here("logs", "party-9", folder=folder)
    assert nobody.returncode == 3 and "party-9" in nobody.stderr


def test_doctor_of_a_healthy_cluster(folder: Path) -> None:
    done = mpc("doctor", "--json", folder=folder)
    report = json.loads(done.stdout)
    bad = [finding for finding in report["findings"] if not finding["ok"] and finding["check"] != "AES"]
    assert not bad and (done.returncode == 0) == report["healthy"]
    checks = {finding["check"] for finding in report["findings"]}
    [said] = [finding["found"] for finding in report["findings"] if finding["check"] == "security"]
    assert said.startswith("passive: parties are trusted to follow the protocol")
    assert {"own certificate", "AES", "party-0 -> party-1", "party-2 -> provider", "party-1 ledger"} <= checks


def test_dealt_ahead(folder: Path) -> None:
    """`mpc deal`, seen by --list and doctor, taken by `mpc run`, dropped."""
    deal = ("deal", "tiny.onnx", "--range", "-4:4", "--batch", "4")
    done = mpc(*deal, "--runs", "2", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["runs"], made["sessions"], made["batch"]) == (2, 2, 4) and made["bytes"] > 0
    shown = mpc_here(*deal, "--runs", "6", "--sessions", "2", folder=folder)
    assert "6 runs of 4 rows for 2 sessions" in shown.stdout and made["plan"] in shown.stdout
    listed = json.loads(mpc_here("deal", "--list", "--json", folder=folder).stdout)["stocks"]
    assert [stock["batches"] for stock in listed] == [[4], [4], [4, 4, 4], [4, 4, 4]]
    assert all(stock["plan"] == made["plan"] and stock["missing"] == [] for stock in listed)
    table = mpc_here("deal", "tiny.onnx", "--range", "-4:4", "--list", folder=folder)
    assert table.returncode == 0 and made["plan"][:16] in table.stdout
    findings = json.loads(mpc_here("doctor", "--json", folder=folder).stdout)["findings"]
    assert any(f["check"] == "party-1 stock" and f["ok"] and "8 runs for 4 sessions" in f["found"] for f in findings)
    for stocked in (True, True, False):
        done = mpc_here(*RUN, "--json", folder=folder)
        assert done.returncode == 0, done.stderr
        run = json.loads(done.stdout)
        assert run["stocked"] is stocked and run["plan"] == made["plan"]
        assert np.abs(np.array(run["outputs"]["y"]) - tiny_answer(data(4))).max() < 1e-3
        assert ("sessions of more runs" in done.stderr) is not stocked
    dropped = mpc_here("deal", "--drop", folder=folder)
    assert dropped.returncode == 0 and "6 runs of 2 sessions" in dropped.stdout
    assert json.loads(mpc_here("deal", "--list", "--json", folder=folder).stdout)["stocks"] == []


def test_dealing_says_what_is_wrong(folder: Path) -> None:
    for words, what in (
        (("deal",), "say what to do"),
        (("deal", "--runs", "1"), "no model"),
        (("deal", "tiny.onnx", "--runs", "1", "--list"), "say what to do"),
        (("deal", "tiny.onnx", "--range", "-4:4", "--runs", "3", "--sessions", "2"), "cannot be shared"),
    ):
        done = mpc_here(*words, folder=folder)
        assert done.returncode == 2 and what in done.stderr, done.stderr


def test_up_twice_is_refused_and_changes_nothing(folder: Path) -> None:
    before = pids(folder)
    done = mpc("up", "--parties", "2", "--detach", folder=folder)
    assert done.returncode == 3 and "running already" in done.stderr and "mpc down" in done.stderr
    assert pids(folder) == before


def check_named(folder: Path, name: str, within: float) -> None:
    """A run fails with exit code 6 and names the party; within its deadlines and a machine's slowness."""
    started = time.monotonic()
    done = mpc(*RUN, "--json", folder=folder)
    assert time.monotonic() - started < patient(within)
    assert done.returncode == 6, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["peer"] == name and name in done.stderr and "Traceback" not in done.stderr


def test_a_party_that_hangs_is_named(folder: Path) -> None:
    """Frozen, not dead: its kernel still accepts connections.  What is said of it lets it go on."""
    pid = pids(folder)["party-2"]
    os.kill(pid, signal.SIGSTOP)
    try:
        check_named(folder, "party-2", 60)
        members = json.loads(mpc_here("ps", "--json", folder=folder).stdout)["members"]
        assert [member["state"] for member in members] == ["serving"] * 3 + ["frozen"]
        assert " frozen " in mpc_here("ps", folder=folder).stdout
        again = mpc_here("up", "--detach", folder=folder)
        assert again.returncode == 3 and "frozen party-2" in again.stderr and f"kill -CONT {pid}" in again.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: mpc_here(*RUN, folder=folder).returncode == 0, 60)


def check_lists(folder: Path, silent: str) -> None:
    """What others say is shown although one party is down; that it is, is said, and in JSON by the same object."""
    lists = {
        ("audit",): "chains",
        ("deal", "--list"): "stocks",
        ("data", "list"): "datasets",
        ("model", "search", "word"): "models",
        ("grant", "list"): "grants",
        ("requests",): "requests",
        ("sessions",): "sessions",
        ("policy", "show"): "policies",
        ("clock",): "clocks",
    }
    for words, name in lists.items():
        done = mpc_here(*words, "--json", folder=folder)
        [line] = done.stdout.splitlines()
        content = json.loads(line)
        assert done.returncode == 6 and isinstance(content[name], list), words
        error = content["error"]
        assert error["peer"] == silent and "what is shown is what the other parties say" in error["cause"], words
        assert f"{silent} at " in done.stderr and "cannot be reached" in done.stderr, words
        if name == "chains":
            assert {chain["party"] for chain in content[name]} == {"party-0", "party-2"}
    shown = mpc_here("audit", folder=folder)
    assert shown.returncode == 6 and "party-0: " in shown.stdout and "party-2: " in shown.stdout
    left = content_of(mpc_here("budget", "show", "coordinator/none", "--json", folder=folder).stdout)["error"]
    assert left["peer"] == silent and "so all have to say it" in left["cause"]
    known = content_of(mpc_here("audit", "--against", "ab" * 32, "--json", folder=folder).stdout)
    assert known["error"]["peer"] == silent and "no other has a row behind it" in known["error"]["cause"]


def content_of(text: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text)
    return content


def test_a_party_killed_in_a_session(folder: Path) -> None:
    """26: everyone else aborts, names it, and has burnt the session; a restarted party serves again."""
    with Cluster.connect(folder / ".mpc" / "cluster.toml") as cluster:
        session = cluster.session(folder / "tiny.onnx", {"x": (-4.0, 4.0)})
        session.run(None, {"x": data(1)})
        os.kill(pids(folder)["party-1"], signal.SIGKILL)
        with pytest.raises(PeerError) as caught:
            session.run(None, {"x": data(1)})
        assert caught.value.peer == "party-1"
        with pytest.raises(SessionError):  # an abort is final
            session.run(None, {"x": data(1)})
    check_named(folder, "party-1", 45)
    ill = mpc_here("doctor", folder=folder)
    line = next(line for line in ill.stdout.splitlines() if line.startswith("BAD") and " party-1 " in line)
    assert ill.returncode == 6 and "fix:" in line
    assert "mpc up --detach" in line
    way = next(line for line in ill.stdout.splitlines() if "party-0 -> party-1" in line)
    assert way.startswith("BAD") and "fix: start party-1" in way and "open the way" not in way
    states = {m["name"]: m["state"] for m in json.loads(mpc_here("ps", "--json", folder=folder).stdout)["members"]}
    assert states["party-1"] == "died" and states["party-0"] == "serving"
    check_lists(folder, "party-1")
    before = pids(folder)
    other = mpc_here("up", "--detach", "--parties", "2", folder=folder)
    assert other.returncode == 3 and "mpc up --detach --parties 3 starts those that have ended" in other.stderr
    again = mpc_here("up", "--detach", folder=folder)
    assert again.returncode == 0 and "started again: party-1" in again.stderr, again.stderr
    assert {name: pid for name, pid in pids(folder).items() if name != "party-1"} == before
    assert eventually(lambda: mpc_here(*RUN, folder=folder).returncode == 0, 60)


def test_down_and_down_again(folder: Path) -> None:
    running = list(pids(folder).values())
    first = mpc("down", folder=folder)
    assert first.returncode == 0 and "party-2" in first.stderr and not any(map(alive, running))
    again = mpc_here("down", folder=folder)
    assert again.returncode == 0 and "nothing was running" in again.stderr
    assert json.loads(mpc_here("ps", "--json", folder=folder).stdout)["members"][0]["state"] == "stopped"
    done = mpc_here(*RUN, folder=folder)
    assert done.returncode == 6 and "cannot be reached" in done.stderr
    assert mpc_here("doctor", folder=folder).returncode == 6
    assert mpc_here("logs", folder=folder).returncode == 0


# ------------------------------------------------------------------------------- ctrl-C


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[str, str, int]:
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=LONG)
    return out, err, process.returncode


def test_ctrl_c_in_a_foreground_cluster(tmp_path: Path) -> None:
    process = start("up", "--parties", "2", folder=tmp_path)
    try:
        assert eventually(lambda: (tmp_path / ".mpc" / "cluster.toml").exists() and len(pids(tmp_path)) == 3, LONG)
        layout = LocalLayout.open(tmp_path / ".mpc")
        assert eventually(lambda: all(m.state == "serving" for m in launcher.status(layout)), LONG)
        assert process.stderr is not None and any("ctrl-C" in line for line in process.stderr)
        running = list(pids(tmp_path).values())
        _, err, status = interrupt(process)
        assert status == 130 and "stopped" in err and "Traceback" not in err
        assert eventually(lambda: not any(map(alive, running)))
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_while_a_run_has_its_own_cluster(tmp_path: Path) -> None:
    """At whatever moment it comes: exit 130, no process, no folder left."""
    prepare(tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = start(*RUN, "--parties", "3", folder=tmp_path, TMPDIR=str(temporary))
    try:
        assert eventually(lambda: len(list(temporary.glob("mpc-*/party-2/pid"))) == 1, LONG)
        [made] = temporary.glob("mpc-*")
        running = [json.loads(path.read_bytes())["pid"] for path in made.glob("*/pid") if path.read_bytes().strip()]
        assert running
        _, err, status = interrupt(process)
        assert status == 130 and "interrupted" in err and "Traceback" not in err
        assert eventually(lambda: not any(map(alive, running)))
        assert not list(temporary.glob("mpc-*"))
    finally:
        process.kill()
        process.communicate()


def test_a_run_with_its_own_cluster_leaves_nothing(tmp_path: Path) -> None:
    prepare(tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = mpc(*RUN, "--parties", "2", "--json", folder=tmp_path, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parties"] == 2
    assert not list(temporary.glob("mpc-*")) and not (tmp_path / ".mpc").exists()
