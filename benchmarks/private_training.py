"""How well private logistic regression learns: on the integers that parties compute, beside floats with the same noise.

    python benchmarks/private_training.py [FOLDER] [--epsilon 1,3] [--splits 20] [--draws 5] [--steps 8] [--pool 2]

Without FOLDER it is scikit-learn's breast cancer: 400 rows of 30 columns, 169 held back, anew for each split; center
and spread are means and deviations of the whole table.  With MNIST's folder they are the digits 3 and 8, pooled, with
0.13 and 0.31 for each pixel.  No process runs: the plan of `cluster.fit_private` is read on integers in the clear, with
coins and words of our own, which parties' results equal bit for bit.  Accuracy on what is held back, of

    integers    what parties compute: rows held to a norm, noise of two halves, delta as every party proves it
    floats      the same steps in plaintext with one half of the noise, and the least that Gaussian noise needs
    clipped     gradient descent whose rows' gradients are clipped, in plaintext, likewise; the best of a grid, by the
                very accuracy that is shown
    open        scikit-learn's logistic regression without any noise; the best C of 0.1, 1, 10
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm as normal
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from training import load  # noqa: E402

from mpc.compiler.compile import Compiled, compile_model  # noqa: E402
from mpc.compiler.roles import Roles  # noqa: E402
from mpc.field import P  # noqa: E402
from mpc.fixedpoint import encode_columns  # noqa: E402
from mpc.interpret import reference  # noqa: E402
from mpc.privacy.facts import StoredFacts  # noqa: E402
from parties.client.training import unrolled  # noqa: E402

DELTA = Fraction(1, 10**6)
CLIPS, RATES, STEPS = (0.5, 1.0, 2.0, 4.0), (0.05, 0.2, 0.5, 1.0, 2.0), (1, 2, 4, 8, 16)
Weights = tuple[np.ndarray, float]


@dataclass(frozen=True)
class Table:
    """Rows, labels, and what is known of columns."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    center: np.ndarray
    spread: np.ndarray
    train: int

    def splits(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for seed in range(count):
            order = np.random.default_rng(seed).permutation(len(self.x))
            yield order[: self.train], order[self.train :]

    def right(self, found: Weights, rows: np.ndarray) -> float:
        return float((((self.x[rows] @ found[0] + found[1]) > 0) == self.y[rows]).mean())


def breast_cancer() -> Table:
    given = load_breast_cancer()
    x = given.data
    return Table(x, given.target, x.min(axis=0), x.max(axis=0), x.mean(axis=0), x.std(axis=0), 400)


def digits(folder: Path, pool: int) -> Table:
    """3 and 8, the training part first; a split takes other rows of both parts together."""
    images, classes = (
        np.concatenate(each) for each in zip(*(load(folder, part) for part in ("train", "t10k")), strict=True)
    )
    kept = np.isin(classes, (3, 8))
    side = 28 // pool
    x = images[kept].reshape(-1, side, pool, side, pool).mean(axis=(2, 4)).reshape(-1, side**2).astype(np.float64)
    one = np.ones(side**2)
    return Table(x, (classes[kept] == 8).astype(int), 0 * one, one, 0.13 * one, 0.31 * one, 11982)


def compiled(table: Table, epsilon: Fraction, given: argparse.Namespace) -> tuple[Compiled, unrolled.Course]:
    steps = given.steps or unrolled.suited_steps(epsilon, table.train)
    course = unrolled.Course(steps, unrolled.suited_rate(steps), unrolled.MARGIN, table.center, table.spread)
    model = unrolled.write(course, table.low, table.high, table.train)
    facts = dict.fromkeys((unrolled.X, unrolled.Y), StoredFacts(table.train, 1, "table"))
    noise = unrolled.noising(course, epsilon, DELTA, table.train, facts)
    ranges = {unrolled.X: (table.low, table.high), unrolled.Y: (0.0, 1.0)}
    return compile_model(model, ranges=ranges, noise=noise, roles=Roles(public_weights=True)), course


def on_integers(made: Compiled, course: unrolled.Course, table: Table, rows: np.ndarray, seed: int) -> Weights:
    rng, plan, feeds = np.random.default_rng(seed), made.plan.bind(len(rows)), dict(made.weights)
    for given in plan.inputs:
        values = table.x[rows] if given.name == unrolled.X else table.y[rows][:, None]
        feeds[given.wire] = encode_columns(values, plan.wire[given.wire].scale, given.offset, given.factor)

    def coins(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(0, P, shape, dtype=np.uint64)

    def words(gate: str, name: str, shape: tuple[int, ...], bits: int) -> np.ndarray:
        return rng.integers(0, 1 << bits, shape, dtype=np.uint64)

    values = reference.evaluate(plan, feeds, coins, words)
    [out] = plan.outputs
    return unrolled.in_units(values[out.wire].reshape(-1) / float(plan.wire[out.wire].scale), course)


def least(epsilon: float, delta: float) -> float:
    """The least sigma of Gaussian noise on what moves by 1 (Balle and Wang 2018)."""

    def off(mu: float) -> float:
        ends = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
        return float(normal.cdf(ends[0]) - math.exp(epsilon) * normal.cdf(ends[1]) - delta)

    return 1 / float(brentq(off, 1e-3, 20))


def on_floats(
    course: unrolled.Course, table: Table, rows: np.ndarray, epsilon: float, rng: np.random.Generator
) -> Weights:
    """The plan's steps, with the noise that one curator would add who sees all rows."""
    z = (table.x[rows] - course.center) / (course.spread * unrolled.norm(len(course.spread)))
    z = np.c_[z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1), np.full(len(rows), unrolled.ONE)]
    own = unrolled.label_part(course.steps)
    parts = course.steps - 1 + own
    sigma = math.sqrt((1 + unrolled.ONE**2) * parts) * least(epsilon, float(DELTA))
    labels = z.T @ (table.y[rows] - 0.5) + sigma / math.sqrt(own) * rng.standard_normal(z.shape[1])
    w, told, apart = np.zeros(z.shape[1]), [], course.margin * (2 * table.y[rows] - 1)
    for step in range(course.steps):
        down = labels * (1 + np.tanh(course.margin / 2))
        if step:
            down = labels - (1 / (1 + np.exp(apart - z @ w)) - 0.5) @ z - sigma * rng.standard_normal(len(w))
        w = w + course.rate / len(rows) * down
        told += [w] if step >= course.steps // 2 else []
    return unrolled.in_units(np.mean(told, axis=0), course)


def clipped(
    table: Table, rows: np.ndarray, held: np.ndarray, epsilon: float, seed: int
) -> dict[tuple[float, ...], float]:
    """Accuracy by (steps, rate, clip)."""
    z = np.c_[(table.x[rows] - table.center) / table.spread, np.ones(len(rows))]
    lengths, y, found = np.linalg.norm(z, axis=1), table.y[rows], {}
    for steps in STEPS:
        for rate in RATES:
            for clip in CLIPS:
                rng, w, told = np.random.default_rng(seed), np.zeros(z.shape[1]), []
                sigma = 2 * clip * math.sqrt(steps) * least(epsilon, float(DELTA))
                for step in range(steps):
                    off = 1 / (1 + np.exp(-np.clip(z @ w, -60, 60))) - y
                    off = off * np.minimum(1, clip / np.maximum(abs(off) * lengths, 1e-12))
                    w = w - rate * (off @ z + sigma * rng.standard_normal(len(w))) / len(rows)
                    told += [w] if step >= steps // 2 else []
                mean = np.mean(told, axis=0)
                coef = mean[:-1] / table.spread
                found[steps, rate, clip] = table.right((coef, float(mean[-1] - coef @ table.center)), held)
    return found


def in_the_open(table: Table, rows: np.ndarray, held: np.ndarray) -> dict[float, float]:
    z = (table.x - table.center) / table.spread
    return {
        c: float(LogisticRegression(C=c, max_iter=2000).fit(z[rows], table.y[rows]).score(z[held], table.y[held]))
        for c in (0.1, 1.0, 10.0)
    }


def measure(table: Table, epsilon: Fraction, given: argparse.Namespace) -> dict[str, object]:
    made, course = compiled(table, epsilon, given)
    integers, floats, grids, opens = list[float](), list[float](), [], []
    for split, (rows, held) in enumerate(table.splits(given.splits)):
        for draw in range(given.draws):
            seed = 1000 * split + draw
            integers.append(table.right(on_integers(made, course, table, rows, seed), held))
            found = on_floats(course, table, rows, float(epsilon), np.random.default_rng(seed))
            floats.append(table.right(found, held))
        if given.clipped:
            grids.append(clipped(table, rows, held, float(epsilon), split))
        opens.append(in_the_open(table, rows, held))
    wires, guarantee = made.plan.wire, made.guarantee
    assert guarantee is not None
    best = {key: float(np.mean([grid[key] for grid in grids])) for key in grids[0]} if grids else {}
    return {
        "epsilon": float(epsilon), "steps": course.steps, "rows": table.train, "columns": table.x.shape[1],
        "integers": round(float(np.mean(integers)), 4),
        "error": round(float(np.std(integers) / len(integers) ** 0.5), 4),
        "floats": round(float(np.mean(floats)), 4),
        "clipped": round(max(best.values()), 4) if best else None,
        "open": round(max(float(np.mean([each[c] for each in opens])) for c in opens[0]), 4),
        "moved": [round(float(each.euclidean / wires[each.wire].scale), 3) for each in guarantee.vectors],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--epsilon", default="1,3", type=lambda text: [Fraction(each) for each in text.split(",")])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--steps", type=int, help="Instead of what is taken if none are said.")
    parser.add_argument("--pool", type=int, default=2, choices=(1, 2, 4))
    parser.add_argument("--clipped", action="store_true", help="Also gradient descent with clipped rows.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    table = breast_cancer() if given.folder is None else digits(given.folder, given.pool)
    for epsilon in given.epsilon:
        row = measure(table, epsilon, given)
        print(json.dumps(row) if given.json else "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
