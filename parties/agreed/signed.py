"""Statements that somebody signs with the key of a certificate, and that others keep: one form for all of them.

A statement is canonical JSON.  What is signed is its kind and its bytes as they were sent, which are kept as they are:
a signature of one kind counts for no other, and not for a bundle's manifest, whose bytes are no such encoding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from mpc.encoding import canonical
from mpc.errors import InputError, IntegrityError, PlanError
from mpc.text import shown
from mpc.wires import Frozen
from parties.trust import identity as identities
from parties.trust import pem
from parties.trust.chains import Clock, Trust
from parties.trust.identity import Identity

Statement = TypeVar("Statement", bound=Frozen)


@dataclass(frozen=True)
class Endorsement:
    """One party's signature of a statement that all of them sign.

    Args:
        certificate: the party's, and the intermediates that lead to a CA (PEM).
    """

    signature: bytes
    certificate: bytes


@dataclass(frozen=True)
class Signed:
    """A statement's bytes with a signature; nothing of it is believed before `check`.

    Args:
        certificate: the signer's, and the intermediates that lead to a CA (PEM).
        endorsements: of every party, in the roster's order, in the place of one signature.
    """

    content: bytes
    signature: bytes
    certificate: bytes
    endorsements: tuple[Endorsement, ...] = ()

    @classmethod
    def joint(cls, content: bytes, endorsements: Iterable[Endorsement]) -> Signed:
        """Return a statement with the signatures of all parties."""
        return cls(content, b"", b"", tuple(endorsements))

    @classmethod
    def make(cls, identity: Identity, kind: str, content: bytes) -> Signed:
        """Sign a statement of that kind."""
        signature = identities.sign(identity, canonical(kind, content))
        return cls(content, signature, identity.certificate_pem)

    def check(self, trust: Trust, kind: str, signer: str, clock: Clock) -> None:
        """Require that `signer` signed these bytes as a statement of that kind.

        Args:
            clock: when the certificate has to be valid (seconds since 1970).

        Raises:
            IntegrityError: it did not, or its certificate is not believed; `peer` is the signer.
        """
        message = canonical(kind, self.content)
        identities.verify(trust, self.certificate, signer, message, self.signature, clock, serves=False)


def endorse(identity: Identity, kind: str, content: bytes) -> Endorsement:
    """Sign a statement of that kind, as one of the parties that all sign it."""
    signed = Signed.make(identity, kind, content)
    return Endorsement(signed.signature, signed.certificate)


def check_endorsements(trust: Trust, kind: str, signed: Signed, parties: Sequence[str], clock: Clock) -> None:
    """Require that each of these parties signed these bytes as a statement of that kind.

    Raises:
        IntegrityError: one did not; `peer` is that party, if it is known.
    """
    if len(signed.endorsements) != len(parties):
        raise IntegrityError(f"{len(signed.endorsements)} parties signed, and there are {len(parties)}")
    for party, each in zip(parties, signed.endorsements, strict=True):
        Signed(signed.content, each.signature, each.certificate).check(trust, kind, party, clock)


def key_of(certificate: bytes) -> bytes:
    """Digest the public key of a certificate (PEM, its leaf first), 32 bytes: whoever has another key is another owner.

    Raises:
        ConfigError: it cannot be read.
    """
    leaf = pem.certificates(certificate, Path("certificate"))[0]
    return hashlib.sha256(leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def dump(content: Any) -> bytes:
    """Encode as canonical JSON: ASCII, sorted keys, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def read(cls: type[Statement], content: bytes, largest: int, what: str) -> Statement:
    """Read a statement from its one encoding.

    Raises:
        InputError: it is too large, malformed, or not in that encoding.
    """
    if len(content) > largest:
        raise InputError(f"{what} has {len(content):,} bytes; {largest:,} are read")
    try:
        found = cls.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = shown(".".join(map(str, first["loc"]))[:80])
        raise _malformed(
            what, f"{place}: {shown(first['msg'][:200])}" if place else shown(first["msg"][:200])
        ) from None
    except (PlanError, ValueError, TypeError, RecursionError) as error:
        raise _malformed(what, error.what if isinstance(error, PlanError) else "it cannot be read") from None
    if dump(found.model_dump(mode="json")) != content:
        raise _malformed(what, "it is not in its one encoding")
    return found


def _malformed(what: str, why: str) -> InputError:
    return InputError(f"{what} is malformed: {why}", cause="it was altered, or another version of mpc made it")
