"""Functions whose values are small on the whole interval keep their digits, and so do products with such values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from tests.support.graphs import node, save_model
from tests.support.models import clear, plaintext

DIVIDED = [node("Div", ["k", "x"], ["y"])]
OVER_MEAN = [node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1), node("Div", ["x", "m"], ["y"], "over")]
OVER_NORM = [node("ReduceL2", ["x"], ["m"], axes=[1], keepdims=1), node("Div", ["x", "m"], ["y"], "over")]
POWER = [node("Pow", ["x", "e"], ["h"]), node("Mul", ["h", "k"], ["y"])]
EXPONENTIAL = [node("Exp", ["x"], ["h"]), node("Mul", ["h", "k"], ["y"])]
ROOT = [node("Sqrt", ["x"], ["h"]), node("Mul", ["h", "k"], ["y"])]
OVER_ROOT = [node("Sqrt", ["x"], ["h"]), node("Div", ["k", "h"], ["y"])]


@pytest.mark.parametrize(
    ("nodes", "ends", "factor", "exponent"),
    [
        (DIVIDED, (1990.0, 2025.0), 2000.0, 0.0),
        (DIVIDED, (9e4, 1.1e5), 1e5, 0.0),
        (DIVIDED, (7.5e9, 8.1e9), 8e9, 0.0),
        ([node("Softsign", ["x"], ["y"])], (75000.0, 90000.0), 1.0, 0.0),
        ([node("Softsign", ["x"], ["y"])], (7.5e9, 8.1e9), 1.0, 0.0),
        (OVER_MEAN, (1990.0, 2025.0), 1.0, 0.0),
        (OVER_NORM, (1990.0, 2025.0), 1.0, 0.0),
        (POWER, (1990.0, 2025.0), 1e5, -1.5),
        (POWER, (90.0, 110.0), 1e4, -2.0),
        (EXPONENTIAL, (-19.0, -17.0), 1e8, 0.0),
        (ROOT, (1e-6, 1.2e-6), 1e3, 0.0),
        (OVER_ROOT, (7.5e9, 8.1e9), 8e4, 0.0),
    ],
)
def test_what_is_small_everywhere_keeps_its_digits(
    nodes: list, ends: tuple[float, float], factor: float, exponent: float, tmp_path: Path
) -> None:
    """Rounding coefficients to 17 bits left 0.99 of 2000 / 1990 .. 2025, and 1.59 of a Softsign."""
    known = {name for each in nodes for name in each.input}
    constants = {"k": np.float32(factor), "e": np.float32(exponent)}
    path = save_model(tmp_path, nodes, {name: constants[name] for name in known & {"k", "e"}}, ("batch", 2))
    low, high = (np.float32(end) for end in ends)
    x = np.linspace(low, high, 40, dtype=np.float32)[1:-1].reshape(-1, 2)
    compiled = compile_model(path, {"x": ends})
    [right] = plaintext(path, {"x": x})
    np.testing.assert_allclose(clear(compiled, x), right, rtol=1e-3)
    assert max(each.error for each in compiled.rehearsal.expected.values()) < 3e-4 * float(np.abs(right).max())


@pytest.mark.parametrize(("level", "noted"), [(1e-9, True), (-1e-6, True), (0.0, False), (1e-3, False)])
def test_a_constant_that_zero_counts_as_equal_to_is_told(level: float, noted: bool, tmp_path: Path) -> None:
    nodes = [node("Equal", ["x", "c"], ["e"]), node("Cast", ["e"], ["y"], to=1)]
    compiled = compile_model(save_model(tmp_path, nodes, {"c": np.float32(level)}), (-2.0, 2.0))
    assert ("so 0 counts as equal" in "".join(compiled.messages)) == noted
