"""Provider's signed word on each further segment of a bundle: what its corrections hash to, and what came before.

The manifest is signed behind the first segment, and commits to every mask seed of the bundle.  Each further segment is
followed by a statement with its number and a digest of what was signed just before: so whoever holds the newest one
holds all of them, and none is left out, exchanged or taken from another bundle.
"""

from __future__ import annotations

import json

from mpc.encoding import digest
from mpc.errors import IntegrityError
from parties.agreed.terms import Terms
from parties.trust import identity as identities
from parties.trust.chains import Trust
from parties.trust.identity import Identity

_LONGEST = 1 << 10


def sign_segment(identity: Identity, before: bytes, number: int, corrections: bytes) -> tuple[bytes, bytes]:
    """Sign the word on a segment; return (its content, the signature).

    Args:
        before: content of what was signed just before: the manifest, or the word on the segment before.
        number: from 1; the manifest speaks of segment 0.
        corrections: keyed digest of the segment's corrections.
    """
    content = _content(before, number, corrections.hex())
    return content, identities.sign(identity, content)


def verify_segment(
    trust: Trust, terms: Terms, certificate: bytes, before: bytes, number: int, content: bytes, signature: bytes
) -> str:
    """Return the digest (hex) of a segment's corrections, if the session's provider has signed it behind `before`.

    Args:
        certificate: the provider's, as the manifest has it.

    Raises:
        IntegrityError: a wrong signer, signature, number, or other bytes before it.
    """
    if len(content) > _LONGEST:
        raise IntegrityError("what the provider says of a segment is too long", peer=terms.provider)
    identities.verify(trust, certificate, terms.provider, content, signature)
    try:
        corrections = json.loads(content)["corrections"]
        if content != _content(before, number, bytes.fromhex(corrections).hex()):
            raise IntegrityError(
                f"what the provider signed is not of segment {number} of this bundle",
                cause="a segment was left out, exchanged or altered on its way",
                remedy="start a new session",
                peer=terms.provider,
            )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IntegrityError("what the provider says of a segment is malformed", peer=terms.provider) from None
    return str(corrections)


def _content(before: bytes, number: int, corrections: str) -> bytes:
    content = {"before": digest("mpc/v1/dealt-before", before).hex(), "corrections": corrections, "segment": number}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
