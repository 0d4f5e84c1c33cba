"""Mathematics without numpy's or our own shortcuts, on integers of any size."""

from __future__ import annotations

import numpy as np

from mpc.comparison import Comparison
from mpc.windows import Windows


def convolution(x: np.ndarray, filters: np.ndarray, windows: Windows) -> np.ndarray:
    """Every output a sum over the places that its window covers; object dtype."""
    x, filters = x.astype(object), filters.astype(object)
    sizes, (count, per_group) = x.shape[2:], (filters.shape[0], filters.shape[1])
    positions = [
        len(range(-before, size + after - dilation * (kernel - 1), stride))
        for size, kernel, stride, dilation, (before, after) in zip(
            sizes, windows.kernel, windows.strides, windows.dilations, windows.pads, strict=True
        )
    ]
    out = np.zeros((x.shape[0], count, *positions), dtype=object)
    for position in np.ndindex(*positions):
        for offset in np.ndindex(*windows.kernel):
            place = tuple(
                p * stride + o * dilation - before
                for p, o, stride, dilation, (before, _) in zip(
                    position, offset, windows.strides, windows.dilations, windows.pads, strict=True
                )
            )
            if not all(0 <= at < size for at, size in zip(place, sizes, strict=True)):
                continue  # padding
            for o in range(count):
                first = o // (count // windows.groups) * per_group
                under = x[(slice(None), slice(first, first + per_group), *place)]
                out[(slice(None), o, *position)] += under @ filters[(o, slice(None), *offset)]
    return out


def thermometers(comparison: Comparison, r: np.ndarray) -> np.ndarray:
    """The dealt table's bytes: a plane a chunk, of words with as many bits as the chunk has values."""
    out = []
    for shift, width in zip(comparison.shifts.tolist(), comparison.widths.tolist(), strict=True):
        values = 1 << width
        words = [sum(int(chunk > v - 1) << v for v in range(values)) for chunk in (r >> shift) % values]
        out.append(b"".join(word.to_bytes(max(1, values // 8), "little") for word in words))
    return np.frombuffer(b"".join(out), dtype=np.uint8).copy()
