"""A product is checked by a row and a column: what that adds up is the gate's replay on tags with the coins s_b t_j."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mpc import field as fp
from mpc.gates.bilinear import Bilinear
from mpc.gates.convolution import Convolution
from mpc.gates.matmul import Matmul
from mpc.gates.multiply import Multiply
from mpc.gates.readings import PartyReading
from mpc.interpret.active.products import fold_product, is_joined, take_offset
from mpc.prg import Seed, expand_field
from mpc.shares import Share
from mpc.tags import Key, TagLane
from mpc.windows import Windows
from mpc.wires import Masking, Wire

COIN = Seed(bytes(range(32)))
KEY = Key(np.uint64(1234567), np.uint64(89))


class Anything(PartyReading):
    """A reading in which everything is some random elements: equations between sums hold for all of them."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], out: Masking) -> None:
        self.wires = {
            name: Wire(
                name=name, shape=shape, scale=Fraction(1), bits=20, masking=out if name == "out" else Masking.DRAWN
            )
            for name, shape in shapes.items()
        }
        self.lane = TagLane.of(KEY)
        self.found: dict[str, np.ndarray] = {}

    def some(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self.found:
            self.found[name] = expand_field(COIN.derive(name), shape)
        return self.found[name]

    def public(self, name: str) -> np.ndarray:
        return self.some(f"public {name}", self.shape(name))

    def mask_share(self, name: str) -> Share:
        return Share(self.some(f"mask {name}", self.shape(name)))

    def share(self, name: str) -> Share:
        return self.lane.const(self.public(name)) - self.mask_share(name)

    def take(self, name: str) -> Share:
        return Share(self.some(f"dealt {name}", self.shape("out")))

    def take_mask(self, wire: str) -> Share:
        return self.mask_share(wire)

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        return make()

    @property
    def room(self) -> fp.Room:
        return fp.Room()

    def set(self, name: str, public: np.ndarray) -> None:
        pass


def windows(groups: int, stride: int = 1) -> Windows:
    return Windows(kernel=(2, 2), strides=(stride, 1), dilations=(1, 1), pads=((1, 0), (0, 1)), groups=groups)


CASES: dict[str, tuple[Bilinear, dict[str, tuple[int, ...]]]] = {
    "weight": (Matmul(name="g", x="x", weight="w", bias="b", out="out"), {"x": (9, 5), "w": (5, 3), "b": (3,)}),
    "vector": (Matmul(name="g", x="x", weight="w", out="out"), {"x": (5,), "w": (5, 3)}),
    "one weight for many": (Matmul(name="g", x="x", weight="w", out="out"), {"x": (2, 4, 5), "w": (5, 3)}),
    "stacks of secrets": (Matmul(name="g", x="x", y="w", out="out"), {"x": (3, 1, 2, 5), "w": (4, 5, 3)}),
    "filters": (
        Convolution(name="g", x="x", weight="w", bias="b", out="out", windows=windows(1)),
        {"x": (3, 2, 4, 5), "w": (6, 2, 2, 2), "b": (6, 1, 1)},
    ),
    "groups of filters": (
        Convolution(name="g", x="x", weight="w", out="out", windows=windows(2, 2)),
        {"x": (3, 4, 4, 5), "w": (6, 2, 2, 2)},
    ),
    "secret filters": (
        Convolution(name="g", x="x", y="w", out="out", windows=windows(1)),
        {"x": (3, 2, 4, 5), "w": (6, 2, 2, 2)},
    ),
}


def factors(gate: Bilinear, run: Anything, shape: tuple[int, ...]) -> np.ndarray:
    """rho for every element of a result: s of its row, and group, times t of its column."""
    axis = 1 if isinstance(gate, Convolution) else len(shape) - 1
    groups = gate.windows.groups if isinstance(gate, Convolution) else 1
    t = expand_field(COIN.derive("columns"), (shape[axis],))
    s = expand_field(COIN.derive("rows"), (int(np.prod(shape)) // shape[axis] * groups,))
    s = s.reshape(*shape[:axis], groups, *shape[axis + 1 :]).repeat(shape[axis] // groups, axis=axis)
    return fp.mul(s, t.reshape(-1, *[1] * (len(shape) - axis - 1)))


@pytest.mark.parametrize("out", [Masking.DERIVED, Masking.DRAWN])
@pytest.mark.parametrize("name", CASES)
def test_a_row_and_a_column_are_the_replay_with_their_coins(name: str, out: Masking) -> None:
    gate, shapes = CASES[name]
    product = gate.over_integers(*(np.zeros(shapes[each], dtype=np.int64) for each in ("x", "w")))
    run = Anything({**shapes, "out": product.shape}, out)
    assert is_joined(gate, run.wires)
    (tag,) = next(gate.evaluate(run, gate.prepare(run)))
    opened = run.public("out")
    off = fp.sub(tag.values, fp.scale(opened, int(KEY.alpha)))
    expected = fp.total(fp.mul(factors(gate, run, opened.shape), off).reshape(-1, 1))
    total = np.array([7], dtype=np.uint64)
    fold_product(gate, run, take_offset(gate, run), opened, COIN, total)
    assert total[0] == fp.add(expected, np.array([7], dtype=np.uint64))[0] != 7


def test_what_has_no_columns_is_replayed() -> None:
    multiply = Multiply(name="g", x="x", y="w", out="out")
    run = Anything({"x": (2, 3), "w": (2, 3), "out": (2, 3)}, Masking.DERIVED)
    assert not is_joined(multiply, run.wires)
    column = Matmul(name="g", x="x", y="w", out="out")
    assert not is_joined(column, Anything({"x": (2, 3), "w": (3, 1), "out": (2, 1)}, Masking.DERIVED).wires)
