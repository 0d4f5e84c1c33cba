"""One block of an owner's integers: are they as was said, and what they are masked to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc import field as fp
from mpc.errors import InputError
from mpc.prg import Seed, expand_field
from parties.agreed.columns import Column
from parties.agreed.objects import Schema


def check_block(schema: Schema, column: Column, block: int, values: np.ndarray) -> None:
    """Require that these are integers of a block's shape, in the column's range; `InputError`, which names no value."""
    shape = schema.block_shape(column.name, block)
    if values.dtype != np.int64 or values.shape != shape:
        raise InputError(
            f"column {column.name!r} has a block of type {values.dtype} and shape {values.shape}, not int64 and {shape}"
        )
    low, high = column.ends
    if values.min() < low or values.max() > high:
        raise InputError(
            f"column {column.name!r} has values outside of its range, {column.low} to {column.high}",
            remedy="correct them, or say a wider range",
        )


def mask(values: np.ndarray, seeds: Sequence[Seed]) -> np.ndarray:
    """Mask integers with the sum of what these seeds are expanded to: x^, uint64 field elements of that shape."""
    masked = fp.from_signed(values)
    for seed in seeds:
        masked = fp.add(masked, expand_field(seed, values.shape))
    return masked
