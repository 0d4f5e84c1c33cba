"""Make direct connections: who dials, who listens, and how each knows that the other is the peer of this session.

Both ends show certificates that are judged as those of gRPC's calls are, with TLS 1.3.  The party that listens has
told its port and a fresh token through the stream of that pair and session; whoever comes without such a token, under
another name, or twice with the same, is hung up on.  Where no session waits for a peer, nobody is listened to at all.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mpc.errors import ConfigError, PeerError
from parties.addresses import Endpoint
from parties.config.models import TlsConfig
from parties.telemetry import rationed
from parties.trust.identity import Identity
from parties.wire.dialling import certificates_shown, dial
from parties.wire.direct import Direct, reason

TOKEN_BYTES = 32
_PROTOCOL = "mpc-rounds"
HANDSHAKE_SECONDS = 3.0
"""That it may take until a caller is welcome, on either side."""
_AT_ONCE = 8
_LOOK_SECONDS = 0.5
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
        host: where, at all its addresses; the port is any that is free if it is 0.
        draw: fresh random bytes.

    Raises:
        ConfigError: nobody can listen there.
    """

    def __init__(self, identity: Identity, tls: TlsConfig, host: str, port: int, draw: Callable[[int], bytes]) -> None:
        self._identity, self._draw = identity, draw
        self._context = round_context(tls, serves=True)
        self._waiting: dict[bytes, Offer] = {}
        self._shaking: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._servers = _listen(host, port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on port {port} of {host} for rounds",
                cause=error.strerror or "the address is not this machine's",
                remedy="stop what uses it, or set another rounds_port",
            ) from None
        self.port: int = self._servers[0].getsockname()[1]
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

    @property
    def shaking(self) -> int:
        """Return how many callers have not shown yet who they are."""
        return len(self._shaking)

    def forget(self, offer: Offer) -> None:
        """Wait for that peer no more."""
        with self._lock:
            self._waiting.pop(offer.token, None)

    def close(self) -> None:
        """End: listen no more, and hang up on whoever shakes hands."""
        with self._lock:
            self._closed, shaking = True, [*self._shaking]
        for each in (*self._servers, *shaking):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
        for server in self._servers:
            server.close()

    def _accept(self) -> None:
        """Take connections until this is closed."""
        with selectors.DefaultSelector() as selector:
            try:
                for server in self._servers:
                    selector.register(server, selectors.EVENT_READ, server)
            except ValueError:  # it was closed before this thread began
                return
            while not self._closed:
                for key, _ in selector.select(_LOOK_SECONDS):
                    try:
                        raw, where = key.data.accept()
                    except BlockingIOError:
                        continue
                    except (OSError, ValueError) as error:  # it is closed, or this process has no descriptor left
                        if not self._closed:
                            rationed(("accept",), logging.WARNING, "no connection for rounds is taken", why=str(error))
                            time.sleep(_LOOK_SECONDS)
                        continue
                    self._take(raw, str(where[0]))

    def _take(self, raw: socket.socket, where: str) -> None:
        """Have a thread shake hands with a caller, if any is waited for and few do."""
        with self._lock:
            if self._closed or not self._waiting or len(self._shaking) >= _AT_ONCE:
                raw.close()
                return
            self._shaking.add(raw)
        try:
            threading.Thread(target=self._meet, args=(raw, where), name="rounds", daemon=True).start()
        except RuntimeError as error:  # this process has as many threads as it may have
            rationed(("accept",), logging.WARNING, "no connection for rounds is taken", why=str(error))
            self._over(raw)
            raw.close()

    def _over(self, raw: socket.socket) -> None:
        with self._lock:
            self._shaking.discard(raw)

    def _meet(self, raw: socket.socket, where: str) -> None:
        """Have a caller show who it is, and hand it to the session that waits for it; all of that within seconds."""
        direct, deadline = None, time.monotonic() + HANDSHAKE_SECONDS
        try:
            direct = Direct(raw, self._context, serves=True)
            direct.shake_hands(deadline)
            offer = self._expected(direct, deadline)
            offer.arrived(direct)  # the peer may say so as soon as it is welcome
            direct.tell(_WELCOME, deadline)
        except Exception as error:
            why = _why(error)
            rationed((where,), logging.WARNING, "refused a connection for rounds", address=where, why=why)
            if direct is None:
                raw.close()
            else:
                direct.close()
        finally:
            self._over(raw)

    def _expected(self, direct: Direct, deadline: float) -> Offer:
        """Return the offer whose token the caller brings, once: if it is the peer that was told it."""
        token = direct.hear(TOKEN_BYTES, deadline)
        with self._lock:
            offer = self._waiting.get(token)
        if offer is None:
            raise PeerError("nobody waits for it")
        judge(self._identity, offer.peer, direct)
        with self._lock:
            if self._waiting.pop(token, None) is None:
                raise PeerError("it came twice")
        return offer


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of a host, as gRPC does; raise OSError if one of them cannot be had."""
    servers: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
            server = socket.create_server((address[0], port), family=family, dualstack_ipv6=both)
            server.setblocking(False)
            servers.append(server)
            port = server.getsockname()[1]
    except OSError:
        for server in servers:
            server.close()
        raise
    return servers


def call(
    identity: Identity, context: ssl.SSLContext, peer: str, host: str, port: int, token: bytes, seconds: float
) -> Direct:
    """Dial a peer where it said that it listens, and be welcome; within `seconds`.

    Args:
        context: of `round_context`.

    Raises:
        PeerError: it is not there, or is not that peer.
    """
    deadline = time.monotonic() + seconds
    raw, direct = None, None
    try:
        raw = dial(peer, Endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), deadline)
        direct = Direct(raw, context, serves=False)
        direct.shake_hands(deadline)
        judge(identity, peer, direct)
        direct.tell(token, deadline)
        if direct.hear(len(_WELCOME), deadline) != _WELCOME:
            raise PeerError("it says something else than welcome")
    except Exception as error:
        for end in (raw, direct):
            if end is not None:
                end.close()
        if not isinstance(error, OSError | PeerError):
            raise
        raise PeerError(f"{peer} takes no connection for rounds at port {port}", cause=_why(error), peer=peer) from None
    return direct


def judge(identity: Identity, peer: str, direct: Direct) -> None:
    """Raise PeerError unless the other end speaks our protocol and has that peer's certificate."""
    if direct.tls.selected_alpn_protocol() != _PROTOCOL:
        raise PeerError("it does not speak the protocol of rounds", peer=peer)
    try:
        chain = certificates_shown(direct.tls)
    except ValueError:  # of its library, for what is no certificate by all rules
        raise PeerError("its certificates cannot be read", peer=peer) from None
    fault = identity.trust.fault_in_use(chain, peer, datetime.now(UTC))
    if fault is not None:
        raise PeerError(f"its certificate {fault}", peer=peer)
    direct.belong_to(peer)


def _why(error: Exception) -> str:
    if isinstance(error, PeerError):
        return error.what
    return reason(error) if isinstance(error, OSError) else f"unexpected: {type(error).__name__}"
