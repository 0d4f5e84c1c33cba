"""Seeds and what is expanded from them: AES-256 in counter mode under domain tags.

A seed is 32 bytes.  `Seed.derive` is HMAC-SHA256 over a canonical encoding of the context
(one block of HKDF-Expand, RFC 5869), so no two contexts share a key; each expansion has a
key of its own and starts at counter zero.  Field elements take 61 bits of each word and
redraw p itself from a stream keyed by the position (rejection as in the IRTF's VDAF XOF,
but the positions of what follows do not shift).

Galois/counter mode (NIST SP 800-38D) with a nonce of zeros encrypts by this same stream, from its third block on.
OpenSSL has that for wider registers than counter mode alone, and takes half as long where the processor has them,
though it computes a tag meanwhile, which nobody asks for.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from mpc import kernels
from mpc.encoding import Part, canonical, digest, word_type
from mpc.errors import EntropyError, ReuseError
from mpc.kernels import cores, processor

SEED_BYTES = 32
_DERIVE = canonical("mpc/v1/derive")
_ZEROS = bytes(1 << 18)
"""As much as is made at one time: it, and what is made, stay in a core's cache for what is done next with it."""
_AES_BLOCK = 16
_GCM_NONCE, _GCM_FIRST = bytes(12), 2
"""Galois/counter mode's nonce, and the block of our stream with which it begins to encrypt behind that one."""
GCM_FROM, _GCM_UNTIL = 1 << 17, 1 << 35
"""Bytes of streams that are made so: of fewer beginning takes longer, and there it ends after 64 GiB."""
_BLOCK_WORDS = 2
_NANOSECONDS_A_BYTE = 0.3
"""Of expanding, with what memory costs."""
_PLACES = 1 << 15
"""Words that are looked up at one time: what is done for each is more than calling for them, and memory stays small."""


@dataclass(frozen=True)
class Seed:
    """32 secret bytes; never shown, never compared by repr."""

    secret: bytes = field(repr=False)

    __secret__ = True

    def __post_init__(self) -> None:
        if len(self.secret) != SEED_BYTES:
            raise EntropyError(f"a seed has {SEED_BYTES} bytes, not {len(self.secret)}")

    def derive(self, *context: Part) -> Seed:
        """Return the sub-seed for this context."""
        return self.derive_encoded(canonical(*context))

    def derive_encoded(self, context: bytes) -> Seed:
        """Return the sub-seed for a context that is encoded already; encodings of parts, one after another, are that
        of the whole."""
        return Seed(hmac.digest(self.secret, _DERIVE + context, _sha256))

    def commitment(self) -> bytes:
        """Return H(seed), as the provider's manifest lists it; 32 bytes."""
        return digest("mpc/v1/seed-commitment", self.secret)


def _sha256(data: bytes = b"") -> Any:
    """Begin SHA-256.

    `hmac` makes the HMAC of a function that it does not know itself.  That of SHA-256's own name it has OpenSSL make,
    which lets go of Python's lock for each of a run's hundred seeds: whoever deals or prepares waits for it each time.
    """
    return sha256(data)


def _key(seed: Seed, kind: str) -> algorithms.AES:
    """The key of a stream."""
    return algorithms.AES(seed.derive_encoded(_kind(kind)).secret)


@lru_cache(maxsize=256)
def _kind(kind: str) -> bytes:
    """Encode the context of a stream's key: there are few kinds, and many streams of each."""
    return canonical("aes", kind)


def _fill(key: algorithms.AES, view: memoryview, block: int = 0) -> None:
    """Write AES-256-CTR's stream over the bytes, from one of its blocks of 16 bytes on."""
    for _ in _filled(key, view, block):
        pass


def _filled(key: algorithms.AES, view: memoryview, block: int) -> Iterator[slice]:
    """Write the stream over the bytes from a block on, and yield which of them are written, part by part."""
    cipher, start = _counting(key, block), 0
    if block == 0 and GCM_FROM <= len(view) < _GCM_UNTIL and processor.has_wide_aes():
        start = _GCM_FIRST * _AES_BLOCK
        _encrypt_zeros(cipher, view[:start])
        cipher = Cipher(key, modes.GCM(_GCM_NONCE)).encryptor()
    for first in range(start, len(view), len(_ZEROS)):
        stop = min(first + len(_ZEROS), len(view))
        _encrypt_zeros(cipher, view[first:stop])
        yield slice(first if first > start else 0, stop)


def _counting(key: algorithms.AES, block: int) -> CipherContext:
    return Cipher(key, modes.CTR(block.to_bytes(_AES_BLOCK, "big"))).encryptor()


def _encrypt_zeros(cipher: CipherContext, view: memoryview) -> None:
    if cipher.update_into(memoryview(_ZEROS)[: len(view)], view) != len(view):
        raise EntropyError("AES returned less than was asked for")


