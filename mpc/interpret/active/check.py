"""The check of a run, or of a window of it: four exchanges of fixed size, behind its last opening.

    1  H_i, Com(seed_i)       H: what this party holds for public in the run so far
    2  seed_i                 if all H are equal; together the seeds are the coin
    3  Com(sigma_i, tau_i)    of the replay on tags, with the coin
    4  sigma_i, tau_i         if all commitments are there; over all parties both have to be zero

Nothing is revealed before the last check of a run has passed.  Nobody knows the coin before everybody has said what
was opened, nor anybody's sums before its own are fixed.  Every commitment names its sender: an honest party's can be
copied, and opened by nobody.  (SPDZ's MAC check: Damgard, Keller, Larraia, Pastro, Scholl, Smart 2013, Practical
covertly secure MPC for dishonest majority, figures 10 and 20.)

Sans-I/O, as `PartyRun.steps` is.  Commitments are SHA-256 of sums with 32 fresh bytes, and of seeds, which are fresh
themselves.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Generator, Sequence

import numpy as np

from mpc import field as fp
from mpc.encoding import Part, decode_bits, decode_field, digest, encode_bits, encode_field
from mpc.errors import EncodingError, IntegrityError
from mpc.interpret.active.audit import Sums
from mpc.plan.checking import CHECK_SIZES, SUMS_BYTES
from mpc.prg import SEED_BYTES, Seed
from mpc.transcript import DIGEST_BYTES

Replay = Callable[[Seed], Sums]
"""Coin -> this party's sums, hidden by its shares of nothing."""
Exchange = Generator[bytes, Sequence[bytes | memoryview], None]


class Check:
    """One party's part of one check.

    Args:
        index: of this party, of `parties`.
        held: the digest of all that is public in the run so far, as this party has it: plan, session, run, window, what
            was entered, stored and handed on, and every opening.
        fresh: 32 fresh bytes of this party, for this check alone.
        replay: called once, behind the second exchange.
    """

    def __init__(self, index: int, parties: int, held: bytes, fresh: Seed, replay: Replay) -> None:
        self._me, self._parties, self._held = index, parties, held
        self._seed, self._nonce = fresh.derive("coin"), fresh.derive("nonce").secret
        self.replay = replay
        self.passed = False

    def __repr__(self) -> str:
        return f"<Check passed={self.passed}>"

    def steps(self) -> Exchange:
        """Check.

        Yields:
            this party's payload; expects the peers' payloads, in the order of the parties.

        Raises:
            EncodingError: a payload is none.
            IntegrityError: the parties do not hold the same values, a commitment was not kept, or what was opened is
                not what the gates say.
        """
        coin = yield from self._toss()
        sums = self.replay(coin)
        told = encode_field(sums.elements) + encode_bits(sums.words, 64)
        own = self.commitment("check", self._me, told, self._nonce, coin.secret)
        commitments = self._all(own, (yield own), CHECK_SIZES[2])
        require_distinct(commitments)
        seen = digest("mpc/v2/check-seen", *commitments)
        said = self._all(told + self._nonce + seen, (yield told + self._nonce + seen), CHECK_SIZES[3])
        total = fp.zeros((1,))
        words = np.zeros(1, dtype=np.uint64)
        for sender, part in enumerate(said):
            body, nonce = part[:SUMS_BYTES], part[SUMS_BYTES : SUMS_BYTES + SEED_BYTES]
            _require(part[SUMS_BYTES + SEED_BYTES :], seen)
            _require(self.commitment("check", sender, body, nonce, coin.secret), commitments[sender])
            total = fp.add(total, decode_field(body[:8], (1,)))
            words = words ^ decode_bits(body[8:], (1,), 64)
        if total.any() or words.any():
            raise IntegrityError("what a party has opened is not what the plan computes; nothing was revealed")
        self.passed = True

    def _toss(self) -> Generator[bytes, Sequence[bytes | memoryview], Seed]:
        """Agree on what is held, and then on the coin."""
        own = self._held + self.commitment("coin", self._me, self._seed.secret)
        first = self._all(own, (yield own), CHECK_SIZES[0])
        for part in first:
            _require(part[:DIGEST_BYTES], self._held, "the parties do not hold the same opened values")
        commitments = [part[DIGEST_BYTES:] for part in first]
        require_distinct(commitments)
        own = self._seed.secret
        seeds = self._all(own, (yield own), CHECK_SIZES[1])
        for sender, seed in enumerate(seeds):
            _require(self.commitment("coin", sender, seed), commitments[sender])
        return Seed(digest("mpc/v2/check-coin", self._held, *seeds))

    def commitment(self, kind: str, sender: int, value: bytes, *context: Part) -> bytes:
        """Return the commitment of a sender to a value; its index keeps others from mirroring it."""
        return digest("mpc/v2/check-commitment", kind, sender, value, self._held, *context)

    def _all(self, own: bytes, received: Sequence[bytes | memoryview], size: int) -> list[bytes]:
        """All parties' payloads of an exchange, in the order of the parties."""
        if len(received) != self._parties - 1 or any(len(part) != size for part in received):
            raise EncodingError(f"a payload of a check does not have {size} bytes", cause="a wrong length")
        parts = [bytes(part) for part in received]
        return [*parts[: self._me], own, *parts[self._me :]]


def _require(found: bytes, expected: bytes, problem: str = "a commitment of a check was not kept") -> None:
    if not hmac.compare_digest(found, expected):
        raise IntegrityError(f"{problem}; nothing was revealed")


def require_distinct(commitments: Sequence[bytes]) -> None:
    """Refuse a commitment that two parties made."""
    if len(set(commitments)) != len(commitments):
        raise IntegrityError("two parties made one commitment in a check; nothing was revealed")
