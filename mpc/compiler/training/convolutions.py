"""Gradients of convolutions, which are convolutions: by the input, and by the filters.

    z[n, o, p] = sum over c, k of x[n, c, s p + d k - b] w[o, c, k]        stride s, dilation d, padding b

by x: g, spread out with s - 1 zeros between its elements, by the filters flipped and with inputs for outputs; its
stride is 1, its dilation d.  By w: x with its channels in the batch's place, by g as filters, of which stride and
dilation are exchanged.  (Dumoulin and Visin 2016, A guide to convolution arithmetic for deep learning.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.compiler.graph.attributes import Filters
from mpc.compiler.graph.graph import Node
from mpc.compiler.training.tape import Tape
from mpc.windows import Windows
from mpc.wires import Dimension


def by_input(tape: Tape, reads: Sequence[str], g: str, windows: Windows) -> str:
    """Write the gradient of the first operand."""
    x, w = reads
    back, crops = _adjoint(windows, tape.shapes[x][2:])
    spread = _spread(tape, g, windows)
    found = tape.convolve_secrets(spread, _flipped(tape, w, windows), back)
    return _cropped(tape, found, crops)


def by_input_of_constants(tape: Tape, node: Node, g: str) -> str:
    """Write the gradient of the input of a convolution whose filters stay as they are."""
    taken = node.of(Filters)
    windows, shape = taken.windows, taken.weight.shape
    back, crops = _adjoint(windows, tape.shapes[node.reads[0]][2:])
    grouped = taken.weight.reshape(windows.groups, -1, *shape[1:]).swapaxes(1, 2)
    turned = np.flip(grouped, tuple(range(3, grouped.ndim))).reshape(-1, grouped.shape[2], *shape[2:])
    return _cropped(tape, tape.convolve(_spread(tape, g, windows), np.ascontiguousarray(turned), None, back), crops)


def by_filters(tape: Tape, reads: Sequence[str], g: str, windows: Windows) -> str:
    """Write the gradient of the second operand; groups one after another, since each has channels of its own."""
    x, w = reads
    shape, groups = tape.shapes[w], windows.groups
    exchange = (1, 0, *range(2, len(shape)))
    sliding = Windows(
        kernel=tuple(int(size) for size in tape.shapes[g][2:]),
        strides=windows.dilations,
        dilations=windows.strides,
        pads=windows.pads,
    )
    inputs, outputs = int(shape[1]), int(shape[0]) // groups
    found = []
    for group in range(groups):
        own = tape.part(x, 1, group * inputs, (group + 1) * inputs)
        mine = tape.part(g, 1, group * outputs, (group + 1) * outputs)
        product = tape.convolve_secrets(tape.transpose(own, exchange), tape.transpose(mine, exchange), sliding)
        for axis, size in enumerate(windows.kernel, 2):  # windows that the stride left over
            product = tape.part(product, axis, 0, size)
        found.append(tape.transpose(product, exchange))
    return found[0] if groups == 1 else tape.concat(found, 0)


def _adjoint(windows: Windows, sizes: Sequence[Dimension]) -> tuple[Windows, list[tuple[int, int, int]]]:
    """The windows that slide over the spread gradient, and of each axis (first, behind the last, elements) to keep."""
    pads, crops = [], []
    for axis, size in enumerate(sizes):
        reach = windows.dilations[axis] * (windows.kernel[axis] - 1)
        before, after = windows.pads[axis]
        left = (int(size) + before + after - reach - 1) % windows.strides[axis]
        first, last = reach - before, reach - after + left
        pads.append((max(first, 0), max(last, 0)))
        start = max(-first, 0)
        crops.append((start, start + int(size), axis + 2))
    ones = (1,) * len(pads)
    found = Windows(
        kernel=windows.kernel, strides=ones, dilations=windows.dilations, pads=tuple(pads), groups=windows.groups
    )
    return found, crops


def _cropped(tape: Tape, x: str, crops: list[tuple[int, int, int]]) -> str:
    for start, stop, axis in crops:
        x = tape.part(x, axis, start, stop)
    return x


def _spread(tape: Tape, g: str, windows: Windows) -> str:
    """Put stride - 1 zeros between neighbours along each axis."""
    for axis, stride in enumerate(windows.strides, 2):
        if stride > 1:
            count = int(tape.shapes[g][axis])
            places = [-1] * ((count - 1) * stride + 1)
            places[::stride] = range(count)
            g = tape.take(g, axis, places)
    return g


def _flipped(tape: Tape, w: str, windows: Windows) -> str:
    """(outputs, inputs / groups, ..) to (inputs, outputs / groups, ..), the kernel's places in the reverse order."""
    outputs, inputs, *kernel = (int(size) for size in tape.shapes[w])
    groups, rest = windows.groups, range(3, 3 + len(kernel))
    grouped = tape.reshape(w, (groups, outputs // groups, inputs, *kernel)) if groups > 1 else w
    order = (0, 2, 1, *rest) if groups > 1 else (1, 0, *range(2, 2 + len(kernel)))
    turned = tape.transpose(grouped, order)
    turned = tape.shaped(turned, (groups * inputs, outputs // groups, *kernel))
    for axis, size in enumerate(kernel, 2):
        if size > 1:
            turned = tape.take(turned, axis, range(size - 1, -1, -1))
    return turned
