"""The slow link that `mpc bench --link` puts between processes: no faster than it was asked to be."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from mpc.errors import UsageError
from parties import Cluster
from parties.addresses import Endpoint
from parties.local.relay import Bucket, Link, Relay, lateness
from tests.support.parties import data, tiny_model

pytestmark = pytest.mark.timeout(120)


def test_links_have_names_and_numbers() -> None:
    assert Link.parse("lan") == Link(0.3, 1000) and Link.parse("WAN") == Link(40, 100)
    assert Link.parse("20:50") == Link(20, 50)


@pytest.mark.parametrize("text", ["", "20", "20:0", "-1:5", "a:b", "1:2:3", "nan:5", "1:inf"])
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Link.parse(text)


def test_rounds_take_at_least_half_a_round_trip_each(tmp_path: Path) -> None:
    """Nobody can know a round's values before they arrived; there is no upper bound on a busy machine."""
    tiny_model(tmp_path / "tiny.onnx")
    with Cluster.local(2, link=Link(20, 1000)) as cluster:
        assert cluster.relay is not None and cluster.relay.round_trip() >= 19
        with cluster.session(tmp_path / "tiny.onnx", ranges={"x": (-4, 4)}) as session:
            for _ in range(2):
                session.run(None, {"x": data(4)})
                assert session.last_run is not None
                assert session.last_run.online_s >= session.last_run.rounds * 0.0095


def test_what_the_relay_adds_by_itself_is_measured_and_never_negative() -> None:
    """Else a short link would be longer than asked; how much it is, is the machine's."""
    assert 0 <= lateness(0.0) < 1 and 0 <= lateness(1e-3) < 1


def test_a_rate_is_shared_and_never_exceeded() -> None:
    bucket = Bucket(1000)
    assert [bucket.pass_through(500, now) for now in (10.0, 10.0, 20.0)] == [10.5, 11.0, 20.5]


def test_all_bytes_arrive_in_order_and_no_faster_than_the_rate() -> None:
    """And the end of what one side says ends the other, which may still answer."""
    sent = bytes(range(256)) * 1000
    with socket.create_server(("127.0.0.1", 0)) as server, _Relayed(server, Link(2, 8)) as (line, relay):
        started = time.perf_counter()
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        other, _ = server.accept()
        with other:
            assert _all_of(other) == sent
            assert time.perf_counter() - started >= len(sent) / 1e6
            other.sendall(b"thanks")
        assert _all_of(line) == b"thanks"
        relay.close()


def test_it_ends_with_its_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stdin is a pipe that only the starter holds open; the kernel closes that one, whatever happens."""
    with socket.create_server(("127.0.0.1", 0)) as server, _Relayed(server, Link(0, 1000)) as (_, relay):
        [process] = [each for each in psutil.Process().children() if _is_relay(each)]
        monkeypatch.setattr(subprocess.Popen, "kill", lambda _: pytest.fail("it did not end by itself"))
        relay.close()
        assert not process.is_running()


def _is_relay(process: psutil.Process) -> bool:
    try:
        return "parties.local.relay" in process.cmdline()
    except psutil.Error:  # what another test has started, and is over
        return False


class _Relayed:
    """A relay in front of a server, and a connection through it."""

    def __init__(self, server: socket.socket, link: Link) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._front = Endpoint(f"127.0.0.1:{free.getsockname()[1]}")
        self._relay = Relay([(self._front, Endpoint(f"127.0.0.1:{server.getsockname()[1]}"))], link)

    def __enter__(self) -> tuple[socket.socket, Relay]:
        self._line = socket.create_connection((self._front.host, self._front.port))
        return self._line, self._relay

    def __exit__(self, *_: object) -> None:
        self._line.close()
        self._relay.close()


def _all_of(line: socket.socket) -> bytes:
    received = bytearray()
    while piece := line.recv(1 << 16):
        received += piece
    return bytes(received)
