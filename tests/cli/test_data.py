"""docs/data.md as it is written, and `mpc data` from a put to its removal, with daemons of their own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parties.local import launcher
from parties.local.layout import LocalLayout
from tests.support.graphs import node, save_model
from tests.support.parties_commands import ROOT, mpc, mpc_here

pytestmark = pytest.mark.timeout(150)
OWNER, ANALYST = ".mpc/hospital.toml", ".mpc/analyst.toml"
CSV = "patient,age,bmi,sex\nann,40,23.5,f\nbob,71,,m\neve,18,31.25,f\n"
SAID = (
    *("--range", "age=0:120", "--range", "bmi=10:60", "--category", "sex=f,m", "--type", "age=integer"),
    *("--rows-per-person", "1", "--person", "patient"),
)


def documented(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's files are here, and its shell commands have been run."""
    made = tmp_path_factory.mktemp("data")
    with chdir(made):
        exec(compile(documented("python")[0], "data.md", "exec"), {})
    assert (made / "patients.csv").read_text() == CSV
    (made / "indexed.csv").write_text(",patient,age,bmi,sex\n0,ann,40,23.5,f\n")  # as pandas writes it
    (made / "pair.csv").write_text("40,23.5\n71,30\n")
    try:
        [block] = documented("sh")
        up, *others = [shlex.split(line)[1:] for line in block.splitlines()]
        done = mpc(*up, folder=made)
        assert done.returncode == 0, done.stderr
        for words in others:
            done = mpc_here(*words, folder=made)
            assert done.returncode == 0, done.stderr
        assert "hospital/diabetes" in done.stdout and "Admissions with diabetes" in done.stdout
        yield made
    finally:
        launcher.stop(LocalLayout.open(made / ".mpc"), grace=3)


WEIGHTS, OFFSET = np.array([[0.02], [0.05]], np.float32), np.array([-1.5], np.float32)


def score(x: np.ndarray) -> np.ndarray:
    """What the page's model gives in the clear."""
    found: np.ndarray = 1 / (1 + np.exp(-(x @ WEIGHTS.astype(np.float64) + OFFSET)))
    return found


def data(folder: Path, *words: str, cluster: str = OWNER, status: int = 0) -> Any:
    """What the command prints as JSON."""
    done = mpc_here("data", *words, "--cluster", cluster, "--json", folder=folder)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.mark.filterwarnings("ignore:column 'bmi' of hospital/visits may miss values:mpc.errors.MpcWarning")
def test_the_pages_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    with chdir(folder), pytest.warns(match="misses values"):
        for snippet in documented("python")[1:]:
            exec(compile(snippet, "data.md", "exec"), names)
    told = capsys.readouterr().out
    for words in ("Visits of a day", "hospital/diabetes", "100 mock rows", "only what hospital has granted"):
        assert words in told
    for words in ("Who is seen first", "lab/triage", "2 arrays of weights, 3 numbers; owner lab"):
        assert words in told
    rows = np.array([[40, 23.5], [33, 27]])
    assert np.abs(np.asarray(names["score"]) - score(np.array([[71, 31.25]]))).max() < 1e-3
    assert np.abs(np.asarray(names["scores"]) - score(rows)).max() < 1e-3


def test_a_dataset_from_its_put_to_its_removal(folder: Path) -> None:
    (folder / "five.csv").write_text("age,bmi,sex\n50,20,m\n60,,f\n")
    put = data(
        folder, "put", "patients.csv", "trial", *SAID, "--sample", "five.csv", "--description", "A trial of drugs"
    )
    assert put["dataset"]["name"] == "hospital/trial" and put["notes"] == [
        "who sees trial learns that column 'bmi' misses values"
    ]
    assert [column["name"] for column in put["dataset"]["columns"]] == ["age", "bmi", "bmi.missing", "sex"]
    [found] = data(folder, "search", "drugs", cluster=ANALYST)["datasets"]
    assert (found["name"], found["rows"], found["id"]) == ("hospital/trial", 3, put["dataset"]["id"])
    assert data(folder, "show", "hospital/trial", cluster=ANALYST)["dataset"] == put["dataset"]
    sample = data(folder, "sample", "hospital/trial", cluster=ANALYST)["sample"]
    assert sample == {
        "name": "hospital/trial",
        "mock": False,
        "rows": [{"age": 50, "bmi": 20.0, "sex": "m"}, {"age": 60, "bmi": None, "sex": "f"}],
    }
    shown = mpc_here("data", "show", "trial", "--cluster", OWNER, folder=folder).stdout
    assert "A trial of drugs" in shown and "0 to 120" in shown and "rows that the owner published" in shown
    rows = mpc_here("data", "sample", "trial", "--cluster", OWNER, folder=folder)
    assert "age" in rows.stdout and "published" in rows.stderr
    [gone] = data(folder, "remove", "trial")["removed"]
    assert gone["id"] == put["dataset"]["id"]
    assert "hospital/trial" not in {each["name"] for each in data(folder, "list", cluster=ANALYST)["datasets"]}
    assert data(folder, "show", "trial", status=6)["error"]["code"] == "session"


