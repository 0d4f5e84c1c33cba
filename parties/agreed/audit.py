"""Chain of what a party has done, as it writes it and as others check it.

    h_0 = 0,   h_i = H(tag, h_(i-1), H(tag, row_i))

Each row holds 16 fresh random bytes, so its digest tells nothing of it to those who may not read it; who may read only
some of the rows can still follow the chain.  Whoever was told h_i can show later that the party has put back an older
ledger: it has no h_i any more, or not the rows that lead from there to today's.
"""

from __future__ import annotations

from mpc.encoding import digest

START = bytes(32)
HEAD_BYTES = 32
NONCE_BYTES = 16


def row_digest(row: bytes) -> bytes:
    """Digest one row's bytes, 32 bytes."""
    return digest("mpc/v1/audit-row", row)


def follow(head: bytes, row: bytes) -> bytes:
    """Return the head after a row, given the head before it and the row's digest."""
    return digest("mpc/v1/audit-head", head, row)
