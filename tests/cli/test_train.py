"""`mpc train`: on own files and on rows at the parties, listed, granted, resumed, told and used; and its refusals."""

from __future__ import annotations

import ast
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mpc.plan.parse import parse_plan
from parties import Cluster, PeerError, Session
from parties.cli.display import Display
from parties.config.load import dump_toml
from tests.support.parties import InProcess
from tests.support.parties_commands import ROOT, mpc_here
from tests.support.training import perceptron

BATCH, WIDE, CLASSES = 8, 6, 3
NAMES = [f"c{number}" for number in range(CLASSES)]
OWNERS = ("north", "south")
TRAIN = ("--batch", BATCH, "--learning-rate", 0.5, "--momentum", 0.5)


def rows(number: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    x = np.rint(256 * np.random.default_rng(seed).random((number, WIDE))) / 256
    return x.astype(np.float32), ((x - 0.5) @ np.random.default_rng(3).standard_normal((WIDE, CLASSES))).argmax(axis=1)


class Town:
    """Two hospitals with rows at the parties, a lab that has none, and a model; all commands run in one folder."""

    def __init__(self, running: InProcess, folder: Path) -> None:
        self.running, self.folder = running, folder
        self.x, self.y = rows(20)
        onnx.save(perceptron((WIDE, 5, CLASSES)), folder / "model.onnx")
        np.save(folder / "x.npy", self.x)
        np.save(folder / "labels.npy", self.y)
        for name in (*OWNERS, "lab"):
            (folder / f"{name}.toml").write_text(dump_toml(running.client(name).config))
        for place, name in enumerate(OWNERS):
            mine = slice(10 * place, 10 * place + 10)
            table = {"x": self.x[mine], "y": np.array(NAMES)[self.y[mine]]}
            with Cluster(running.client(name).config) as cluster:
                cluster.datasets.put(
                    "rows", table, ranges={"x": (0, 1)}, bits={"x": 8}, categories={"y": NAMES}, rows_per_person=1,
                    visible=True,
                )  # fmt: skip

    def mpc(self, who: str, *words: object) -> subprocess.CompletedProcess[str]:
        return mpc_here(*words, "--cluster", f"{who}.toml", folder=self.folder)

    def json(self, who: str, *words: object) -> Any:
        done = self.mpc(who, *words, "--json")
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])  # parties in this process log above it


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield Town(running, tmp_path_factory.mktemp("folder"))


AT_PARTIES = [word for name in OWNERS for word in ("--data", f"x={name}/rows:x", "--data", f"y={name}/rows:y")]
OWN = ("--input", "x.npy", "--input", "y=labels.npy", "--range", "x=0:1")
KEYS = {
    "version", "model", "plan", "security", "loss", "learning_rate", "batch", "epochs", "steps", "rounds", "sent_bytes",
    "dealt_bytes", "seconds", "losses", "kept", "saved", "notes", "outputs",
}  # fmt: skip


def forward(weights: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x @ weights["w0"] + weights["b0"], 0) @ weights["w1"] + weights["b1"])


def test_own_files_are_trained_on_told_and_used(town: Town) -> None:
    found = town.json(
        "lab", "train", "model.onnx", *OWN, *TRAIN, "--epochs", 2, "--release", "loss=2", "--keep", "mine",
        "--save", "w.npz", "--predict", "x.npy",
    )  # fmt: skip
    assert found.keys() == KEYS
    assert (found["steps"], [*found["losses"]], found["kept"]) == (4, ["2", "4"], {"name": "lab/mine", "version": 1})
    assert found["rounds"] > 4 and found["sent_bytes"] > 0 and found["dealt_bytes"] > 0 and found["seconds"] > 0
    assert any("weights are declared" in note for note in found["notes"])
    weights = np.load(town.folder / "w.npz")
    assert {*weights.files} == {"w0", "b0", "w1", "b1"}
    np.testing.assert_allclose(np.array(found["outputs"]["z1"]), forward(weights, town.x), atol=0.01)


