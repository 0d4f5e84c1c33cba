"""Mathematics without numpy's or our own shortcuts, on integers of any size."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mpc.at_once import AtOnce
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
        chunks = ((r >> shift) % values).tolist()
        words = {chunk: sum(int(chunk > v - 1) << v for v in range(values)) for chunk in set(chunks)}
        out.append(b"".join(words[chunk].to_bytes(max(1, values // 8), "little") for chunk in chunks))
    return np.frombuffer(b"".join(out), dtype=np.uint8).copy()


def products(comparison: Comparison, mask: np.ndarray) -> np.ndarray:
    """The dealt node's bytes (*, node_bytes): the products of two and more of the leaf masks, bit by bit.

    First mu_j times each set of nu_i with i < j, then each set of two and more nu_i, small sets first.
    """
    chunks = comparison.chunks
    sets = [[c for size in range(1, j + 1) for c in combinations(range(j), size)] for j in range(chunks)]
    wanted = [(j, *(chunks + i for i in chosen)) for j in range(chunks) for chosen in sets[j]]
    wanted += [tuple(chunks + i for i in chosen) for chosen in sets[-1] if len(chosen) > 1]
    rows = [
        sum(all(word >> bit & 1 for bit in bits) << place for place, bits in enumerate(wanted))
        for word in mask.reshape(-1).tolist()
    ]
    width = -(-len(wanted) // 8)
    found = np.frombuffer(b"".join(row.to_bytes(width, "little") for row in rows), dtype=np.uint8)
    return found.reshape(*mask.shape, width).copy()


def _masks_at_once(chunks: int, word: int) -> tuple[list[list[int]], list[int]]:
    """(nu of each level but the last, beta and then mu of each level) of one word of masks."""
    bits = iter([word >> place & 1 for place in range(chunks * (chunks + 1) // 2)])
    nu = [[next(bits) for _ in range(level)] for level in range(1, chunks)]
    told = [next(bits) for _ in range(chunks)]
    for level in reversed(range(1, chunks)):
        for k in range(level):
            told[k] ^= nu[level - 1][k] & told[level]
    return nu, told


def settled(shape: AtOnce, mask: np.ndarray) -> np.ndarray:
    """The bits under which the results of comparisons at once are opened."""
    return np.array([_masks_at_once(shape.chunks, word)[1][0] for word in mask.reshape(-1).tolist()], dtype=np.uint64)


def tables_at_once(shape: AtOnce, r: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The dealt tables' bytes, comparison by comparison, level by level, value by value."""
    out = []
    for value, word in zip(r.reshape(-1).tolist(), mask.reshape(-1).tolist(), strict=True):
        nu, told = _masks_at_once(shape.chunks, word)
        found: list[int] = []
        for level, (shift, width) in enumerate(zip(shape.shifts.tolist(), shape.widths.tolist(), strict=True), start=1):
            a, chunk = [*(nu[level - 2] if level > 1 else []), 1], (value >> shift) % (1 << width)
            last = level == shape.chunks
            for v in range(1 << width):
                if not last:
                    found += [k & (chunk == v) for k in a]
                found += [k & (chunk + (0 if last else told[level]) > v) for k in a]
        out.append(sum(bit << place for place, bit in enumerate(found)).to_bytes(shape.table_bytes, "little"))
    return np.frombuffer(b"".join(out), dtype=np.uint8).copy()
