"""Missing numbers through real parties: what a client enters beside its input, masked, until the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.arguments import as_array
from mpc.compiler.compile import compile_model
from mpc.compiler.roles import Roles
from mpc.errors import InputError
from parties.cli.compiling import compile_for_data
from parties.cli.display import Display
from parties.cli.inputs import load_inputs
from parties.client.session import Session
from tests.support.graphs import node, save_model
from tests.support.models import plaintext
from tests.support.parties import InProcess


def test_numbers_are_missing_and_filled_in(tmp_path: Path) -> None:
    nan = float("nan")
    settings = {"imputed_value_floats": [1.5, -2.0, 0.25, 7.0], "replaced_value_float": nan}
    path = save_model(tmp_path, [node("Imputer", ["x"], ["y"], domain="ai.onnx.ml", **settings)])
    x = np.array([[1, nan, 3, 4], [nan] * 4, [0.5, 0, -1, nan]], np.float32)
    with InProcess(tmp_path / "cluster", 2) as cluster:
        session = Session(cluster.client(), compile_model(path, {"x": (-8, 8)}))
        [y] = session.run(None, {"x": x})
        [again] = session.run(None, {"x": np.nan_to_num(x)})
        session.close()
    assert np.abs(y - plaintext(path, {"x": x})[0]).max() < 1e-3
    assert np.abs(again - np.nan_to_num(x)).max() < 1e-3


@pytest.mark.filterwarnings("ignore:fixed point limits output:mpc.errors.MpcWarning")
def test_empty_cells_of_a_table_without_a_declared_range(tmp_path: Path) -> None:
    """Ranges follow from the numbers that are there, as they do for a table without holes."""
    settings = {"imputed_value_floats": [1.5, 1e3, 0.25, 5e6], "replaced_value_float": float("nan")}
    path = save_model(tmp_path, [node("Imputer", ["x"], ["y"], domain="ai.onnx.ml", **settings)])
    table = tmp_path / "data.csv"
    table.write_text("a,b,c,d\n0.5,960.25,,4.5e6\n,1010,0.02,\n-1.5,,-0.01,5.5e6\n,,,\n")
    feeds = load_inputs((str(table),), ["x"], types={"x": "float32"})
    compiled = compile_for_data(Display(), path, feeds, {}, {}, Roles())
    with InProcess(tmp_path / "cluster", 2) as cluster, Session(cluster.client(), compiled) as session:
        [y] = session.run(None, feeds)
    assert (np.abs(y - plaintext(path, feeds)[0]) <= [1e-3, 1e-3, 1e-5, 4]).all()


def test_samples_that_miss_a_number_where_none_may_be_missing_bound_nothing(tmp_path: Path) -> None:
    """Everything that they reach would count as small, and answers be wrong."""
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": np.full((4, 2), 0.3, np.float32)})
    x = np.ones((8, 4), np.float32)
    for wild, name in ((np.float32("nan"), "NaN"), (np.float32("inf"), "infinity")):
        x[3, 2] = wild
        with pytest.raises(InputError, match=f"samples of input 'x' hold {name} in column 2"):
            compile_model(path, samples=x)


def test_rows_with_none_are_rows_with_missing_numbers() -> None:
    """As lists have it, and tables of objects, such as pandas' with its own kind of nothing."""

    class NAType:
        """pandas.NA, which is no number and cannot be compared."""

    class Table:
        def __init__(self, rows: list) -> None:
            self._rows = rows

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.array(self._rows, dtype=object)

    for rows in ([[1.5, None], [2, 0.25]], Table([[1.5, NAType()], [2, 0.25]])):
        found = as_array(rows, "float32", "x")
        assert found.dtype == np.float32 and np.array_equal(found, [[1.5, np.nan], [2, 0.25]], equal_nan=True)
    for wrong in ([[1.5, "a"]], [[None, True]], [[1.5, None], [1.0]], None):
        with pytest.raises(InputError, match="no array of numbers"):
            as_array(wrong, "float32", "x")
