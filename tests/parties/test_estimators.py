"""Estimators in scikit-learn's shape, beside scikit-learn's own on the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpc.errors import InputError, UsageError
from parties import Cluster, LinearRegression, LogisticRegression, MLPClassifier
from tests.support.parties import InProcess

Rows = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running, Cluster(running.client().config) as c:
        yield c


def parted(data: Any, test: int = 120) -> tuple[Rows, Rows]:
    """(rows to train on, rows to test on)."""
    order = np.random.default_rng(1).permutation(len(data.data))
    late, early = order[:test], order[test:]
    return (data.data[early], data.target[early]), (data.data[late], data.target[late])


def test_breast_cancer_is_told_apart_as_well_as_scikit_learn_does(cluster: Cluster) -> None:
    """On columns as they are, from 0.001 to 4,000."""
    train, test = parted(load_breast_cancer())
    theirs = make_pipeline(StandardScaler(), linear_model.LogisticRegression()).fit(*train)
    ours = LogisticRegression(cluster, max_iter=8, release_loss=50).fit(*train)
    assert ours.score(*test) >= theirs.score(*test) - 0.01 > 0.9
    assert np.abs(ours.predict_proba(test[0]) - theirs.predict_proba(test[0])).mean() < 0.02
    assert ours.n_features_in_ == 30 and [*ours.classes_] == [0, 1] and [*ours.loss_curve_] == [50, 100]
    assert not hasattr(ours, "coef_")
    ours.release()
    z = test[0] @ ours.coef_[0] + ours.intercept_[0]
    np.testing.assert_allclose(ours.decision_function(test[0]), z, atol=0.05)
    ours.close()


def test_diabetes_is_fitted_as_well_as_scikit_learn_does(cluster: Cluster) -> None:
    train, test = parted(load_diabetes())
    theirs = linear_model.LinearRegression().fit(*train)
    ours = LinearRegression(cluster, batch_size=64, max_iter=25).fit(*train).release()
    assert ours.score(*test) >= theirs.score(*test) - 0.02 > 0.3
    assert ours.score(*train) >= theirs.score(*train) - 0.01
    np.testing.assert_allclose(ours.predict(test[0]), test[0] @ ours.coef_ + ours.intercept_, atol=1.0)
    ours.close()


def test_three_kinds_with_names_are_learned_in_a_pipeline(cluster: Cluster) -> None:
    data = load_iris()
    kinds = data.target_names[data.target]
    network = MLPClassifier(cluster, hidden_layer_sizes=(8,), batch_size=16, learning_rate=0.25, max_iter=6)
    pipeline = clone(make_pipeline(StandardScaler(), network)).fit(data.data, kinds)
    learned = pipeline[-1]
    assert learned is not network and not hasattr(network, "model_")
    assert pipeline.score(data.data, kinds) > 0.9
    odds = pipeline.predict_proba(data.data)
    assert odds.shape == (150, 3) and np.allclose(odds.sum(axis=1), 1)
    assert set(pipeline.predict(data.data)) == set(data.target_names)
    assert [values.shape for values in learned.release().coefs_] == [(4, 8), (8, 3)]
    learned.close()


def test_parameters_are_read_set_and_cloned() -> None:
    none: Any = None
    ours = LogisticRegression(none, C=2.0)
    assert ours.get_params()["C"] == 2.0 and "cluster" not in repr(ours)
    assert ours.set_params(C=3.0, max_iter=2).C == 3.0
    assert clone(ours).get_params() == ours.get_params()
    with pytest.raises(UsageError, match="no parameter 'penalty'"):
        ours.set_params(penalty="l1")


@pytest.mark.parametrize("kind", [LogisticRegression, LinearRegression, MLPClassifier])
def test_a_declared_link_is_the_trainers(kind: Any) -> None:
    """Which has steps of fewer rounds for it."""

    class AskedError(Exception):
        """Ends a training before it begins."""

    class Trains:
        def trainer(self, *_: Any, link: Any, **__: Any) -> Any:
            raise AskedError(link)

    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    for said in (None, "wan"):
        with pytest.raises(AskedError, match=str(said)):
            kind(Trains(), link=said).fit(x, y)
    assert clone(kind(None, link="wan")).get_params()["link"] == "wan"


def test_what_cannot_be_fitted_or_predicted_is_refused(cluster: Cluster) -> None:
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    for rows, labels, problem in (
        (x[0], y, "no table"), (x * np.nan, y, "no table"), ([["a"]], y, "no table"), (x, y[1:], "one label for each"),
        (x, y * 0, "one label alone"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=problem):
            LogisticRegression(cluster).fit(rows, labels)
    with pytest.raises(InputError, match="y is not one number"):
        LinearRegression(cluster).fit(x, y[1:])
    with pytest.raises(UsageError, match="is not fitted"):
        LogisticRegression(cluster).predict(x)
