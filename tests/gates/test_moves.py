"""Moving elements about: a copy in another order has the same bits, however it is made."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.gates.linear import FIELD
from mpc.gates.moves import Reshape

ORDERS = [
    ((3, 2, 5, 2), (0, 2, 1, 3)),  # the last axis stays, and is even
    ((3, 2, 5, 4), (2, 1, 0, 3)),
    ((3, 2, 5, 3), (0, 2, 1, 3)),  # it is odd
    ((3, 4), (1, 0)),  # it does not stay
    ((2, 3, 0), (1, 0, 2)),
    ((6,), (0,)),
    ((), ()),
]


@pytest.mark.parametrize("kind", [np.uint64, np.int64])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize(("shape", "axes"), ORDERS)
def test_an_order_changes_no_bit(kind: type, strided: bool, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    words = np.random.default_rng(1).integers(0, 1 << 64, (*shape, 2), dtype=np.uint64) | np.uint64(0x7FF << 52)
    values = (words[..., 0] if strided else words[..., 0].copy()).view(kind)
    expected = values.transpose(axes)
    out = tuple(expected.shape[::-1])
    found = Reshape(name="g", x="x", out="y", axes=axes).apply([values], out, FIELD)
    assert found.shape == out and found.flags.c_contiguous and found.dtype == kind
    assert found.tobytes() == expected.tobytes()
