"""Pipelines for tables against onnxruntime: values within the declared error, labels equal or as close as that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.support.estimators  # noqa: F401 - mends a converter of skl2onnx
from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from parties.cli.compiling import compile_for_data
from parties.cli.display import Display
from tests.support.models import encrypted, plaintext
from tests.support.pipelines import PIPELINES, exported, fitted
from tests.support.tables import around, computed

OFTEN = ("columns, logistic regression", "forest", "boosting of values", "ridge on raw columns", "stacked")
APART = ("columns, logistic regression", "columns, linear regression", "columns, forest", "ordinal code")
RARE = 0.01
CLOSE = 2e-4
"""Of the largest value: what series may be off by, and float32 in onnxruntime."""


def assert_declared(compiled: Compiled, ours: list[Any], theirs: list[Any]) -> None:
    """Values are off by no more than eight times what is declared; labels differ only where scores are as close.

    One row in a hundred may be on the other side of a threshold that it equals to seven digits: where a column is
    scaled first onnxruntime rounds to these itself, and a tree compares 36 bits.
    """
    margin = None
    for out, mine, right in zip(compiled.plan.outputs, ours, theirs, strict=True):
        if out.keys is not None:
            mine, right = (np.array([list(row.values()) for row in rows]) for rows in (mine, right))
        if right.dtype.kind == "f":
            allowed = 8 * compiled.errors[out.name] + CLOSE * max(1.0, np.abs(right).max())
            off = np.abs(mine - right).reshape(len(right), -1).max(axis=1)
            assert np.mean(off > allowed) <= RARE, (out.name, off.max(), np.mean(off > allowed), compiled.errors)
            if right.ndim == 2 and right.shape[1] > 1:
                top = np.sort(right, axis=1)
                margin = (top[:, -1] - top[:, -2]) <= 2 * allowed
    for mine, right in zip(ours, theirs, strict=True):
        if isinstance(right, np.ndarray) and right.dtype.kind != "f":
            differ = (mine != right).reshape(len(right), -1).any(axis=1)
            unexplained = differ if margin is None else differ & ~margin
            assert max(unexplained.mean(), differ.mean() / 2) <= RARE, f"{differ.sum()} labels"


def checked(name: str, folder: Path, how: str, apart: bool = False) -> Compiled:
    model, x = fitted(name)
    path, feeds = exported(model, x, folder, apart)
    if how == "no range":
        compiled = compile_for_data(Display(quiet=True), path, feeds, {}, {}, Roles())
    else:
        compiled = compile_model(path, around(feeds))
    assert_declared(compiled, computed(compiled, feeds), plaintext(path, feeds))
    assert how == "powers of two" or not any("hardly a digit" in text for text in compiled.messages)
    return compiled


@pytest.mark.parametrize("name", OFTEN)
def test_pipeline(name: str, tmp_path: Path) -> None:
    checked(name, tmp_path, "no range")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no range", "powers of two"])
@pytest.mark.parametrize("name", PIPELINES)
def test_any_pipeline(name: str, how: str, tmp_path: Path) -> None:
    checked(name, tmp_path, how)


@pytest.mark.parametrize("name", APART)
def test_one_input_a_column(name: str, tmp_path: Path) -> None:
    """As skl2onnx has it of a data frame: floats and whole numbers, each an input of its own."""
    checked(name, tmp_path, "no range", apart=True)


def test_parties_compute_a_pipeline(tmp_path: Path) -> None:
    """Bit for bit the reference, with which the others are compared."""
    model, x = fitted("columns, forest")
    path, feeds = exported(model, x[:6], tmp_path, apart=True)
    compiled = compile_model(path, around(feeds))
    assert_declared(compiled, encrypted(compiled, feeds), plaintext(path, feeds))
