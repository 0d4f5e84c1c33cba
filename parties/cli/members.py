"""Ask processes how they are, as whoever has a cluster file: `Describe`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import grpc

from mpc.errors import MpcError
from parties.config.load import load
from parties.config.models import ClusterConfig, Peer
from parties.local.launcher import MemberStatus
from parties.local.layout import LocalLayout
from parties.pb import party_pb2, party_pb2_grpc, provider_pb2_grpc
from parties.trust.identity import Identity
from parties.wire.status import from_rpc
from parties.wire.transport import connect


def describe(identity: Identity, peer: Peer, role: str, seconds: float, probe: bool = False) -> party_pb2.DescribeReply:
    """Ask a process who it is and how it is.

    Args:
        seconds: to wait for the answer.
        probe: a party also tries to reach the others.

    Raises:
        MpcError: it cannot be asked.
    """
    channel = connect(identity, peer.name, peer.address)
    make = provider_pb2_grpc.ProviderStub if role == "provider" else party_pb2_grpc.PartyStub
    request = party_pb2.DescribeRequest(probe=probe)
    try:
        reply: party_pb2.DescribeReply = make(channel).Describe(request, timeout=seconds)
        return reply
    except grpc.RpcError as error:
        raise from_rpc(error, peer.name, peer.address, identity) from None
    finally:
        channel.close()


def behind(reply: party_pb2.DescribeReply) -> str:
    """Say by how much a party's clock is behind what it has shown; empty where that is borne."""
    if not reply.clock_behind > 0:
        return ""
    lag = datetime.timedelta(seconds=round(min(reply.clock_behind, 1e12)))
    return f"its clock is {lag} behind the latest time that it has shown, so it gives nothing at rest"


def ask_members(layout: LocalLayout, members: Sequence[MemberStatus]) -> list[MemberStatus]:
    """Have each process that serves say what is wrong with it, all at once; the others stay as they are."""
    with suppress(MpcError):
        config = load(ClusterConfig, layout.cluster_file)
        identity = Identity.load(config.tls, config.name, members=config.machines)

        def ask(member: MemberStatus) -> MemberStatus:
            if member.state != "serving":
                return member
            peer = Peer(name=member.name, address=member.address)
            try:
                reply = describe(identity, peer, member.role, config.deadlines.connect)
            except MpcError as error:
                return replace(member, note=error.what)
            return replace(
                member, state="not serving" if reply.problem else member.state, note=reply.problem or behind(reply)
            )

        with ThreadPoolExecutor(max_workers=max(1, len(members))) as pool:
            return list(pool.map(ask, members))
    return [*members]
