"""The golden files of tests/vectors, made again: `python -m tests.support.vectors`.

Whoever runs this changes what parties agree on, or what stored seeds mean: that is a new
version of the protocol, not a repair of a test.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

from mpc import tables
from mpc.field import P
from mpc.gates.between import Between
from mpc.gates.bound import Bound
from mpc.gates.convolution import Convolution
from mpc.gates.draw import Draw
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.gaussian import Gaussian
from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.onehot import OneHot
from mpc.gates.open import Open
from mpc.gates.pieces import Pieces
from mpc.gates.relu import Relu
from mpc.gates.rows import Rows
from mpc.gates.scatter import Scatter
from mpc.gates.select import Select
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from mpc.windows import Windows
from mpc.wires import Masking
from tests.support import crypto
from tests.support.plans import Builder, wire

FOLDER = Path(__file__).parents[1] / "vectors"
B = "batch"
DERIVED, INHERITED = {"masking": Masking.DERIVED}, {"masking": Masking.INHERITED}


def every_gate() -> Plan:
    """A small plan with a gate of every kind."""
    b, f8, f16, f32 = Builder(), Fraction(1 << 8), Fraction(1 << 16), Fraction(1 << 32)
    b.enter("w", (4, 3), 18, f16, session=True)
    b.enter("b", (3,), 34, f32, session=True)
    b.enter("x", (B, 2, 2), 17, f16)
    low, high = (Fraction(-3, 2), Fraction(-1)), (Fraction(2), Fraction(1))
    b.inputs[-1] = PlanInput(name="model's x", wire="x", dtype="float64", low=low, high=high)
    b.gate(Reshape(name="1", x="x", out="flat", axes=(0, 2, 1)), wire("flat", (B, 4), 17, f16, **INHERITED))
    b.gate(Matmul(name="2", x="flat", weight="w", bias="b", out="z"), wire("z", (B, 3), 40, f32, **DERIVED))
    b.gate(Relu(name="3", x="z", out="y", shift=16), wire("y", (B, 3), 25, f16))
    b.gate(Total(name="4", x="y", axes=(1,), out="s"), wire("s", (B, 1), 27, f16, **INHERITED))
    b.gate(Combine(name="5", xs=("y", "s"), factors=(3, -1), out="d"), wire("d", (B, 3), 28, f16, **INHERITED))
    b.gate(Concat(name="6", xs=("d", "s"), axis=1, out="j"), wire("j", (B, 4), 28, f16, **INHERITED))
    b.gate(Multiply(name="7", x="j", y="s", out="p"), wire("p", (B, 4), 56, f32))
    b.gate(Truncate(name="8", x="p", out="t", shift=24), wire("t", (B, 4), 33, f8))
    wave = {"window": 24, "constant": -5, "cosines": (1, -2), "sines": (0, 3), "dealt_bits": 10}
    table = tables.sincos_digest()
    clamp = Clamp(low=-99, high=99, below=0, above=1, shift=3)
    b.gate(Fourier(name="9", x="t", out="f", table=table, clamp=clamp, **wave), wire("f", (B, 4), 20, f16))
    b.gate(Fourier(name="10", x="x", out="g", table=table, **wave), wire("g", (B, 2, 2), 20, f16))
    b.gate(Maximum(name="11", x="f", value="v", index="i", shift=8), wire("v", (B, 1), 13, f8), wire("i", (B, 1), 7))
    b.enter("k", (2, 1, 2), 18, f16, session=True)
    windows = Windows(kernel=(2,), strides=(1,), dilations=(1,), pads=((1, 0),), groups=2)
    b.gate(
        Convolution(name="12", x="x", weight="k", out="c", windows=windows), wire("c", (B, 2, 2), 36, f32, **DERIVED)
    )
    b.gate(Maximum(name="13", x="c", value="h", shift=16, rectify=True), wire("h", (B, 2, 1), 21, f16))
    b.gate(Take(name="14", x="h", axis=1, indices=(1, -1, 0), out="l"), wire("l", (B, 3, 1), 21, f16, **INHERITED))
    b.gate(Weigh(name="15", x="l", axis=1, factors=(2, 0, -3), out="u"), wire("u", (B, 3, 1), 23, f32, **INHERITED))
    shifted = Combine(name="16", xs=("u",), factors=(2,), stored="b", constant=-9, out="e")
    b.gate(shifted, wire("e", (B, 3, 3), 35, f32, **INHERITED))
    b.gate(Step(name="17", x="e", levels=(-70, 1 << 20), shift=14, out="o"), wire("o", (B, 3, 3, 2), 1))
    b.enter("r", (3, 4), 18, f16, session=True, public=True)
    b.gate(Matmul(name="18", x="y", weight="r", out="a"), wire("a", (B, 4), 45, f32, **INHERITED))
    unopened = {"masking": Masking.UNOPENED}
    b.gate(Relu(name="19", x="z", out="q", shift=16), wire("q", (B, 3), 25, f16, **unopened))
    b.gate(Matmul(name="20", x="q", weight="r", out="t2"), wire("t2", (B, 4), 45, f32, **unopened))
    b.gate(Open(name="21", x="t2", out="n"), wire("n", (B, 4), 45, f32))
    b.gate(Bound(name="22", x="t", width=12, shift=3, out="h2"), wire("h2", (B, 4), 12, f8 / 8, **unopened))
    b.gate(Rows(name="23", x="h2", most=1 << 20, out="s2"), wire("s2", (4,), 32, f8 / 8, **unopened))
    noise = Draw(name="24", thresholds=(1 << 47, 99, 0), epsilon=Fraction(1, 10), out="e2")
    b.gate(noise, wire("e2", (4,), 3, f8 / 8, **unopened))
    b.gate(Combine(name="25", xs=("s2", "e2"), factors=(1, 1), out="p2"), wire("p2", (4,), 33, f8 / 8, **unopened))
    b.gate(Open(name="26", x="p2", out="m2"), wire("m2", (4,), 33, f8 / 8))
    second = Gaussian(name="27", sigma=Fraction(201, 64), epsilon=Fraction(1, 10), out="e3")
    b.gate(second, wire("e3", (4,), 7, f8, **unopened))
    b.gate(Open(name="28", x="e3", out="m3"), wire("m3", (4,), 7, f8))
    flipped, winner = (wire(name, (B, 4), 1, masking=Masking.FLIPPED) for name in ("d3", "d4"))
    b.gate(Relu(name="29", x="t", out="y3", shift=3, bit="d3", ceiling=99), wire("y3", (B, 4), 30, f8 / 8), flipped)
    b.gate(Maximum(name="30", x="t", value="v4", shift=3, bit="d4"), wire("v4", (B, 1), 30, f8 / 8), winner)
    b.gate(Select(name="31", x="p", bit="d3", out="g3", shift=24), wire("g3", (B, 4), 33, f8))
    b.gate(Select(name="32", x="s", bit="d4", out="g4", shift=8), wire("g4", (B, 4), 20, f8))
    b.gate(Scatter(name="33", x="g3", axis=1, indices=(1, -1, 0, 1), out="x4"), wire("x4", (B, 2), 35, f8, **INHERITED))
    b.gate(Fourier(name="34", x="t", out="f4", table=table, fine=4, **wave), wire("f4", (B, 4), 20, f16))
    b.gate(OneHot(name="35", x="i", number=5, out="h5"), wire("h5", (B, 1, 5), 1, **unopened))
    b.gate(Open(name="36", x="h5", out="f5"), wire("f5", (B, 1, 5), 1))
    places = [wire(name, (B, 4), 1, masking=Masking.FLIPPED) for name in ("d6", "d7")]
    b.gate(Between(name="37", x="t", bits=("d6", "d7"), levels=(-99, 99), shift=3), *places)
    b.gate(
        Pieces(name="38", xs=("f", "t"), bits=("d6", "d7"), shifts=(11, 3), out="y6"), wire("y6", (B, 4), 31, f8 / 8)
    )
    b.output("v", "i", "g", "o", "n", "m2", "m3", "y3", "g4", "f4", "f5", "y6")
    b.outputs[1] = b.outputs[1].model_copy(update={"labels": ("a", 7, "c", "\u00e9")})
    b.outputs[2] = b.outputs[2].model_copy(update={"shape": (B, 4), "keys": (1, 2, 3, 4)})
    return b.build()


def prg() -> dict:
    """Expansions by the AES in `crypto`, which shares no code with mpc."""
    found: dict = {"about": "made by tests/support/crypto.py; values are decimal strings", "field": [], "words": []}
    for secret, context in ((bytes(32), ["a"]), (bytes(range(32)), ["bundle", 1, "mask:x"]), (b"\xff" * 32, [])):
        seed = crypto.derive(secret, *context)  # type: ignore[arg-type]
        here = {"seed": secret.hex(), "context": context}
        found["field"].append(here | {"values": _words(crypto.keystream(seed, "field", 40), 8, P)})
        for width, size in ((1, 1), (7, 1), (15, 2), (64, 8)):
            stream = crypto.keystream(seed, f"words/{width}", 5 * size)
            found["words"].append(here | {"width": width, "values": _words(stream, size, (1 << width) - 1)})
    return found


def _words(stream: bytes, size: int, keep: int) -> list[str]:
    return [str(int.from_bytes(stream[i : i + size], "little") & keep) for i in range(0, len(stream), size)]


def main() -> None:
    plan = every_gate()
    (FOLDER / "plan.json").write_bytes(plan.canonical)
    (FOLDER / "plan.sha256").write_text(plan.digest.hex() + "\n")
    (FOLDER / "prg.json").write_text(json.dumps(prg(), indent=1) + "\n")


if __name__ == "__main__":
    main()
