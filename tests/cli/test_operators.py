"""A party's operator and daemons that run: what waits is approved, a policy read again, the audit chain followed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import PrivateDataError
from parties import Cluster
from parties.client.consent.auditing import check_chains
from parties.config.load import dump_toml, load
from parties.config.models import PartyConfig, PolicyConfig
from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.local.processes import running
from parties.process.lifeline import READY
from tests.support.parties import eventually
from tests.support.parties_commands import mpc_here

pytestmark = pytest.mark.timeout(150)
WAITING = PolicyConfig(recipients=("analyst",), data_owners=("hospital",), askers=("analyst",))
"""The policy of the second party, with which each test begins."""
SECOND = ".mpc/party-1/config.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of two whose first party allows everything, and whose second one waits for its operator."""
    made = tmp_path_factory.mktemp("operators")
    layout = LocalLayout.create(made / ".mpc", parties=2, clients=("hospital", "analyst"))
    write(made, WAITING)
    launcher.start(layout, detach=True)
    try:
        with Cluster.connect(layout.client_file("hospital")) as hospital:
            ages = {"age": np.array([20, 40, 60, 80, 100])}
            hospital.datasets.put("visits", ages, ranges={"age": (0, 120)}, rows_per_person=1)
            hospital.set_budget("visits", epsilon=4)
        yield made
    finally:
        launcher.stop(LocalLayout.open(made / ".mpc"), grace=3)


@pytest.fixture(autouse=True)
def waiting(folder: Path) -> None:
    """Whatever another test has left: the second party waits for its operator."""
    write(folder, WAITING)
    run(folder, "policy", "reload", "--party", SECOND)


def write(folder: Path, policy: PolicyConfig) -> None:
    """Change the second party's policy in its config file."""
    path = folder / SECOND
    path.write_text(dump_toml(load(PartyConfig, path, environ={}).model_copy(update={"policy": policy})))


def run(folder: Path, *words: str, status: int = 0) -> Any:
    """What a command prints as JSON."""
    done = mpc_here(*words, "--json", folder=folder)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


def ask(folder: Path, **more: Any) -> Any:
    """The analyst's question."""
    with chdir(folder), Cluster.connect(".mpc/analyst.toml") as cluster:
        return cluster.dataset("hospital/visits")["age"].mean().get(epsilon=0.5, **more)


def test_a_question_waits_is_shown_and_approved(folder: Path) -> None:
    with pytest.raises(PrivateDataError) as caught:
        ask(folder)
    assert caught.value.exit_code == 4 and "mpc grant add hospital/visits" in (caught.value.remedy or "")
    [mine] = run(folder, "requests", "--cluster", ".mpc/hospital.toml")["requests"]
    assert "--coordinator analyst" in mine["commands"][0] and "--epsilon 0.5" in mine["commands"][0]
    words = mine["commands"][0].split()[1:]
    run(folder, *words, "--cluster", ".mpc/hospital.toml")
    with pytest.raises(PrivateDataError, match="waits for the word of the operator of party-1") as caught:
        ask(folder)
    assert caught.value.cause == "no rule of their policies covers it"  # the owner's words are there
    assert f"the operator of party-1 may: mpc requests show {mine['id'][:16]} --party" in (caught.value.remedy or "")
    [theirs] = run(folder, "requests", "--party", SECOND)["requests"]
    said = mpc_here("requests", "--party", SECOND, folder=folder).stderr
    assert f"mpc approve {mine['id'][:16]} --party {SECOND}, or" in said
    assert theirs["id"] == mine["id"] and theirs["lines"] == mine["lines"]
    both = mpc_here("requests", "show", mine["id"][:8], "--party", SECOND, folder=folder).stdout.splitlines()
    first = mpc_here("requests", "show", mine["id"][:8], "--party", ".mpc/party-0/config.toml", folder=folder).stdout
    assert [line for line in first.splitlines() if not line.startswith("at ")] == both[: len(mine["lines"])]
    run(folder, "requests", "show", mine["id"], "--plan", "asked.plan", "--party", SECOND)
    assert run(folder, "inspect", "asked.plan")["digest"] == theirs["request"]["plan"]
    assert list(run(folder, "approve", mine["id"][:8], "--party", SECOND)["heads"]) == ["party-1"]
    answer = ask(folder)
    assert answer.epsilon == 0.5 and answer.std > 0
    listed = run(folder, "requests", "--party", SECOND)["requests"]
    assert [each["parties"][0]["used"] for each in listed] == [1]
    run(folder, "deny", mine["id"], "--reason", "once is enough", "--party", SECOND)
    run(folder, "requests", "show", "nothing!", "--party", SECOND, status=2)
    refused = run(folder, "approve", "12345678", "--party", SECOND, status=2)
    assert refused["error"]["fix"].endswith("--party for an operator")


def log(folder: Path) -> str:
    return (folder / ".mpc" / "party-1" / "log.jsonl").read_text()


