"""Scatter: sums of slices as their indices say, over Z and over F_p, in memory of the size of both ends."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpc import field as fp
from mpc.gates.linear import FIELD, INTEGERS
from mpc.gates.scatter import Scatter
from tests.support.effort import examples


@examples(60)
@given(indices=st.lists(st.integers(-1, 4), min_size=1, max_size=40), seed=st.integers(0, 1 << 20))
def test_slices_are_added_where_their_indices_say(indices: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).integers(-9, 10, (2, len(indices), 3))
    wanted = np.zeros((2, 5, 3), dtype=np.int64)
    for place, index in enumerate(indices):
        if index >= 0:
            wanted[:, index] += x[:, place]
    gate, before = Scatter(name="g", x="x", axis=1, indices=tuple(indices), out="o"), x.copy()
    np.testing.assert_array_equal(gate.apply([x], wanted.shape, INTEGERS), wanted)
    np.testing.assert_array_equal(gate.apply([fp.from_signed(x)], wanted.shape, FIELD), fp.from_signed(wanted))
    np.testing.assert_array_equal(x, before)


def test_a_plan_cannot_ask_for_more_memory_than_its_wires_have() -> None:
    """All slices to one place, of many: a table of places by repetitions would have 2^30 elements."""
    count = 1 << 15
    gate = Scatter(name="g", x="x", axis=0, indices=(3,) * count, out="o")
    ones = fp.from_signed(np.ones(count, dtype=np.int64))
    gate.apply([ones], (count,), FIELD)  # its loops are compiled
    tracemalloc.start()
    try:
        found = gate.apply([ones], (count,), FIELD)
        assert tracemalloc.get_traced_memory()[1] < 64 * 8 * count
    finally:
        tracemalloc.stop()
    assert found[3] == count and found.sum() == count
