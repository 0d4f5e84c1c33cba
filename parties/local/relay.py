"""A slow link on a fast machine: connections pass through a process that delays and throttles them.

In front of each daemon lies an address that everybody else is told instead of its own.  Bytes through it arrive half
a round trip late, in both directions, and no faster than the rate, which the connections that a daemon accepts share,
each direction for itself.  By how much this process itself is late is measured once and taken off.  Nothing is read or
changed: what passes is TLS.  For measuring only.
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mpc.errors import ConfigError
from mpc.plan.link import Link
from parties.addresses import Endpoint
from parties.local.ports import Ports

_CHUNK = 1 << 16
_READY_SECONDS, _END_SECONDS = 30.0, 5.0
_PINGS = 15
_LONGEST_TRIAL = 1e-3

Route = tuple[Endpoint, Endpoint]
"""Where to listen, and where that leads."""


class Relay:
    """A process that carries bytes late, and a way to measure by how much."""

    def __init__(self, routes: Sequence[Route], link: Link) -> None:
        """Start the relay and wait until it listens.

        Raises:
            ConfigError: it cannot.
        """
        self._echo = socket.create_server(("127.0.0.1", 0))
        ports = Ports(1)
        echo, front = f"127.0.0.1:{self._echo.getsockname()[1]}", f"127.0.0.1:{ports.numbers[0]}"
        self._address = Endpoint(front)
        threading.Thread(target=_echo, args=(self._echo,), name="echo", daemon=True).start()
        root = Path(__file__).parents[2]
        paths = os.environ.get("PYTHONPATH") if root.name == "site-packages" else str(root)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "parties.local.relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **({"PYTHONPATH": paths} if paths else {})},
            start_new_session=True,  # Ctrl-C is for its starter, whose end closes its stdin
        )
        asked = {"routes": [*routes, (front, echo)], "round_trip": link.round_trip, "rate": link.rate}
        self._tell(json.dumps(asked))
        ports.release()

    def _tell(self, order: str) -> None:
        pipe, answers = self._process.stdin, self._process.stdout
        if pipe is None or answers is None:
            raise ConfigError("the relay has no pipes")
        with suppress(OSError):
            pipe.write(order + "\n")
            pipe.flush()
        ready, _, _ = select.select([answers], [], [], _READY_SECONDS)
        if not ready or answers.readline() != "ready\n":
            self.close()
            raise ConfigError("the relay of --link does not start", remedy="try again, or leave --link out")

    def round_trip(self) -> float:
        """Measure the milliseconds that a byte takes there and back: the median of a few, this process's own share
        included."""
        times = []
        with socket.create_connection((self._address.host, self._address.port)) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(_PINGS):
                started = time.perf_counter()
                line.sendall(b".")
                line.recv(1)
                times.append(time.perf_counter() - started)
        return statistics.median(times) * 1e3

    def close(self) -> None:
        """End the relay; safe to call twice."""
        self._echo.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _echo(server: socket.socket) -> None:
    """Send back what comes, a caller at a time, until the server is closed."""
    with suppress(OSError):
        while True:
            caller, _ = server.accept()
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with caller, suppress(OSError):
                while data := caller.recv(_CHUNK):
                    caller.sendall(data)


# --------------------------------------------------------------------- the process's side


class Bucket:
    """One direction of one daemon's link.  Thread-safe."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free = 0.0
        self._lock = threading.Lock()

    def pass_through(self, size: int, now: float) -> float:
        """Return when the last of so many bytes, here at `now`, will have left (monotonic seconds)."""
        with self._lock:
            self._free = max(self._free, now) + size / self._rate
            return self._free


class Direction(threading.Thread):
    """One direction of a connection: bytes from one socket wait in line until they are due at the other."""

    def __init__(self, source: socket.socket, target: socket.socket, bucket: Bucket, delay: float, most: int) -> None:
        super().__init__(daemon=True)
        self._source, self._target = source, target
        self._bucket, self._delay, self._most = bucket, delay, most
        self._line: deque[tuple[float, bytes]] = deque()
        self._waiting = 0
        self._ended = False

    def run(self) -> None:
        """Carry bytes until the source ends and all of it has been sent, or either socket breaks."""
        try:
            while self._line or not self._ended:
                self._read()
                self._send_due()
            self._target.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):
            for end in (self._source, self._target):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        """Read one piece, if one comes before the next is due."""
        wait = max(0.0, self._line[0][0] - time.monotonic()) if self._line else None
        wanted = [self._source] if not self._ended and self._waiting < self._most else []
        readable, _, _ = select.select(wanted, [], [], wait)
        if not readable:
            return
        data = self._source.recv(_CHUNK)
        self._ended = not data
        if data:
            due = self._bucket.pass_through(len(data), time.monotonic()) + self._delay
            self._line.append((due, data))
            self._waiting += len(data)

    def _send_due(self) -> None:
        while self._line and self._line[0][0] <= time.monotonic():
            _, data = self._line.popleft()
            self._waiting -= len(data)
            self._target.sendall(data)


def _serve(server: socket.socket, onward: Endpoint, link: Link, delay: float) -> None:
    """Accept for ever; each connection is led onward, with a thread for each direction."""
    rate = link.rate * 1e6 / 8
    inward, outward = Bucket(rate), Bucket(rate)
    most = int(rate * delay) + 4 * _CHUNK  # what is under way at full rate, and a little
    while True:
        caller, _ = server.accept()
        try:
            daemon = socket.create_connection((onward.host, onward.port))
        except OSError:
            caller.close()
            continue
        for end in (caller, daemon):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Direction(caller, daemon, inward, delay, most).start()
        Direction(daemon, caller, outward, delay, most).start()


def lateness(delay: float) -> float:
    """Measure the median seconds by which a byte that waits for `delay` is late here, by waking up and passing on."""
    late = []
    source, target = socket.socketpair()
    with source, target:
        for _ in range(_PINGS):
            started = time.monotonic()
            select.select([], [], [], delay)
            source.sendall(b".")
            select.select([target], [], [])
            target.recv(1)
            late.append(time.monotonic() - started - delay)
    return max(0.0, statistics.median(late))


def _wake_on_time() -> None:
    """Have this thread, and those it starts, wake on time: Linux lets sleepers oversleep by 50 us."""
    with suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1")


def main() -> None:
    """Serve the routes of the one line on stdin, say so, and end when stdin is closed."""
    _wake_on_time()
    asked = json.loads(sys.stdin.readline())
    link = Link(asked["round_trip"], asked["rate"])
    wanted = link.round_trip / 2e3
    delay = max(0.0, wanted - lateness(min(wanted, _LONGEST_TRIAL)))
    for listen, onward in asked["routes"]:
        address = Endpoint(listen)
        server = socket.create_server((address.host, address.port), backlog=64)
        threading.Thread(target=_serve, args=(server, Endpoint(onward), link, delay), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
