"""What is written of a failed handshake and of refusals, and how often."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from parties.process.native import records
from parties.ration import Ration

LINES = [
    "I1128 15:35:35.9 14342 trace.cc:91] gRPC Tracers: handshaker\n",
    "I1128 15:35:35.9 14342 handshaker.cc:80] handshake_manager 0x7f: adding handshaker security [0x7f] at index 1\n",
    "I1128 15:35:35.9 14342 handshaker.cc:155] CallNextHandshakerLocked: error=OK shutdown=false index=0, args={}\n",
    "I1128 15:35:35.9 14342 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: HTTP_REQUEST\n",
    "I1128 15:35:35.9 14342 handshaker.cc:155] CallNextHandshakerLocked: error=UNKNOWN: Ssl handshake failed "
    "(TSI_PROTOCOL_FAILURE): HTTP_REQUEST\n",
    "=== Source Location Trace: === \n",
    "src/core/util/status_helper.cc:68\n",
    " shutdown=false index=2, args={endpoint=0x7f, args={grpc.internal.endpoint_local_address=ipv4:127.0.0.1:45297, "
    "grpc.internal.endpoint_peer_address=ipv4:10.1.2.3:35940, grpc.so_reuseport=0}, exit_early=0}\n",
    "I1128 15:35:35.9 14342 channel_trace.h:396] handshake manager 0x7f: Failed with error: UNKNOWN: Ssl handshake\n",
    "=== Source Location Trace: === \n",
    "src/core/util/status_helper.cc:68\n",
    "\n",
]


def test_a_failed_handshake_is_one_record() -> None:
    [(level, event, fields)] = records(LINES, traced=True)
    assert (level, event, fields["address"]) == (logging.WARNING, "a TLS handshake failed", "10.1.2.3:35940")
    assert fields["why"] == "UNKNOWN: Ssl handshake failed (TSI_PROTOCOL_FAILURE): HTTP_REQUEST"


def test_without_traces_the_reason_stays() -> None:
    [(_, event, fields)] = records(LINES[3:4], traced=False)
    assert event == "grpc" and "HTTP_REQUEST" in fields["text"]


def test_other_lines() -> None:
    given = ["E1128 15:35:35.9 1 server.cc:7] out of \x1b[8mfiles\n", "Fatal thing\n", "\n", "x" * 10_000 + "\n"]
    found = list(records(given, traced=True))
    assert [(level, event) for level, event, _ in found] == [
        (logging.ERROR, "grpc"),
        (logging.WARNING, "stderr"),
        (logging.WARNING, "stderr"),
    ]
    assert found[0][2]["text"] == "out of \\x1b[8mfiles" and len(found[2][2]["text"]) == 600


def test_rations() -> None:
    time = [0.0]
    ration = Ration(most=2, seconds=10, kinds=3, clock=lambda: time[0])
    assert [ration.take("a") for _ in range(5)] == [0, 0, None, None, None]
    assert ration.take("b") == 0  # a kind of its own
    time[0] += 10
    assert [ration.take("a") for _ in range(3)] == [3, 0, None]
    for kind in range(100):
        ration.take(kind)
    assert ration.take("a") == 0  # forgotten, with what was left out of it
    assert [ration.take(99) for _ in range(2)] == [0, None]  # one of the last


SERVER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from parties.process import native
native.trace_handshakes()
from parties import telemetry
from parties.trust.identity import Identity
from parties.addresses import Endpoint
from parties.config.models import TlsConfig
from parties.wire.server import serve
stack = ExitStack()
telemetry.configure("party-0", "info", native.capture(stack))
folder = Path(sys.argv[1])
tls = TlsConfig(ca=folder / "ca.pem", certificate=folder / "certificate.pem", key=folder / "key.pem")
server = serve(Identity.load(tls), Endpoint(sys.argv[2]), lambda _: None, 1 << 20)
sys.stderr.write("a library speaks\\n")
print("ready", flush=True)
sys.stdin.read()
server.stop(0)
"""


@pytest.mark.timeout(60)
def test_a_process_writes_json_only(tmp_path: Path) -> None:
    """Garbage, a caller without a certificate and a port scan: each with its address, in JSON, and no more than so."""
    from parties.trust.authority import issue, make_ca
    from tests.support.parties import free_ports

    make_ca(tmp_path / "ca", "test-ca")
    issue(tmp_path / "ca", "party-0", tmp_path / "party-0")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [sys.executable, "-c", SERVER, str(tmp_path / "party-0"), address]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as process:
        assert process.stdout.readline() == "ready\n"
        where = ("127.0.0.1", int(address.rpartition(":")[2]))
        ports = []
        for _ in range(30):
            with socket.create_connection(where) as raw:
                ports.append(raw.getsockname()[1])
                raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
                raw.recv(100)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(where) as raw, context.wrap_socket(raw) as secured:
            with suppress(OSError):
                secured.recv(1)
        _, err = process.communicate("")
    entries = [json.loads(line) for line in err.splitlines()]
    failed = [entry for entry in entries if entry["event"] == "a TLS handshake failed"]
    assert len(failed) == 20  # rationed
    assert {entry["address"] for entry in failed} <= {f"127.0.0.1:{port}" for port in ports}
    assert all("handshake" in entry["why"].lower() for entry in failed)
    assert any(entry.get("text") == "a library speaks" for entry in entries)
    assert all(entry["process"] == "party-0" for entry in entries)
