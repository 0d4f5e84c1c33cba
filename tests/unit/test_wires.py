"""Shapes broadcast as numpy's do, with the batch a size of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.wires import broadcast
from tests.support.effort import examples

B = "batch"
SIZES = st.lists(st.sampled_from([1, 2, 3]), max_size=4).map(tuple)


@examples(200)
@given(st.lists(SIZES, min_size=1, max_size=4))
def test_numbers_broadcast_as_numpys_do(shapes: list) -> None:
    try:
        expected = np.broadcast_shapes(*shapes)
    except ValueError:
        expected = None
    assert broadcast(*shapes) == expected


@pytest.mark.parametrize(
    ("shapes", "out"),
    [
        ([], ()),
        ([()], ()),
        ([(), ()], ()),
        ([(B, 3), (3,)], (B, 3)),
        ([(B, 1), (1, 3)], (B, 3)),
        ([(B,), (1,)], (B,)),
        ([(B,), (2,)], None),
        ([(B, 2), (2, B)], None),
        ([(B, B), (B, B)], (B, B)),
        ([(3, B), (B,), (1, 1, 1)], (1, 3, B)),
    ],
)
def test_the_batch_is_a_size_that_no_number_is(shapes: list, out: tuple | None) -> None:
    assert broadcast(*shapes) == out


@examples(100)
@given(st.lists(st.lists(st.sampled_from([1, 2, B]), max_size=3).map(tuple), min_size=1, max_size=3))
def test_what_broadcasts_does_so_at_any_batch(shapes: list) -> None:
    out = broadcast(*shapes)
    for batch in (1, 2, 5):
        bound = [tuple(batch if d == B else d for d in shape) for shape in shapes]
        if out is not None:
            assert np.broadcast_shapes(*bound) == tuple(batch if d == B else d for d in out)
    if out is None:  # a batch size at which it fails
        with pytest.raises(ValueError, match="broadcast"):
            np.broadcast_shapes(*(tuple(7 if d == B else d for d in shape) for shape in shapes))
