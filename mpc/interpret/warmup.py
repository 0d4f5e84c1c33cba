"""Compile every kernel once, for every array type the protocols give it: `python -m mpc.interpret.warmup`.

numba compiles a function the first time it meets an argument type and keeps the result in this
user's cache (`mpc/kernel_cache.py`).  An array that may not be written to is a type of its own:
what came from outside, a masked input or a correction, is one.  So the field's arithmetic meets
both in every combination, and every gate that calls a kernel reads an input and a computed wire,
at one and at two bytes a comparison, in a small session among two parties.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np

from mpc import encoding, kernel_cache, tables
from mpc import field as fp
from mpc.comparison import Comparison
from mpc.convolution import Filters, convolve
from mpc.gates.base import Gate
from mpc.gates.between import Between
from mpc.gates.convolution import Convolution
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.input import Input
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.pieces import Pieces
from mpc.gates.relu import Relu
from mpc.gates.select import Select
from mpc.gates.selection import chosen_by
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.interpret.active.world import CheckedWorld
from mpc.interpret.world import World
from mpc.plan.ends import PlanInput, PlanOutput
from mpc.plan.plan import Plan
from mpc.prg import Seed
from mpc.shares import Share
from mpc.tags import BitTags, TagLane
from mpc.windows import Windows
from mpc.wires import Dimension, Lifetime, Masking, Wire

_OWNER = ("warmup",)


def warm_up() -> None:
    """Use every kernel with every type it is called with; of several processes that find nothing compiled, one
    compiles and the others wait for it."""
    with kernel_cache.compiling(kernel_cache.place()):
        _use_kernels()


def _use_kernels() -> None:
    _arithmetic()
    _tags()
    plan = _plan()
    weights = {gate.out: np.ones(plan.wire[gate.out].sizes, dtype=np.int64) for gate in plan.weights}
    for kind in (World, CheckedWorld):
        world = kind(plan, weights, 2, Seed(bytes(range(32))))
        for batch in (1, 8):
            world.run({"x": np.ones((batch, 4), dtype=np.int64)}, batch)


def _arithmetic() -> None:
    """Compile products and encodings of arrays of both types.

    A matrix with one column is not copied when it is transposed, and bytes that came in
    parts are put together in an array that may be written to.
    """
    own = fp.zeros((8, 8))
    frozen = own.copy()
    frozen.flags.writeable = False
    for received in (bytes(8), bytearray(8)):
        encoding.decode_field(memoryview(received), (1,))
    encoding.add_field(memoryview(bytes(8)), memoryview(bytes(8)))
    for x in (own, frozen):
        fp.scale(x, 2)
        fp.total(x)
        chosen_by(np.zeros((2, 1, 16), dtype=np.uint8), (Share(x.reshape(4, 1, 16)),) * 3)
    for x, y in product((own, frozen), repeat=2):
        for operation in (fp.add, fp.sub, fp.mul):
            operation(x, y)
        fp.matmul(x, y, offset=x)
        fp.matmul(x, fp.Operand(y, public=True), offset=x)
        fp.matmul(x, fp.Operand(y, public=True))
        fp.matmul(x[:1], y)
        fp.matmul(x.reshape(1, -1), y.reshape(-1, 1))
        fp.matmul(x.reshape(8, 1, 8), y.reshape(8, 8, 1))
    windows = Windows(kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=((1, 1), (1, 1)))
    # by patches, of many filters and of few; by tiles, of many channels and of few
    for count, channels, images in ((16, 8, 1), (2, 8, 1), (16, 8, 32), (16, 1, 32)):
        for changeable in (True, False):
            values, x = fp.zeros((count, channels, 3, 3)), fp.zeros((images, channels, 8, 8))
            for array in (values, x):
                array.flags.writeable = changeable
            convolve(x, Filters(values, windows), convolve(x, Filters(values, windows)))
    gate = Convolution(name="c", x="x", weight="w", out="o", windows=windows)
    gate.join_result(fp.zeros((1, 2, 8, 8)), fp.zeros((2,)))


def _tags() -> None:
    """Compile what selects words of masks that no check has expanded before, of one byte a comparison and of two."""
    for bits in (8, 40):
        comparison = Comparison(bits)
        opened, public = np.zeros(8, dtype=encoding.word_type(comparison.leaf_width)), np.zeros(8, dtype=np.uint8)
        mask, node = (
            BitTags(np.zeros((8, width), dtype=np.uint64), width)
            for width in (comparison.mask_width, comparison.node_words)
        )
        TagLane(np.uint64(1), np.uint64(1)).resolve(comparison, opened, mask, node, public)


def _plan() -> Plan:
    wires: list[Wire] = []
    gates: list[Gate] = []

    def add(
        gate: Gate,
        bits: int,
        scale: Fraction | int = 1,
        shape: tuple[Dimension, ...] = ("batch", 4),
        **settings: object,
    ) -> None:
        name, *flipped = gate.writes
        wires.append(Wire(name=name, shape=shape, scale=Fraction(scale), bits=bits, **settings))
        wires.extend(_bit(each) for each in flipped)
        gates.append(gate)

    add(Input(name="w", out="w", lifetime=Lifetime.SESSION), 8, shape=(4, 4), holders=_OWNER)
    add(Input(name="b", out="b", lifetime=Lifetime.SESSION), 8, shape=(4,), holders=_OWNER)
    add(Input(name="x", out="x"), 8, holders=_OWNER)
    add(Matmul(name="z", x="x", weight="w", bias="b", out="z"), 24, masking=Masking.DERIVED)
    add(Relu(name="short", x="z", out="short", shift=0), 24)
    add(Relu(name="tiny", x="short", out="tiny", shift=20), 4, Fraction(1, 1 << 20))
    add(Matmul(name="wide", x="short", weight="w", out="wide"), 40, masking=Masking.DERIVED)
    add(Relu(name="long", x="wide", out="long", shift=0), 41)
    add(Truncate(name="t", x="long", out="t", shift=4), 38, Fraction(1, 16))
    add(Truncate(name="r", x="x", out="r", shift=0), 9)
    for x, bits, scale in (("x", 8, 1), ("t", 38, Fraction(1, 16))):
        series = {"window": 24, "constant": 0, "cosines": (1,), "sines": (1,), "dealt_bits": 8}
        shared = {"x": x, "table": tables.sincos_digest(), **series}
        clamp = Clamp(low=-8, high=8, below=0, above=1, shift=0)
        add(Fourier(name=f"f{x}", out=f"f{x}", **shared), 20, holders=_OWNER)
        add(Fourier(name=f"c{x}", out=f"c{x}", clamp=clamp, **shared), 20, holders=_OWNER)
        for rectify in (False, True):
            name = f"m{x}{rectify:d}"
            maximum = Maximum(name=name, x=x, value=name, shift=0, rectify=rectify)
            add(maximum, bits + 1, scale, ("batch", 1), holders=_OWNER)
        add(Relu(name=f"y{x}", x=x, out=f"y{x}", shift=0, bit=f"d{x}"), bits, scale, holders=_OWNER)
        largest = Maximum(name=f"v{x}", x=x, value=f"v{x}", shift=0, bit=f"b{x}")
        add(largest, bits + 1, scale, ("batch", 1), holders=_OWNER)
        for bit, of in product((f"d{x}", f"b{x}"), (x, f"v{x}")):  # of each element, and of one for all
            name = f"{bit}{of}"
            add(Select(name=name, x=of, bit=bit, out=name, shift=0), bits + 1, scale, holders=_OWNER)
        for left in (6, 18, 38)[: 1 if bits < 18 else 3]:  # opened words of one byte, two and four
            name = f"o{x}{left}"
            at_once = Relu(name=name, x=x, out=name, shift=0, coarse=bits - left, at_once=True)
            add(at_once, bits, scale, holders=_OWNER)
        gates.append(Between(name=f"i{x}", x=x, bits=(f"i{x}", f"j{x}"), levels=(-1, 2), shift=0))
        wires.extend(_bit(each) for each in gates[-1].writes)
        pieces = Pieces(name=f"p{x}", xs=(x, x), bits=(f"i{x}", f"j{x}"), shifts=(1, 1), out=f"p{x}")
        add(pieces, bits, Fraction(scale) / 2, holders=_OWNER)
        add(Step(name=f"s{x}", x=x, levels=(0, 1), shift=0, out=f"s{x}"), 1, 1, ("batch", 4, 2), holders=_OWNER)
    held = [wire for wire in wires if wire.holders and wire.name not in ("w", "b", "x")]
    outputs = [PlanOutput(name=w.name, wire=w.name, shape=w.shape, dtype="float32") for w in held]
    given = PlanInput(name="x", wire="x", dtype="float32", low=(0,), high=(1,))
    return Plan(inputs=(given,), outputs=tuple(outputs), wires=tuple(wires), gates=tuple(gates))


def _bit(name: str) -> Wire:
    """The bits of a comparison, one of each element."""
    return Wire(name=name, shape=("batch", 4), scale=Fraction(1), bits=1, masking=Masking.FLIPPED)


if __name__ == "__main__":
    warm_up()
