"""Tables as companies have them: seconds since 1970, amounts, rates, counts and codes, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mpc.compiler.compile import Compiled, Ranges
from mpc.interpret import reference
from parties.client.running.feeds import check_feeds, read_output, to_integers

ROWS = 800
YEAR = 3.15e7


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def payments(seed: int = 0, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, 3) float32 of (seconds since 1970, amount to 1e5, rate to 0.2), a class and a value for each."""
    rng = generator(seed)
    when = np.rint(1.7e9 + rng.uniform(0, YEAR, rows))
    amount = np.round(rng.lognormal(5, 2, rows).clip(0, 1e5), 2)
    rate = rng.uniform(0, 0.2, rows)
    score = (when - 1.715e9) / 1e7 + np.log(amount + 1) - 5 + (rate - 0.1) * 20
    return np.stack([when, amount, rate], 1).astype(np.float32), (score > 0).astype(np.int64), 100 * score


def computed(compiled: Compiled, feeds: dict[str, np.ndarray], seed: int = 3) -> list[Any]:
    """The outputs by the reference, which is what parties compute bit for bit (`tests.support.models.encrypted`)."""
    plan = compiled.plan.bind(check_feeds(compiled.plan, feeds))
    rng = generator(seed)

    def coins(wire: str, _: object) -> np.ndarray:
        return rng.integers(0, (1 << 61) - 1, plan.wire[wire].sizes, dtype=np.uint64)

    given = {**compiled.weights, **to_integers(plan, feeds, list(feeds))}
    found = reference.evaluate(plan, given, coins)
    return [read_output(out, plan, found[out.wire]) for out in plan.outputs]


def around(feeds: dict[str, np.ndarray]) -> Ranges:
    """A range for each column, as somebody declares it who knows about how large it is: -2^e to 2^e."""
    found = {}
    for name, values in feeds.items():
        rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
        ends = np.exp2(np.ceil(np.log2(np.maximum(np.nanmax(np.abs(rows), axis=0), 2.0**-10))))
        found[name] = (tuple((-ends).tolist()), tuple(ends.tolist()))
    return found


def save(folder: Path, model: Any, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path