def test_rows_are_added_and_removed(folder: Path) -> None:
    (folder / "grown.csv").write_text("age,bmi\n50,20\n60,30\n")
    (folder / "more.csv").write_text("bmi,age,note\n40,70,x\n")
    (folder / "all.csv").write_text("age,bmi\n50,20\n60,30\n70,40\n")
    data(folder, "put", "grown.csv", "grown", "--range", "0:120", "--rows-per-person", "1")
    put = data(folder, "append", "grown", "more.csv", "--expires", "90d")["dataset"]
    assert (put["version"], put["rows"]) == (2, 3) and put["expires"] is not None
    told = mpc_here("data", "show", "grown", "--versions", "--cluster", OWNER, folder=folder).stdout
    assert "1 of 2 blocks kept, +1 rows" in told and "the first" in told
    cut = data(folder, "remove", "grown", "--row", "0", "--table", "all.csv")
    assert (cut["dataset"]["version"], cut["dataset"]["rows"], cut["notes"]) == (3, 2, [])
    assert [each["version"] for each in data(folder, "show", "grown", "--versions")["versions"]] == [3]
    for words, status, text in (
        (("remove", "grown", "--row", "0"), 2, "--row and --table go together"),
        (("remove", "grown", "--row", "7", "--table", "all.csv"), 5, "has rows 0 to 1"),
        (("append", "grown", "grown.csv", "--rows-per-person", "0"), 2, "rows-per-person"),
        (("append", "other", "more.csv"), 6, "no such object"),
    ):
        done = mpc_here("data", *words, "--cluster", OWNER, folder=folder)
        assert done.returncode == status and text in done.stderr, done.stderr


