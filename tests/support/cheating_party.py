"""A party's daemon that cheats: `python -P tests/support/cheating_party.py party serve --config FILE`.

It serves as any party does, but that its share of the last opened values, of which the outputs are made, is off by
half a unit of these.  For tests, and for `examples/cheater.py`: no switch of what is shipped does it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mpc import field as fp
from mpc.gates.base import Layout
from mpc.plan.plan import Plan
from parties.cli import main
from tests.support.cheaters import cheating
from tests.support.cheating import Deviation, opened


def half_a_unit_more(plan: Plan) -> Deviation:
    """Return what it does in a run of a plan."""
    half = int(plan.wire[plan.outputs[0].wire].scale / 2)

    def off(values: np.ndarray, layout: Layout) -> np.ndarray:
        return values ^ values.dtype.type(1) if layout.width else fp.add(values, np.full(values.shape, half, np.uint64))

    return Deviation(opens=([*opened(plan)][-1], off))


if __name__ == "__main__":
    with cheating(half_a_unit_more):
        main()
