"""scikit-learn's estimators as skl2onnx converts them: labels, probabilities, dictionaries, values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn import linear_model as linear
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.feature_selection import RFE, SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.estimators import (
    CANCER,
    DIABETES,
    DIGITS,
    FEW,
    IRIS,
    NAMED,
    NAMED_CANCER,
    TWO_TARGETS,
    WHOLE,
    WINE,
    Case,
    assert_case_agrees,
    columns,
    converted,
)

Logistic = linear.LogisticRegression


def scaled(model):  # type: ignore[no-untyped-def]
    return make_pipeline(StandardScaler(), model)


def mlp(kind, activation, *sizes):  # type: ignore[no-untyped-def]
    return scaled(kind(hidden_layer_sizes=sizes, activation=activation, max_iter=60, random_state=0))


def some() -> list[tuple[str, object]]:
    return [("a", Logistic()), ("b", DecisionTreeClassifier(max_depth=3, random_state=0))]


OFTEN = {
    "logistic regression": Case(lambda: scaled(Logistic()), CANCER, zipmap=True),
    "on raw data": Case(lambda: Logistic(max_iter=50), CANCER, zipmap=False),
    "named classes": Case(Logistic, NAMED, zipmap=True),
    "two named classes": Case(lambda: scaled(Logistic()), NAMED_CANCER, zipmap=False),
    "one against all": Case(lambda: OneVsRestClassifier(Logistic()), NAMED, zipmap=False),
    "linear regression": Case(linear.LinearRegression, DIABETES),
    "two targets": Case(linear.Ridge, TWO_TARGETS),
    "poisson": Case(lambda: scaled(linear.PoissonRegressor()), DIABETES),
    "sgd, logistic loss": Case(lambda: scaled(linear.SGDClassifier(loss="log_loss", random_state=0)), CANCER, False),
    "perceptron": Case(lambda: scaled(linear.Perceptron(random_state=0)), CANCER, zipmap=False),
    "ridge classifier": Case(lambda: scaled(linear.RidgeClassifier()), CANCER, zipmap=False),
    "linear svc": Case(lambda: LinearSVC(random_state=0), CANCER),
    "lda": Case(LinearDiscriminantAnalysis, IRIS, zipmap=False),
    "qda": Case(QuadraticDiscriminantAnalysis, IRIS, zipmap=False),
    "gaussian bayes": Case(GaussianNB, IRIS, zipmap=True),
    "gaussian bayes on raw data": Case(GaussianNB, CANCER, zipmap=False),
    "mlp": Case(lambda: mlp(MLPClassifier, "relu", 16, 8), IRIS, zipmap=True),
    "mlp tanh": Case(lambda: mlp(MLPClassifier, "tanh", 8), CANCER, zipmap=False),
    "mlp regressor": Case(lambda: mlp(MLPRegressor, "logistic", 8), DIABETES),
    "standard scaler": Case(StandardScaler, CANCER),
    "largest of all columns": Case(MaxAbsScaler, CANCER),
    "normalizer": Case(lambda: Normalizer("l2"), CANCER),
    "normalizer by the largest": Case(lambda: scaled(Normalizer("max")), IRIS),
    "polynomials": Case(lambda: PolynomialFeatures(3), IRIS),
    "imputer": Case(lambda: scaled(SimpleImputer(missing_values=0.0, keep_empty_features=True)), DIGITS),
    "bins": Case(lambda: make_pipeline(KBinsDiscretizer(3, encode="onehot-dense"), Logistic()), IRIS, zipmap=False),
    "one hot": Case(lambda: make_pipeline(OneHotEncoder(handle_unknown="ignore"), Logistic()), WHOLE, zipmap=False),
    "columns": Case(
        lambda: make_pipeline(
            ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", MinMaxScaler(), [2]), ("c", "passthrough", [3])]),
            Logistic(),
        ),
        IRIS,
        zipmap=True,
    ),
    "soft votes": Case(lambda: VotingClassifier(some(), voting="soft", flatten_transform=False), IRIS, zipmap=False),
    "stacked": Case(lambda: scaled(StackingClassifier(some())), CANCER, zipmap=False),
    "calibrated": Case(lambda: CalibratedClassifierCV(LinearSVC(random_state=0), cv=2), IRIS, zipmap=False),
    "k-means": Case(lambda: KMeans(3, random_state=0), IRIS),
    "neighbours": Case(lambda: KNeighborsClassifier(3), FEW, zipmap=False),
}

RARELY = {
    "logistic regression, ten classes": Case(lambda: Logistic(max_iter=50), DIGITS, zipmap=False),
    "logistic regression, tuned": Case(lambda: scaled(linear.LogisticRegressionCV(cv=3)), CANCER, zipmap=False),
    "one against one": Case(lambda: OneVsOneClassifier(Logistic()), IRIS),
    "one against all, trees": Case(
        lambda: OneVsRestClassifier(DecisionTreeClassifier(max_depth=3)), IRIS, zipmap=False
    ),
    "lasso": Case(linear.Lasso, DIABETES),
    "elastic net": Case(lambda: linear.ElasticNet(alpha=0.01), DIABETES),
    "lasso, two targets": Case(linear.MultiTaskLasso, TWO_TARGETS),
    "huber": Case(linear.HuberRegressor, DIABETES),
    "theil-sen": Case(lambda: linear.TheilSenRegressor(random_state=0), DIABETES),
    "ransac": Case(lambda: linear.RANSACRegressor(random_state=0), DIABETES),
    "lars": Case(linear.Lars, DIABETES),
    "omp": Case(linear.OrthogonalMatchingPursuit, DIABETES),
    "bayesian ridge": Case(linear.BayesianRidge, DIABETES),
    "ard": Case(linear.ARDRegression, DIABETES),
    "sgd regressor": Case(lambda: scaled(linear.SGDRegressor(random_state=0)), DIABETES),
    "gamma": Case(lambda: scaled(linear.GammaRegressor()), DIABETES),
    "tweedie": Case(lambda: scaled(linear.TweedieRegressor(power=1.5)), DIABETES),
    "pls": Case(PLSRegression, TWO_TARGETS),
    "linear svr": Case(lambda: scaled(LinearSVR(random_state=0)), DIABETES),
    "linear svc, three classes": Case(lambda: LinearSVC(random_state=0), IRIS),
    "sgd, hinge": Case(lambda: scaled(linear.SGDClassifier(random_state=0)), CANCER, zipmap=False),
    "sgd, three classes": Case(lambda: scaled(linear.SGDClassifier(loss="log_loss", random_state=0)), IRIS, False),
    "sgd, modified huber": Case(
        lambda: scaled(linear.SGDClassifier(loss="modified_huber", random_state=0)), CANCER, zipmap=False
    ),
    "perceptron, three classes": Case(lambda: scaled(linear.Perceptron(random_state=0)), IRIS, zipmap=False),
    "ridge classifier, three classes": Case(linear.RidgeClassifier, IRIS, zipmap=False),
    "lda, two classes": Case(LinearDiscriminantAnalysis, CANCER, zipmap=False),
    "gaussian bayes, scaled": Case(lambda: scaled(GaussianNB()), CANCER, zipmap=False),
    "bernoulli bayes": Case(lambda: BernoulliNB(binarize=8.0), DIGITS, zipmap=False),
    "multinomial bayes": Case(MultinomialNB, DIGITS, zipmap=False),
    "complement bayes": Case(ComplementNB, DIGITS, zipmap=False),
    "categorical bayes": Case(lambda: CategoricalNB(min_categories=10), WHOLE, zipmap=False),
    "mlp regressor, relu": Case(lambda: mlp(MLPRegressor, "relu", 8), DIABETES),
    "mlp regressor, tanh": Case(lambda: mlp(MLPRegressor, "tanh", 8), DIABETES),
    "mlp regressor, identity": Case(lambda: mlp(MLPRegressor, "identity", 8), DIABETES),
    "mlp, logistic": Case(lambda: mlp(MLPClassifier, "logistic", 8, 5), IRIS, zipmap=False),
    "mlp, identity": Case(lambda: mlp(MLPClassifier, "identity", 8), CANCER, zipmap=False),
    "pca": Case(lambda: PCA(3, whiten=True), WINE),
    "svd": Case(lambda: TruncatedSVD(3), WINE),
    "kernel pca": Case(lambda: KernelPCA(3, kernel="rbf"), FEW),
    "random projection": Case(lambda: GaussianRandomProjection(2, random_state=0), IRIS),
    "least and largest": Case(MinMaxScaler, CANCER),
    "least and largest, cut": Case(lambda: MinMaxScaler(clip=True), CANCER),
    "robust scaler": Case(RobustScaler, CANCER),
    "normalizer by sums": Case(lambda: Normalizer("l1"), IRIS),
    "binarizer": Case(lambda: Binarizer(threshold=3.0), IRIS),
    "interactions": Case(lambda: PolynomialFeatures(3, interaction_only=True), IRIS),
    "polynomial regression": Case(lambda: make_pipeline(PolynomialFeatures(2), linear.Ridge()), DIABETES),
    "best columns": Case(lambda: make_pipeline(SelectKBest(k=2), Logistic()), IRIS, zipmap=False),
    "varying columns": Case(lambda: make_pipeline(VarianceThreshold(), Logistic()), IRIS, zipmap=False),
    "eliminated columns": Case(
        lambda: make_pipeline(RFE(Logistic(), n_features_to_select=2), Logistic()), IRIS, zipmap=False
    ),
    "imputer of what is not there": Case(lambda: make_pipeline(SimpleImputer(), Logistic()), IRIS, zipmap=False),
    "bins, numbered": Case(lambda: KBinsDiscretizer(3, encode="ordinal", strategy="uniform"), IRIS),
    "one hot of whole reals": Case(
        lambda: make_pipeline(OneHotEncoder(handle_unknown="ignore"), Logistic()),
        (WHOLE[0].astype(float), WHOLE[1]),
        zipmap=False,
    ),
    "ordinal": Case(OrdinalEncoder, WHOLE),
    "union": Case(
        lambda: make_pipeline(FeatureUnion([("p", PCA(2)), ("s", StandardScaler())]), Logistic()), IRIS, zipmap=False
    ),
    "hard votes": Case(lambda: VotingClassifier(some(), flatten_transform=False), IRIS, zipmap=False),
    "votes of regressors": Case(
        lambda: VotingRegressor([("a", linear.LinearRegression()), ("b", DecisionTreeRegressor(max_depth=3))]), DIABETES
    ),
    "stacked, three classes": Case(lambda: StackingClassifier(some()), IRIS, zipmap=False),
    "stacked regressors": Case(
        lambda: StackingRegressor([("a", linear.LinearRegression()), ("b", DecisionTreeRegressor(max_depth=3))]),
        DIABETES,
    ),
    "calibrated, two classes": Case(lambda: scaled(CalibratedClassifierCV(LinearSVC(), cv=2)), CANCER, zipmap=False),
    "calibrated, isotonic": Case(
        lambda: CalibratedClassifierCV(Logistic(), cv=2, method="isotonic"), IRIS, zipmap=False
    ),
    "neighbours, regression": Case(lambda: KNeighborsRegressor(3), (DIABETES[0][::9], DIABETES[1][::9])),
    "neighbours, by distance": Case(
        lambda: KNeighborsRegressor(3, weights="distance"), (DIABETES[0][::9], DIABETES[1][::9])
    ),
    "neighbours, classes by distance": Case(lambda: KNeighborsClassifier(3, weights="distance"), FEW, zipmap=False),
    "neighbours, absolute": Case(lambda: KNeighborsClassifier(3, metric="manhattan"), FEW, zipmap=False),
    "neighbours, cdist": Case(lambda: KNeighborsClassifier(3), FEW, zipmap=False, options={"optim": "cdist"}),
    "k-means, scaled": Case(lambda: scaled(KMeans(3, random_state=0)), WINE),
    "many neighbours": Case(lambda: KNeighborsClassifier(3), IRIS, zipmap=False),
    "mixture": Case(lambda: GaussianMixture(2, random_state=0), IRIS),
}

REFUSED = {
    "powers of either sign": (Case(PowerTransformer, IRIS), "Pow", "defined above 0 only"),
    "quantiles": (
        Case(lambda: QuantileTransformer(n_quantiles=10), IRIS),
        "IsNaN",
        "looks for missing numbers of an input",
    ),
    "many neighbours": (Case(lambda: KNeighborsClassifier(3), CANCER, zipmap=False), "TopK", "256"),
}


@pytest.mark.parametrize("name", OFTEN)
def test_estimator(name: str, tmp_path: Path) -> None:
    assert_case_agrees(OFTEN[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RARELY)
def test_another_estimator(name: str, tmp_path: Path) -> None:
    assert_case_agrees(RARELY[name], tmp_path)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_possible_is_refused_by_name(name: str, tmp_path: Path) -> None:
    case, operator, word = REFUSED[name]
    path, _ = converted(case, tmp_path)
    with pytest.raises(ModelError, match=word) as caught:
        compile_model(path)
    assert caught.value.operator == operator


def test_two_opposite_scores_are_computed_once(tmp_path: Path) -> None:
    """A logistic regression of two classes: one score, one series, one comparison."""
    compiled = assert_case_agrees(Case(lambda: scaled(Logistic()), CANCER, zipmap=False), tmp_path)
    steps = [compiled.plan.wire[gate.out].shape for gate in compiled.plan.gates if gate.kind == "step"]
    assert steps == [("batch", 1, 1)]


@pytest.mark.parametrize("name", ["qda", "mixture", "normalizer by sums"])
def test_ranges_that_are_far_wider_keep_their_bounds(name: str, tmp_path: Path) -> None:
    """Likelihoods are so large then that their maximum is found in whole numbers: what is less than it can be above."""
    path, x = converted({**OFTEN, **RARELY}[name], tmp_path)
    low, high = (np.array(ends) for ends in columns(x))
    width = 1000 * (high - low)
    made = compile_model(path, {"X": (tuple((low - width).tolist()), tuple((high + width).tolist()))})
    assert made.rehearsal.expected  # no value of a rehearsal leaves the bound of its wire
