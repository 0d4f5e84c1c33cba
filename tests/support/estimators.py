"""scikit-learn's own data sets, and models fitted to them and converted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import skl2onnx.common.tree_ensemble
from skl2onnx import to_onnx
from sklearn import datasets

from mpc.compiler.compile import Compiled
from tests.support.models import assert_agrees, plaintext

Data = tuple[np.ndarray, np.ndarray]
IRIS, WINE, DIGITS, CANCER, DIABETES = (
    getattr(datasets, f"load_{name}")(return_X_y=True)
    for name in ("iris", "wine", "digits", "breast_cancer", "diabetes")
)
NAMED = (IRIS[0], np.array(["setosa", "versicolor", "virginica"])[IRIS[1]])
NAMED_CANCER = (CANCER[0], np.array(["malignant", "benign"])[CANCER[1]])
WHOLE = (np.rint(IRIS[0]).astype(np.int64), IRIS[1])
TWO_TARGETS = (DIABETES[0], np.stack([DIABETES[1], np.sqrt(DIABETES[1])], axis=1))
FEW = (IRIS[0][::4], IRIS[1][::4])
_OPSETS = {"": 18, "ai.onnx.ml": 3}
_ROWS = 24


@dataclass(frozen=True)
class Case:
    """An estimator, the data it is fitted to, and how it is converted.

    Args:
        make: a new estimator.
        zipmap: its probabilities as dictionaries, as a tensor, or None if it has no such option.
        tolerance: beside the largest value of the outputs, 1 at least.
    """

    make: Callable[[], Any]
    data: Data
    zipmap: bool | None = None
    tolerance: float = 1e-3
    options: dict[str, Any] = field(default_factory=dict)


def columns(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A range for each column, as somebody would declare it who knows about how large it is."""
    ends = np.exp2(np.ceil(np.log2(np.maximum(np.abs(x.astype(np.float64)).max(axis=0), 2.0**-10))))
    return tuple((-ends).tolist()), tuple(ends.tolist())


def converted(case: Case, folder: Path) -> tuple[Path, np.ndarray]:
    """The fitted model as a file, and some rows for it."""
    x, y = case.data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.make().fit(x, y)
        x = x[:: max(1, len(x) // _ROWS)]
        x = x.astype(np.float32) if x.dtype.kind == "f" else x
        options = dict(case.options) | ({} if case.zipmap is None else {"zipmap": case.zipmap})
        onnx_model = to_onnx(model, x[:1], options={id(model): options} if options else None, target_opset=_OPSETS)
    path = folder / "model.onnx"
    path.write_bytes(onnx_model.SerializeToString())
    return path, x


def assert_case_agrees(case: Case, folder: Path) -> Compiled:
    """Labels are the same, values within the tolerance."""
    path, x = converted(case, folder)
    feeds = {"X": x}
    sizes = [np.abs(out).max() for out in map(np.asarray, plaintext(path, feeds)) if out.dtype.kind == "f"]
    return assert_agrees(path, feeds, {"X": columns(x)}, tolerance=case.tolerance * max([1.0, *sizes]))


def _whole(add_node: Callable[..., None]) -> Callable[..., None]:
    def added(*args: Any, nodes_missing_value_tracks_true: Any = 0, **kwargs: Any) -> None:
        add_node(*args, nodes_missing_value_tracks_true=int(nodes_missing_value_tracks_true), **kwargs)

    return added


# Its converter of histogram gradient boosting writes numpy's truth values, which onnx refuses.
skl2onnx.common.tree_ensemble.add_node = _whole(skl2onnx.common.tree_ensemble.add_node)
