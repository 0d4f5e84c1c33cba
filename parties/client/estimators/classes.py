"""Classifiers in scikit-learn's shape: labels of any kind, whose numbers alone are entered."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from mpc.errors import InputError
from parties.client.estimators.base import Estimator, as_rows

if TYPE_CHECKING:
    from mpc.plan.link import Link
    from parties.client.cluster import Cluster


class Classifier(Estimator):
    """An estimator whose targets are labels.

    Attributes:
        classes_: the labels, in order.
    """

    _estimator_type: ClassVar[str] = "classifier"
    classes_: np.ndarray

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows of this client's.

        Args:
            X: (rows, columns).
            y: (rows,), a label each.

        Raises:
            InputError: they are no such arrays, or there is one label alone.
            ModelError: a value has left its range on the way; nothing is kept.
        """
        x, labels = as_rows(X), np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(x):
            raise InputError("y has not one label for each row of X", remedy="fit(X, y) with y of shape (rows,)")
        classes, places = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError("y has one label alone", remedy="give rows of two classes or more")
        two = len(classes) == 2
        self._train(x, places[:, None] if two else np.eye(len(classes))[places], self._hidden, "one_vs_all")
        self.classes_ = classes
        return self

    @property
    @abstractmethod
    def _hidden(self) -> tuple[int, ...]:
        """Sizes of the hidden layers."""

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the last sums of rows: (rows,) of two classes, else (rows, classes)."""
        sums = self._sums(X)
        return sums[:, 0] if sums.shape[1] == 1 else sums

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the odds of each class, (rows, classes): logistic functions, of several divided by their sum."""
        p = 1 / (1 + np.exp(-np.clip(self._sums(X), -80, 80)))
        return np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p / p.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each row."""
        sums = self._sums(X)
        places = (sums[:, 0] > 0).astype(np.intp) if sums.shape[1] == 1 else sums.argmax(axis=1)
        return np.asarray(self.classes_[places])

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy."""
        return float((self.predict(X) == np.asarray(y)).mean())


class MLPClassifier(Classifier):
    """A network of full layers with ReLU between, as scikit-learn's.

    Args:
        cluster, learning_rate, momentum, batch_size, max_iter, random_state, release_loss, name, link: as
            `LogisticRegression`'s; random_state decides what the weights begin with too, which is public.
        hidden_layer_sizes: of each hidden layer.
        weight_decay: see `SGD`.

    Attributes:
        coefs_, intercepts_: of each layer, after `release()` alone.
    """

    _parameters: ClassVar[tuple[str, ...]] = (
        "cluster", "hidden_layer_sizes", "weight_decay", "learning_rate", "momentum", "batch_size", "max_iter",
        "random_state", "release_loss", "name", "link",
    )  # fmt: skip
    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]

    def __init__(
        self,
        cluster: Cluster,
        *,
        hidden_layer_sizes: tuple[int, ...] = (32,),
        weight_decay: float = 0.0,
        learning_rate: float = 0.125,
        momentum: float = 0.75,
        batch_size: int = 32,
        max_iter: int = 20,
        random_state: int = 0,
        release_loss: int | None = None,
        name: str = "mlp-classifier",
        link: Link | str | None = None,
    ) -> None:
        self.cluster, self.hidden_layer_sizes, self.weight_decay = cluster, hidden_layer_sizes, weight_decay
        self.learning_rate, self.momentum, self.batch_size, self.max_iter = (
            learning_rate,
            momentum,
            batch_size,
            max_iter,
        )
        self.random_state, self.release_loss, self.name, self.link = random_state, release_loss, name, link

    def release(self) -> Self:
        """Have the weights told to this client, whose they are."""
        layers = self._told()
        self.coefs_, self.intercepts_ = [matrix for matrix, _ in layers], [bias for _, bias in layers]
        return self

    @property
    def _hidden(self) -> tuple[int, ...]:
        return tuple(self.hidden_layer_sizes)

    def _decay(self, rows: int) -> float:
        return self.weight_decay
