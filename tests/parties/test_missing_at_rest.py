"""Models that look at missing numbers, on datasets whose 0/1 columns mark them: answers are those in the clear."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas
import pytest
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from mpc.errors import MpcWarning
from parties.client.cluster import Cluster
from parties.client.dataset import Dataset
from tests.support import estimators
from tests.support.models import plaintext
from tests.support.parties import InProcess

pytestmark = pytest.mark.filterwarnings(  # trees jump where a number is rounded over a threshold
    "ignore:(fixed point limits output|fixed point is expected to change):mpc.errors.MpcWarning"
)
assert estimators  # it mends skl2onnx's converter of trees
RNG = np.random.default_rng(4)
NAMES = ["age", "bmi", "dose", "weeks"]
FRAME = pandas.DataFrame(np.float32(RNG.integers(-512, 512, (80, 4)) / 128), columns=NAMES)
FRAME["weeks"] += 5  # its range is above zero: what stands for a missing number is not zero
for name, first in (("bmi", 0), ("weeks", 2)):
    FRAME.loc[first::5, name] = np.nan
TARGET = np.nan_to_num(FRAME["bmi"].to_numpy(), nan=3.0) - FRAME["age"].to_numpy() + np.isnan(FRAME["weeks"]).to_numpy()
LABELS = (TARGET > 0).astype(np.int64)


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        with Cluster(running.client("hospital").config) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def dataset(connected: Cluster) -> Dataset:
    ranges = {**dict.fromkeys(NAMES, (-4, 4)), "weeks": (1, 9)}
    with pytest.warns(MpcWarning, match="learns that column 'bmi' misses"), pytest.warns(match="'weeks' misses values"):
        return connected.datasets.put("gaps", FRAME, ranges=ranges, rows_per_person=1)


def converted(model: Any, folder: Path, x: np.ndarray) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
        whole = to_onnx(model, x[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3})
    path = folder / "model.onnx"
    path.write_bytes(whole.SerializeToString())
    return path


def answers(connected: Cluster, path: Path, data: Any) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*may miss values")  # nothing stands for what the model looks at
        session = connected.session(path, data=data)
    with session:
        return session.run(None, None)


REGRESSORS: list[Any] = [
    make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LinearRegression()),
    make_pipeline(SimpleImputer(strategy="constant", fill_value=-7.5), LinearRegression()),
    HistGradientBoostingRegressor(max_iter=5, max_depth=3, random_state=0),
]


@pytest.mark.parametrize("number", range(len(REGRESSORS)))
def test_regressors_answer_as_in_the_clear(connected: Cluster, dataset: Dataset, tmp_path: Path, number: int) -> None:
    x, model = FRAME.to_numpy(), REGRESSORS[number]
    model.fit(x, TARGET)
    expected = model.predict(x)
    [found] = answers(connected, converted(model, tmp_path, x), {"X": dataset[NAMES]})
    np.testing.assert_allclose(found.ravel(), expected, atol=2e-3)


def test_a_tree_sends_missing_numbers_where_it_learned_to(connected: Cluster, dataset: Dataset, tmp_path: Path) -> None:
    """Its converter leaves out which side that is, so the file is mended here."""
    x = FRAME.to_numpy()
    model = DecisionTreeRegressor(max_depth=4, random_state=0).fit(x, TARGET)
    path = converted(model, tmp_path, x)
    whole = onnx.load(path)
    [tracks] = [each for each in whole.graph.node[0].attribute if each.name == "nodes_missing_value_tracks_true"]
    sides = model.tree_.missing_go_to_left.astype(int)
    assert sides.any() and len(tracks.ints) == len(sides)
    tracks.ints[:] = sides.tolist()
    onnx.save(whole, path)
    [found] = answers(connected, path, {"X": dataset[NAMES]})
    np.testing.assert_allclose(found.ravel(), model.predict(x), atol=2e-3)


def test_a_forest_and_its_probabilities(connected: Cluster, dataset: Dataset, tmp_path: Path) -> None:
    x = FRAME.to_numpy()
    model = RandomForestClassifier(n_estimators=5, max_depth=4, random_state=0).fit(x, LABELS)
    path = converted(model, tmp_path, x)
    labels, odds = answers(connected, path, {"X": dataset[NAMES]})
    expected = plaintext(path, {"X": x})  # where numbers miss that is not scikit-learn's: see the tree above
    np.testing.assert_allclose(odds, expected[1], atol=2e-3)
    sure = np.abs(expected[1][:, 0] - 0.5) > 0.01
    np.testing.assert_array_equal(labels[sure], expected[0][sure])
    whole = ~np.isnan(x).any(axis=1)
    np.testing.assert_allclose(odds[whole], model.predict_proba(x)[whole], atol=2e-3)


def test_rows_of_columns_in_another_order(connected: Cluster, dataset: Dataset, tmp_path: Path) -> None:
    names = ["weeks", "age", "bmi"]
    x = FRAME[names].to_numpy()
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(x, LABELS)
    _, odds = answers(connected, converted(model, tmp_path, x), {"X": dataset[names][10:30]})
    np.testing.assert_allclose(odds, model.predict_proba(x)[10:30], atol=2e-3)


def test_a_dataset_that_misses_nothing_is_read_by_models_that_could_miss_something(
    connected: Cluster, dataset: Dataset, tmp_path: Path
) -> None:
    x = FRAME.to_numpy()
    model = DecisionTreeRegressor(max_depth=4, random_state=0).fit(x[:, :2], TARGET)
    full = FRAME[["age", "dose"]].to_numpy()
    [found] = answers(connected, converted(model, tmp_path, x[:, :2]), {"X": dataset[["age", "dose"]]})
    np.testing.assert_allclose(found.ravel(), model.predict(full), atol=2e-3)


def test_an_exact_grant_names_the_marks_too(connected: Cluster, dataset: Dataset, tmp_path: Path) -> None:
    x = FRAME.to_numpy()
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(x, TARGET)
    chosen = {"X": dataset[NAMES]}
    session = connected.session(converted(model, tmp_path, x), data=chosen)
    given = connected.datasets.grant("gaps", "analyst", plans=session.plan, data=chosen)
    session.close()
    assert given.question.exact is not None
    bound = {each.columns for each in given.question.exact.plans[0].bindings.values()}
    assert bound == {tuple(NAMES), ("bmi.missing", "weeks.missing")}
