"""Direct connections: both send at once whatever the size, nobody but the peer that was told comes in, and nothing
but the awaited step is taken."""

from __future__ import annotations

import errno
import itertools
import random
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpc.errors import ConfigError, PeerError, SessionError
from parties.config.models import TlsConfig
from parties.entropy import token
from parties.trust.identity import Identity
from parties.wire import direct_listener
from parties.wire.direct import Direct, swap
from parties.wire.direct_listener import TOKEN_BYTES, Listener, Offer, call, round_context
from tests.support.authority import Issuer
from tests.support.parties import PATIENCE, eventually

pytestmark = pytest.mark.timeout(60)
HOST = "127.0.0.1"


@dataclass
class Ends:
    """A listening party, and the certificates of everybody."""

    root: Issuer
    folder: Path
    listener: Listener

    def tls(self, name: str, root: Issuer | None = None) -> TlsConfig:
        return (root or self.root).leaf(name, self.folder / f"{name}-{token().hex()[:8]}")

    def call(self, offer: Offer, name: str = "party-0", *, given: bytes | None = None) -> Direct:
        tls = self.tls(name)
        return self.dial(tls, offer.port, given or offer.token)

    def dial(self, tls: TlsConfig, port: int, token: bytes, peer: str = "party-1", seconds: float = PATIENCE) -> Direct:
        return call(Identity.load(tls), round_context(tls, serves=False), peer, HOST, port, token, seconds)

    def pair(self, name: str = "party-0") -> tuple[Direct, Direct]:
        """(the end that dialled, the end that listened)."""
        offer = self.listener.offer(name)
        dialled = self.call(offer, name)
        eventually(lambda: offer.came)
        taken = offer.take()
        assert taken is not None
        return dialled, taken


@pytest.fixture(scope="module")
def root() -> Issuer:
    return Issuer.root()


@pytest.fixture
def ends(root: Issuer, tmp_path: Path) -> Iterator[Ends]:
    tls = root.leaf("party-1", tmp_path / "party-1")
    listener = Listener(Identity.load(tls), tls, HOST, 0, token)
    yield Ends(root, tmp_path, listener)
    listener.close()


def soon() -> float:
    return time.monotonic() + PATIENCE


def calm() -> None:
    """Nothing has ended."""


def exchange(ends: list[list[Direct]], payloads: list[bytes], run: int = 1, step: int = 0) -> list[list[bytes]]:
    """All parties swap at once, each in a thread; what each has received."""

    def party(place: int) -> list[bytes]:
        others = [other for other in range(len(ends)) if other != place]
        for connection, other in zip(ends[place], others, strict=True):
            connection.begin(run, step, payloads[place], len(payloads[other]))
        swap(ends[place], soon(), calm)
        return [bytes(found) for connection in ends[place] if (found := connection.payload()) is not None]

    with ThreadPoolExecutor(len(ends)) as threads:
        return list(threads.map(party, range(len(ends))))


@pytest.mark.parametrize("size", [1, 16, 16_367, 16_368, 16_369, 40_000, 9_000_000])
def test_both_send_at_once(ends: Ends, size: int) -> None:
    """More than sockets hold, too: whoever sent first and read then would wait for good."""
    first, second = ends.pair()
    with closing(first), closing(second):
        mine, yours = b"a" * size, b"b" * (size + 3)
        for step in range(3):
            assert exchange([[first], [second]], [mine, yours], step=step) == [[yours], [mine]]


def test_three_parties_swap_in_pairs(ends: Ends) -> None:
    pairs = {(low, high): ends.pair() for low, high in ((0, 1), (0, 2), (1, 2))}
    mine = [
        [pairs[min(place, other), max(place, other)][place > other] for other in range(3) if other != place]
        for place in range(3)
    ]
    payloads = [bytes([65 + place]) * (3_000_000 * place + 5) for place in range(3)]
    found = exchange(mine, payloads)
    assert found == [[payloads[other] for other in range(3) if other != place] for place in range(3)]
    for pair in pairs.values():
        for each in pair:
            each.close()


