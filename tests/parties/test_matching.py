"""Columns that a model and the data name are matched by name: whatever their order, the answer is the right one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas
import polars
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from mpc.compiler.onnx.metadata import columns_of
from mpc.errors import InputError, ModelError, MpcWarning, UsageError
from parties.client.at_rest.matching import match_frames
from parties.client.cluster import Cluster
from parties.client.dataset import Dataset
from tests.support.graphs import node
from tests.support.parties import InProcess, tiny_answer, tiny_model

ROWS = np.random.default_rng(8).integers(-1024, 1024, (6, 3)) / 256
NAMES = ["age", "bmi", "dose"]
MIXED = ["dose", "age", "bmi"]


def saying(path: Path, **said: Any) -> Path:
    """The tiny model, with metadata."""
    model = onnx.load(tiny_model(path))
    for key, value in said.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=key.replace("__", "."), value=text)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        with Cluster(running.client("hospital").config) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def dataset(connected: Cluster) -> Dataset:
    table = {name: ROWS[:, NAMES.index(name)] for name in MIXED}
    return connected.datasets.put("mixed", {**table, "note": np.zeros(6)}, ranges=(-4, 4), rows_per_person=1)


def answered(connected: Cluster, model: Path, data: Any) -> np.ndarray:
    session = connected.session(model, data=data)
    [found] = session.run(None, None)
    session.close()
    return found


def test_a_dataset_is_read_in_the_order_that_the_model_names(
    connected: Cluster, dataset: Dataset, tmp_path: Path
) -> None:
    model = saying(tmp_path / "m.onnx", mpc__columns__x=NAMES)
    expected = tiny_answer(ROWS)
    for data in (dataset, {"x": dataset}, {"x": dataset[MIXED]}, {"x": dataset[NAMES]}, dataset[MIXED]):
        np.testing.assert_allclose(answered(connected, model, data), expected, atol=1e-4)
    part = answered(connected, model, {"x": dataset[MIXED][2:4]})
    np.testing.assert_allclose(part, expected[2:4], atol=1e-4)


def test_other_columns_than_the_model_names_are_refused_with_the_right_ones(
    connected: Cluster, dataset: Dataset, tmp_path: Path
) -> None:
    model = saying(tmp_path / "m.onnx", mpc__columns__x=NAMES)
    with pytest.raises(InputError) as caught:
        connected.session(model, data={"x": dataset[["age", "bmi", "note"]]})
    remedy = "--data x=hospital/mixed:age,bmi,dose, in Python data={'x': dataset[['age', 'bmi', 'dose']]}"
    assert caught.value.remedy == remedy
    other = saying(tmp_path / "other.onnx", mpc__columns__x=["age", "height", "dose"])
    for data in (dataset, {"x": dataset[NAMES]}):
        with pytest.raises(InputError, match="hospital/mixed has no column height"):
            connected.session(other, data=data)


def test_where_the_model_names_none_the_order_that_was_taken_is_told(
    connected: Cluster, dataset: Dataset, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "m.onnx")
    three = connected.datasets.put(
        "three", {name: dataset_column(name) for name in MIXED}, ranges=(-4, 4), rows_per_person=1
    )
    with pytest.warns(MpcWarning, match="reads the columns of hospital/three in this order: dose, age, bmi"):
        found = answered(connected, model, three)
    np.testing.assert_allclose(found, tiny_answer(ROWS[:, [2, 0, 1]]), atol=1e-4)
    np.testing.assert_allclose(answered(connected, model, {"x": dataset[NAMES]}), tiny_answer(ROWS), atol=1e-4)


def dataset_column(name: str) -> np.ndarray:
    return ROWS[:, NAMES.index(name)]


@pytest.mark.filterwarnings("ignore:output 'y' has an expected error:mpc.errors.MpcWarning")
def test_an_input_a_column_reads_the_column_of_its_name(connected: Cluster, dataset: Dataset, tmp_path: Path) -> None:
    nodes = [node("Sub", ["age", "bmi"], ["d"]), node("Relu", ["d"], ["y"])]
    given, out = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in names]
        for names in (["age", "bmi"], ["y"])
    )
    whole = helper.make_model(helper.make_graph(nodes, "two", given, out), opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version, model = 9, tmp_path / "two.onnx"
    onnx.save(whole, model)
    expected = np.maximum(ROWS[:, [0]] - ROWS[:, [1]], 0)
    for data in (dataset, {"age": dataset, "bmi": dataset}, {"bmi": dataset["bmi"], "age": dataset["age"]}):
        np.testing.assert_allclose(answered(connected, model, data), expected, atol=1e-4)
    with pytest.raises(
        InputError, match="input 'age' reads the columns age, and is given bmi; .*dataset\\[\\['age'\\]\\]"
    ):
        connected.session(model, data={"age": dataset["bmi"], "bmi": dataset["age"]})
    with pytest.raises(UsageError, match="data are by input"):
        connected.session(model, data=dataset[["dose"]])


FRAMES = [
    pandas.DataFrame(ROWS.astype(np.float32), columns=NAMES)[MIXED],
    polars.DataFrame({name: ROWS[:, NAMES.index(name)].astype(np.float32) for name in MIXED}),
    pa.table({name: ROWS[:, NAMES.index(name)].astype(np.float32) for name in MIXED}),
]


@pytest.mark.parametrize("frame", FRAMES, ids=["pandas", "polars", "pyarrow"])
def test_data_frames_are_read_by_name(frame: Any) -> None:
    for given in (frame, {"x": frame}):
        found, told = match_frames(given, {"x": NAMES}, ["x"])
        np.testing.assert_array_equal(found["x"], ROWS.astype(np.float32))
        assert not told
        _, [note] = match_frames(given, {}, ["x"])
        assert "in this order: dose, age, bmi" in note
    by_input, told = match_frames(frame, {}, ["bmi", "dose"])
    np.testing.assert_array_equal(by_input["bmi"], ROWS[:, [1]].astype(np.float32))
    assert not told and by_input["dose"].shape == (6, 1)
    with pytest.raises(InputError, match="the table has no height"):
        match_frames(frame, {"x": ["age", "height"]}, ["x"])


def test_what_has_no_names_is_left_as_it_is() -> None:
    for given in (None, ROWS, {"x": ROWS}, [[1.0, 2.0]], pandas.DataFrame(ROWS), 5):
        found, told = match_frames(given, {"x": NAMES}, ["x"])
        assert told == [] and (found is given or found["x"] is given or found["x"] is given["x"])


def test_a_session_runs_on_a_frame_whatever_its_order(connected: Cluster, tmp_path: Path) -> None:
    frame = FRAMES[0]
    named = saying(tmp_path / "named.onnx", feature_names_in_=NAMES)
    with connected.session(named, ranges=(-4, 4)) as session:
        np.testing.assert_allclose(session.run(None, frame)[0], tiny_answer(ROWS), atol=1e-4)
        with pytest.raises(InputError, match="the table has no dose"):
            session.run(None, frame[["age", "bmi"]])
    with connected.session(tiny_model(tmp_path / "plain.onnx"), ranges=(-4, 4)) as session:
        with pytest.warns(MpcWarning, match="in this order: dose, age, bmi"):
            [found] = session.run(None, frame)
        np.testing.assert_allclose(found, tiny_answer(ROWS[:, [2, 0, 1]]), atol=1e-4)
        assert [note for note in session.notes if "in this order" in note]


def test_names_in_metadata(tmp_path: Path) -> None:
    def read(**said: Any) -> dict[str, tuple[str, ...]]:
        return columns_of(onnx.load(saying(tmp_path / "m.onnx", **said)))

    assert read() == {} and read(mpc__columns__x=NAMES) == {"x": tuple(NAMES)}
    assert read(feature_names=NAMES) == {"x": tuple(NAMES)} and read(feature_names=["a", "b"]) == {}
    for counting in (["f0", "f1", "f2"], ["Column_0", "Column_1", "Column_2"], ["0", "1", "2"]):
        assert read(feature_names=counting) == {}
    assert (
        read(feature_names="age, bmi, dose") == {} and read(mpc__columns__x=NAMES, feature_names=MIXED)["x"][0] == "age"
    )
    for wrong in (["a", "b"], ["a", "a", "b"], "age,bmi,dose", [1, 2, 3], ["a", "b", "c\n"]):
        with pytest.raises(ModelError, match="is no list of names"):
            read(mpc__columns__x=wrong)
    with pytest.raises(ModelError, match="mpc.columns.y"):
        read(mpc__columns__y=NAMES)
