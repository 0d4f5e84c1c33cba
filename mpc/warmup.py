"""Compile every kernel once, for every array type the protocols give it: `python -m mpc.warmup`.

numba compiles a function the first time it meets an argument type and keeps the result beside
the source (or in the user's cache).  A small session among two parties meets them all.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mpc import tables
from mpc.compiler.plan import Plan, PlanInput, PlanOutput
from mpc.gates.affine import Affine
from mpc.gates.base import Gate
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.input import Input
from mpc.gates.maximum import Maximum
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate
from mpc.interpret.world import World
from mpc.prg import Seed
from mpc.wires import Masking, Wire

_OWNER = ("warmup",)


def warm_up() -> None:
    """Run a session that uses every kernel with every type it is called with."""
    plan = _plan()
    weights = {"w": np.ones((4, 4), dtype=np.int64), "b": np.ones(4, dtype=np.int64)}
    world = World(plan, weights, 2, Seed(bytes(range(32))))
    for batch in (1, 8):
        world.run({"x": np.ones((batch, 4), dtype=np.int64)}, batch)


def _plan() -> Plan:
    wires: list[Wire] = []
    gates: list[Gate] = []

    def add(
        gate: Gate, bits: int, scale: Fraction = Fraction(1), shape: tuple = ("batch", 4), **settings: object
    ) -> None:
        (name,) = gate.writes
        wires.append(Wire(name=name, shape=shape, scale=scale, bits=bits, **settings))
        gates.append(gate)

    add(Input(name="w", out="w", lifetime="session"), 8, shape=(4, 4), holders=_OWNER)
    add(Input(name="b", out="b", lifetime="session"), 8, shape=(4,), holders=_OWNER)
    add(Input(name="x", out="x"), 8, holders=_OWNER)
    add(Affine(name="z", x="x", weight="w", bias="b", out="z"), 24, masking=Masking.DERIVED)
    add(Relu(name="short", x="z", out="short", shift=0), 24)
    add(Affine(name="wide", x="short", weight="w", out="wide"), 40, masking=Masking.DERIVED)
    add(Relu(name="long", x="wide", out="long", shift=0), 41)
    add(Truncate(name="t", x="long", out="t", shift=4), 38, Fraction(1, 16))
    series = {"window": 24, "constant": 0, "cosines": (1,), "sines": (1,), "dealt_bits": 8}
    table = tables.sincos_digest()
    add(Fourier(name="f", x="x", out="f", table=table, **series), 20, holders=_OWNER)
    clamp = Clamp(low=-8, high=8, below=0, above=1, shift=0)
    add(Fourier(name="c", x="x", out="c", table=table, clamp=clamp, **series), 20, holders=_OWNER)
    add(Maximum(name="m", x="t", value="m", shift=0), 39, Fraction(1, 16), ("batch", 1), holders=_OWNER)
    outputs = [PlanOutput(name=w.name, wire=w.name, shape=w.shape, dtype="float32") for w in wires[-3:]]
    given = PlanInput(name="x", wire="x", dtype="float32", low=(0,), high=(1,))
    return Plan(inputs=(given,), outputs=tuple(outputs), wires=tuple(wires), gates=tuple(gates))


if __name__ == "__main__":
    warm_up()
