"""A series in the clear: numpy's and that of the compiled loops are one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mpc import tables
from mpc.compiler.rehearsal.clear import Clear
from mpc.compiler.rehearsal.drawing import Draws
from mpc.gates import fourier
from mpc.gates.fourier import Fourier
from mpc.wires import Wire
from tests.support.plans import wire

SIZE, WINDOW = 3000, 24
WIRES: Mapping[str, Wire] = {"x": wire("x", (SIZE,), 22), "z": wire("z", (SIZE,), 40)}


def series(fine: int) -> Fourier:
    return Fourier(
        name="f",
        x="x",
        out="z",
        window=WINDOW,
        constant=-12345,
        cosines=(1 << 12, -77, 3),
        sines=(-(1 << 11), 5, 999),
        dealt_bits=20,
        table=tables.sincos_digest(),
        fine=fine,
    )


@pytest.mark.parametrize("fine", [0, 4])
def test_a_long_series_in_the_clear_is_that_of_short_ones(fine: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for least in (1 << 40, 1):
        monkeypatch.setattr(fourier, "COMPILED_FROM", least)
        monkeypatch.setattr(fourier, "COMPILED_AT_ONCE", 1024)
        clear = Clear(WIRES, {}, Draws())
        clear.set("x", np.random.default_rng(3).integers(-(1 << 21), 1 << 21, SIZE))
        series(fine).reference(clear)
        found.append(clear.value("z"))
    assert (found[0] == found[1]).all() and len(np.unique(found[0])) > SIZE // 2
