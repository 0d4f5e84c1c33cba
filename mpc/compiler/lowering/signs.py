"""Linear maps of which only the signs matter, as of a tree's decisions: each column may take any positive factor."""

from __future__ import annotations

import numpy as np

from mpc.compiler.lowering.emitted import Value

_MOST_FACTOR = 2.0**24
_MARGIN = 2.0**-6
"""How far beyond the range of its column a threshold stays, as a part of that range."""


def levelled(x: Value, weight: np.ndarray, bias: np.ndarray, marks: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of maps with the same signs that all reach about equally far.

    So what a comparison rounds off is the same small part of each column's range.  A column that
    reads one feature compares it with a threshold on the feature's own grid, where equal reals are
    equal integers.  Thresholds that no value of the range reaches come close to it.

    Shapes: weight (features, columns), bias (columns,).

    Args:
        marks: the last so many features are 0 or 1; where one is 1, the sign of its weight decides, whatever the
            others are.
    """
    unit = float(x.scale)
    features = weight.shape[0]
    low = x.interval.low.reshape(-1, features).min(axis=0)[: features - marks] / unit
    high = x.interval.high.reshape(-1, features).max(axis=0)[: features - marks] / unit
    weight, sides = weight[: features - marks], np.sign(weight[features - marks :])
    alone = np.count_nonzero(weight, axis=0) == 1
    size = np.where(alone, np.abs(weight).sum(axis=0), 1.0)
    weight, bias = weight / size, bias / size
    exact = bias
    grid = np.floor if unit == 1.0 else np.rint  # a threshold between whole numbers belongs to the one below
    bias = np.where(alone, grid(bias * unit) / unit, bias)
    least = low @ np.maximum(weight, 0) + high @ np.minimum(weight, 0)
    most = high @ np.maximum(weight, 0) + low @ np.minimum(weight, 0)
    beyond = grid((most - least) * _MARGIN * unit) / unit + 1 / unit
    if marks:
        beyond = np.where(most == least, 1.0, beyond)  # nothing but marks decides
    bias = np.clip(bias, -most - beyond, beyond - least)
    # What the range alone decides stays as it is, whatever the grid is, and whatever a comparison rounds off.
    bias = np.where(alone & (most + exact < 0), -most - beyond, bias)
    bias = np.where(alone & (least + exact >= 0), beyond - least, bias)
    reach = np.maximum(np.abs(least + bias), np.abs(most + bias))
    if marks:
        outside = np.exp2(np.ceil(np.log2(reach + beyond)))
        weight = np.concatenate([weight, sides * outside])
        reach = reach + outside
    reach = np.where(reach > 0, reach, reach.max(initial=0.0) or 1.0)
    factor = np.minimum(np.exp2(np.floor(np.log2(reach.max() / reach))), _MOST_FACTOR)
    return weight * factor, bias * factor
