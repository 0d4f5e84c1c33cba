"""Are outputs off by what a compiled model declares?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mpc.compiler.compile import Compiled
from mpc.compiler.rehearsal.tally import RARE, Expected
from tests.support.models import plaintext
from tests.support.tables import computed

LOW, HIGH = 2.0, 30.0
_OTHERS = 2.0**-20
"""What onnxruntime's float32 and the least digits are off by, beside the largest value."""
_FAR = 8.0
"""A value that is off by so many times its expected error has jumped."""


def misjudged(compiled: Compiled, path: Path, feeds: dict[str, np.ndarray], *, alike: bool = True) -> list[str]:
    """List the outputs that are off by more than `LOW` times what is declared, or by less than 1 / `HIGH` of it.

    The latter of data that are `alike` those that errors are declared for, which are spread over their ranges.  Rows
    in which a decision came out otherwise are counted, and how many there may be follows from what is declared.
    """
    found = []
    outputs = zip(compiled.plan.outputs, computed(compiled, feeds), plaintext(path, feeds), strict=True)
    for out, ours, theirs in outputs:
        expected = compiled.rehearsal.expected[out.name]
        ours, theirs = _array(ours), _array(theirs)
        said = _labels(expected, ours, theirs) if expected.whole else _reals(expected, ours, theirs, alike)
        found += [f"{out.name}: {said}"] if said else []
    return found


def _array(values: Any) -> np.ndarray:
    listed = isinstance(values, list)
    return np.array([list(row.values()) for row in values]) if listed else np.asarray(values)


def _labels(expected: Expected, ours: np.ndarray, theirs: np.ndarray) -> str:
    differ = int((ours != theirs).sum())
    most = 4 * expected.error * theirs.size + 3
    return f"{differ} of {theirs.size} differ, {most:.0f} at most were expected" if differ > most else ""


def _reals(expected: Expected, ours: np.ndarray, theirs: np.ndarray, alike: bool) -> str:
    theirs = theirs.astype(np.float64)
    rows = np.square(ours - theirs).reshape(len(theirs), -1).mean(axis=1)
    others = _OTHERS * max(1.0, float(np.abs(theirs).max()))
    jumped = np.zeros(len(rows), dtype=bool)
    if expected.jumps:
        jumped = np.sqrt(rows) > _FAR * expected.smooth + others
    if jumped.sum() > 4 * expected.changed * len(rows) + 3:
        return f"{jumped.sum()} of {len(rows)} rows jumped, {expected.changed * len(rows):.1g} were expected"
    measured = float(np.sqrt(rows[~jumped].mean())) if not jumped.all() else 0.0
    if measured > LOW * expected.smooth + others:
        return f"off by {measured:.2g}, {expected.smooth:.2g} was expected"
    if alike and expected.smooth > HIGH * measured + others:
        return f"off by {measured:.2g} only, {expected.smooth:.2g} was expected"
    whole = math.hypot(expected.smooth, expected.jumps) if expected.changed > RARE else expected.smooth
    return "" if math.isclose(whole, expected.error) else f"{expected.error:.2g} is declared of {whole:.2g}"
