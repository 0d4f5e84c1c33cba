"""Linear layers: matrix products and convolutions."""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles
from mpc.windows import Windows


@handles("Gemm")
def gemm(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute alpha A B + beta C"""
    a, b = node.input[:2]
    c = node.input[2] if len(node.input) > 2 else ""
    alpha, beta = float(settings.get("alpha", 1.0)), float(settings.get("beta", 1.0))
    transposed = bool(settings.get("transA", 0)), bool(settings.get("transB", 0))
    if state.is_constant(b) and not state.is_constant(a):
        weight = state.numbers(b, "its weight")
        weight = (weight.T if transposed[1] else weight) * alpha
        x = _turned(state, state.value(a), transposed[0])
        bias = state.numbers(c, "its bias") * beta if c and state.is_constant(c) else None
        if not c or bias is not None:
            state.affine(x, weight, bias, node.output[0])
            return
        product = state.affine(x, weight)
    else:
        x, y = (_turned(state, state.value(name), turn) for name, turn in zip((a, b), transposed, strict=True))
        product = state.matmul(x, y)
        product = product if alpha == 1.0 else state.sum((product,), (alpha,))
    if not c:
        state.reshape(product, state.shapes[product], node.output[0])
    elif state.is_constant(c):
        state.scale(product, 1.0, state.numbers(c, "its bias") * beta, node.output[0])
    else:
        state.sum((product, state.value(c)), (1.0, beta), node.output[0])


def _turned(state: Context, x: str, turn: bool) -> str:
    return state.transpose(x, (1, 0)) if turn else x


@handles("MatMul")
def matmul(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute numpy's matmul; a vector is a matrix with one row (left) or one column (right)."""
    left, right = node.input[:2]
    shapes = [_shape(state, name) for name in (left, right)]
    if not all(shapes):
        raise state.origin.refuse("a product with a scalar", remedy="use Mul, which multiplies with a scalar")
    if state.is_constant(right):
        weight = state.numbers(right, "its right operand")
        if weight.ndim == 1:
            product = state.affine(state.value(left), weight[:, None])
            state.reshape(product, state.shapes[product][:-1], node.output[0])
        else:
            state.affine(state.value(left), weight, None, node.output[0])
        return
    vectors = len(shapes[0]) == 1, len(shapes[1]) == 1
    if state.is_constant(left):
        product = _from_the_left(state, state.numbers(left, "its left operand"), state.value(right))
    else:
        x = state.reshape(left, (1, *shapes[0])) if vectors[0] else state.value(left)
        y = state.reshape(right, (*shapes[1], 1)) if vectors[1] else state.value(right)
        product = state.matmul(x, y)
    shape = state.shapes[product]
    shape = shape[:-1] if vectors[1] else shape
    if vectors[0]:
        shape = shape[:-1] if vectors[1] else (*shape[:-2], shape[-1])
    state.reshape(product, shape, node.output[0])


def _shape(state: Context, name: str) -> Shape:
    return tuple(state.constants[name].shape) if state.is_constant(name) else state.secret(name)


def _from_the_left(state: Context, weight: np.ndarray, x: str) -> str:
    """W x = (x' W')', for a vector W too; x a vector or matrices."""
    if len(state.shapes[x]) == 1:
        x = state.reshape(x, (*state.shapes[x], 1))
    rank = len(state.shapes[x])
    order = [*range(rank - 2), rank - 1, rank - 2]
    weight = weight[None] if weight.ndim == 1 else weight
    product = state.affine(state.transpose(x, order), np.swapaxes(weight, -1, -2))
    rank = len(state.shapes[product])
    return state.transpose(product, [*range(rank - 2), rank - 1, rank - 2])


# ------------------------------------------------------------------- convolutions


def padding(
    state: Context, settings: Settings, sizes: tuple[int, ...], reach: list[int], strides: list[int]
) -> tuple[tuple[int, int], ...]:
    """Return (before, after) of each axis, from `pads` or `auto_pad`; reach is the kernel's extent, dilated."""
    mode = settings.get("auto_pad", b"NOTSET").decode()
    axes = len(sizes)
    if mode in ("NOTSET", ""):
        pads = list(settings.get("pads", [0] * 2 * axes))
        if len(pads) != 2 * axes:
            raise state.origin.refuse(
                f"{len(pads)} paddings for {axes} axes",
                attribute="pads",
                remedy=f"give {2 * axes} paddings: those before each axis, then those behind it",
            )
        return tuple(zip(pads[:axes], pads[axes:], strict=True))
    if mode == "VALID":
        return ((0, 0),) * axes
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise state.origin.refuse(
            f"the padding {mode}",
            attribute="auto_pad",
            remedy="use VALID, SAME_UPPER or SAME_LOWER; or NOTSET, with pads",
        )
    found = []
    for size, span, stride in zip(sizes, reach, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + span - size)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return tuple(found)


def extents(kernel: list[int], dilations: list[int]) -> list[int]:
    """Return how far a dilated kernel reaches along each axis."""
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]


def spatial(state: Context, shape: Shape) -> tuple[int, ...]:
    """Return the sizes of the axes behind batch and channels."""
    if len(shape) < 3:
        raise state.origin.refuse(
            f"an input of shape {shape} has no spatial axis",
            remedy="give rows, channels and one axis or more behind them (Unsqueeze before it)",
        )
    return tuple(state.size(shape, axis, "a window") for axis in range(2, len(shape)))


