"""Find out whether a process is there, and how far away: one health check over mutual TLS."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parties.pb import party_pb2
from parties.trust.identity import Identity
from parties.wire.status import from_rpc
from parties.wire.transport import connect

_SAMPLES = 5


def probe(identity: Identity, name: str, address: str, seconds: float) -> party_pb2.Reach:
    """Reach one process, and take the median of a few round trips."""
    channel = connect(identity, name, address)
    stub = health_pb2_grpc.HealthStub(channel)
    times = []
    try:
        for _ in range(_SAMPLES):
            started = time.perf_counter()
            stub.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
            times.append(time.perf_counter() - started)
    except grpc.RpcError as error:
        known = from_rpc(error, name, address, identity)
        return party_pb2.Reach(name=name, reachable=False, problem=known.cause or known.what)
    finally:
        channel.close()
    return party_pb2.Reach(name=name, reachable=True, round_trip_seconds=statistics.median(times[1:]))


def probe_all(identity: Identity, targets: Iterable[tuple[str, str]], seconds: float) -> list[party_pb2.Reach]:
    """Probe several processes at once."""

    def reach(target: tuple[str, str]) -> party_pb2.Reach:
        name, address = target
        return probe(identity, name, address, seconds)

    chosen = list(targets)
    with ThreadPoolExecutor(max_workers=max(1, len(chosen))) as pool:
        return list(pool.map(reach, chosen))
