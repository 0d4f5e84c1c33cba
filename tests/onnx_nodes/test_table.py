"""The table of onnx's node tests is true: complete, without failures, and a sample comes out as it says.

All of them with MPC_FULL=1. `scripts/onnx_nodes.py` writes table and page anew.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import Ranges
from mpc.errors import ModelError, ReuseError
from parties import Cluster
from scripts.onnx_nodes import PAGE, page
from tests.onnx_nodes.harness import (
    TOLERANCE,
    Feeds,
    Outcome,
    calibrated,
    choices,
    node_tests,
    read_table,
    run_test,
    run_with,
)

EVERY = 4
"""One test in so many is always repeated."""
IN_PROCESSES = 12
"""So many tests run between real processes, each of another operator."""
REGENERATE = "run scripts/onnx_nodes.py and look at what changed"
VERSION, TABLE = read_table()
SAME_VERSION = onnx.__version__ == VERSION
NAMES = [name for name in TABLE if SAME_VERSION or name in node_tests()]


def _order(name: str) -> int:
    """A fixed shuffle."""
    return zlib.crc32(name.encode())


def _sampled(name: str) -> object:
    return pytest.param(name, marks=[] if _order(name) % EVERY == 0 else [pytest.mark.slow])


def _of_different_operators() -> list[str]:
    chosen: dict[str, str] = {}
    for name in sorted(NAMES, key=_order):
        if TABLE[name].status == "passed":
            chosen.setdefault(TABLE[name].operator, name)
    return list(chosen.values())[:IN_PROCESSES]


def test_an_outcome_is_what_it_should_be() -> None:
    """The harness itself: a wrong value, shape, type or exception fails, a refusal does not."""
    relu = node_tests()["test_relu"]

    def outcome(given: object) -> tuple[str, str]:
        def run(*_: object) -> Feeds:
            if isinstance(given, Exception):
                raise given
            return {"y": given}

        found = run_with(relu, ("x",), run)
        return found.status, found.reason

    y = relu.outputs["y"]
    assert outcome(y + y.dtype.type(TOLERANCE / 2)) == ("passed", "")
    assert outcome(y + y.dtype.type(TOLERANCE * y.max() * 1.1))[0] == "failed"
    assert outcome(y[:1]) == ("failed", "output 'y' is float32[1, 4, 5], not float32[3, 4, 5]")
    assert outcome(y.astype(np.float64)) == ("failed", "output 'y' is float64[3, 4, 5], not float32[3, 4, 5]")
    assert outcome(ModelError("no\nmore")) == ("refused", "no")
    assert outcome(ReuseError("twice")) == ("failed", "ReuseError: twice")
    assert outcome(KeyError("z")) == ("failed", "KeyError: 'z'")


def test_ranges_cross_neither_zero_nor_a_wall() -> None:
    assert calibrated(np.array([-10.0, 10.0])) == (-11.0, 11.0)
    assert calibrated(np.array([0.0, 1.0, np.inf])) == (0.0, 1.1)
    assert calibrated(np.array([0.05, 1.0])) == (0.025, 1.1)
    assert calibrated(np.array([-1.0, -0.05])) == (-1.1, -0.025)
    assert calibrated(np.array([0.0])) == (0.0, 0.1)
    assert calibrated(np.array([0.5, 0.98]), (-1.0, 1.0)) == (0.4, 0.99)
    assert calibrated(np.array([True])) == (0.0, 1.0)
    assert calibrated(np.array([], np.float32)) is None and calibrated([np.zeros(1), np.zeros(2)]) is None


def test_secret_inputs_are_data() -> None:
    tests = node_tests()
    assert choices(tests["test_slice"]) == [("x",)]
    assert choices(tests["test_conv_with_strides_padding"]) == [("x", "W"), ("x",)]
    assert choices(tests["test_where_long_example"])[::2] == [("condition", "x", "y"), ("x", "y")]
    assert choices(tests["test_resize_upsample_scales_nearest"]) == [("X",)]


def test_nothing_fails() -> None:
    assert [f"{o.name}: {o.reason}" for o in TABLE.values() if o.status not in ("passed", "refused")] == []


def test_the_table_lists_the_tests_of_this_onnx() -> None:
    if SAME_VERSION:
        assert sorted(TABLE) == sorted(node_tests()), REGENERATE
    else:
        assert NAMES, f"onnx {onnx.__version__} has none of the tests of {VERSION}"


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text() == page(VERSION, TABLE.values()), REGENERATE


@pytest.mark.parametrize("name", [_sampled(name) for name in NAMES])
def test_as_the_table_says(name: str) -> None:
    said, now = TABLE[name], run_test(node_tests()[name])
    if (said.status, now.status) == ("refused", "passed"):
        warnings.warn(f"{name} was refused and passes now: {REGENERATE}", stacklevel=1)
        return
    assert now.status == said.status, f"{now.reason}\n{now.error}"
    if said.status == "passed":
        assert now.secret == said.secret, REGENERATE
    elif SAME_VERSION:
        assert now.reason == said.reason, REGENERATE


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.local(parties=2) as running:
        yield running


@pytest.mark.parametrize("name", _of_different_operators())
def test_between_processes(cluster: Cluster, name: str) -> None:
    def run(path: Path, ranges: Ranges, feeds: Feeds) -> Feeds:
        with cluster.session(path, ranges) as session:
            names = [out.name for out in session.get_outputs()]
            return dict(zip(names, session.run(None, feeds), strict=True))

    outcome = run_with(node_tests()[name], TABLE[name].secret, run)
    assert outcome == Outcome(name, TABLE[name].operator, "passed", TABLE[name].secret), outcome.error
