"""Is it uniform?  Loose tests for fixed seeds: they fail for structure, not for bad luck."""

from __future__ import annotations

import numpy as np

from mpc.field import P


def chi_square(counts: np.ndarray) -> float:
    """Deviation from uniform, in standard deviations of the statistic (0 is average)."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def assert_uniform_words(words: np.ndarray, width: int, what: str) -> None:
    """Every bit balanced, and the low and the high bits of the words jointly uniform."""
    flat = words.reshape(-1).astype(np.uint64)
    cells = max(1, min(width, 6, int(np.log2(max(flat.size, 2) / 20))))
    for part in (flat, flat >> np.uint64(width - cells)):
        counts = np.bincount((part & np.uint64((1 << cells) - 1)).astype(np.int64), minlength=1 << cells)
        assert abs(chi_square(counts)) < 8, f"{what}: {chi_square(counts):.1f} deviations"
    for bit in range(width):
        ones = int(((flat >> np.uint64(bit)) & np.uint64(1)).sum())
        assert abs(ones - flat.size / 2) < 6 * np.sqrt(flat.size / 4) + 1, f"{what}: bit {bit} is {ones}/{flat.size}"


def assert_uniform_field(values: np.ndarray, what: str) -> None:
    """All 61 bits balanced, which for F_p they are up to 2^-61, and uniform in size."""
    flat = values.reshape(-1)
    assert (flat < np.uint64(P)).all(), what
    assert_uniform_words(flat, 61, what)


def assert_uniform(values: np.ndarray, width: int, what: str) -> None:
    """Field elements (width 0) or words."""
    if width:
        assert_uniform_words(values, width, what)
    else:
        assert_uniform_field(values, what)
