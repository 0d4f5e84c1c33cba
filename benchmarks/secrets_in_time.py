"""Does a compiled loop take longer for some secrets?

    python benchmarks/secrets_in_time.py [--repeat 60] [--tolerance 1.05] [--json]

Every loop that is given masks runs on several kinds of secrets by turns: zeros, ones in every bit, the edges of the
field, random ones. A row says the least time of each kind an element, and the largest by the least of them. What is
beyond the tolerance ends the program with 1: then measure again on a machine that does nothing else. It is a
measurement, no proof; tests/unit/test_constant_time.py reads the compiled code.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mpc import kernels
from mpc.comparison import Comparison
from mpc.conjunction import tree_level

SIZE = 1 << 13
P = int(kernels.P)
KINDS = ("zeros", "one", "middle", "all ones", "random")
Secret = tuple[np.ndarray, int]
"""An array, and the largest that its elements can be."""


def fill(secret: Secret, kind: str) -> None:
    """Write secrets of a kind into an array: in one place for all kinds, since places differ in time, too."""
    array, top = secret
    fixed = {"zeros": 0, "one": 1, "middle": (top + 1) // 2, "all ones": top}
    if kind == "random":
        random = np.random.default_rng(5).integers(0, top, array.shape, dtype=np.uint64, endpoint=True)
        array[...] = random.astype(array.dtype)
    else:
        array[...] = fixed[kind]


def loops() -> Iterator[tuple[str, list[Secret], Callable[[], object]]]:
    """Every loop that the provider runs on masks: its name, its secrets, the loop on them."""
    mask, out = np.empty(SIZE, dtype=np.uint64), np.empty(SIZE, dtype=np.uint64)
    field = [(mask, P - 1)]
    waves, chosen, beta = (
        np.zeros((24, SIZE), dtype=np.uint64),
        np.zeros((24, SIZE), dtype=np.uint64),
        np.zeros_like(mask),
    )
    deal = [(mask, P - 1), (beta, 1)]
    yield "deal_waves", deal, lambda: kernels.deal_waves(mask, 40, 12, 3, beta, waves, chosen)
    c, rows, first, zero = Comparison(24), mask.reshape(1, -1), np.zeros(1, dtype=np.int64), np.full(1, -1)
    table, sign = np.zeros(c.table_bytes * SIZE, dtype=np.uint8), np.empty(SIZE, dtype=np.uint8)
    yield (
        "deal_thermometers",
        field,
        lambda: kernels.deal_thermometers(rows, first, zero, c.bits, c.shifts, c.widths, table, sign),
    )
    for width in (24, 36):
        yield _nodes(Comparison(width))
    bits, places = np.empty((4, SIZE), dtype=np.uint8), tree_level([[0, 1, 2, 3]], [[0] * 4]).places
    nodes = np.zeros((1, SIZE), dtype=np.uint16)
    yield "deal_and_nodes", [(bits, 1)], lambda: kernels.deal_and_nodes(bits, places, nodes)
    beta, shares = bits[:1].copy(), [np.zeros((1, SIZE), dtype=np.uint64) for _ in range(5)]
    column = mask.reshape(-1, 1)
    yield "deal_selected", [*field, (beta, 1)], lambda: kernels.deal_selected(column, beta, 12, *shares)
    limbs, products = np.empty((5, SIZE)), np.empty((5, SIZE))
    yield "split_limbs", field, lambda: kernels.split_limbs(mask, limbs)
    yield "recombine", [*field, (products, 1 << 52)], lambda: kernels.recombine(products, mask, out)
    for name, plain in (("add", kernels.add), ("sub", kernels.sub), ("mul", kernels.mul)):
        yield name, field, partial(plain, mask, mask, out)
    thin = np.empty((1, 1), dtype=np.uint64)
    yield "matmul_thin", field, lambda: kernels.matmul_thin(rows, rows, thin)


def _nodes(c: Comparison) -> tuple[str, list[Secret], Callable[[], object]]:
    leaf = np.empty(SIZE, dtype=np.uint8 if c.mask_width <= 8 else np.uint16)
    node, free = np.zeros((SIZE, c.node_bytes), dtype=np.uint8), np.empty(SIZE, dtype=np.uint8)
    secret = [(leaf, (1 << c.mask_width) - 1)]
    return (
        f"deal_nodes, {c.chunks} chunks",
        secret,
        lambda: kernels.deal_nodes(leaf, c.product_factors, c.leaf_width, node, free),
    )


def measure(repeat: int) -> dict[str, dict[str, float]]:
    """Loop -> kind -> least nanoseconds an element; kinds take turns, so that a slow second is everybody's."""
    found: dict[str, dict[str, float]] = {}
    for name, held, loop in loops():
        least = dict.fromkeys(KINDS, float("inf"))
        for _ in range(repeat):
            for kind in KINDS:
                for secret in held:
                    fill(secret, kind)
                loop()
                started = time.perf_counter()
                for _ in range(8):
                    loop()
                least[kind] = min(least[kind], (time.perf_counter() - started) / 8 / SIZE * 1e9)
        found[name] = least
    return found


def main() -> int:
    """Measure, print, and say by the exit code whether all was within the tolerance."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--repeat", type=int, default=60)
    given.add_argument("--tolerance", type=float, default=1.05)
    given.add_argument("--json", action="store_true")
    options = given.parse_args()
    found = measure(options.repeat)
    ratios = {name: max(times.values()) / min(times.values()) for name, times in found.items()}
    if options.json:
        print(json.dumps({name: {**times, "ratio": ratios[name]} for name, times in found.items()}))
    else:
        print(f"{'':24}" + "".join(f"{kind:>10}" for kind in KINDS) + f"{'ratio':>10}")
        for name, times in found.items():
            print(f"{name:24}" + "".join(f"{times[kind]:10.3f}" for kind in KINDS) + f"{ratios[name]:10.3f}")
    return int(max(ratios.values()) > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