@pytest.mark.parametrize(("run", "step", "size"), [(2, 0, 5), (1, 1, 5), (1, 0, 6), (1, 0, 1 << 40)])
def test_another_step_is_not_taken_for_the_awaited_one(ends: Ends, run: int, step: int, size: int) -> None:
    first, second = ends.pair()
    with closing(first), closing(second):
        second.tell(struct.pack("<IIQ", run, step, size) + b"bytes", soon())
        first.begin(1, 0, b"bytes", 5)
        with pytest.raises(PeerError, match="party-1 sent something out of turn"):
            swap([first], soon(), calm)
        assert first.payload() is None


def test_what_comes_early_is_not_read(ends: Ends) -> None:
    """A peer that is ahead fills its own socket, and is read in its turn."""
    first, second = ends.pair()
    with closing(first), closing(second):
        second.begin(1, 0, b"one", 3)
        second.advance()
        second.begin(1, 1, b"two", 3)
        second.advance()
        for step, expected in enumerate((b"one", b"two")):
            first.begin(1, step, b"abc", 3)
            swap([first], soon(), calm)
            assert first.payload() == expected


def test_a_peer_that_hangs_up_is_missed_and_waited_for_no_more(ends: Ends) -> None:
    first, second = ends.pair()
    with closing(first):
        second.close()
        first.begin(1, 0, b"x" * 5_000_000, 10)
        swap([first], time.monotonic() + 100 * PATIENCE, calm)
        assert first.payload() is None and not first.busy
        first.begin(1, 1, b"x", 10)
        assert not first.busy and first.payload() is None and first.why


def test_half_a_payload_is_none(ends: Ends) -> None:
    first, second = ends.pair()
    with closing(first), closing(second):
        second.tell(struct.pack("<IIQ", 1, 0, 10) + b"half", soon())
        first.begin(1, 0, b"abc", 10)
        swap([first], time.monotonic() + 0.2, calm)
        assert first.payload() is None


def test_nothing_follows_what_left_in_part(ends: Ends) -> None:
    """A peer that sends and does not read: at the deadline its connection is given up, or the next step would stand in
    the middle of this one."""
    first, second = ends.pair()
    with closing(first), closing(second):
        second.tell(struct.pack("<IIQ", 1, 0, 3) + b"abc", soon())
        first.begin(1, 0, b"x" * 50_000_000, 3)
        swap([first], time.monotonic() + 0.2, calm)
        assert first.payload() == b"abc"
        first.begin(1, 1, b"next", 3)
        assert not first.busy


def test_whoever_waits_looks_whether_the_session_goes_on(ends: Ends) -> None:
    first, second = ends.pair()
    over = threading.Event()

    def check() -> None:
        if over.is_set():
            raise SessionError("over")

    with closing(first), closing(second), ThreadPoolExecutor(1) as thread:
        first.begin(1, 0, b"abc", 3)
        waiting = thread.submit(swap, [first], soon(), check)
        over.set()
        with pytest.raises(SessionError, match="over"):
            waiting.result(PATIENCE)


def test_closing_ends_a_swap_in_another_thread(ends: Ends) -> None:
    first, second = ends.pair()
    with closing(second), ThreadPoolExecutor(1) as thread:
        first.begin(1, 0, b"abc", 3)
        waiting = thread.submit(swap, [first], soon(), calm)
        first.close()
        waiting.result(PATIENCE)
        first.close()