def test_a_policy_is_read_again_without_a_restart(folder: Path) -> None:
    pid = running(LocalLayout.open(folder / ".mpc").members[2].folder)
    assert pid is not None
    everyone = run(folder, "policy", "show", "--party", ".mpc/party-0/config.toml")["policies"][0]["policy"]
    write(folder, PolicyConfig(**{**everyone, "max_epsilon": 3}))
    changed = run(folder, "policy", "reload", "--party", SECOND)["policies"][0]["changed"]
    assert {"askers", "coordinators", "max_epsilon", "plans"} <= {*changed}
    assert "--party config.toml" in mpc_here("requests", "--cluster", ".mpc/cluster.toml", folder=folder).stderr
    good = (folder / SECOND).read_text()
    (folder / SECOND).write_text(good + "\nnonsense")
    os.kill(pid, signal.SIGHUP)
    assert eventually(lambda: "the policy cannot be read again" in log(folder))
    shown = run(folder, "policy", "show", "--party", SECOND, status=3)
    assert "is not TOML" in str(shown)
    done = mpc_here("doctor", "--cluster", ".mpc/analyst.toml", folder=folder)
    assert "so an older one holds" in done.stdout + done.stderr
    with chdir(folder), Cluster.connect(".mpc/analyst.toml") as cluster:
        assert len(cluster.datasets.list()) == 1  # it serves
    (folder / SECOND).write_text(good)
    write(folder, WAITING)
    before = log(folder).count("the policy was read again")
    os.kill(pid, signal.SIGHUP)
    assert eventually(lambda: log(folder).count("the policy was read again") == before + 1)
    assert run(folder, "policy", "show", "--party", SECOND)["policies"][0]["policy"]["askers"] == ["analyst"]
    assert running(LocalLayout.open(folder / ".mpc").members[2].folder) == pid


def test_an_operator_follows_all_of_its_partys_chain(folder: Path) -> None:
    """With no client's certificate: every row, from the first one; what is exported is followed elsewhere."""
    [chain] = run(folder, "audit", "--party", SECOND)["chains"]
    kinds = [row["kind"] for row in chain["rows"]]
    assert chain["count"] == len(kinds) and {"put", "budget"} <= {*kinds} and chain["fault"] is None
    with Cluster.connect(folder / ".mpc" / "analyst.toml") as cluster:
        [seen] = [each for each in check_chains(cluster.parties.clients, {}, 30) if each.party == "party-1"]
    assert seen.head.hex() == chain["head"] and len(seen.rows) < len(kinds)
    middle = chain["rows"][0]["head"]
    run(folder, "audit", "--party", SECOND, "--against", middle, "--output", "chain.jsonl")
    run(folder, "audit", "--party", SECOND, "--against", "ab" * 32, status=7)
    both = ("audit", "--party", ".mpc/party-0/config.toml", "--party", SECOND)
    assert [each["fault"] for each in run(folder, *both, "--against", middle)["chains"]] == [None, None]
    nobody = run(folder, *both, "--against", "ab" * 32, status=7)
    assert nobody["error"]["peer"] is None and [each["fault"] for each in nobody["chains"]] == [None, None]
    assert (
        run(folder, "audit", "--file", "chain.jsonl", "--against", chain["head"])["chains"][0]["rows"] == chain["rows"]
    )
    lines = (folder / "chain.jsonl").read_text().splitlines(keepends=True)
    for altered in (lines[:-1], [lines[0], *lines[2:]], [lines[0], *lines[:0:-1]], [*lines, lines[-1]]):
        (folder / "altered.jsonl").write_text("".join(altered))
        run(folder, "audit", "--file", "altered.jsonl", status=7)
    (folder / "altered.jsonl").write_text("".join(lines).replace("put", "pot"))
    run(folder, "audit", "--file", "altered.jsonl", status=7)
    for wrong in ("nothing.jsonl", SECOND):
        run(folder, "audit", "--file", wrong, status=2)
    run(folder, "audit", "--output", "x.jsonl", status=2)
    run(folder, "audit", "--party", SECOND, "--file", "chain.jsonl", status=2)


def test_an_operator_accepts_a_clock_that_was_ahead(folder: Path) -> None:
    """The daemon remembers a later time than its clock shows, as one does whose clock was ahead before a restart."""
    layout = LocalLayout.open(folder / ".mpc")
    second = layout.members[2]
    os.kill(int((second.data_dir / READY).read_text()), signal.SIGTERM)
    assert eventually(lambda: running(second.folder) is None)
    with closing(sqlite3.connect(second.data_dir / "ledger.sqlite")) as database, database:
        database.execute("DELETE FROM data_clock")
        database.execute("INSERT INTO data_clock VALUES (?)", (time.time() + 86_400,))
    with second.log.open("a") as log:  # as doctor's line says; the cluster's end is its, too
        subprocess.Popen(launcher.daemon_command(second), stdout=log, stderr=log)
    assert eventually(lambda: launcher.status(layout)[2].state == "serving", 60)
    member = run(folder, "ps")["members"][2]
    assert member["state"] == "serving" and "behind the latest time" in member["note"] and member["pid"]
    [shown] = run(folder, "clock", "--party", SECOND)["clocks"]
    assert shown["party"] == "party-1" and 86_000 < shown["behind_seconds"] < 86_401 and not shown["accepted"]
    first, second_too = run(folder, "clock", "--accept")["clocks"]
    assert not first["accepted"] and second_too["accepted"]
    assert [each["behind_seconds"] for each in run(folder, "clock")["clocks"]] == [0, 0]
    plain = mpc_here("clock", folder=folder)
    assert plain.stdout.count("which is not behind") == 2
