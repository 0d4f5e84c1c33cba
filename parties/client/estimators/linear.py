"""Linear models in scikit-learn's shape: their coefficients are told on request alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from mpc.errors import InputError
from parties.client.estimators.base import Estimator, as_rows
from parties.client.estimators.classes import Classifier

if TYPE_CHECKING:
    from mpc.plan.link import Link
    from parties.client.cluster import Cluster

_TARGETS = (-16.0, 16.0)


class LogisticRegression(Classifier):
    """Logistic regression with an L2 penalty, as scikit-learn's: one logistic function a class, or one of two classes.

    Args:
        cluster: where it is trained.
        C: the inverse of the penalty's weight, as scikit-learn's; it is that of columns as they are scaled here.
        learning_rate, momentum, batch_size, max_iter: of SGD; max_iter are epochs.
        random_state: decides the order of rows.
        release_loss: every how many steps the loss is told; None for never.
        name: of the dataset of weights at the parties.
        link: what lies between the processes, as `cluster.trainer` takes it.

    Attributes:
        coef_, intercept_: after `release()` alone, as scikit-learn's: (1 or classes, columns) and (1 or classes,).
    """

    _parameters: ClassVar[tuple[str, ...]] = (
        "cluster", "C", "learning_rate", "momentum", "batch_size", "max_iter", "random_state", "release_loss", "name",
        "link",
    )  # fmt: skip
    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(
        self,
        cluster: Cluster,
        *,
        C: float = 1.0,
        learning_rate: float = 0.125,
        momentum: float = 0.875,
        batch_size: int = 32,
        max_iter: int = 20,
        random_state: int = 0,
        release_loss: int | None = None,
        name: str = "logistic-regression",
        link: Link | str | None = None,
    ) -> None:
        self.cluster, self.C = cluster, C
        self.learning_rate, self.momentum, self.batch_size, self.max_iter = (
            learning_rate,
            momentum,
            batch_size,
            max_iter,
        )
        self.random_state, self.release_loss, self.name, self.link = random_state, release_loss, name, link

    def release(self) -> Self:
        """Have the coefficients told to this client, whose they are."""
        [(matrix, bias)] = self._told()
        self.coef_, self.intercept_ = matrix.T, bias
        return self

    @property
    def _hidden(self) -> tuple[int, ...]:
        return ()

    def _decay(self, rows: int) -> float:
        return 1.0 / (self.C * rows * (1 - self.momentum))  # which velocities would have added up


class LinearRegression(Estimator):
    """Least squares, as scikit-learn's, by SGD.

    Args:
        cluster, learning_rate, momentum, batch_size, max_iter, random_state, release_loss, name, link: as
            `LogisticRegression`'s.

    Attributes:
        coef_, intercept_: after `release()` alone: (columns,) and a number, or (targets, columns) and (targets,).
    """

    _estimator_type: ClassVar[str] = "regressor"
    _parameters: ClassVar[tuple[str, ...]] = (
        "cluster", "learning_rate", "momentum", "batch_size", "max_iter", "random_state", "release_loss", "name",
        "link",
    )  # fmt: skip
    coef_: np.ndarray
    intercept_: np.ndarray | float

    def __init__(
        self,
        cluster: Cluster,
        *,
        learning_rate: float = 2.0**-6,
        momentum: float = 0.875,
        batch_size: int = 32,
        max_iter: int = 30,
        random_state: int = 0,
        release_loss: int | None = None,
        name: str = "linear-regression",
        link: Link | str | None = None,
    ) -> None:
        self.cluster = cluster
        self.learning_rate, self.momentum, self.batch_size, self.max_iter = (
            learning_rate,
            momentum,
            batch_size,
            max_iter,
        )
        self.random_state, self.release_loss, self.name, self.link = random_state, release_loss, name, link

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows of this client's.

        Args:
            X: (rows, columns).
            y: (rows,), or (rows, targets).

        Raises:
            InputError: they are no such arrays.
            ModelError: a value has left its range on the way; nothing is kept.
        """
        x, target = as_rows(X), np.asarray(y, dtype=np.float64)
        self._flat = target.ndim == 1
        target = target.reshape(len(target), -1) if target.ndim else target
        if len(target) != len(x) or not np.isfinite(target).all():
            raise InputError("y is not one number, or as many for each, of every row of X", remedy="fit(X, y)")
        self._mean = target.mean(axis=0)
        spread = np.maximum(target.std(axis=0), np.abs(target - self._mean).max(axis=0) / _TARGETS[1])
        self._size = np.where(spread > 0, spread, 1.0)
        self._train(x, (target - self._mean) / self._size, (), "mse", _TARGETS)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions of rows: (rows,), or (rows, targets)."""
        found: np.ndarray = self._sums(X) * self._size + self._mean
        return found[:, 0] if self._flat else found

    def score(self, X: Any, y: Any) -> float:
        """Return R2 of predictions, of several targets the mean."""
        y = np.asarray(y, dtype=np.float64)
        off = np.square(y - self.predict(X)).sum(axis=0)
        return float(np.mean(1 - off / np.square(y - y.mean(axis=0)).sum(axis=0)))

    def release(self) -> Self:
        """Have the coefficients told to this client, whose they are."""
        [(matrix, bias)] = self._told()
        coefficients, constant = (matrix * self._size).T, bias * self._size + self._mean
        self.coef_, self.intercept_ = (coefficients[0], float(constant[0])) if self._flat else (coefficients, constant)
        return self

    def _decay(self, rows: int) -> float:
        return 0.0