def test_notes_on_precision_say_that_it_is_for_python() -> None:
    """The command line has no such option."""
    told = []
    for path in (*(ROOT / "mpc").rglob("*.py"), *(ROOT / "parties").rglob("*.py")):
        if "=Precision(" not in path.read_text():
            continue
        strings = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Constant)]
        told += [each.value for each in strings if isinstance(each.value, str) and "=Precision(" in each.value]
    assert len(told) > 5 and all("cluster.trainer(..., precision=Precision(" in each for each in told), told


def test_a_grant_of_a_name_under_which_nothing_lies_is_given_and_noted(town: Town) -> None:
    grant = ("--coordinator", "lab", "--epsilon", 1)
    given = town.mpc("north", "grant", "add", "rwos", *grant)
    assert given.returncode == 0 and "no dataset rwos of yours lies at the parties yet" in given.stderr
    assert "lies at the parties yet" not in town.mpc("north", "grant", "add", "rows", *grant).stderr


def test_a_training_in_text_says_what_it_kept_and_draws_no_bar(town: Town) -> None:
    done = town.mpc("lab", "train", "model.onnx", *OWN, *TRAIN, "--release", "loss=1", "--keep", "text")
    assert done.returncode == 0, done.stderr
    assert "loss          " in done.stdout and "kept as       lab/text, version 1" in done.stdout
    assert "steps         2 of 8 rows" in done.stderr and "MB sent" not in done.stderr
    quiet = town.mpc("lab", "-q", "train", "model.onnx", *OWN, *TRAIN, "--keep", "text")
    assert (quiet.returncode, quiet.stderr) == (0, "") and "kept as       lab/text, version 2" in quiet.stdout


def test_losses_are_told_as_they_come_and_where_a_training_ends_early(town: Town) -> None:
    """A party dies in the third step; JSON stays one object, and the losses stand beside it."""
    words = ["train", "model.onnx", *OWN, *TRAIN, "--epochs", 2, "--release", "loss=1", "--keep", "dead"]
    run, steps = Session.run, Counter[str]()

    def die(self: Session, *given: Any) -> Any:
        steps["taken"] += 1
        if steps["taken"] == 3:
            raise PeerError("party-1 is gone", remedy="start it again")
        return run(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "run", die)
        cut = town.mpc("lab", *words)
        steps.clear()
        as_json = town.mpc("lab", *words, "--json")
    assert (cut.returncode, as_json.returncode) == (6, 6)
    assert [line.split()[-1] for line in cut.stdout.splitlines() if line.startswith("loss          ")] == ["1", "2"]
    told = [line for line in as_json.stdout.splitlines() if line.startswith(("loss", "{"))]
    assert len(told) == 1 and [*json.loads(told[0])] == ["version", "error"]
    assert [line.split()[-1] for line in as_json.stderr.splitlines() if line.startswith("note: loss ")] == ["1", "2"]


def test_a_training_goes_on_where_nobody_reads_its_losses_any_more(town: Town) -> None:
    """As in mpc train | head -1: the weights are what a training is for."""
    closed, silenced, result = list[str](), list[bool](), Display.result

    def refuse(self: Display, text: str) -> None:
        if text.startswith("loss          ") and not silenced:
            closed.append(text)
            raise BrokenPipeError
        result(self, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Display, "result", refuse)
        patch.setattr("parties.cli.train.silence", lambda: silenced.append(True))
        done = town.mpc("lab", "train", "model.onnx", *OWN, *TRAIN, "--release", "loss=1", "--keep", "unread")
    assert done.returncode == 0, done.stderr
    assert (len(closed), silenced) == (1, [True]) and "kept as       lab/unread, version 1" in done.stdout


