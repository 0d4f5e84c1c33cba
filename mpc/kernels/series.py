"""Fourier series, see `mpc.gates.fourier`: dealt waves, and a series of an opened value and shares of waves.

The waves are functions of masks, so they are polynomials in integers: no table is read at a secret
place.  Their factors are functions of opened values, and read the table that the plan names.  Both are
made of some hundred elements at a time, and used before they leave the nearest cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels import waves
from mpc.kernels.scalar import ONE, S61, TWO, ZERO, P, add_mod, compiled, fold, rotate, sub_mod
from mpc.kernels.waves import HALF_WORD, HASH

_WORD, _LOW = np.uint64(32), np.uint64((1 << 32) - 1)
_BLOCK = 256
"""Elements of which all terms are added up at one time: what is between the terms stays in the nearest cache."""
_cos_sin = njit(inline="always")(waves.cos_sin)
_secret_cos_sin = njit(inline="always")(waves.secret_cos_sin)


@njit(inline="always")
def _residue(value: np.int64) -> np.uint64:
    """A small signed number as a field element: its sign is a mask of bits."""
    return np.uint64(value + ((value >> np.int64(63)) & np.int64(P)))


@njit(inline="always")
def _wave(mask: np.uint64, j: int, up: np.uint64, half: np.int64, drop: int) -> tuple[np.uint64, np.uint64]:
    """Cosine and sine of wave j + 1 at a mask, as field elements."""
    angle = ((mask * np.uint64(j + 1)) << up) + HALF_WORD  # of 2^64 a turn
    c, s = _secret_cos_sin(angle >> _WORD)
    return _residue((c + half) >> np.int64(drop)), _residue((s + half) >> np.int64(drop))


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
        if both:
            chosen_cosines, chosen_sines = chosen[j][start:stop], chosen[terms + j][start:stop]
            for i in range(masks.size):
                cosine, sine = _wave(masks[i], j, up, half, drop)
                every = ZERO - bits[i]
                chosen_cosines[i] = sub_mod(cosine & every, chosen_cosines[i])
                chosen_sines[i] = sub_mod(sine & every, chosen_sines[i])
                cosines[i] = sub_mod(cosine, cosines[i])
                sines[i] = sub_mod(sine, sines[i])
        else:
            for i in range(masks.size):
                cosine, sine = _wave(masks[i], j, up, half, drop)
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

    Shapes: c, out, flips (size,); waves (2 J, size); |factor| < 2^32.
    """
    w, terms, both = np.uint64(window), cosines.size, chosen.shape[0] > 0
    low = (ONE << w) - ONE
    above, below = np.empty(_BLOCK, dtype=np.uint64), np.empty(_BLOCK, dtype=np.uint64)
    chosen_waves = np.empty(_BLOCK, dtype=np.uint64)
    of_cosines, of_sines = np.empty(_BLOCK, dtype=np.int64), np.empty(_BLOCK, dtype=np.int64)
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        places = slice(first, first + size)
        opened, flip = c[places], flips[places]
        for i in range(size):
            above[i] = below[i] = ZERO
        for j in range(terms):
            for i in range(size):
                of_cosines[i], of_sines[i] = _cos_sin((opened[i] * np.uint64(j + 1)) & low, w, table)
            for i in range(size):
                cos, sin = of_cosines[i], of_sines[i]
                of_cosines[i] = _turned(cosines[j], sines[j], cos, sin, opened[i], j, fine)
                of_sines[i] = _turned(-sines[j], cosines[j], cos, sin, opened[i], terms + j, fine)
            for place, factors in ((j, of_cosines), (terms + j, of_sines)):
                wave = waves[place][places]
                if both:
                    _choose(wave, chosen[place][places], flip, chosen_waves)
                    _add_terms(above, below, factors, chosen_waves[:size])
                else:
                    _add_terms(above, below, factors, wave)
        for i in range(size):
            out[first + i] = add_mod(out[first + i], fold(rotate(fold(above[i]), _WORD) + below[i]))


@njit(inline="always")
def _choose(waves: np.ndarray, chosen: np.ndarray, flips: np.ndarray, out: np.ndarray) -> None:
    """out = chosen where the public flip is 1, waves less chosen where it is 0."""
    for i in range(waves.size):
        every = ZERO - np.uint64(flips[i])
        out[i] = (chosen[i] & every) | (sub_mod(waves[i], chosen[i]) & ~every)


@njit(inline="always")
def _add_terms(above: np.ndarray, below: np.ndarray, factors: np.ndarray, elements: np.ndarray) -> None:
    """Add public factors times elements to sums of which above 2^32 + below counts mod p.

    By halves of 32 and 29 bits, whose products fit one word, as a compiler finds them side by side: above stays below
    2^62, below has 32 bits a term.
    """
    for i in range(elements.size):
        sign = np.uint64(factors[i] >> np.int64(63))
        size = ((np.uint64(factors[i]) ^ sign) - sign) & _LOW
        wanted = (elements[i] & ~sign) | ((P - elements[i]) & sign)
        low, high = size * (wanted & _LOW), size * (wanted >> _WORD)
        total = above[i] + (low >> _WORD) + high
        above[i] = (total & P) + (total >> S61)
        below[i] += low & _LOW


@njit(inline="always")
def _turned(a: np.int64, b: np.int64, cos: np.int64, sin: np.int64, c: np.uint64, place: int, fine: int) -> np.int64:
    """Return (a cos + b sin) / 2^(30 + fine), rounded to the nearest and then as the dither says."""
    factor = (a * cos + b * sin + np.int64(1 << 29)) >> np.int64(30)
    if fine > 0:
        dither = (c * ((TWO * np.uint64(place) + ONE) * HASH)) >> (np.uint64(64) - np.uint64(fine))
        factor = (factor + np.int64(dither)) >> np.int64(fine)
    return factor
