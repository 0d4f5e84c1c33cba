"""The sigmoid of training as a series: right where it counts, and beyond a wall that outputs do not climb over."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from mpc.compiler.graph.attributes import Link
from mpc.compiler.series import Series, wide
from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.train import compile_training
from tests.support.training import model, on_integers, perceptron


def link_of(logits: float) -> Link:
    training = compile_training(
        perceptron((4, 1)), "one_vs_all", SGD(0.5), 4, {"x": (0, 1)}, precision=Precision(logits=logits)
    )
    return next(node.of(Link) for node in training.step.graph.nodes if node.op == "link")


def values(series: Series, x: np.ndarray) -> np.ndarray:
    angles = 2 * np.pi / series.period * np.outer(x, np.arange(1, series.cosines.size + 1))
    return np.asarray(series.constant + np.cos(angles) @ series.cosines + np.sin(angles) @ series.sines)


@pytest.mark.parametrize("logits", [40.0, 48.0, 96.0])
def test_the_sigmoid_is_right_and_turns_back_what_goes_too_far(logits: float) -> None:
    taken = link_of(logits)
    series = wide(taken.name, (), taken.period, taken.terms, taken.reach, taken.wall)
    near = np.linspace(-taken.reach, taken.reach, 999)
    assert np.abs(values(series, near) - 1 / (1 + np.exp(-near))).max() <= series.error * 1.05 < 0.005
    wall = np.linspace(taken.reach + 0.25 * (logits - taken.reach), logits, 99)
    assert (values(series, wall) > 1.005).all() and (values(series, -wall) < -0.005).all()
    low, high = series.ends
    assert -0.35 < low < -0.15 and 1.15 < high < 1.35


def test_an_output_that_is_right_already_is_not_driven_beyond_its_meaning() -> None:
    """By others that share its weights and still learn: it begins at 46, and they would take it to 61.

    Without the wall it is beyond half a period then, is taken for the opposite, and driven away for good.
    """
    x = np.repeat(np.array([[1.0, 0.0], [1.0, 1.0]]), [7, 1], axis=0)
    begun = model(
        [helper.make_node("MatMul", ["x", "w"], ["z"])], {"w": np.array([[46.0], [-76.0]])}, ["batch", 2], ["batch", 1]
    )
    training = compile_training(begun, "one_vs_all", SGD(4.0), 8, {"x": (0, 1)}, precision=Precision(weights=128.0))
    *_, last = on_integers(training, iter([{"x": x, "target": np.ones((8, 1))}] * 80))
    z = x @ last["w"]
    assert 38 < z.max() < 48 and z.min() > 0
