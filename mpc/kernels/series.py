"""Fourier series, see `mpc.gates.fourier`: dealt waves, and a series of an opened value and shares of waves.

The waves are functions of masks, so they are polynomials in integers: no table is read at a secret
place.  Their factors are functions of opened values, and read the table that the plan names.  Both are
made of some hundred elements at a time, and used before they leave the nearest cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels import waves
from mpc.kernels.scalar import ONE, TWO, ZERO, P, add_mod, compiled, fold_wide, multiply_add_wide, sub_mod
from mpc.kernels.waves import HALF_WORD, HASH

_WORD = np.uint64(32)
_BLOCK = 256
"""Elements of which all terms are added up at one time: what is between the terms stays in the nearest cache."""
_cos_sin = njit(inline="always")(waves.cos_sin)
_secret_cos_sin = njit(inline="always")(waves.secret_cos_sin)


@njit(inline="always")
def _residue(value: np.int64) -> np.uint64:
    """A small signed number as a field element: its sign is a mask of bits."""
    return np.uint64(value + ((value >> np.int64(63)) & np.int64(P)))


@compiled
def deal_waves(
    r: np.ndarray,
    window: int,
    terms: int,
    drop: int,
    beta: np.ndarray,
    share: np.ndarray,
    chosen: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Turn the others' shares of cos and sin of 2 pi j r / 2^window, j = 1..terms, into the last ones, and those of
    beta times them, for the elements from start to stop.

    Waves have `drop` bits less than their 30.  Shapes: r, beta (size,) secret masks and bits; share (2 terms, size),
    first all cosines; chosen as share, or without rows if nothing is chosen.
    """
    up = np.uint64(64) - np.uint64(window)
    half, both = np.int64((1 << drop) >> 1), chosen.shape[0] > 0
    masks, bits = r[start:stop], beta[start:stop]
    for j in range(terms):
        cosines, sines = share[j][start:stop], share[terms + j][start:stop]
        chosen_cosines = chosen[j][start:stop] if both else cosines
        chosen_sines = chosen[terms + j][start:stop] if both else sines
        for i in range(masks.size):
            angle = ((masks[i] * np.uint64(j + 1)) << up) + HALF_WORD  # of 2^64 a turn
            c, s = _secret_cos_sin(angle >> _WORD)
            cosine, sine = _residue((c + half) >> np.int64(drop)), _residue((s + half) >> np.int64(drop))
            if both:
                every = ZERO - bits[i]
                chosen_cosines[i] = sub_mod(cosine & every, chosen_cosines[i])
                chosen_sines[i] = sub_mod(sine & every, chosen_sines[i])
            cosines[i] = sub_mod(cosine, cosines[i])
            sines[i] = sub_mod(sine, sines[i])


@compiled
def add_series(
    c: np.ndarray,
    window: int,
    cosines: np.ndarray,
    sines: np.ndarray,
    fine: int,
    table: np.ndarray,
    flips: np.ndarray,
    waves: np.ndarray,
    chosen: np.ndarray,
    out: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Add to out[i], for i from start to stop, the sum over j of factor[j, i] wave[j, i] mod p, the factors being the
    series' coefficients turned by c:

        factor[j - 1] = A_j cos jc + B_j sin jc,  factor[J + j - 1] = A_j sin jc - B_j cos jc

    with `fine` bits rounded off, up as often as they ask for.  Waves are those of `waves` less `chosen` where the
    public flip is 0, and `chosen` where it is 1; without rows of `chosen` they are `waves`.

    Shapes: c, out, flips (size,); waves (2 J, size); |factor| < 2^32, so that 128 bits hold all sums.
    """
    w, terms, both = np.uint64(window), cosines.size, chosen.shape[0] > 0
    low = (ONE << w) - ONE
    high_sums, low_sums = np.empty(_BLOCK, dtype=np.uint64), np.empty(_BLOCK, dtype=np.uint64)
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        places = slice(first, first + size)
        opened, flip = c[places], flips[places]
        for i in range(size):
            high_sums[i] = low_sums[i] = ZERO
        for j in range(terms):
            of_cosine, of_sine = waves[j][places], waves[terms + j][places]
            other_cosine = chosen[j][places] if both else of_cosine
            other_sine = chosen[terms + j][places] if both else of_sine
            for i in range(size):
                cos, sin = _cos_sin((opened[i] * np.uint64(j + 1)) & low, w, table)
                wave, beside = of_cosine[i], of_sine[i]
                if both:
                    every = ZERO - np.uint64(flip[i])
                    wave = (other_cosine[i] & every) | (sub_mod(wave, other_cosine[i]) & ~every)
                    beside = (other_sine[i] & every) | (sub_mod(beside, other_sine[i]) & ~every)
                one = _turned(cosines[j], sines[j], cos, sin, opened[i], j, fine)
                other = _turned(-sines[j], cosines[j], cos, sin, opened[i], terms + j, fine)
                high, rest = _add_signed(high_sums[i], low_sums[i], one, wave)
                high_sums[i], low_sums[i] = _add_signed(high, rest, other, beside)
        for i in range(size):
            out[first + i] = add_mod(out[first + i], fold_wide(high_sums[i], low_sums[i]))


@njit(inline="always")
def _turned(a: np.int64, b: np.int64, cos: np.int64, sin: np.int64, c: np.uint64, place: int, fine: int) -> np.int64:
    """Return (a cos + b sin) / 2^(30 + fine), rounded to the nearest and then as the dither says."""
    factor = (a * cos + b * sin + np.int64(1 << 29)) >> np.int64(30)
    if fine > 0:
        dither = (c * ((TWO * np.uint64(place) + ONE) * HASH)) >> (np.uint64(64) - np.uint64(fine))
        factor = (factor + np.int64(dither)) >> np.int64(fine)
    return factor


@njit(inline="always")
def _add_signed(high: np.uint64, low: np.uint64, factor: np.int64, element: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return (high, low) plus a number congruent to factor times element, for a public factor."""
    sign = np.uint64(factor >> np.int64(63))
    size = (np.uint64(factor) ^ sign) - sign
    return multiply_add_wide(high, low, size, (element & ~sign) | ((P - element) & sign))
