"""Provider's signed word on one bundle: for whom it is, and what its seeds and corrections hash to.

A party checks what it was dealt; an owner or a recipient checks the mask seeds that parties
hand it, so that a party that lies about one is named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpc.correlations import BundleId, corrected_party
from mpc.errors import IntegrityError, PlanError
from mpc.prg import SEED_BYTES, Seed
from mpc.text import check_name
from parties.agreed.terms import Terms
from parties.pb import party_pb2
from parties.trust import identity as identities
from parties.trust.chains import Trust
from parties.trust.identity import Identity

LARGEST = 1 << 24


@dataclass(frozen=True)
class Manifest:
    """A verified manifest.

    Args:
        corrected: name of the party that corrections went to.
        corrections: digest of those of the first segment; `parties.agreed.segments` has what is said of others.
        commitments: wire -> H(k_i), hex, in the roster's order.
    """

    parties: tuple[str, ...]
    corrected: str
    corrections: str
    commitments: dict[str, list[str]]

    def check_seed(self, wire: str, party: str, seed: Seed) -> None:
        """Require that this is the sub-seed that the provider gave that party for that wire.

        Raises:
            IntegrityError: it is not; `peer` is the party that handed it over.
        """
        listed = self.commitments.get(wire)
        if listed is None or listed[self.parties.index(party)] != seed.commitment().hex():
            raise IntegrityError(
                f"{party} handed over a mask seed for {wire} that the provider never dealt it",
                cause="that party deviates from the protocol, or its data was altered",
                remedy="do not use this session's results",
                peer=party,
            )


def check_corrections(said: str, found: bytes) -> None:
    """Require that the digest of what has come is the one that the provider signed; raise IntegrityError if not."""
    if found.hex() != said:
        raise IntegrityError("the dealt corrections were altered on their way", remedy="start a new session")


def read_seed(secret: bytes, sender: str) -> Seed:
    """Read a seed that another process sent; raise IntegrityError that names it if this cannot be one."""
    if len(secret) != SEED_BYTES:
        raise IntegrityError(f"{sender} sent a seed of {len(secret)} bytes", peer=sender)
    return Seed(secret)


def sign(
    identity: Identity, terms: Terms, bundle: BundleId, commitments: Mapping[str, list[bytes]], corrections: bytes
) -> party_pb2.Manifest:
    """Sign the manifest of a bundle.

    Args:
        commitments: held wire -> H(k_i) of every party.
        corrections: keyed digest of those of its first segment.
    """
    content = {
        **_header(terms, bundle),
        "corrected": terms.parties[corrected_party(bundle, len(terms.parties))],
        "corrections": corrections.hex(),
        "commitments": {wire: [h.hex() for h in hashes] for wire, hashes in commitments.items()},
    }
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return party_pb2.Manifest(
        content=encoded,
        signature=identities.sign(identity, encoded),
        certificate=identity.certificate_pem,
    )


def verify(trust: Trust, terms: Terms, bundle: BundleId, message: party_pb2.Manifest) -> Manifest:
    """Return the manifest, if the session's provider signed it for exactly this bundle.

    Raises:
        IntegrityError: a wrong signer, signature, session, run, batch or form.
    """
    if len(message.content) > LARGEST:
        raise IntegrityError("the provider's manifest is too large")
    identities.verify(trust, message.certificate, terms.provider, message.content, message.signature)
    try:
        content = json.loads(message.content)
        expected = _header(terms, bundle)
        if {key: content.get(key) for key in expected} != expected:
            raise IntegrityError("the provider's manifest is for another session or run", peer=terms.provider)
        if content["corrected"] not in terms.parties:
            raise ValueError
        for wire in content["commitments"]:
            check_name(wire, "the wire")
        return Manifest(terms.parties, content["corrected"], content["corrections"], dict(content["commitments"]))
    except (PlanError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IntegrityError("the provider's manifest is malformed", peer=terms.provider) from None


def batch_of(message: party_pb2.Manifest) -> int:
    """Read the batch that a manifest says it is for: to be believed only once `verify` has been given it."""
    try:
        batch = json.loads(message.content[:LARGEST])["batch"]
    except (ValueError, KeyError, TypeError, RecursionError):
        batch = None
    if type(batch) is not int or batch < 1:
        raise IntegrityError("the provider's manifest names no batch")
    return batch


def _header(terms: Terms, bundle: BundleId) -> dict[str, Any]:
    return {
        "session": bundle.session.hex(),
        "plan": terms.plan_digest.hex(),
        "run": bundle.entry.number,
        "batch": bundle.batch,
        "parties": list(terms.parties),
    }
