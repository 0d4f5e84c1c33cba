"""Dial a process with Python's own sockets and TLS: which certificate it shows, or why it cannot be reached.

gRPC tells neither the certificate of a server nor, but in words, why a connection failed.  Here both are known:
a name that does not resolve, a port where nobody listens, packets that are not answered, a certificate that does
not verify, one of ours that is not accepted.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpc.errors import PeerError
from parties.addresses import Endpoint
from parties.trust.identity import Identity

NOT_RUNNING = "it is not running"
"""Said of a process where its port is closed."""
SILENT = "a connection was made, but nothing came"
"""Said of a process whose port is open, though it does not answer."""
_DURING = "during the TLS handshake"
_ENDING = 0.5
"""Seconds after which a process that was cut off there is dialled once more: it may just have been ending."""
_DER = 2
"""Of `_ssl`: how Python 3.11 and 3.12 are told which encoding is wanted."""
_SHORTEST = 0.2  # seconds that a step of dialling is given at least
_LEAST_SHARE = 1.0
_CERTIFICATES = "issue certificates of one CA, for the right names (mpc cert issue), and set all clocks by NTP"


@dataclass(frozen=True)
class Seen:
    """A process that answered, and whose certificate was judged.

    Args:
        certificate: its own (PEM), without the CAs that vouch for it.
        target: where it was dialled, an address without a name, as gRPC writes it.
    """

    certificate: bytes
    target: str


def look(identity: Identity, name: str, address: str, seconds: float, before: str = "") -> Seen:
    """Dial, and return the certificate of the process that answers, and where that is.

    The certificate leads to our CA, is valid, and is `name`'s by all rules of `Trust`; the process has accepted ours.
    A host name may have several addresses with a server at each, also with certificates of their own: the first that
    is as it should be is taken.

    Args:
        before: the target that was seen last, which is dialled first.

    Raises:
        PeerError: naming the process, with a cause that is known and not guessed; of the first server that answered,
            if one did.
    """
    deadline = time.monotonic() + seconds
    last: OSError | None = None
    wrong: PeerError | None = None
    found = [(_target(each[4]), each) for each in _addresses(name, address)]
    for place, (target, each) in enumerate(sorted(found, key=lambda one: one[0] != before)):
        own = share(deadline, len(found) - place)
        try:
            raw = _connected(each, own)
        except OSError as error:
            last = error.with_traceback(None)  # kept with its frames, this one would be a circle
            continue
        try:
            return Seen(_judged(identity, name, address, raw, own, seconds), target)
        except PeerError as error:
            wrong = wrong or error.again()
    raise (wrong or _unanswered(name, address, last)).again() from None


def share(deadline: float, addresses: int) -> float:
    """Return until when the next of so many addresses may take its time: one that is silent leaves some to those behind
    it."""
    now = time.monotonic()
    return min(deadline, now + max((deadline - now) / addresses, _LEAST_SHARE))


def _judged(identity: Identity, name: str, address: str, raw: socket.socket, deadline: float, seconds: float) -> bytes:
    """Judge and return the certificate of the process at the other end of a connection, which is closed."""
    with closing(raw):
        raw.settimeout(_left(deadline))
        try:
            with identity.context.wrap_socket(raw, server_hostname=None if ".." in name else name) as secured:
                chain = certificates_shown(secured)
                fault = identity.trust.fault_in_use(chain, name, datetime.now(UTC))
                if fault is not None:
                    raise _unreachable(name, address, f"its certificate {fault}", _CERTIFICATES)
                _await_welcome(secured, name, address, deadline)
        except ssl.SSLCertVerificationError as error:
            cause = f"its certificate does not verify: {error.verify_message}"
            raise _unreachable(name, address, cause, _CERTIFICATES) from None
        except ssl.SSLError as error:
            raise _not_agreed(name, address, error) from None
        except TimeoutError:
            raise _unreachable(
                name, address, f"{SILENT} in {seconds:g} s: it is busy, or a signal has frozen it"
            ) from None
        except OSError as error:
            raise _unreachable(name, address, _hung_up(error), f"look into the log of {name}") from None
    return chain[0].public_bytes(Encoding.PEM)


def diagnose(identity: Identity | None, name: str, address: str, seconds: float = 2.0) -> PeerError:
    """Say why a call failed for lack of a connection, as far as dialling that process once more shows."""
    known = _fault(identity, name, address, seconds)
    if known is not None and _DURING in (known.cause or ""):
        time.sleep(_ENDING)
        known = _fault(identity, name, address, seconds)
    if known is not None:
        return known
    return PeerError(
        f"the connection to {name} at {address} was lost",
        cause="it can be reached now: it was restarted, it shut the connection, or the network failed for a moment",
        remedy=f"start a new session; if it happens again, look into the log of {name}",
        peer=name,
    )


def _fault(identity: Identity | None, name: str, address: str, seconds: float) -> PeerError | None:
    """Return why a process cannot be reached; None if it can."""
    try:
        if identity is None:
            dial(name, address, time.monotonic() + seconds).close()
        else:
            look(identity, name, address, seconds)
    except PeerError as error:
        return error.again()
    return None


def dial(name: str, address: str, deadline: float) -> socket.socket:
    """Return a socket that is connected to the first of the name's addresses that takes it, until `deadline` (monotonic
    seconds); raise PeerError if none does."""
    last: OSError | None = None
    found = _addresses(name, address)
    for place, each in enumerate(found):
        try:
            return _connected(each, share(deadline, len(found) - place))
        except OSError as error:
            last = error
    raise _unanswered(name, address, last)


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


def _addresses(name: str, address: str) -> list[_Address]:
    """Resolve the name's host; raise PeerError if that fails."""
    endpoint = Endpoint(address)
    try:
        return [*socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)]
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "it is no host name"
        raise _unreachable(
            name,
            address,
            f"the host name {endpoint.host!r} does not resolve ({reason})",
            f"correct the address of {name} in the config, or the name's DNS entry",
        ) from None


