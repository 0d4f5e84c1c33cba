"""Noise on the command line: a model whose output is a sum over rows, looked at before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parties.client.at_rest.model_listing import said_ranges
from tests.support.graphs import node, save_model
from tests.support.parties_commands import mpc_here as mpc


def model(folder: Path, kind: str = "ReduceSum", columns: int = 2) -> str:
    nodes = [node(kind, ["x", "axes"] if kind == "ReduceSum" else ["x"], ["y"], keepdims=0, **_axes(kind))]
    return str(save_model(folder, nodes, {"axes": np.array([0])} if kind == "ReduceSum" else {}, ("batch", columns)))


def _axes(kind: str) -> dict[str, list[int]]:
    return {} if kind == "ReduceSum" else {"axes": [0]}


def test_a_sum_over_rows_is_refused_with_the_option_that_computes_it(tmp_path: Path) -> None:
    for kind in ("ReduceSum", "ReduceMean"):
        found = mpc("inspect", model(tmp_path, kind))
        assert found.returncode and "over the rows of a run" in found.stderr and "--epsilon 0.5" in found.stderr


@pytest.mark.parametrize(("columns", "mechanism"), [(2, None), (64, "gaussian")])
def test_inspect_says_what_noise_there_is(tmp_path: Path, columns: int, mechanism: str | None) -> None:
    kind = () if mechanism is None else ("--mechanism", mechanism)
    arguments = ("inspect", model(tmp_path, columns=columns), "--epsilon", "0.5", "--range", "0:100", *kind)
    told = mpc(*arguments)
    assert told.returncode == 0 and f"noise         {mechanism or 'laplace'}, of {columns} sums" in told.stdout
    report = json.loads(mpc(*arguments, "--json").stdout)
    [noise] = report["noise"]
    assert report["noise_together"] == {"epsilon": 0.5, "delta": noise["delta"]}
    assert (noise["mechanism"], noise["elements"], noise["epsilon"]) == (mechanism or "laplace", columns, 0.5)
    least = 2**0.5 * 2 * 100 / 0.5 if mechanism is None else 2**0.5 * 64**0.5 * 100 * 5 / 0.5
    assert least < noise["std"] < 1.3 * least


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--epsilon", "z=0.5"), "no output 'z'"),
        (("--epsilon", "much"), "epsilon is no number"),
        (("--epsilon", "6"), "an epsilon of 6"),
        (("--mechanism", "gaussian"), "--epsilon 0.5"),
        (("--epsilon", "1", "--mechanism", "gaussian", "--delta", "1"), "a delta of 1"),
    ],
)
def test_noise_that_makes_no_sense(tmp_path: Path, given: tuple[str, ...], words: str) -> None:
    found = mpc("inspect", model(tmp_path), *given)
    assert found.returncode and words in found.stderr


def test_a_range_for_each_column_is_told_in_numbers(tmp_path: Path) -> None:
    """As `--range` takes them; where columns are many, alike ones together, and nothing is left out unsaid."""
    assert said_ranges([0.0, 1.6e9], [0.25, 1.8e9]) == "0:0.25,1.6e+09:1.8e+09"
    assert said_ranges([0.0] * 64 + [1.0], [1.0] * 64 + [3.0]) == "0:1 in columns 0-63, 1:3 in column 64"
    assert said_ranges([*range(30)], [50.0] * 30).endswith(
        "50 in column 11, and ranges of 18 more columns (--json has all)"
    )
    found = mpc("inspect", model(tmp_path), "--range", "0:120,10:60", "--epsilon", "0.5")
    assert found.returncode == 0 and "input 'x' in 0:120,10:60" in found.stdout, found
