"""docs/operating.md, "Three people, one model": the very commands that are written there."""

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import UsageError
from parties.client.running.roles import parse_roles
from parties.local import launcher
from parties.local.layout import LocalLayout
from tests.support.models import plaintext
from tests.support.parties import data, eventually
from tests.support.parties_commands import LONG, ROOT, mpc, mpc_here, start
from tests.support.people import shared_model

pytestmark = pytest.mark.timeout(150)
EXAMPLES = ROOT / "examples"
X1 = data(4, seed=1)


def documented() -> list[list[str]]:
    """The section's commands, in order."""
    section = (ROOT / "docs" / "operating.md").read_text().split("## Three people, one model")[1].split("\n## ")[0]
    block = section.split("```sh\n")[1].split("```")[0]
    lines = [line for line in block.splitlines() if not line.startswith("#")]
    assert all(line.startswith("mpc ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("people")
    shared_model(made / "shared.onnx")
    np.save(made / "a.npy", X1)
    (made / "examples").symlink_to(EXAMPLES)
    with np.load(EXAMPLES / "breast_cancer_test.npz") as saved:
        np.save(made / "b.npy", saved["x"])
    yield made
    launcher.stop(LocalLayout.open(made / ".mpc"), grace=3)


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LONG)
    return process.returncode, out, err


def test_the_documented_commands(folder: Path) -> None:
    up, run, inspect, bob, carol, down = documented()
    started = mpc(*up, folder=folder)
    assert started.returncode == 0 and f"client carol: {folder / '.mpc' / 'carol.toml'}" in started.stderr
    alice = start(*run, folder=folder)
    assert eventually(lambda: (folder / "ticket.json").exists() or alice.poll() is not None), finished(alice)
    shown = mpc_here(*inspect, folder=folder)
    assert "enters        bob: input 'x'" in shown.stdout
    assert "learns        carol: output 'probability'" in shown.stdout
    digest = shown.stdout.split("digest        ")[1].split()[0]
    roles = ("--owner", "x=bob", "--recipient", "carol", "--json")
    assert json.loads(mpc_here("inspect", run[1], *roles, folder=folder).stdout)["digest"] == digest
    joined = start(*bob, "--plan", digest, folder=folder)
    received = mpc(*carol, folder=folder)
    assert received.returncode == 0, received.stderr
    [truth] = plaintext(folder / run[1], {"x": np.load(folder / "b.npy")})
    with np.load(folder / "answers.npz") as saved:
        assert np.abs(saved["probability"] - truth).max() < 1e-3
    assert "probability  171x1" in received.stdout and "learns        carol: output 'probability'" in received.stderr
    status, out, err = finished(joined)
    assert (status, out) == (0, "") and "done; the outputs are with carol" in err
    status, out, err = finished(alice)
    assert (status, out) == (0, "") and "bob:          mpc join ticket.json --input x=FILE" in err, err
    assert "learned by    carol" in err

    check_refusals(folder)
    assert mpc(*down, folder=folder).returncode == 0


def check_refusals(folder: Path) -> None:
    """On the running cluster, each with the exit code of its kind and the way out."""
    run = ["run", "shared.onnx", "--range", "-4:4"]
    join = ["join", "ticket.json", "--cluster", ".mpc/bob.toml"]
    ticket = (folder / "ticket.json").read_text()
    (folder / "altered.json").write_text(ticket.replace('"bob"', '"eve"'))
    for code, words, needles in (
        (2, [*run, "--input", "x1=a.npy", "--owner", "x2=bob"], ("bob must be told", "--ticket FILE")),
        (2, [*run, "--owner", "x2=bob", "--parties", "2"], ("cannot join a cluster that --parties", "--client bob")),
        (2, [*run, "--owner", "bob"], ("does not say of which input", "--owner INPUT=bob")),
        (2, [*run, "--owner", "x1=bob", "--owner", "x2=bob", "--ticket", "t"], ("how many rows", "--batch N")),
        (2, [*join, "--output", "no.npz", "--input", "b.npy"], ("nothing to write", "carol")),
        (2, ["join", "nowhere.json", "--cluster", ".mpc/bob.toml"], ("nowhere.json cannot be read",)),
        (5, ["join", "shared.onnx", "--cluster", ".mpc/bob.toml"], ("not a ticket",)),
        (5, ["join", "altered.json", "--cluster", ".mpc/bob.toml"], ("not whole", "altered")),
        (5, ["join", "ticket.json", "--cluster", ".mpc/carol.toml", "--input", "x=b.npy"], ("bob enters it",)),
        (5, [*join, "--plan", "00", "--input", "b.npy"], ("another plan",)),
        (5, ["inspect", "ticket.json", "--recipient", "bob"], ("names are part of it",)),
        (2, ["join", "ticket.json"], ("entered the model of this session",)),
        (3, ["join", "ticket.json", "--cluster", ".mpc/dave.toml"], ("dave.toml does not exist",)),
        (6, [*join, "--input", "b.npy"], ("does not know that session", "start a new session")),
        (
            4,
            [*run, "--input", "x1=a.npy", "--owner", "x2=dave", "--ticket", "t"],
            ("does not allow the input owner 'dave'", "ask the operator of party-", "mpc up --client dave --detach"),
        ),
    ):
        done = mpc_here(*words, folder=folder)
        assert done.returncode == code, (words, done.stderr)
        assert done.stdout == "" and "Traceback" not in done.stderr
        for needle in needles:
            assert needle in done.stderr, (words, done.stderr)


def test_names_of_owners_and_recipients() -> None:
    roles = parse_roles("alice", ["x=bob", "a=b=dave"], ["carol", "y=dave", "y=alice"])
    assert (roles.owner("x"), roles.owner("a=b"), roles.owner("z")) == ("bob", "dave", "alice")
    assert (roles.recipients_of("y"), roles.recipients_of("other")) == (("alice", "dave"), ("carol",))
    assert parse_roles("alice", [], ["y=bob"]).recipients_of("other") == ("alice",)
    for owners, recipients in ((["x=b", "x=c"], []), (["x="], []), (["x=a b"], []), ([], [""]), ([], ["y="])):
        with pytest.raises(UsageError):
            parse_roles("alice", owners, recipients)


def test_clients_of_a_local_cluster_stay_until_their_file_is_deleted(tmp_path: Path) -> None:
    made = LocalLayout.create(tmp_path / ".mpc", parties=2, clients=("carol", "bob"))
    assert made == LocalLayout.open(tmp_path / ".mpc") and made.clients == ("bob", "carol")
    key = (tmp_path / ".mpc" / "bob" / "key.pem").read_bytes()
    made.client_file("carol").unlink()
    again = LocalLayout.create(tmp_path / ".mpc", parties=3, clients=("dave",))
    assert again.clients == ("bob", "dave") and (tmp_path / ".mpc" / "bob" / "key.pem").read_bytes() == key
    policy = again.members[1].config.read_text()
    allowed = tomllib.loads(policy)["policy"]
    assert [allowed[who] for who in ("coordinators", "owners", "recipients")] == [["coordinator", "bob", "dave"]] * 3
    assert "carol" not in policy
    for name in ("provider", "party-7", "coordinator", "cluster", "ca", "any", "../bob", ""):
        with pytest.raises(UsageError):
            LocalLayout.create(tmp_path / "other", parties=2, clients=(name,))
    assert not (tmp_path / "other").exists()