@handles("Conv")
def convolution(state: Context, node: ModelNode, settings: Settings) -> None:
    x, filters = state.value(node.input[0]), node.input[1]
    sizes, weight = spatial(state, state.shapes[x]), _shape(state, filters)
    kernel = [int(size) for size in weight[2:]]
    if len(kernel) != len(sizes) or list(settings.get("kernel_shape", kernel)) != kernel:
        raise state.origin.refuse(
            f"filters of shape {weight} for an input {state.shapes[x]}",
            attribute="kernel_shape",
            remedy=(
                "give filters and an input with as many axes, and a kernel_shape that is the last of the filters' sizes"
            ),
        )
    strides = list(settings.get("strides", [1] * len(sizes)))
    dilations = list(settings.get("dilations", [1] * len(sizes)))
    pads = padding(state, settings, sizes, extents(kernel, dilations), strides)
    x, pads = cropped(state, x, pads)
    windows = Windows(
        kernel=tuple(kernel),
        strides=tuple(strides),
        dilations=tuple(dilations),
        pads=pads,
        groups=settings.get("group", 1),
    )
    _convolved(state, node, x, windows, len(sizes))


def cropped(state: Context, x: str, pads: tuple[tuple[int, int], ...]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Cut the input by negative paddings; what is left pads it."""
    for axis, (before, after) in enumerate(pads, 2):
        if min(before, after) < 0:
            size = state.size(state.shapes[x], axis, "a padding")
            x = state.take(x, axis, range(max(0, -before), size - max(0, -after)))
    return x, tuple((max(0, before), max(0, after)) for before, after in pads)


def _convolved(state: Context, node: ModelNode, x: str, windows: Windows, axes: int) -> None:
    bias = _channel_bias(state, node, axes)
    if state.is_constant(node.input[1]):
        weight = state.numbers(node.input[1], "its filters")
        if bias is None or isinstance(bias, np.ndarray):
            state.convolve(x, weight, bias, windows, node.output[0])
            return
        product = state.convolve(x, weight, None, windows)
    else:
        product = state.convolve_secrets(x, state.value(node.input[1]), windows)
    _plus(state, product, bias, node.output[0])


def _channel_bias(state: Context, node: ModelNode, axes: int) -> np.ndarray | str | None:
    """The third input, one number a channel, shaped to be added: an array, or the name of a secret."""
    if len(node.input) < 3 or not node.input[2]:
        return None
    if state.is_constant(node.input[2]):
        return state.numbers(node.input[2], "its bias").reshape(-1, *[1] * axes)
    shape = state.secret(node.input[2])
    return state.reshape(node.input[2], (*shape, *[1] * axes))


def _plus(state: Context, product: str, bias: np.ndarray | str | None, out: str) -> None:
    if bias is None:
        state.reshape(product, state.shapes[product], out)
    elif isinstance(bias, str):
        state.sum((product, bias), (1.0, 1.0), out)
    else:
        state.scale(product, 1.0, bias, out)


@handles("ConvTranspose")
def transposed_convolution(state: Context, node: ModelNode, settings: Settings) -> None:
    """Convolve the input, spread out with zeros, with the filters turned around."""
    x = state.value(node.input[0])
    sizes, groups = spatial(state, state.shapes[x]), int(settings.get("group", 1))
    weight = state.numbers(node.input[1], "its filters")
    kernel = list(weight.shape[2:])
    strides = list(settings.get("strides", [1] * len(sizes)))
    dilations = list(settings.get("dilations", [1] * len(sizes)))
    extra = list(settings.get("output_padding", [0] * len(sizes)))
    reach = extents(kernel, dilations)
    pads = _transposed_pads(state, settings, sizes, reach, strides, extra)
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True), 2):
        if stride > 1:
            spread = [i // stride if i % stride == 0 else -1 for i in range((size - 1) * stride + 1)]
            x = state.take(x, axis, spread)
    outer = tuple(
        (span - 1 - before, span - 1 - after + more)
        for span, (before, after), more in zip(reach, pads, extra, strict=True)
    )
    x, outer = cropped(state, x, outer)
    filters = turned(weight, groups)
    windows = Windows(
        kernel=tuple(kernel),
        strides=(1,) * len(sizes),
        dilations=tuple(dilations),
        pads=outer,
        groups=groups,
    )
    bias = _channel_bias(state, node, len(sizes))
    if isinstance(bias, str):
        _plus(state, state.convolve(x, filters, None, windows), bias, node.output[0])
    else:
        state.convolve(x, filters, bias, windows, node.output[0])


def turned(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return a transposed convolution's filters, (inputs, outputs of a group, ..), as those of a convolution.

    Their shape is then (outputs, inputs of a group, ..), and each is turned around.
    """
    channels, per_group, *kernel = weight.shape
    found = weight.reshape(groups, channels // groups, per_group, *kernel).swapaxes(1, 2)
    return np.flip(found, axis=tuple(range(3, found.ndim))).reshape(-1, channels // groups, *kernel)


def _transposed_pads(
    state: Context,
    settings: Settings,
    sizes: tuple[int, ...],
    reach: list[int],
    strides: list[int],
    extra: list[int],
) -> tuple[tuple[int, int], ...]:
    """Return how much is cut off the full result: `pads`, or as `output_shape` or `auto_pad` say."""
    mode = settings.get("auto_pad", b"NOTSET").decode()
    wanted = settings.get("output_shape")
    if wanted is None and mode in ("NOTSET", "", "VALID"):
        return padding(state, settings, sizes, reach, strides)
    found = []
    for axis, (size, span, stride, more) in enumerate(zip(sizes, reach, strides, extra, strict=True)):
        target = wanted[axis - len(sizes)] if wanted else size * stride
        total = stride * (size - 1) + more + span - target
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return tuple(found)