def _connected(each: _Address, deadline: float) -> socket.socket:
    """Return a connected socket; raise OSError if nobody takes the connection."""
    family, kind, protocol, _, where = each
    raw = socket.socket(family, kind, protocol)
    raw.settimeout(_left(deadline))
    try:
        raw.connect(where)
    except OSError:
        raw.close()
        raise
    return raw


def _target(where: Any) -> str:
    """Write an address as gRPC takes it: nothing is left to be resolved."""
    host, port, *more = where
    return f"ipv6:[{host.replace('%', '%25')}]:{port}" if more else f"ipv4:{host}:{port}"


def _is_here(address: str) -> bool:
    """Say whether this is an address of the machine itself."""
    host = Endpoint(address).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unanswered(name: str, address: str, last: OSError | None) -> PeerError:
    """Make the error for a name none of whose addresses took a connection."""
    if isinstance(last, ConnectionRefusedError):
        cause = f"the machine is there, but nobody listens on that port: {NOT_RUNNING}"
        local = " (in a cluster of mpc up: mpc up --detach)" if _is_here(address) else ""
        return _unreachable(name, address, cause, f"start {name} again{local}, or correct its address in the config")
    if isinstance(last, TimeoutError):
        cause = "no answer at all: the machine is down, or a firewall drops the packets"
        return _unreachable(name, address, cause, "let the port through, or correct the address in the config")
    return _unreachable(name, address, (last.strerror if last else None) or "it has no address", "correct the network")


def certificates_shown(secured: ssl.SSLSocket | ssl.SSLObject) -> list[x509.Certificate]:
    """Return the certificates that the other end showed, its own first."""
    if sys.version_info >= (3, 13):
        shown = secured.get_unverified_chain()
    else:
        inner: Any = secured  # what is asked is public, and so typed, since 3.13
        shown = [each.public_bytes(_DER) for each in inner._sslobj.get_unverified_chain()]
    return [x509.load_der_x509_certificate(der) for der in shown]


def _await_welcome(secured: ssl.SSLSocket, name: str, address: str, deadline: float) -> None:
    """Wait for the first byte: with TLS 1.3 a server looks at our certificate after the handshake is over here."""
    secured.settimeout(_left(deadline))
    if not secured.recv(1):
        raise _unreachable(
            name,
            address,
            "it hung up when it had seen our certificate: its CA is another, or ours has expired by its clock",
            _CERTIFICATES,
        )


def _not_agreed(name: str, address: str, error: ssl.SSLError) -> PeerError:
    reason = (error.reason or "").lower().replace("_", " ")
    if "alert" in reason:
        cause = f"it refuses our certificate or our TLS: {reason}"
        return _unreachable(name, address, cause, _CERTIFICATES)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _unreachable(name, address, f"it hung up {_DURING}", f"look into the log of {name}")
    cause = f"what answers there does not speak TLS as it should: {reason or 'handshake failed'}"
    return _unreachable(name, address, cause, f"correct the address of {name} in the config")


def _hung_up(error: OSError) -> str:
    return f"the connection was cut {_DURING}: {error.strerror or type(error).__name__}"


def _unreachable(name: str, address: str, cause: str, remedy: str = "mpc doctor") -> PeerError:
    return PeerError(f"{name} at {address} cannot be reached", cause=cause, remedy=remedy, peer=name)


def _left(deadline: float) -> float:
    return max(_SHORTEST, deadline - time.monotonic())
