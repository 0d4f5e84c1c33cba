"""A program by hand: least squares on rows of stored data, its error told now and then, w in the end, then answers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from mpc.gates.linear import Combine, Total
from mpc.gates.matmul import Matmul
from mpc.gates.moves import Reshape
from mpc.gates.multiply import Multiply
from mpc.gates.truncate import Truncate
from mpc.plan.plan import Plan
from mpc.plan.program import Paced, Program, Rate, Told
from mpc.wires import Lifetime, Masking
from tests.support.plans import Builder, wire

ROWS, WIDE, TOTAL, STEPS = 4, 3, 22, 12
SEED = "07" * 32
X, W = Fraction(1 << 4), Fraction(1 << 12)
INHERITED, DERIVED = Masking.INHERITED, Masking.DERIVED
PROGRAM = Program(
    steps=STEPS,
    rows=ROWS,
    seed=SEED,
    rates=(Rate(first=1, k=4), Rate(first=7, k=1)),
    paced=(Paced(gate="update", operand=1),),
    told=(
        Told(output="loss", first=3, every=3, last=STEPS),
        Told(output="w_final", first=STEPS + 1),
        Told(output="answers", first=STEPS + 2, every=1, last=STEPS + 3),
    ),
)


def learning(**changes: Any) -> Plan:
    """w := w - k x' (x w - y) in steps; `w_final` and `answers` to an x of their own behind them."""
    b = Builder()
    b.enter("x", (ROWS, WIDE), 8, X)
    b.enter("y", (ROWS, 1), 10, X)
    b.gates = [gate.model_copy(update={"lifetime": Lifetime.STORED}) for gate in b.gates]
    b.enter("asked", (2, WIDE), 8, X)
    b.state("w", (WIDE, 1), 20, W)
    b.gate(Matmul(name="forward", x="x", y="w", out="z"), wire("z", (ROWS, 1), 40, X * W, masking=DERIVED))
    b.gate(Truncate(name="short", x="z", out="p", shift=12), wire("p", (ROWS, 1), 28, X))
    d = Combine(name="difference", xs=("p", "y"), factors=(1, -1), out="d")
    b.gate(d, wire("d", (ROWS, 1), 28, X, masking=INHERITED))
    b.gate(Reshape(name="turn", x="x", axes=(1, 0), out="t"), wire("t", (WIDE, ROWS), 8, X, masking=INHERITED))
    b.gate(Matmul(name="gradient", x="t", y="d", out="g"), wire("g", (WIDE, 1), 30, X * X))
    update = Combine(name="update", xs=("w", "g"), factors=(1, -1), out="w_out")
    b.gate(update, wire("w_out", (WIDE, 1), 20, W, masking=INHERITED))
    b.carry("w", "w_out")
    b.gate(Multiply(name="square", x="d", y="d", out="s"), wire("s", (ROWS, 1), 57, X * X))
    b.gate(Total(name="sum", x="s", axes=(0,), out="e"), wire("e", (1, 1), 58, X * X, masking=INHERITED))
    b.gate(Truncate(name="tell", x="e", out="loss", shift=0), wire("loss", (1, 1), 58, X * X))
    b.gate(Truncate(name="final", x="w", out="w_final", shift=0), wire("w_final", (WIDE, 1), 20, W))
    b.gate(Matmul(name="answer", x="asked", y="w", out="answers"), wire("answers", (2, 1), 40, X * W))
    b.output("loss", "w_final", "answers")
    b.program = Program(**{**dict(PROGRAM), **changes})
    return b.build()


def data() -> dict[str, np.ndarray]:
    """All rows, as integers."""
    rng = np.random.default_rng(5)
    x = rng.integers(-16, 16, (TOTAL, WIDE))
    return {"x": x, "y": x @ np.array([[1], [-2], [3]])}


def stepped(w: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """The next w and the error with this one, on reals."""
    x, y = (data()[name][rows] / float(X) for name in ("x", "y"))
    d = x @ w - y
    return w - k * (x.T @ d) * float(X * X) / float(W), float(np.square(d).sum())
