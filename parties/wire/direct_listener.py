"""Make direct connections: who dials, who listens, and how each knows that the other is the peer of this session.

Both ends show certificates that are judged as those of gRPC's calls are, with TLS 1.3.  The party that listens has
told its port and a fresh token through the stream of that pair and session; whoever comes without such a token, under
another name, or twice with the same, is hung up on.  Where no session waits for a peer, nobody is listened to at all.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mpc.errors import ConfigError, PeerError
from parties.addresses import Endpoint
from parties.config.models import TlsConfig
from parties.telemetry import rationed
from parties.trust.identity import Identity
from parties.wire.dialling import certificates_shown, dial
from parties.wire.direct import Direct

TOKEN_BYTES = 32
_PROTOCOL = "mpc-rounds"
HANDSHAKE_SECONDS = 3.0
"""That a handshake may take, on either side."""
_AT_ONCE = 8
_WELCOME = b"\x01"


def round_context(tls: TlsConfig, serves: bool) -> ssl.SSLContext:
    """Make the TLS context of one end: 1.3, our certificate is shown and the other's must lead to our CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a certificate's own rules (`Trust`) are stricter
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(tls.ca)
    context.load_cert_chain(tls.certificate, tls.key, password="")
    context.set_alpn_protocols([_PROTOCOL])
    if serves:
        context.num_tickets = 0
    return context


@dataclass
class Offer:
    """An offer of a listening party to one peer of one session, and the connection that comes of it.

    Args:
        port: where it listens.
        token: what shows that whoever comes was told so.
    """

    peer: str
    port: int
    token: bytes = field(repr=False)
    _listener: Listener = field(repr=False)
    _came: Direct | None = field(default=None, repr=False)
    _over: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    __secret__ = True

    @property
    def came(self) -> bool:
        """True while the peer's connection is here and was not taken."""
        with self._lock:
            return self._came is not None

    def arrived(self, direct: Direct) -> None:
        """Keep the peer's connection until it is taken."""
        with self._lock:
            self._came, late = (None, direct) if self._over else (direct, None)
        if late is not None:
            late.close()

    def take(self) -> Direct | None:
        """Return the connection if the peer has come; nobody is waited for any more."""
        self._listener.forget(self)
        with self._lock:
            came, self._came, self._over = self._came, None, True
        return came

    def cancel(self) -> None:
        """Wait for nobody; hang up on who has come."""
        came = self.take()
        if came is not None:
            came.close()


class Listener:
    """Listens for peers of sessions that wait for them.  Thread-safe.

    Args:
        host: where; the port is any that is free if it is 0.
        draw: fresh random bytes.

    Raises:
        ConfigError: nobody can listen there.
    """

    def __init__(self, identity: Identity, tls: TlsConfig, host: str, port: int, draw: Callable[[int], bytes]) -> None:
        self._identity, self._draw = identity, draw
        self._context = round_context(tls, serves=True)
        self._waiting: dict[bytes, Offer] = {}
        self._lock = threading.Lock()
        self._shaking = threading.BoundedSemaphore(_AT_ONCE)
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="rounds")
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on port {port} of {host} for rounds",
                cause=error.strerror or "the address is not this machine's",
                remedy="stop what uses it, or set another rounds_port",
            ) from None
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, name="rounds-accept", daemon=True).start()

    def offer(self, peer: str) -> Offer:
        """Wait for a peer of a new session from now on; what it has to be told."""
        offer = Offer(peer, self.port, self._draw(TOKEN_BYTES), self)
        with self._lock:
            self._waiting[offer.token] = offer
        return offer

    @property
    def waiting(self) -> int:
        """Return how many peers are waited for."""
        return len(self._waiting)

    def forget(self, offer: Offer) -> None:
        """Wait for that peer no more."""
        with self._lock:
            self._waiting.pop(offer.token, None)

    def close(self) -> None:
        """End: listen no more."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # ends the thread that accepts
        self._server.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _accept(self) -> None:
        while True:
            try:
                raw, where = self._server.accept()
            except OSError:
                if self._server.fileno() < 0:
                    return
                continue
            if not self._waiting or not self._shaking.acquire(blocking=False):
                raw.close()
                continue
            try:
                self._workers.submit(self._meet, raw, str(where[0]))
            except RuntimeError:  # it is closed
                raw.close()
                return

    def _meet(self, raw: socket.socket, where: str) -> None:
        """Have a caller show who it is, and hand it to the session that waits for it."""
        try:
            raw.settimeout(HANDSHAKE_SECONDS)
            secured = self._context.wrap_socket(raw, server_side=True)  # closes what it cannot secure
            try:
                offer = self._expected(secured)
            except BaseException:
                secured.close()
                raise
            direct = Direct(secured, offer.peer)
            offer.arrived(direct)  # the peer may say so as soon as it is welcome
            direct.greet(_WELCOME)
        except (OSError, PeerError) as error:
            why = error.what if isinstance(error, PeerError) else type(error).__name__
            rationed((where,), logging.WARNING, "refused a connection for rounds", address=where, why=why)
        finally:
            self._shaking.release()

    def _expected(self, secured: ssl.SSLSocket) -> Offer:
        """Return the offer whose token the caller brings, once: if it is the peer that was told it."""
        token = b""
        while len(token) < TOKEN_BYTES:
            part = secured.recv(TOKEN_BYTES - len(token))
            if not part:
                raise PeerError("it hung up without a token")
            token += part
        with self._lock:
            offer = self._waiting.get(token)
        if offer is None:
            raise PeerError("nobody waits for it")
        judge(self._identity, offer.peer, secured)
        with self._lock:
            if self._waiting.pop(token, None) is None:
                raise PeerError("it came twice")
        return offer


def call(
    identity: Identity,
    tls: TlsConfig,
    peer: str,
    host: str,
    port: int,
    token: bytes,
    seconds: float = HANDSHAKE_SECONDS,
) -> Direct:
    """Dial a peer where it said that it listens; within `seconds`.

    Raises:
        PeerError: it is not there, or is not that peer.
    """
    bracketed = f"[{host}]" if ":" in host else host
    raw = dial(peer, Endpoint(f"{bracketed}:{port}"), time.monotonic() + seconds)
    try:
        raw.settimeout(seconds)
        secured = round_context(tls, serves=False).wrap_socket(raw)
        try:
            judge(identity, peer, secured)
            secured.sendall(token)
            if secured.recv(len(_WELCOME)) != _WELCOME:
                raise PeerError(f"{peer} hung up on a connection for rounds", peer=peer)
        except BaseException:
            secured.close()
            raise
    except OSError as error:
        raise PeerError(
            f"{peer} takes no connection for rounds at port {port}", cause=error.strerror or str(error), peer=peer
        ) from None
    return Direct(secured, peer)


def judge(identity: Identity, peer: str, secured: ssl.SSLSocket) -> None:
    """Raise PeerError unless the other end of a connection speaks our protocol and has that peer's certificate."""
    if secured.selected_alpn_protocol() != _PROTOCOL:
        raise PeerError("it does not speak the protocol of rounds", peer=peer)
    fault = identity.trust.fault_in_use(certificates_shown(secured), peer, datetime.now(UTC))
    if fault is not None:
        raise PeerError(f"its certificate {fault}", peer=peer)
