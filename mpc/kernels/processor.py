"""Tell what this processor has, where that decides which of several ways to the same bits is the fastest."""

from __future__ import annotations

from functools import cache

_WIDE_AES = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "vaes", "vpclmulqdq")
"""Lets OpenSSL encrypt four blocks with one instruction, which it does in Galois/counter mode."""


@cache
def has_wide_aes() -> bool:
    """Return whether four blocks of AES are encrypted with one instruction, and as many multiplied as polynomials."""
    from llvmlite import binding

    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # of a processor that LLVM does not know
        return False
    return all(features.get(name, False) for name in _WIDE_AES)
