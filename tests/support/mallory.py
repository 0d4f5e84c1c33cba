"""What somebody with one certificate does to stop everybody: run as a process of its own until it is ended.

Usage: python -m tests.support.mallory CLUSTER_FILE SESSION_ID
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from parties.config.load import load
from parties.config.models import ClusterConfig
from parties.pb import party_pb2
from parties.trust.identity import Identity
from parties.wire.transport import connect

MIB = 1 << 20
PAUSE = 0.25
"""Seconds between two calls of one thread, some 300 calls a second in all: parties bound places and memory, not the
processor time that a flood of refused calls takes."""
METHODS = ("Propose", "Open", "Prepare", "Status", "Masks", "SubmitWhole", "Close", "Renew", "End", "Store", "Drop")


def silent(seconds: float) -> Iterator[bytes]:
    """A message that does not come."""
    time.sleep(seconds)
    yield from ()


def attacks(session_id: bytes) -> dict[str, Callable[[grpc.Channel], object]]:
    """What each thread does, again and again, on a channel of its own or on a new one."""
    dice = random.Random(1)
    waiting = party_pb2.ResultRequest(session_id=session_id, run=1, values=True).SerializeToString()
    brackets = party_pb2.ProposeRequest(plan=b"[" * (MIB - 100)).SerializeToString()
    spaces = party_pb2.ProposeRequest(plan=b" " * (15 * MIB)).SerializeToString()

    def results(channel: grpc.Channel) -> object:
        return list(channel.unary_stream("/mpc.v1.Party/Result")(waiting, timeout=20))

    def plans(channel: grpc.Channel) -> object:
        return channel.unary_unary("/mpc.v1.Party/Propose")(dice.choice((brackets, spaces)), timeout=20)

    def half_open(channel: grpc.Channel) -> object:
        method = dice.choice(("Submit", *METHODS))
        return channel.stream_unary(f"/mpc.v1.Party/{method}")(silent(20), timeout=20)

    def garbage(channel: grpc.Channel) -> object:
        data = dice.randbytes(dice.choice((0, 10, 1000, MIB // 2)))
        return channel.unary_unary(f"/mpc.v1.Party/{dice.choice(METHODS)}")(data, timeout=20)

    def frames(channel: grpc.Channel) -> object:
        data = [dice.randbytes(100) for _ in range(3)]
        return list(channel.stream_stream("/mpc.v1.Peer/Exchange")(iter(data), timeout=20))

    return {"results": results, "plans": plans, "half open": half_open, "garbage": garbage, "frames": frames}


def main(path: str, session_id: str) -> None:
    config = load(ClusterConfig, Path(path))
    identity = Identity.load(config.tls, config.name, members=config.machines)

    def again(peer: int, attack: Callable[[grpc.Channel], object]) -> None:
        target = config.parties[peer]
        channel = connect(identity, target.name, target.address)
        while True:
            try:
                attack(channel)
            except grpc.RpcError:
                pass
            time.sleep(PAUSE)

    counts = {"results": 24, "plans": 2, "half open": 48, "garbage": 4, "frames": 4}
    for name, attack in attacks(bytes.fromhex(session_id)).items():
        for number in range(counts[name]):
            threading.Thread(target=again, args=(number % len(config.parties), attack), daemon=True).start()
    print("begun", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