def cut_off(town: Town, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a training of the lab's that fails behind its fifth step."""

    def die(done: int, steps: int) -> None:
        if done == 5:
            raise PeerError("party-1 is gone", remedy="start it again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parties.cli.train.Tally.__call__", staticmethod(die))
        cut = town.mpc("lab", *words)
    assert cut.returncode == 6, cut.stderr
    return cut


def test_owners_grant_a_training_from_its_list_and_it_goes_on_after_a_crash(town: Town) -> None:
    """The whole way on the command line: refused, listed, granted by both, cut off, resumed, used, not told."""
    words = ["train", "model.onnx", *AT_PARTIES, *TRAIN, "--epochs", 4, "--checkpoint-every", 3, "--keep", "cut"]
    refused = town.mpc("lab", *words)
    assert refused.returncode == 4 and "north" in refused.stderr
    listed = town.json("lab", *words, "--list", "training.json")
    assert [each["use"] for each in listed["plans"]] == ["train"] * 3 + ["predictions", "weights"]
    shown = mpc_here("inspect", "training.json", folder=town.folder)
    assert "trains        lab: 8 steps, in 3 sessions" in shown.stdout and "is told the weights" in shown.stdout
    assert "output 'weight.0' is kept at the parties in run 3 alone" in shown.stdout
    assert "output 'weight.0' is told" not in shown.stdout and "run 3 and" not in shown.stdout
    first = town.json("lab", *words, "--list", "again.json")["plans"][0]["plan"]
    assert (
        json.loads(mpc_here("inspect", "training.json", "--json", folder=town.folder).stdout)["plans"][0]["plan"]
        == first
    )
    for owner in OWNERS:
        grant = ("grant", "add", "rows", "--coordinator", "lab", "--train", "training.json", "--allow", "predictions")
        given = town.mpc(owner, *grant)
        assert given.returncode == 0, given.stderr
        assert f"from {owner}/rows, version 1: x; 10 rows" in given.stderr
        assert "is told the weights: not granted (--allow weights)" in given.stderr
        assert "newly for each use: the weights that the first run begins with (4 arrays)\n" in given.stderr
        assert "newly for each use: input 'x'\n" in given.stderr and ".input" not in given.stderr
    begun = town.mpc("lab", *words, "--resume")
    assert begun.returncode == 5 and "no checkpoint of this training" in begun.stderr

    cut = cut_off(town, *words)
    assert "start it again; then the same command with --resume goes on from the last checkpoint" in cut.stderr
    found = town.json("lab", *words, "--resume", "--predict", "x.npy", "--output", "p.npz")
    assert found["steps"] == 5 and found["kept"]["name"] == "lab/cut"  # from the checkpoint behind step 3
    np.testing.assert_allclose(np.load(town.folder / "p.npz")["z1"], found["outputs"]["z1"])
    assert town.json("lab", *words, "--resume")["steps"] == 0  # it is at its end
    told = town.mpc("lab", *words, "--resume", "--save", "w.npz")
    assert told.returncode == 4  # nobody has granted that


def test_losses_that_some_stretches_have_none_of_are_listed_granted_and_told_behind_a_resumption(town: Town) -> None:
    """Every fourth loss, a checkpoint every three steps: of seven steps the first stretch and the last tell none."""
    read = ("--data", "x=north/rows:x", "--data", "y=north/rows:y")
    words = ["train", "model.onnx", *read, *TRAIN, "--epochs", 7, "--checkpoint-every", 3, "--release", "loss=4"]
    words += ["--keep", "fourth"]
    listed = town.json("lab", *words, "--list", "fourth.json")["plans"]
    assert [each["use"] for each in listed[:3]] == ["train"] * 3
    shown = mpc_here("inspect", "fourth.json", folder=town.folder)
    assert shown.returncode == 0 and "7 steps, in 3 sessions" in shown.stdout, shown.stderr
    given = town.mpc("north", "grant", "add", "rows", "--coordinator", "lab", "--train", "fourth.json")
    assert given.returncode == 0, given.stderr

    cut = cut_off(town, *words)
    assert [line.split()[-1] for line in cut.stdout.splitlines() if line.startswith("loss          ")] == ["4"]
    found = town.json("lab", *words, "--resume")
    assert (found["steps"], [*found["losses"]], found["kept"]["name"]) == (4, ["4"], "lab/fourth")


def telling_rows(stretch: dict[str, Any]) -> dict[str, Any]:
    """A stretch whose released number has another name, with its own right digest."""
    text = stretch["text"].replace('"name":"loss"', '"name":"rows"').replace('"output":"loss"', '"output":"rows"')
    assert text != stretch["text"]
    return {**stretch, "text": text, "exact": {**stretch["exact"], "plan": parse_plan(text.encode()).digest.hex()}}


def test_security_active_a_training_is_checked_where_owners_want_it(town: Town) -> None:
    words = ("train", "model.onnx", "--data", "x=north/rows:x", "--data", "y=north/rows:y", *TRAIN, "--keep", "strict")
    grant = ("grant", "add", "rows", "--coordinator", "lab", "--security", "active", "--train")
    town.json("lab", *words, "--list", "plain.json")
    refused = town.mpc("north", *grant, "plain.json")
    assert refused.returncode == 2 and "are not checked" in refused.stderr and "--security active" in refused.stderr
    town.json("lab", *words, "--security", "active", "--list", "strict.json")
    given = town.json("north", *grant, "strict.json")["grant"]
    assert given["security"] == "active"
    assert town.mpc("lab", *words).returncode == 4
    assert town.json("lab", *words, "--security", "active")["security"] == "active"
    listed = town.mpc("north", "grant", "list")
    assert "exact plans, checked" in listed.stdout
    revoked = town.mpc("north", "grant", "revoke", given["id"])
    assert revoked.returncode == 0


def test_a_list_is_granted_by_whose_rows_it_reads_as_it_was_written(town: Town) -> None:
    words = ("train", "model.onnx", "--data", "x=north/rows:x", "--data", "y=north/rows:y", *TRAIN)
    town.json("lab", *words, "--list", "north.json")
    grant = ("grant", "add", "rows", "--coordinator", "lab", "--train")
    other = town.mpc("south", *grant, "north.json")
    assert other.returncode == 5 and "does not read south/rows" in other.stderr
    elsewhere = town.mpc("north", "grant", "add", "rows", "--coordinator", "mallory", "--train", "north.json")
    assert elsewhere.returncode == 2 and "a training of lab's" in elsewhere.stderr
    for name in ("digest", "bindings", "text"):
        content = json.loads((town.folder / "north.json").read_text())
        first = content["plans"][0]
        if name == "digest":
            first["exact"]["plan"] = "0" * 64
        elif name == "bindings":
            first["exact"]["bindings"].clear()
        else:
            first["text"] = first["text"].replace('"steps":1', '"steps":2')
        (town.folder / f"{name}.json").write_text(json.dumps(content))
        altered = town.mpc("north", *grant, f"{name}.json")
        assert altered.returncode == 5 and "fix: have" in altered.stderr, name
    words = (*words, "--epochs", 4, "--checkpoint-every", 1)
    honest = town.json("lab", *words, "--release", "loss=1", "--list", "long.json")["plans"]
    assert [each["use"] for each in honest][-3:] == ["train", "predictions", "weights"]
    plans = json.loads((town.folder / "long.json").read_text())["plans"]
    numbers = mpc_here("inspect", "long.json", folder=town.folder).stdout
    assert "tells         lab the number 'loss'" in numbers and "'beyond'" in numbers
    for name, changed in (
        ("weights told by a step", [*plans, {**plans[-1], "use": "train"}]),
        ("rows told as predictions", [*plans[:-2], {**plans[0], "use": "predictions"}]),
        ("no first stretch", plans[1:]),
        ("a stretch left out", [plans[0], *plans[2:]]),
        ("another loss", [telling_rows(plans[0]), *plans[1:]]),
    ):
        (town.folder / "named.json").write_text(json.dumps({"training": 1, "coordinator": "lab", "plans": changed}))
        altered = town.mpc("north", *grant, "named.json")
        assert altered.returncode == 5 and "is not what the list says of it" in altered.stderr, name
    (town.folder / "none.json").write_text('{"training":1}')
    assert town.mpc("north", *grant, "none.json").returncode == 5
    assert town.mpc("north", *grant, "missing.json").returncode == 2
    assert town.mpc("north", "grant", "add", "rows", "--coordinator", "lab", "--allow", "weights").returncode == 2


def test_what_a_refused_training_is_shown_with_can_be_typed(town: Town) -> None:
    """The command that `mpc requests` offers an owner names rows of several datasets for one input."""
    words = ("train", "model.onnx", *AT_PARTIES, *TRAIN, "--seed", 9, "--keep", "asked")
    assert town.mpc("lab", *words).returncode == 4
    for owner in OWNERS:
        commands = [c for each in town.json(owner, "requests")["requests"] for c in each["commands"] if each["request"]]
        newest = [command for command in commands if "--plan" in command and f"{owner}/rows" in command][-1]
        for command in newest.split("; "):
            done = town.mpc(owner, *command.split()[1:])
            assert done.returncode == 0, (command, done.stderr)
    assert town.json("lab", *words)["steps"] == 2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--input", "x.npy"), 2, "--input y=FILE"),
        (("--input", "x.npy", "--input", "y=gone.npy"), 5, "does not exist"),
        (("--data", "x=north/rows:x", "--input", "y=labels.npy"), 2, "is an array"),
        ((*AT_PARTIES, "--range", "x=0:1"), 2, "has a range as well"),
        ((*OWN, "--release", "accuracy=1"), 2, "--release loss=100"),
        ((*OWN, "--momentum", 0.999), 2, "0.875"),
        ((*OWN, "--batch", 100), 5, "smaller batch"),
        ((*OWN, "--parties", 2), 2, "leave --parties out"),
        ((*OWN, "--output", "p.npz"), 2, "--predict"),
        ((*OWN, "--save", "w.csv"), 2, "w.npz"),
        ((*OWN, "--list", "l.json"), 2, "nobody has to grant"),
        ((*OWN, "--frozen", "w9"), 5, "its weights are"),
        ((*OWN, "--calibrate", "x.npy"), 2, "add --calibrate y=FILE"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_with_a_remedy(
    town: Town, words: tuple[object, ...], status: int, said: str
) -> None:
    done = town.mpc("lab", "train", "model.onnx", "--keep", "none", *TRAIN, *words)
    assert done.returncode == status, done.stderr
    assert said in done.stderr and "fix: " in done.stderr


def test_a_cluster_of_its_own_keeps_no_model(tmp_path: Path) -> None:
    onnx.save(perceptron((WIDE, CLASSES)), tmp_path / "model.onnx")
    done = mpc_here("train", "model.onnx", "--input", "x.npy", "--parties", 2, folder=tmp_path)
    assert done.returncode == 2 and "--save" in done.stderr


def test_a_model_that_no_bound_is_proved_of_trains_on_samples(town: Town) -> None:
    """The refusal's remedy can be typed, there and where a training is priced."""
    onnx.save(perceptron((WIDE, 64, 64, 64, 64, 64, 64, CLASSES)), town.folder / "deep.onnx")
    samples = ("--calibrate", "x.npy", "--calibrate", "y=labels.npy")
    how = ("deep.onnx", "--batch", 8, "--range", "x=0:1")
    refused = mpc_here("inspect", "--train", *how, folder=town.folder)
    assert refused.returncode != 0 and "--calibrate" in refused.stderr
    priced = mpc_here("inspect", "--train", *how, *samples, "--json", folder=town.folder)
    assert any("bounds rest on 32 steps" in note for note in json.loads(priced.stdout)["notes"])
    trained = town.json("lab", "train", *how, "--input", "x.npy", "--input", "y=labels.npy", *samples, "--keep", "deep")
    assert any("bounds rest on 32 steps" in note for note in trained["notes"])


def test_a_table_is_a_column_of_classes(town: Town) -> None:
    (town.folder / "labels.csv").write_text("label\n" + "".join(f"{each}\n" for each in town.y))
    found = town.json(
        "lab", "train", "model.onnx", "--input", "x.npy", "--input", "y=labels.csv", "--range", "x=0:1", *TRAIN,
        "--keep", "table",
    )  # fmt: skip
    assert found["steps"] == 2


def test_a_training_on_rows_at_the_parties_is_priced_before(town: Town) -> None:
    """As it costs; and a column that is held in finer parts than a step reads costs a round more."""
    words = ("model.onnx", *AT_PARTIES, *TRAIN, "--epochs", 2, "--momentum", 0)
    priced = town.json("north", "inspect", *words, "--train", "--measure", 1)
    assert (priced["steps"], priced["batch"], priced["check_every"]) == (4, BATCH, 100) and priced["step_s"] > 0
    there = town.json("north", "inspect", "model.onnx", "--train", "--batch", BATCH, "--rows", 20, "--measure", 1)
    assert there["parties"] == 2 and there["step_s"] > 0  # in the cluster that is named, without rows of it
    with Cluster(town.running.client("north").config) as cluster:
        cluster.datasets.put("fine", {"x": town.x, "y": town.y}, ranges={"x": (0, 1), "y": (0, 2)}, rows_per_person=1)
    mine = ("model.onnx", "--data", "x=north/fine:x", "--data", "y=north/fine:y", *TRAIN, "--epochs", 2)
    fine, far = (town.json("north", "inspect", *mine, "--train", *link) for link in ((), ("--link", "100:1000")))
    assert fine["step"]["rounds"] == priced["step"]["rounds"] + 1
    assert far["step"]["rounds"] < fine["step"]["rounds"] and far["digest"] != fine["digest"]
    for link, told in (((), fine), (("--link", "100:1000"), far)):
        cost = town.json("north", "train", *mine, *link)
        assert {key: cost[key] for key in ("steps", "rounds", "sent_bytes", "dealt_bytes")} == {
            key: told[key] for key in ("steps", "rounds", "sent_bytes", "dealt_bytes")
        }


def test_a_logistic_regression_with_noise(town: Town) -> None:
    """Without a file: its weights are told, under a grant and a budget of the rows' owner, which it is charged to."""
    rng = np.random.default_rng(6)
    columns = {"a": rng.uniform(0, 10, 300), "b": rng.uniform(-1, 1, 300)}
    ill = (columns["a"] > 5).astype(int)
    with Cluster(town.running.client("north").config) as north:
        ranges = {"a": (0, 10), "b": (-1, 1), "ill": (0, 1)}
        north.datasets.put("checks", columns | {"ill": ill}, ranges=ranges, rows_per_person=1, visible=True)
        north.set_budget("checks", epsilon=3, delta="1/100000")
        north.datasets.grant(
            "checks", coordinators="lab", epsilon=3, delta="1/100000", mechanisms="gaussian", outputs=8
        )
    data = ("--data", "x=north/checks:a,b", "--data", "y=north/checks:ill", "--epsilon", 3)
    found = town.json("lab", "train", *data, "--center", "5,0", "--spread", "2.9,0.6", "--save", "private.npz")
    assert found["epsilon"] == 3 and 0 < found["delta"] <= 1e-6 and found["rows"] == 300
    told = np.load(town.folder / "private.npz")
    assert [*found["coef"].values()] == pytest.approx(told["coef"]) and [*found["coef"]] == ["a", "b"]
    x = np.stack([*columns.values()], axis=1)
    assert ((x @ told["coef"] + told["intercept"] > 0) == ill).mean() > 0.85
    spent = town.mpc("lab", "train", *data)
    assert spent.returncode == 4 and "budget" in spent.stderr
    for words, says in (
        ((), "no MODEL"),
        (("--steps", 2), "add --epsilon"),
        (("model.onnx", "--epsilon", 1), "is a model of yours"),
        (("--epsilon", 1, "--momentum", 0.5), "--momentum does not go with --epsilon"),
        (("--epsilon", 1, "--parties", 2), "--parties does not go with --epsilon"),
        (("--epsilon", 1, "--data", "x=north/checks:a"), "--data y="),
        ((*data, "--center", "much"), "no list of numbers"),
    ):
        refused = town.mpc("lab", "train", *words)
        assert refused.returncode == 2 and says in refused.stderr, (words, refused.stderr)