def test_scores_are_kept_and_refreshed_by_commands(folder: Path) -> None:
    (folder / "scored.csv").write_text("age,bmi\n50,20\n60,30\n")
    data(folder, "put", "scored.csv", "scored", "--range", "0:120", "--rows-per-person", "1")
    words = ("run", "triage.onnx", "--data", "x=hospital/scored", "--cluster", OWNER)
    done = mpc_here(*words, "--keep", "later", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["outputs"] == {} and found["recipients"] == []
    assert found["kept"] == [{"name": "hospital/later", "version": 1, "outputs": ["y"]}]
    fresh = data(folder, "refresh", "later")["dataset"]
    assert (fresh["version"], len(fresh["kept"]["refreshes"])) == (2, 1)
    shown = mpc_here("data", "show", "later", "--cluster", OWNER, folder=folder).stdout
    assert "kept by the parties from hospital/scored (row by row)" in shown
    assert data(folder, "refresh", "scored")["dataset"]["version"] == 2
    for more, status, text in (
        (("--keep", "z=later"), 5, "no output 'z'"),
        (("--keep", "analyst/later"), 2, "is no name of yours"),
        (("--keep", "y=scored"), 4, "is a dataset that was put"),
    ):
        done = mpc_here(*words, *more, folder=folder)
        assert done.returncode == status and text in done.stderr, done.stderr


def test_mock_rows_say_so_and_invisible_data_is_not_listed(folder: Path) -> None:
    (folder / "x.csv").write_text("x\n1\n")
    data(folder, "put", "x.csv", "quiet", "--range", "0:9", "--rows-per-person", "1", "--invisible")
    assert "hospital/quiet" in {each["name"] for each in data(folder, "list")["datasets"]}
    assert "hospital/quiet" not in {each["name"] for each in data(folder, "list", cluster=ANALYST)["datasets"]}
    assert data(folder, "sample", "quiet", "--rows", "3")["sample"]["mock"] is True
    assert "mock rows" in mpc_here("data", "sample", "quiet", "--cluster", OWNER, folder=folder).stderr


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("put", "patients.csv", "d", "--range", "0:9"), 2, "--rows-per-person 1"),
        (("put", "patients.csv", "d", "--rows-per-person", "1"), 5, "--range patient=0:120"),
        (("put", "patients.csv", "d", *SAID[2:], "--range", "age=50:60"), 5, "3 values outside its range 50:60"),
        (("put", "patients.csv", "analyst/d", *SAID), 2, "you are hospital"),
        (("put", "patients.csv", "d", *SAID, "--categories-from-data", "sex"), 2, "of yours and from the data"),
        (("put", "patients.csv", "d", *SAID, "--range", "0:9"), 2, "name the column of each"),
        (("put", "patients.csv", "d", *SAID, "--unit", "years"), 2, "--unit COLUMN=..."),
        (("put", "patients.csv", "d", *SAID, "--unit", "age=a", "--unit", "age=b"), 2, "names its column twice"),
        (("put", "patients.csv", "d", *SAID, "--invisible", "--visible-to", "analyst"), 2, "exclude each other"),
        (("put", "patients.csv", "d", *SAID, "--expires", "soon"), 2, "2027-01-31"),
        (("put", "nothing.csv", "d", *SAID), 5, "does not exist"),
        (("put", "nothing.npz:x", "d", *SAID), 2, "--column x"),
        (("put", "indexed.csv", "d", *SAID), 5, "to_csv(index=False)"),
        (("remove", "analyst/d"), 2, "you are hospital"),
        (("remove", "unknown"), 5, "mpc data list"),
    ],
)  # fmt: skip
def test_what_is_refused_has_a_remedy_and_shows_no_value(
    folder: Path, words: tuple[str, ...], status: int, told: str
) -> None:
    done = mpc_here("data", *words, "--cluster", OWNER, folder=folder)
    assert done.returncode == status and told in done.stderr, done.stderr
    assert not any(secret in done.stderr + done.stdout for secret in ("ann", "71", "31.25"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """0.5 age - bmi, of two columns."""
    weight = np.array([[0.5], [-1]], np.float32)
    return save_model(folder, [node("MatMul", ["x", "w"], ["y"])], {"w": weight}, ("batch", 2))


def test_a_model_runs_on_what_lies_at_the_parties(folder: Path, model: Path) -> None:
    words = ("run", str(model), "--data", "x=hospital/diabetes:age,bmi", "--cluster", OWNER, "--json")
    done = mpc_here(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "note: column 'bmi' of hospital/diabetes may miss values: where it does, input 'x' reads 10" in done.stderr
    found = np.array(json.loads(done.stdout)["outputs"]["y"])[:, 0]
    np.testing.assert_allclose(found, [0.5 * 40 - 23.5, 0.5 * 71 - 10, 0.5 * 18 - 31.25], atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--data", "hospital/diabetes:age"), "1 elements a row, and input 'x' reads 2"),
        (("--data", "z=hospital/diabetes"), "no input z"),
        (("--data", "hospital/diabetes:age,nobody"), "nobody"),
        (("--data", "hospital/unknown"), "no dataset hospital/unknown, or you may not see it"),
        (("--data", "hospital/diabetes:age,bmi", "--range", "x=0:1"), "has a range as well"),
        (("--data", "hospital/diabetes:age,bmi", "--input", "x=pair.csv"), "has a file as well"),
        (("--data", "hospital/diabetes", "--data", "x=hospital/diabetes"), "two datasets"),
        (("--data", "hospital/diabetes", "--parties", "2"), "no datasets"),
    ],
)
def test_what_cannot_be_read_from_a_dataset(folder: Path, model: Path, given: tuple[str, ...], message: str) -> None:
    cluster = () if "--parties" in given else ("--cluster", OWNER)
    done = mpc_here("run", str(model), *given, *cluster, folder=folder)
    assert done.returncode != 0
    assert message in done.stderr.replace("\n", " ")


def test_what_nobody_has_granted_is_not_read(folder: Path, model: Path) -> None:
    done = mpc_here("run", str(model), "--data", "hospital/diabetes:age,bmi", "--cluster", ANALYST, folder=folder)
    assert done.returncode == 4 and "hospital has granted analyst nothing of it" in done.stderr.replace("\n", " ")


LAB = ".mpc/lab.toml"


def of_models(folder: Path, *words: str, cluster: str = LAB, status: int = 0) -> Any:
    """What `mpc model` prints as JSON."""
    done = mpc_here("model", *words, "--cluster", cluster, "--json", folder=folder)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def run_model(folder: Path, *words: str, cluster: str = ANALYST, status: int = 0) -> Any:
    done = mpc_here("run", *words, "--cluster", cluster, "--json", folder=folder)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_a_model_from_its_put_to_its_removal(folder: Path) -> None:
    ranges = ("--range", "x=0:120,10:60")
    put = of_models(folder, "put", "triage.onnx", "score", *ranges, "--description", "Scores of admissions")["model"]
    assert (put["name"], put["version"], put["weights"]) == ("lab/score", 1, 2)
    assert [each["name"] for each in of_models(folder, "search", "scores")["models"]] == ["lab/score"]
    assert put["id"] in {each["id"] for each in of_models(folder, "list", cluster=ANALYST)["models"]}
    assert of_models(folder, "show", "lab/score", cluster=ANALYST)["model"] == put
    shown = mpc_here("model", "show", "score", "--cluster", LAB, folder=folder).stdout
    assert "Scores of admissions" in shown and "batch x 2" in shown
    assert "lab/score" not in {each["name"] for each in data(folder, "list", cluster=ANALYST)["datasets"]}

    x = np.array([[40, 23.5], [71, 31.25]], np.float32)
    np.save(folder / "x.npy", x)
    [refusal, _] = of_models(folder, "check", "lab/score", cluster=ANALYST)["answers"]
    assert not refusal["allowed"] and refusal["fix"].startswith("ask lab: mpc model grant lab/score")
    assert run_model(folder, "lab/score", "--input", "x.npy", status=4)["error"]["code"] == "waiting"
    said = ("--coordinator", "analyst", "--uses", "2", "--rows", "10", "--expires", "90d")
    grant = of_models(folder, "grant", "score", *said)["grant"]
    assert grant["question"]["use"]["rows"] == 10 and grant["dataset"] == put["id"]
    line = mpc_here("grant", "list", "--cluster", LAB, folder=folder).stdout
    assert re.search(rf"{grant['id'][:16]}  lab/score, version 1 +use of a model", line)
    used = run_model(folder, "@lab/score", "--input", "x.npy")
    assert np.abs(np.array(used["outputs"]["y"]) - score(x)).max() < 1e-3

    # through daemons: what a run of it costs is what one of entered weights costs, which are entered besides
    entered = run_model(folder, "triage.onnx", "--input", "x.npy", *ranges, cluster=LAB)
    assert all(used[cost] == entered[cost] for cost in ("rounds", "sent_bytes", "dealt_bytes"))
    told = mpc_here("run", "lab/score", "--input", "x.npy", "--cluster", ANALYST, folder=folder)
    assert "weights read where they lie" in told.stderr
    assert "is used up" in run_model(folder, "lab/score", "--input", "x.npy", status=4)["error"]["what"]

    digest = of_models(folder, "plan", "lab/score", "--recipient", "analyst", "-o", "score.plan", cluster=LAB)["plan"]
    inspected = mpc_here("inspect", "score.plan", folder=folder).stdout
    assert (
        digest in inspected and "put at the parties by lab" in inspected and "enters        lab: input 'x'" in inspected
    )
    checked = mpc_here("grant", "check", "score.plan", "--cluster", ANALYST, folder=folder)
    assert checked.returncode == 5 and "mpc model check OWNER/NAME" in checked.stderr
    [gone] = of_models(folder, "remove", "score")["removed"]
    assert gone["id"] == put["id"]
    assert run_model(folder, "lab/score", "--input", "x.npy", status=6)["error"]["code"] == "session"


def test_a_model_that_reads_a_dataset_on_the_command_line(folder: Path) -> None:
    data(folder, "put", "patients.csv", "wards", *SAID)
    read = ("--data", "x=hospital/wards:age,bmi")
    of_models(folder, "put", "triage.onnx", "wards", *read, "--visible-to", "analyst", "--visible-to", "hospital")
    of_models(folder, "grant", "wards", "--coordinator", "analyst", "--stored-only", "--dataset", "hospital/wards")
    [model_s, dataset_s, *_] = sorted(
        of_models(folder, "check", "lab/wards", *read, cluster=ANALYST)["answers"], key=lambda each: not each["allowed"]
    )[1:3]
    assert (model_s["dataset"], dataset_s["whose"]) == ("lab/wards", "hospital")
    words = ("--coordinator", "analyst", "--model", "lab/wards", *read, "--uses", "1", "--cluster", OWNER, "--json")
    granted = json.loads(mpc_here("grant", "add", "wards", *words, folder=folder).stdout)["grant"]
    [listed] = granted["question"]["exact"]["plans"]
    assert all(each != "any" for each in listed["weights"].values())
    used = run_model(folder, "lab/wards", *read)
    rows = np.array([[40, 23.5], [71, 10], [18, 31.25]])
    assert np.abs(np.array(used["outputs"]["y"]) - score(rows)).max() < 1e-3


@pytest.fixture(scope="module")
def served(folder: Path) -> Path:
    """Where a model of the lab's is at the parties."""
    of_models(folder, "put", "triage.onnx", "served", "--range", "x=0:120,10:60")
    return folder


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (("lab/served", "--input", "x.npy", "--range", "0:1"), "--range would have to be said before"),
        (("lab/served", "--input", "x.npy", "--weights", "public"), "--weights would have to be said before"),
        (("lab/served", "--data", "x=hospital/diabetes:age"), "cannot read these columns"),
        (("@lab/none", "--input", "x.npy"), "no model"),
        (("lab/served", "--input", "x.npy", "--owner", "z=bob", "--ticket", "t"), "no input 'z'"),
    ],
)
def test_what_a_model_at_the_parties_does_not_take(served: Path, words: tuple[str, ...], needle: str) -> None:
    np.save(served / "x.npy", np.array([[40, 23.5]], np.float32))
    done = mpc_here("run", *words, "--cluster", ANALYST, folder=served)
    assert done.returncode and needle in done.stderr
