"""`mpc inspect --train`: the price of a training before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from parties import Cluster
from parties.config.load import dump_toml
from tests.support.parties import InProcess
from tests.support.parties_commands import mpc_here
from tests.support.training import perceptron


def test_a_training_is_priced_in_text_and_json(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron((6, 3)), path)
    asked = ("inspect", str(path), "--train", "--batch", "8", "--rows", "44", "--parties", "3")
    found = json.loads(mpc_here(*asked, "--json").stdout)
    assert (found["steps"], found["batch"], found["parties"], found["step"]["rounds"]) == (5, 8, 3, 3)
    assert found["sent_bytes"] > 5 * 2 * found["step"]["sent"] and found["dealt_bytes"] > 5 * found["step"]["dealt"]
    said = mpc_here(*asked).stdout
    assert "a step        3 rounds" in said and f"an epoch      5 steps, {found['rounds']} rounds" in said


def test_epochs_momentum_and_checkpoints_are_priced_and_a_step_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster of its own on this machine, for which parties in this process stand here."""
    path = tmp_path / "model.onnx"
    onnx.save(perceptron((6, 3)), path)
    asked = ("inspect", path, "--train", "--batch", 8, "--rows", 44, "--epochs", 2)
    plain, more, seldom = (
        json.loads(mpc_here(*asked, *options, "--json").stdout)
        for options in ((), ("--momentum", 0.5, "--checkpoint-every", 4), ("--check-every", 0))
    )
    assert (plain["steps"], plain["sessions"], plain["step_s"], plain["seconds"]) == (10, 1, None, None)
    assert (more["steps"], more["sessions"]) == (10, 3)
    assert more["step"]["sent"] > plain["step"]["sent"] and more["rounds"] > plain["rounds"]  # of three range checks
    assert seldom["rounds"] < plain["rounds"]
    asked_for: list[int] = []
    with InProcess(tmp_path / "cluster", 3) as running:

        def local(cls: type[Cluster], parties: int, say: object, security: str) -> Cluster:
            assert security == "passive"
            asked_for.append(parties)
            return cls(running.client().config)

        monkeypatch.setattr(Cluster, "local", classmethod(local))
        found = mpc_here(*asked, "--parties", 3, "--measure", 2, "--json")
        text = mpc_here(*asked, "--parties", 3, "--measure", 1).stdout
    measured = json.loads(found.stdout.splitlines()[-1])  # parties in this process log above it
    assert asked_for == [3, 3] and "an estimate by 1 steps on made-up rows, on this machine" in text
    assert measured["seconds"] == pytest.approx(10 * measured["step_s"]) and 0 < measured["step_s"] < 60
    assert measured["digest"] == plain["digest"] and measured["parties"] == 3


def test_what_is_of_a_training_needs_train(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron((6, 3)), path)
    for words in (("--rows", 44), ("--epochs", 2), ("--measure", 3), ("--data", "x=a/b")):
        found = mpc_here("inspect", path, *words)
        assert found.returncode == 2 and "add --train" in found.stderr


def test_a_training_that_is_to_be_checked_is_not_priced_where_it_is_not(tmp_path: Path) -> None:
    path, file = tmp_path / "model.onnx", tmp_path / "lab.toml"
    onnx.save(perceptron((6, 3)), path)
    with InProcess(tmp_path / "cluster", 2) as running:
        file.write_text(dump_toml(running.client().config))
        asked = ("inspect", path, "--train", "--batch", 8, "--rows", 44, "--cluster", file)
        assert mpc_here(*asked).returncode == 0
        refused = mpc_here(*asked, "--security", "active")
    assert refused.returncode == 2 and "steps of a training in this cluster are not checked" in refused.stderr