class Unreliable:
    """Carries bytes to a port, in small parts, some of them late; after `cut` bytes it hangs up, or changes one.

    A context manager; `port` is where it listens.
    """

    def __init__(self, port: int, cut: int, change: bool, seed: int) -> None:
        self._rng, self._cut, self._change = random.Random(seed), cut, change
        self._server = socket.create_server((HOST, 0))
        self.port, self._to, self._carried = self._server.getsockname()[1], port, 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._carry_both, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Unreliable:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        for end in self._ends:
            end.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _carry_both(self) -> None:
        with suppress(OSError):
            self._ends += [self._server.accept()[0], socket.create_connection((HOST, self._to))]
            back = threading.Thread(target=self._carry, args=self._ends[::-1], daemon=True)
            self._threads.append(back)
            back.start()
            self._carry(*self._ends)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := bytearray(source.recv(self._rng.choice((1, 100, 5_000, 60_000)))):
                self._carried += len(part)
                if self._carried > self._cut and self._change:
                    part[-1] ^= 1
                elif self._carried > self._cut:
                    break
                if not self._rng.randrange(10):
                    time.sleep(0.002)
                target.sendall(part)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_bad_network_loses_payloads_and_changes_none(ends: Ends, seed: int, change: bool) -> None:
    """It cuts after so many bytes, or flips a bit of each part from there on."""
    rng = random.Random(seed)
    offer = ends.listener.offer("party-0")
    handshake, size = 8_000, rng.choice((50, 5_000, 200_000))
    with Unreliable(offer.port, handshake + rng.randrange(8 * size), change, seed) as network:
        tls = ends.tls("party-0")
        first = ends.dial(tls, network.port, offer.token)
        eventually(lambda: offer.came)
        second = offer.take()
        assert second is not None
        with closing(first), closing(second):
            for step in range(8):
                payloads = [bytes([step + 1]) * size, bytes([step + 101]) * size]
                found = exchange([[first], [second]], payloads, step=step)
                assert all(got in ([], [payload]) for got, payload in zip(found, payloads[::-1], strict=True))
                if [] in found:
                    return


# ---------------------------------------------------------------- a peer that wastes time


def trickle(direct: Direct, parts: Iterator[bytes], pause: float, over: threading.Event) -> None:
    """Send parts as records of their own until it is over."""
    with suppress(OSError):
        for part in parts:
            direct.tell(part, soon())
            if over.wait(pause):
                return


def test_records_of_one_byte_are_refused_before_they_cost_much(ends: Ends) -> None:
    """Each costs 22 bytes and a turn of TLS; so do records that carry nothing at all."""
    first, second = ends.pair()
    size, over = 4_000_000, threading.Event()
    parts = itertools.chain([struct.pack("<IIQ", 1, 0, size)], itertools.repeat(b"x", size))
    with closing(first), closing(second), ThreadPoolExecutor(1) as thread:
        sending = thread.submit(trickle, second, parts, 0, over)
        first.begin(1, 0, b"abc", size)
        try:
            with pytest.raises(PeerError, match="party-1 sends much more than a step has"):
                swap([first], time.monotonic() + 10 * PATIENCE, calm)
        finally:
            over.set()
            first.close()
            sending.result(PATIENCE)


def test_a_peer_that_sends_little_and_often_is_late_all_the_same(ends: Ends) -> None:
    first, second = ends.pair()
    over, checks = threading.Event(), list[float]()
    parts = itertools.chain([struct.pack("<IIQ", 1, 0, 1_000_000)], itertools.repeat(b"x"))
    with closing(first), closing(second), ThreadPoolExecutor(1) as thread:
        sending = thread.submit(trickle, second, parts, 0.0005, over)
        first.begin(1, 0, b"abc", 1_000_000)
        swap([first], time.monotonic() + 0.5, lambda: checks.append(time.monotonic()))
        over.set()
        sending.result(PATIENCE)
        assert first.is_late and first.payload() is None and checks


def test_a_token_in_pieces_has_no_more_time_than_one_at_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_listener, "HANDSHAKE_SECONDS", 1.0)
    offer, tls = ends.listener.offer("party-0"), ends.tls("party-0")
    slow = Direct(
        socket.create_connection((HOST, offer.port), PATIENCE), round_context(tls, serves=False), serves=False
    )
    with closing(slow):
        slow.shake_hands(soon())
        with pytest.raises(OSError):
            for place in range(TOKEN_BYTES - 1):
                slow.tell(offer.token[place : place + 1], soon())
                time.sleep(0.1)
            slow.hear(1, soon())
    eventually(lambda: not ends.listener.shaking)
    with closing(ends.call(offer)):
        offer.cancel()


