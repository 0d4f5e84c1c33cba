"""What a step's moves are expected to be off by is what they are off by, and is said where it is much."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.training.errors import notes_of
from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.train import Training, compile_training
from mpc.fixedpoint import decode
from tests.support.parties_commands import mpc_here
from tests.support.training import batches, on_integers, on_reals, perceptron

COARSE = Precision(activations=4, gradients=4, loss=10)
RANGES = {"x": (0, 1), "target": (0, 1)}


def rows(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return np.rint(rng.random((number, 6)) * 16) / 16, np.eye(3)[rng.integers(0, 3, number)]


def measured(training: Training, steps: int) -> dict[str, float]:
    """The part of a step's move that it is off by, root mean square, of steps that begin alike."""
    wires = {state.name: training.plan.wire[state.in_] for state in training.plan.states if state.init}
    inits = {state.name: training.weights[state.init] for state in training.plan.states if state.init}
    begun = {name: decode(values, wires[name].scale) for name, values in inits.items()}
    off, size = dict.fromkeys(begun, 0.0), dict.fromkeys(begun, 0.0)
    for seed, one in enumerate(islice(batches(*rows(8 * steps), 8), steps)):
        [found], [wanted] = on_integers(training, iter([one]), seed), on_reals(training, iter([one]))
        for name, values in begun.items():
            off[name] += np.square(found[name] - wanted[name]).sum()
            size[name] += np.square(wanted[name] - values).sum()
    return {name: float((off[name] / size[name]) ** 0.5) for name in begun}


@pytest.mark.parametrize(("loss", "momentum"), [("one_vs_all", 0.0), ("mse", 0.5)])
def test_the_expected_error_of_a_step_is_what_it_is_off_by(loss: str, momentum: float) -> None:
    training = compile_training(perceptron((6, 5, 3)), loss, SGD(0.5, momentum), 8, RANGES, precision=COARSE)
    expected, found = training.expected_errors, measured(training, 24)
    assert expected.keys() == found.keys() == {"w0", "b0", "w1", "b1"}
    assert all(0.4 < expected[name] / found[name] < 2.5 and found[name] > 0.005 for name in found), (expected, found)
    again = compile_training(
        perceptron((6, 5, 3)), loss, SGD(0.5, momentum), 8, RANGES, precision=COARSE, keep=True, tells=("beyond",)
    )
    assert again.expected_errors == pytest.approx(expected, rel=0.5)  # which other coins round


def test_samples_are_what_a_step_is_rehearsed_on() -> None:
    """Of rows that are a hundredth of their range activations have hardly a digit."""
    x, y = rows(16)
    errors = [
        compile_training(
            perceptron((6, 5, 3)), "mse", SGD(0.5), 8, RANGES, samples={"x": part * x, "target": y}
        ).expected_errors["w0"]
        for part in (1.0, 0.01)
    ]
    assert errors[1] > 4 * errors[0]


def test_rows_at_the_parties_are_rehearsed_as_they_lie_there() -> None:
    held = {
        "x": StoredInput((Fraction(16),), (0.0,), (1.0,)),
        "target": StoredInput((Fraction(1),), (0.0,), (2.0,)),
    }
    training = compile_training(perceptron((6, 5, 3)), batch=8, ranges={"x": (0, 1)}, stored=held, precision=COARSE)
    assert all(0.01 < error < 1 for error in training.expected_errors.values())


def test_what_is_much_is_said_and_what_is_little_is_not() -> None:
    fine = compile_training(perceptron((6, 3)), batch=64, ranges=RANGES)
    assert max(fine.expected_errors.values()) < 0.01 and notes_of(fine.expected_errors) == ()
    [note] = notes_of({"a": 0.5, "b": 0.049, "c": 0.06, "d": 0.07, "e": 0.08, "f": 0.09})
    assert "'a' 50%, 'f' 9%, 'e' 8%, 'd' 7% and 1 more" in note and "'b'" not in note


def test_inspect_says_what_a_step_is_expected_to_be_off_by(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron((6, 5, 3), seed=3), path)
    asked = ("inspect", str(path), "--train", "--batch", "4", "--range", "x=0:0.01")
    found = json.loads(mpc_here(*asked, "--json").stdout)
    errors: dict[str, float] = found["expected_errors"]
    assert errors.keys() == {"w0", "b0", "w1", "b1"} and errors["w0"] > 0.1
    assert any("moves of weights are expected to be off" in note for note in found["notes"])
    said = mpc_here(*asked)
    assert f"'w0' {errors['w0']:.0%}" in said.stderr
