"""Judge certificates: which of them this process accepts, as whom, and why one is refused.

A certificate counts as the process that its CN names if it leads to a CA of our own file, through
intermediates if there are any, is valid now, has an ECDSA P-256 key, has its CN among its DNS names,
has no other process of the cluster and no wildcard among them, and if neither it nor a CA on its way is on a
revocation list.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parties.addresses import check_name, is_host_name
from parties.trust.known import Known
from parties.trust.revocation import Revocations

Clock = Callable[[], float]

DEVELOPMENT_CA = "mpc-development-ca"
"""The CN of the CA that `mpc up` makes.  Its key lies beside the cluster, so it counts on this machine only."""
_LONGEST_CHAIN = 4  # intermediates
_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Trust:
    """CAs that this process believes, and names that nobody else may bear.

    Args:
        authorities: the certificates of our own CA file, in its order.
        members: names of the cluster's processes as far as our config says: nobody else may be called so.
        revoked: the certificates that a CA has taken back; None if no list is configured.
        known: keys of certificates that were accepted as somebody's, of those who sign.
    """

    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    members: frozenset[str] = frozenset()
    revoked: Revocations | None = field(default=None, repr=False)
    known: Known = field(default_factory=Known, init=False, repr=False, compare=False)

    @property
    def is_development(self) -> bool:
        """Is one of the CAs the development CA that `mpc up` makes?"""
        return any(common_name(authority) == DEVELOPMENT_CA for authority in self.authorities)

    @property
    def lists(self) -> int:
        """Return a number that grows whenever revocation lists change."""
        return 0 if self.revoked is None else self.revoked.refresh()

    def fault(
        self, chain: Sequence[x509.Certificate], name: str | None, now: datetime.datetime, *, serves: bool = False
    ) -> str | None:
        """Judge chain[0], the rest of which leads to a CA; return what is wrong, as the rest of a sentence, or None.

        Args:
            name: whose it has to be; None for anybody's.
            serves: it has to be good for a server, not only for a client.
        """
        return self._fault_of_chain(chain, now, serves) or self._fault_of_leaf(chain[0], name)

    def fault_in_use(self, chain: Sequence[x509.Certificate], name: str | None, now: datetime.datetime) -> str | None:
        """Judge chain[0], which TLS has verified already and a process shows; return what is wrong, or None.

        TLS asks no revocation list.  So with one, a way to a CA is looked for once more, without what is on it.

        Args:
            chain: all that the process showed, its own first.
            name: whose it has to be; None for anybody's.
        """
        fault = self._fault_of_leaf(chain[0], name)
        return fault if fault is not None or self.revoked is None else self._fault_of_path(chain, now)

    def _fault_of_leaf(self, leaf: x509.Certificate, name: str | None) -> str | None:
        if not _is_p256(leaf):
            return "has a key that is not ECDSA P-256"
        if _is_authority(leaf):
            return "is a CA's own, not a process's"
        bears, names = common_name(leaf), dns_names(leaf)
        if not bears or bears not in names:
            return "does not have its CN among its DNS names"
        try:
            check_name(bears)
        except ValueError as error:
            return f"has a CN that cannot be a name: it {error}"
        if name is not None and bears != name:
            return f"is for {bears!r}, not {name!r}"
        wrong = next((each for each in names if not is_host_name(each)), None)
        if wrong is not None:
            return f"has {wrong[:80]!r} among its DNS names, which is a wildcard or no host's name"
        hosts = {each.rstrip(".").lower() for each in names}
        others = {member for member in self.members if member.lower() in hosts} - {bears}
        if others:
            return f"has another process of the cluster, {min(others)!r}, among its DNS names"
        if self.revoked is not None and self.revoked.contains(leaf):
            return "was revoked by its CA"
        return None

    def _fault_of_chain(self, chain: Sequence[x509.Certificate], now: datetime.datetime, serves: bool) -> str | None:
        leaf = chain[0]
        if not _is_p256(leaf):
            return "has a key that is not ECDSA P-256"
        refusal = self._fault_of_path(chain, now)
        if refusal is not None:
            return refusal
        for use, what in ((_CLIENT, "a client"), (_SERVER, "a server")):
            if (serves or use == _CLIENT) and not _usable(leaf, use):
                return f"is not meant for {what} (its extended key usage)"
        return None

    def _fault_of_path(self, chain: Sequence[x509.Certificate], now: datetime.datetime) -> str | None:
        """Say why chain[0] does not lead to one of our CAs past everything that is revoked."""
        refusal = _verify(chain, self.authorities, now)
        if refusal is not None:
            return _explain(chain[0], [*chain[1:], *self.authorities], now) or refusal
        lost = self._lost([*chain[1:], *self.authorities])
        if not lost:
            return None
        between, anchors = ([each for each in some if each not in lost] for some in (chain[1:], self.authorities))
        return _verify([chain[0], *between], anchors, now) and "was issued by a CA that was revoked"

    def _lost(self, known: Sequence[x509.Certificate]) -> list[x509.Certificate]:
        """Return those of these CAs that are revoked, and those that nobody but such a one has issued.

        The second kind are intermediates of our own CA file, which need no issuer to be believed.
        """
        if self.revoked is None:
            return []
        lost = [each for each in known if self.revoked.contains(each)]
        found = bool(lost)
        while found:
            kept = [each for each in known if each not in lost]
            orphans = [
                each
                for each in kept
                if any(_issued(other, each) for other in lost) and not any(_issued(other, each) for other in kept)
            ]
            lost += orphans
            found = bool(orphans)
        return lost


def _verify(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: datetime.datetime
) -> str | None:
    """Ask the library for a path from chain[0] to one of the CAs; return why there is none."""
    anchors = [authority for authority in authorities if _is_authority(authority)]
    if not anchors:
        return "is not signed by the CA"
    builder = (
        verification.PolicyBuilder()
        .store(verification.Store(anchors))
        .time(now)
        .max_chain_depth(_LONGEST_CHAIN)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
    )
    try:
        builder.build_client_verifier().verify(chain[0], list(chain[1:]))
    except (verification.VerificationError, ValueError) as error:
        detail = str(error).split("\n", 1)[0].removeprefix("validation failed: ").split(" (encountered", 1)[0]
        return f"does not lead to the CA, or not through intermediates that are here ({detail[:200]})"
    return None


def _explain(leaf: x509.Certificate, others: list[x509.Certificate], now: datetime.datetime) -> str | None:
    """Explain in words why a path to a CA is refused, if it is one of the usual reasons; None if not."""
    owner, certificate = "", leaf
    for _ in range(_LONGEST_CHAIN + 2):
        if now > certificate.not_valid_after_utc:
            return f"{owner} expired on {certificate.not_valid_after_utc:%Y-%m-%d}".strip()
        if now < certificate.not_valid_before_utc:
            return f"{owner} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC".strip()
        issuers = [other for other in others if other != certificate and _issued(other, certificate)]
        if not issuers:
            break
        owner, certificate = "'s CA", issuers[0]
    if certificate is leaf and _is_authority(leaf):
        return "is a CA's own, not a process's"
    if certificate is leaf:
        return "is not signed by the CA"
    return None


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # whatever the library says of a pair that somebody else made: it is no
        return False
    return _is_authority(authority)


def _signs_certificates(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("a CA's key usage does not allow it to sign certificates")


# What the library itself checks of every chain - signatures, dates, path lengths, name constraints - and of
# extensions as much as TLS libraries do: many companies' roots have no key usage, which its own policy demands.
_CA_POLICY = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _signs_certificates)
)
_LEAF_POLICY = verification.ExtensionPolicy.permit_all()

# --- parts of certificates --------------------------------------------------------------


def common_name(certificate: x509.Certificate) -> str:
    """Return the CN; empty if there is none, or more than one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def dns_names(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names among the subject's alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        return []


def is_loopback(host: str) -> bool:
    """Is this host certainly this machine, by the name or address alone?"""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_p256(certificate: x509.Certificate) -> bool:
    public = certificate.public_key()
    return isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _usable(certificate: x509.Certificate, use: x509.ObjectIdentifier) -> bool:
    """Does this certificate's extended key usage, if it has one, include this one?"""
    try:
        return use in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
