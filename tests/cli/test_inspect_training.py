"""`mpc inspect --train`: the price of a training before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

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


def test_what_is_of_a_training_needs_train(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron((6, 3)), path)
    assert mpc_here("inspect", str(path), "--rows", "44").returncode == 2