def _stream(
    seed: Seed,
    kind: str,
    shape: tuple[int, ...],
    word: np.dtype,
    out: np.ndarray | None,
    finish: Callable[[np.ndarray, int], object],
) -> np.ndarray:
    """Words of the stream; in `out`, contiguous and of this shape and type, or in a fresh array.

    Blocks of words are made at one time (`mpc.kernels.cores`): a block of AES is a function of its number alone.

    Args:
        finish: given words in a row, and the place of the first, changes them into what is drawn.
    """
    out = np.empty(shape, dtype=word) if out is None else out
    flat, key = out.reshape(-1), _key(seed, kind)

    def fill(start: int, stop: int) -> None:
        words = flat[start:stop]
        view, block = words.data.cast("B"), start * word.itemsize // _AES_BLOCK
        if len(view) < GCM_FROM:  # one of a small run's hundred
            _encrypt_zeros(_counting(key, block), view)
            finish(words, start)
            return
        for part in _filled(key, view, block):
            first, last = part.start // word.itemsize, part.stop // word.itemsize
            finish(words[first:last], start + first)

    if flat.size:
        cores.in_blocks(fill, flat.size, _NANOSECONDS_A_BYTE * word.itemsize)
    return out


def expand_field(seed: Seed, shape: tuple[int, ...], out: np.ndarray | None = None) -> np.ndarray:
    """Draw uniform elements of F_p, in `out` if it is given."""
    return _stream(seed, "field", shape, np.dtype("<u8"), out, lambda words, first: reject(words, seed, first))


def expand_field_part(seed: Seed, start: int, count: int) -> np.ndarray:
    """Return elements `start` to `start + count` of what `expand_field` makes, without those before: (count,)."""
    first = start - start % 2  # a block of AES has two words
    words = np.empty(start - first + count, dtype="<u8")
    if count:
        _fill(_key(seed, "field"), words.data.cast("B"), first // _BLOCK_WORDS)
    return reject(words, seed, first)[start - first :]


def reject(words: np.ndarray, seed: Seed, first: int = 0) -> np.ndarray:
    """Reduce words to 61 bits in place and redraw each that is p, position by position; `first` is that of words[0]."""
    if kernels.mask_61(words):
        for index in np.flatnonzero(words == kernels.P):
            attempt = 0
            while words[index] == kernels.P:
                redraw = np.empty(1, dtype=words.dtype)
                _fill(_key(seed, f"field/redraw/{first + index}/{attempt}"), redraw.data.cast("B"))
                words[index] = redraw[0] & kernels.P
                attempt += 1
    return words


def expand_words(seed: Seed, shape: tuple[int, ...], width: int, out: np.ndarray | None = None) -> np.ndarray:
    """Draw uniform words of `width` bits, in the smallest unsigned type that holds them; in `out` if it is given."""
    kind = word_type(width)

    def finish(words: np.ndarray, _: int) -> None:
        if width < 8 * kind.itemsize:
            words &= kind.type((1 << width) - 1)

    return _stream(seed, f"words/{width}", shape, kind, out, finish)


class WordStream:
    """Words of 64 bits that `expand_words` makes of a seed, some of them at a time.  Thread-safe."""

    __secret__ = True

    def __init__(self, seed: Seed) -> None:
        self._aes = _key(seed, "words/64")

    def __repr__(self) -> str:
        return "<WordStream>"

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return words `start` to `stop`, without those before: (stop - start,)."""
        first = start - start % _BLOCK_WORDS
        words = np.empty(stop - first, dtype=np.uint64)
        if words.size:
            _fill(self._aes, words.data.cast("B"), first // _BLOCK_WORDS)
        return words[start - first :]

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the words at some places, without the others; at a place below 0 any word.

        A block of counter mode is AES of its number: so the blocks are encrypted one by one, as many as there are
        places.
        """
        flat = np.ascontiguousarray(places, dtype=np.int64).reshape(-1)
        out, cipher = np.empty(flat.size, dtype=np.uint64), Cipher(self._aes, modes.ECB()).encryptor()  # noqa: S305
        numbers, room = (np.empty((min(_PLACES, flat.size) + more, 2), dtype=np.uint64) for more in (0, 1))
        for start in range(0, flat.size, _PLACES):
            part = flat[start : start + _PLACES]
            kernels.number_blocks(part, numbers)
            # the library asks for the rest of a block more
            if cipher.update_into(numbers[: part.size].data.cast("B"), room.data.cast("B")) != 16 * part.size:
                raise EntropyError("AES returned less than was asked for")
            kernels.pick_words(room, part, out[start : start + _PLACES])
        return out.reshape(places.shape)


class Draws:
    """Draws from one seed: each context once, for ever.

    Raises:
        ReuseError: a context was asked for a second time, in every build.
    """

    def __init__(self, seed: Seed, *context: Part) -> None:
        self._seed = seed
        self._context = canonical(*context)
        self._used: set[bytes] = set()

    def sub_seed(self, *label: Part) -> Seed:
        """Return the sub-seed for this label under the context given at construction."""
        key = canonical(*label)
        if key in self._used:
            raise ReuseError(f"drawn twice: {'/'.join(str(part) for part in label)}")
        self._used.add(key)
        return self._seed.derive_encoded(self._context + key)