def test_who_shakes_hands_holds_up_no_end(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_listener, "HANDSHAKE_SECONDS", 100 * PATIENCE)
    offer = ends.listener.offer("party-0")
    with closing(socket.create_connection((HOST, offer.port), PATIENCE)):
        eventually(lambda: ends.listener.shaking == 1)
        ends.listener.close()
        eventually(lambda: not ends.listener.shaking)


def test_a_listener_that_says_no_welcome_is_left(ends: Ends) -> None:
    tls = ends.tls("party-1")

    def silent(raw: socket.socket) -> None:
        direct = Direct(raw, round_context(tls, serves=True), serves=True)
        with closing(direct), suppress(OSError):
            direct.shake_hands(soon())
            direct.hear(1_000, soon())

    with closing(socket.create_server((HOST, 0))) as server, ThreadPoolExecutor(1) as thread:
        answering = thread.submit(lambda: silent(server.accept()[0]))
        with pytest.raises(PeerError, match="nothing came in time"):
            ends.dial(ends.tls("party-0"), server.getsockname()[1], bytes(TOKEN_BYTES), seconds=1.0)
        answering.result(PATIENCE)


# ------------------------------------------------------------- a machine that has no more


def test_a_thread_that_cannot_be_started_costs_one_connection(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    start, failed = threading.Thread.start, list[str]()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "rounds" and not failed:
            failed.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    offer = ends.listener.offer("party-0")
    refused(ends, offer)
    assert failed and not ends.listener.shaking
    with closing(ends.call(offer)):
        offer.cancel()


def test_no_descriptors_cost_a_pause_and_a_line(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    accept, failed, said = socket.socket.accept, list[float](), list[str]()

    def exhausted(server: socket.socket) -> tuple[socket.socket, object]:
        if server.getsockname()[1] == ends.listener.port and len(failed) < 2:
            failed.append(time.monotonic())
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(server)

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    monkeypatch.setattr(direct_listener, "rationed", lambda kind, level, event, **fields: said.append(fields["why"]))
    offer = ends.listener.offer("party-0")
    with closing(ends.call(offer)):
        offer.cancel()
    assert failed[1] - failed[0] > 0.1
    assert len(said) == 2 and "Too many open files" in said[0]


@pytest.mark.parametrize("host", ["::", "localhost", "0.0.0.0"])
def test_every_address_of_the_host_is_listened_at(ends: Ends, host: str) -> None:
    tls = ends.tls("party-1")
    try:
        listener = Listener(Identity.load(tls), tls, host, 0, token)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with closing(listener):
        offer = listener.offer("party-0")
        with closing(ends.dial(ends.tls("party-0"), listener.port, offer.token)):
            offer.cancel()


# ------------------------------------------------------------------------- who comes in


def refused(ends: Ends, offer: Offer, **how: object) -> None:
    with pytest.raises(PeerError):
        ends.call(offer, **how)  # type: ignore[arg-type]


def test_a_token_is_for_one_peer_and_counts_once(ends: Ends) -> None:
    offer = ends.listener.offer("party-0")
    refused(ends, offer, name="party-2")  # a party, but not the one that was told
    refused(ends, offer, name="client")
    refused(ends, offer, given=b"\x00" * TOKEN_BYTES)
    with closing(ends.call(offer)):
        waited_for = ends.listener.offer("party-2")
        refused(ends, offer)
        waited_for.cancel()
    offer.cancel()


def test_nobody_is_listened_to_while_nobody_is_waited_for(ends: Ends) -> None:
    offer = ends.listener.offer("party-0")
    offer.cancel()
    refused(ends, offer)
    with closing(socket.create_connection((HOST, ends.listener.port), PATIENCE)) as raw:
        raw.settimeout(PATIENCE)
        with suppress(ConnectionResetError):
            assert raw.recv(1) == b""


def test_whom_nobody_waits_for_any_more_is_hung_up_on(ends: Ends) -> None:
    offer = ends.listener.offer("party-0")
    with closing(ends.call(offer)) as dialled:
        eventually(lambda: offer.came)
        offer.cancel()
        dialled.begin(1, 0, b"abc", 3)
        swap([dialled], soon(), calm)
        assert dialled.payload() is None


def test_a_foreign_certificate_is_refused_on_both_sides(ends: Ends) -> None:
    offer = ends.listener.offer("party-0")
    foreign = ends.tls("party-0", Issuer.root())
    with pytest.raises(PeerError):  # its CA is another: it does not believe the listener either
        ends.dial(foreign, offer.port, offer.token)
    own = ends.tls("party-0")
    mixed = TlsConfig(ca=own.ca, certificate=foreign.certificate, key=foreign.key)
    context = round_context(mixed, serves=False)
    with pytest.raises(PeerError):
        call(Identity.load(own), context, "party-1", HOST, offer.port, offer.token, PATIENCE)
    with pytest.raises(PeerError, match="is for 'party-1', not 'party-2'"):
        ends.dial(own, offer.port, offer.token, "party-2")
    with closing(ends.call(offer)):
        offer.cancel()


@pytest.mark.parametrize("change", ["version", "protocol", "none"])
def test_only_our_protocol_is_spoken(ends: Ends, change: str) -> None:
    offer = ends.listener.offer("party-0")
    context = round_context(ends.tls("party-0"), serves=False)
    if change == "version":
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif change == "protocol":
        context.set_alpn_protocols(["h2"])
    with closing(socket.create_connection((HOST, offer.port), PATIENCE)) as raw:
        if change == "none":
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                while raw.recv(100):
                    pass
        else:
            with pytest.raises(OSError), context.wrap_socket(raw) as secured:
                secured.settimeout(PATIENCE)
                secured.sendall(offer.token)
                if not secured.recv(1):
                    raise ConnectionResetError
    assert offer.take() is None


def test_who_says_nothing_keeps_nobody_out(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many may shake hands at once; the rest are hung up on, and those who stay silent are, before long."""
    monkeypatch.setattr(direct_listener, "HANDSHAKE_SECONDS", 0.3)
    offer = ends.listener.offer("party-0")
    silent = [socket.create_connection((HOST, offer.port), PATIENCE) for _ in range(20)]
    for raw in silent:
        with closing(raw), suppress(ConnectionResetError):
            raw.settimeout(PATIENCE)
            assert raw.recv(1) == b""
    with closing(ends.call(offer)):
        offer.cancel()


def test_a_port_that_is_taken_is_said(ends: Ends) -> None:
    tls = ends.tls("party-1")
    with pytest.raises(ConfigError, match=f"cannot listen on port {ends.listener.port} of 127.0.0.1 for rounds"):
        Listener(Identity.load(tls), tls, HOST, ends.listener.port, token)


def test_a_listener_that_is_closed_before_its_thread_begins_ends_quietly(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, raised = threading.Event(), list[object]()

    class Late(selectors.DefaultSelector):
        def __init__(self) -> None:
            assert closed.wait(PATIENCE)
            super().__init__()

    monkeypatch.setattr(selectors, "DefaultSelector", Late)
    monkeypatch.setattr(threading, "excepthook", raised.append)
    tls, others = ends.tls("party-1"), set(threading.enumerate())
    listener = Listener(Identity.load(tls), tls, HOST, 0, token)
    [accepting] = [each for each in set(threading.enumerate()) - others if each.name == "rounds-accept"]
    listener.close()
    closed.set()
    accepting.join(PATIENCE)
    assert not accepting.is_alive() and raised == []


def test_a_port_where_nobody_listens_is_said_at_once(ends: Ends) -> None:
    offer = ends.listener.offer("party-0")
    ends.listener.close()
    with pytest.raises(PeerError, match="party-1 takes no connection for rounds at port") as caught:
        ends.call(offer)
    assert "not running" not in str(caught.value)  # the party may well be: it is this port that is closed


def test_an_offer_does_not_show_its_token(ends: Ends) -> None:
    offer = ends.listener.offer("party-0")
    assert offer.token.hex() not in repr(offer) and str(offer.token) not in repr(offer)
    offer.cancel()
