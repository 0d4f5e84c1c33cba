"""Estimators in scikit-learn's shape: `fit`, `predict`, `score`, and parameters that can be read and set.

scikit-learn is not needed; where it is installed they work in its pipelines and searches, and are cloned.  Columns are
centred and scaled here, before anything is entered, so that a step's fixed point and its learning rate suit them: what
that takes from the data stays with this client.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from mpc.compiler.training.optimisers import SGD
from mpc.errors import InputError, UsageError
from parties.client.estimators.networks import network

if TYPE_CHECKING:
    from parties.client.cluster import Cluster
    from parties.client.training.trained import Trained

_INSIDE, _DECLARED = 8.0, 16.0
"""Columns are scaled to be at most as large in training; rows may be twice as far out later."""


class Estimator(ABC):
    """Anything that fits and predicts; its parameters are the arguments of `__init__`, by their names.

    Attributes:
        n_features_in_: columns that `fit` was given.
        model_: the trained model, whose weights nobody holds.
        loss_curve_: step -> loss, where `release_loss` asked for it.
    """

    _parameters: ClassVar[tuple[str, ...]]
    _estimator_type: ClassVar[str]
    cluster: Cluster

    n_features_in_: int
    model_: Trained
    loss_curve_: dict[int, float]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self._parameters}

    def set_params(self, **parameters: Any) -> Self:
        """Set some parameters.

        Raises:
            UsageError: there is none of a name.
        """
        for name, value in parameters.items():
            if name not in self._parameters:
                raise UsageError(
                    f"{type(self).__name__} has no parameter {name!r}",
                    remedy=f"its parameters are {', '.join(self._parameters)}",
                )
            setattr(self, name, value)
        return self

    def __sklearn_clone__(self) -> Self:
        """Return an estimator of equal parameters that is not fitted; both use one cluster."""
        return type(self)(**self.get_params())

    def __sklearn_is_fitted__(self) -> bool:
        """Has it been fitted?"""
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn asks of estimators; it alone calls this."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

        classifies = self._estimator_type == "classifier"
        return Tags(
            estimator_type=self._estimator_type,
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags() if classifies else None,
            regressor_tags=None if classifies else RegressorTags(),
        )

    def __repr__(self) -> str:
        """Name the estimator and its parameters, but for the cluster."""
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._parameters if name != "cluster")
        return f"{type(self).__name__}({said})"

    @abstractmethod
    def score(self, X: Any, y: Any) -> float:
        """Return how good predictions are."""

    def close(self) -> None:
        """End the session in which the model runs; its weights stay at the parties."""
        if hasattr(self, "model_"):
            self.model_.close()

    # -- what `fit` and `predict` are made of

    def _train(
        self, x: np.ndarray, y: np.ndarray, hidden: Sequence[int], loss: str, targets: tuple[float, float] | None = None
    ) -> None:
        """Train a network of these hidden layers on scaled rows."""
        values: dict[str, Any] = self.get_params()
        self._shift = x.mean(axis=0)
        spread = np.maximum(x.std(axis=0), np.abs(x - self._shift).max(axis=0) / _INSIDE)
        self._unit = np.where(spread > 0, spread, 1.0)
        outputs = y.shape[1]
        rows = min(int(values["batch_size"]), len(x))
        optimizer = SGD(values["learning_rate"], values["momentum"], self._decay(len(x)))
        ranges: dict[str, Any] = {"x": (-_DECLARED, _DECLARED)} | ({} if targets is None else {"target": targets})
        trainer = self.cluster.trainer(
            network((x.shape[1], *hidden, outputs), int(values["random_state"])),
            loss=loss, optimizer=optimizer, batch=rows, ranges=ranges, link=values["link"],
        )  # fmt: skip
        release = None if values["release_loss"] is None else {"loss": values["release_loss"]}
        self.close()
        self.model_ = trainer.fit(
            self._scaled(x), y.astype(np.float32), epochs=values["max_iter"], name=values["name"],
            seed=int(values["random_state"]), release=release,
        )  # fmt: skip
        self.n_features_in_, self.loss_curve_ = int(x.shape[1]), dict(trainer.losses)

    @abstractmethod
    def _decay(self, rows: int) -> float:
        """Return the weight decay that a step has."""

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self._shift) / self._unit, np.float32)

    def _sums(self, given: Any) -> np.ndarray:
        """Return the model's last sums of rows, (rows, outputs)."""
        if not hasattr(self, "model_"):
            raise UsageError(f"this {type(self).__name__} is not fitted", remedy="call fit(X, y) first")
        x = as_rows(given)
        if x.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {x.shape[1]} columns, and {type(self).__name__} was fitted on {self.n_features_in_}",
                remedy="give rows of the columns that fit was given",
            )
        scaled = self._scaled(x)
        if np.abs(scaled).max(initial=0.0) > _DECLARED:
            raise InputError(
                "a row of X is further from those that the model was fitted on than it reads",
                cause=f"columns are read up to {_DECLARED:g} spreads from their mean",
                remedy="leave such rows out, or fit on rows that have their like among them",
            )
        [found] = self.model_.run(None, {"x": scaled})
        return np.asarray(found, np.float64)

    def _told(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Have the weights told, as (matrix, bias) of each layer, for columns as they were given."""
        told = self.model_.release()
        layers = [(told[f"w{i}"], told[f"b{i}"]) for i in range(len(told) // 2)]
        matrix, bias = layers[0]
        layers[0] = (matrix / self._unit[:, None], bias - (self._shift / self._unit) @ matrix)
        return layers


def as_rows(given: Any) -> np.ndarray:
    """Return a table of numbers, (rows, columns), as float64.

    Raises:
        InputError: it is none, or misses numbers.
    """
    try:
        x = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        x = np.empty(0)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise InputError(
            "X is no table of finite numbers, one row an example", remedy="fit(X, y) with X of shape (rows, columns)"
        )
    return x
