"""Cases of products: with a weight or another secret, their masks drawn or derived."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from mpc.gates.convolution import Convolution
from mpc.gates.matmul import Matmul
from mpc.gates.multiply import Multiply
from mpc.windows import Windows
from mpc.wires import MAX_BITS, Masking, broadcast
from tests.support import naive
from tests.support.case import Case, Draw, Limits, add_unopened, finish, shapes, thinned
from tests.support.plans import Builder, Shape, wire

X_SCALE, Y_SCALE = Fraction(1 << 5), Fraction(1 << 9, 3)


def enter_operands(
    draw: Draw, b: Builder, limits: Limits, shapes_of: dict[str, Shape], bits: tuple[int, int]
) -> dict[str, str]:
    """Enters x and either `y`, or `weight` and perhaps `bias`; the gate's fields that name them.

    Weights may be public; then x may be unopened.
    """
    fields = {"x": "x"}
    public = "weight" in shapes_of and draw(st.booleans())
    for field, shape in shapes_of.items():
        if field == "x" and public and bits[0] <= 48 and draw(st.booleans()):
            add_unopened(b, limits, "x", shape, bits[0], X_SCALE)
            continue
        size = {"x": bits[0], "bias": sum(bits)}.get(field, bits[1])
        scale = {"x": X_SCALE, "bias": X_SCALE * Y_SCALE}.get(field, Y_SCALE)
        stored = field in ("weight", "bias")
        b.enter(
            field,
            shape,
            size,
            scale,
            session=stored,
            public=public and stored and (field == "weight" or draw(st.booleans())),
        )
        limits[field] = ((1 << size) - 1, 1)
        fields[field] = field
    return fields


def masking(b: Builder, fields: dict[str, str], drawn: object) -> Masking:
    """Of the product with these operands; with an unopened one the builder knows better."""
    if is_public(b, fields):
        return Masking.INHERITED
    return Masking.DRAWN if drawn else Masking.DERIVED


def is_public(b: Builder, fields: dict[str, str]) -> bool:
    return any(w.name == fields.get("weight") and w.masking is Masking.PUBLIC for w in b.wires)


def two_bits(draw: Draw, most: int) -> tuple[int, int]:
    """Bounds of two factors whose product has at most so many bits, often exactly so many."""
    x = draw(st.integers(1, most - 1))
    return x, draw(st.one_of(st.just(most - x), st.integers(1, most - x)))


def plus(value: np.ndarray, v: dict[str, np.ndarray]) -> np.ndarray:
    """With the bias, if there is one."""
    return value + v["bias"].astype(object) if "bias" in v else value


@st.composite
def multiply_case(draw: Draw) -> Case:
    shape = draw(shapes())
    stored, with_bias, drawn = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    square = not stored and draw(st.booleans())
    whole = draw(st.sampled_from(["x", "y"])) if not stored else "x"
    x: Shape = shape if whole == "x" else draw(thinned(shape))
    y: Shape = shape if whole == "y" else draw(thinned(shape, batch=not stored))
    bits = two_bits(draw, MAX_BITS - 1)
    b, limits = Builder(), {}
    if square:
        bits, y = (min(bits[0], 29),) * 2, x
        fields = enter_operands(draw, b, limits, {"x": x}, bits) | {"y": "x"}
    else:
        operands = {"x": x, "weight" if stored else "y": y}
        if stored and with_bias:
            operands["bias"] = draw(thinned(shape, batch=False))
        fields = enter_operands(draw, b, limits, operands, bits)
    out = broadcast(x, y)
    scale = X_SCALE * (X_SCALE if square else Y_SCALE)
    b.gate(
        Multiply(name="m", **fields, out="z"),
        wire("z", out, sum(bits) + ("bias" in fields), scale, masking=masking(b, fields, drawn)),
    )
    finish(b, "z", drawn and not is_public(b, fields))
    second = fields.get("weight") or fields["y"]

    def judge(v: dict[str, np.ndarray]) -> None:
        assert (v["z"] == plus(v["x"].astype(object) * v[second].astype(object), v)).all()

    return Case(b, limits, judge)


@st.composite
def matmul_case(draw: Draw) -> Case:
    """x (.., m, k) and a weight or a secret (.., k, n); stacks broadcast, one operand a batch or both."""
    stored, drawn = draw(st.booleans()), draw(st.booleans())
    k, columns = draw(st.sampled_from([1, 2, 3, 5, 33])), draw(st.integers(1, 5))
    form = draw(st.sampled_from(["plain", "row", "stacks", "stacks", "more than x"]))
    lead = draw(shapes(most=3, side=3)) if form == "stacks" else ()
    rows = draw(st.integers(1, 7)) if lead else draw(st.sampled_from(["batch", 1, 2, 7]))
    x: Shape = (k,) if form == "row" else (*lead, rows, k)
    y: Shape = (k, columns)
    if form == "stacks":
        y = (*draw(thinned(lead, batch=not stored)), *y)
        if not stored and draw(st.booleans()):  # the second has the whole shape, not the first
            x, y = (*draw(thinned(lead)), rows, k), (*lead, k, columns)
    elif form == "more than x":
        more: Shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
        y = (*(more if stored or rows == "batch" else ("batch", *more)), *y)
    bits = two_bits(draw, MAX_BITS - 2 - k.bit_length())
    b, limits = Builder(), {}
    operands = {"x": x, "weight" if stored else "y": y}
    out: Shape = y[-1:] if len(x) == 1 else (*broadcast(x[:-2], y[:-2]), rows, columns)
    if stored and draw(st.booleans()):
        operands["bias"] = draw(thinned(out, batch=False))
    fields = enter_operands(draw, b, limits, operands, bits)
    width = sum(bits) + k.bit_length() + 1
    drawn = drawn and not is_public(b, fields)
    mask = masking(b, fields, drawn)
    b.gate(Matmul(name="a", **fields, out="z"), wire("z", out, width, X_SCALE * Y_SCALE, masking=mask))
    chained = stored and drawn and columns == k and len(y) == 2 and width + bits[1] + k.bit_length() <= MAX_BITS
    if chained:  # the drawn mask is multiplied again, by the same weight
        last = wire("z2", out, width + bits[1] + k.bit_length(), X_SCALE * Y_SCALE**2, masking=Masking.DERIVED)
        b.gate(Matmul(name="a2", x="z", weight="weight", out="z2"), last)
    finish(b, b.wires[-1].name, drawn and not chained)
    second = fields.get("weight") or fields["y"]

    def judge(v: dict[str, np.ndarray]) -> None:
        y = v[second].astype(object)
        z = plus(v["x"].astype(object) @ y, v)
        assert (v["z"] == z).all()
        if chained:
            assert (v["z2"] == z @ y).all()

    return Case(b, limits, judge)


@st.composite
def geometries(draw: Draw) -> tuple[Windows, tuple[int, ...]]:
    """Windows without groups, and the sizes of an input that they fit."""
    axes = draw(st.sampled_from([1, 1, 2, 2, 2, 3]))
    most = 3 if axes < 3 else 2

    def numbers(least: int, top: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(least, top), min_size=axes, max_size=axes)))

    windows = Windows(
        kernel=numbers(1, most),
        strides=numbers(1, 3),
        dilations=numbers(1, 2),
        pads=tuple(zip(numbers(0, 2), numbers(0, 2), strict=True)),
    )
    reach = [d * (k - 1) + 1 for k, d in zip(windows.kernel, windows.dilations, strict=True)]
    more = numbers(0, 6 - axes)
    sizes = [max(1, r - sum(p)) + m for r, p, m in zip(reach, windows.pads, more, strict=True)]
    return windows, tuple(sizes)


@st.composite
def convolution_case(draw: Draw) -> Case:
    windows, sizes = draw(geometries())
    groups, per_group, filters = (draw(st.integers(1, most)) for most in (3, 2, 2))
    windows = windows.model_copy(update={"groups": groups})
    stored, drawn = draw(st.sampled_from([True, True, False])), draw(st.booleans())
    inner = per_group * int(np.prod(windows.kernel))
    bits = two_bits(draw, MAX_BITS - 2 - inner.bit_length())
    out: Shape = ("batch", groups * filters, *windows.positions(sizes))
    operands: dict[str, Shape] = {"x": ("batch", groups * per_group, *sizes)}
    operands["weight" if stored else "y"] = (groups * filters, per_group, *windows.kernel)
    if stored and draw(st.booleans()):
        full, one_each = out[1:], (out[1], *[1] * len(sizes))
        operands["bias"] = draw(st.sampled_from([full, one_each, (1, *full), ()]))
    b, limits = Builder(), {}
    fields = enter_operands(draw, b, limits, operands, bits)
    b.gate(
        Convolution(name="c", **fields, windows=windows, out="z"),
        wire("z", out, sum(bits) + inner.bit_length() + 1, X_SCALE * Y_SCALE, masking=masking(b, fields, drawn)),
    )
    finish(b, "z", drawn and not is_public(b, fields))
    second = fields.get("weight") or fields["y"]

    def judge(v: dict[str, np.ndarray]) -> None:
        assert (v["z"] == plus(naive.convolution(v["x"], v[second], windows), v)).all()

    return Case(b, limits, judge)
