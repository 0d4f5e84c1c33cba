"""AES-256, CTR mode and HMAC-SHA256 from their standards, slow and independent of mpc and OpenSSL's AES.

FIPS 197, SP 800-38A and RFC 2104; `tests/unit/test_prg.py` holds them to the published vectors.
"""

from __future__ import annotations

import hashlib

Part = bytes | str | int


def canonical(*parts: Part) -> bytes:
    """The encoding that mpc.encoding documents, written a second time."""
    out = b""
    for part in parts:
        if type(part) is int:
            body, tag = bytes((part >> (8 * (7 - i))) & 255 for i in range(8)), b"i"
        elif type(part) is str:
            body, tag = part.encode("utf-8"), b"s"
        else:
            body, tag = part, b"b"
        out += tag + bytes((len(body) >> (8 * (7 - i))) & 255 for i in range(8)) + body
    return out


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104."""
    key = hashlib.sha256(key).digest() if len(key) > 64 else key
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()


def derive(secret: bytes, *context: Part) -> bytes:
    """What `Seed.derive` has to give."""
    return hmac_sha256(secret, canonical("mpc/v1/derive", *context))


def _double(a: int) -> int:
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def _times(a: int, b: int) -> int:
    total = 0
    while b:
        if b & 1:
            total ^= a
        a, b = _double(a), b >> 1
    return total


def _make_box() -> list[int]:
    box = []
    for a in range(256):
        inverse = next((b for b in range(256) if _times(a, b) == 1), 0)
        rotated = inverse
        for _ in range(4):
            inverse = ((inverse << 1) | (inverse >> 7)) & 0xFF
            rotated ^= inverse
        box.append(rotated ^ 0x63)
    return box


_BOX = _make_box()


def _round_keys(key: bytes) -> list[list[int]]:
    words = [list(key[4 * i : 4 * i + 4]) for i in range(8)]
    constant = 1
    for i in range(8, 60):
        word = list(words[-1])
        if i % 8 == 0:
            word = [_BOX[b] for b in word[1:] + word[:1]]
            word[0] ^= constant
            constant = _double(constant)
        elif i % 8 == 4:
            word = [_BOX[b] for b in word]
        words.append([a ^ b for a, b in zip(word, words[i - 8], strict=True)])
    return [sum(words[4 * r : 4 * r + 4], []) for r in range(15)]


def aes256(key: bytes, block: bytes) -> bytes:
    """One block."""
    keys = _round_keys(key)
    state = [a ^ b for a, b in zip(block, keys[0], strict=True)]
    for number in range(1, 15):
        state = [_BOX[b] for b in state]
        state = [state[(i + 4 * (i % 4)) % 16] for i in range(16)]  # shift rows, columns stored one by one
        if number < 14:
            mixed = []
            for column in (state[4 * i : 4 * i + 4] for i in range(4)):
                for i in range(4):
                    a, b, c, d = (column[(i + j) % 4] for j in range(4))
                    mixed.append(_double(a) ^ _double(b) ^ b ^ c ^ d)
            state = mixed
        state = [a ^ b for a, b in zip(state, keys[number], strict=True)]
    return bytes(state)


def keystream(secret: bytes, kind: str, count: int, skip: int = 0) -> bytes:
    """`count` bytes from byte `skip` on of the stream that a seed expands to under a domain tag."""
    key = derive(secret, "aes", kind)
    first, last = skip // 16, -(-(skip + count) // 16)
    stream = b"".join(aes256(key, number.to_bytes(16, "big")) for number in range(first, last))
    return stream[skip - 16 * first :][:count]
