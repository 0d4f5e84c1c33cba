"""Every RPC, with bytes that nobody meant (security.md 8, 9): an answer or a typed error; the process lives."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import MpcError
from parties.agreed.signed import dump
from parties.agreed.terms import roster_digest
from parties.client.collections.collection import Collection
from parties.config.models import Limits
from parties.pb import collect_pb2, consent_pb2, data_pb2, party_pb2, party_pb2_grpc, provider_pb2, provider_pb2_grpc
from parties.wire.status import from_rpc
from tests.support.collections import enter_all, opened
from tests.support.effort import examples, patient
from tests.support.objects import RawPut
from tests.support.parties import (
    CLUSTER,
    COORDINATOR,
    EVERYONE,
    MODEL_OWNER,
    OWNER,
    RECIPIENT,
    InProcess,
    Script,
    deadlines,
)

pytestmark = pytest.mark.timeout(110)
SECONDS = patient(6.0)
CODES = {"internal"}  # the one code that a bug would have; nothing below may cause it
LIMITS = Limits(max_plan_bytes=1 << 16, max_sessions=256)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    quick = deadlines(connect=1, setup=8, step=2, submit=3)
    with InProcess(tmp_path_factory.mktemp("cluster"), 2, deadlines=quick, limits=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def being_put(cluster: InProcess) -> RawPut:
    """An object that its owner is putting."""
    return RawPut(cluster, OWNER).begin().enter()


@pytest.fixture(scope="module")
def collected(cluster: InProcess) -> Collection:
    """A collection that is open."""
    made = opened(cluster, "fuzzed", client=COORDINATOR)
    enter_all(cluster, made, 1)
    return made


@pytest.fixture
def script(cluster: InProcess) -> Script:
    return cluster.script().ready()


RPCS = {
    "/mpc.v1.Party/Describe": (party_pb2.DescribeRequest, "unary"),
    "/mpc.v1.Party/Propose": (party_pb2.ProposeRequest, "unary"),
    "/mpc.v1.Party/Open": (party_pb2.OpenRequest, "unary"),
    "/mpc.v1.Party/Prepare": (party_pb2.PrepareRequest, "unary"),
    "/mpc.v1.Party/Status": (party_pb2.StatusRequest, "unary"),
    "/mpc.v1.Party/Masks": (party_pb2.MasksRequest, "unary"),
    "/mpc.v1.Party/Submit": (party_pb2.SubmitPart, "requests"),
    "/mpc.v1.Party/SubmitWhole": (party_pb2.WholeInput, "unary"),
    "/mpc.v1.Party/Result": (party_pb2.ResultRequest, "replies"),
    "/mpc.v1.Party/Coordinate": (party_pb2.CoordinatePart, "many"),
    "/mpc.v1.Party/Close": (party_pb2.CloseRequest, "unary"),
    "/mpc.v1.Party/Renew": (party_pb2.RenewRequest, "unary"),
    "/mpc.v1.Party/Sessions": (party_pb2.SessionsRequest, "replies"),
    "/mpc.v1.Party/End": (party_pb2.EndRequest, "unary"),
    "/mpc.v1.Party/Store": (party_pb2.StoreRequest, "unary"),
    "/mpc.v1.Party/Keep": (party_pb2.KeepRequest, "unary"),
    "/mpc.v1.Party/Stocks": (party_pb2.StocksRequest, "replies"),
    "/mpc.v1.Party/Drop": (party_pb2.DropRequest, "unary"),
    "/mpc.v1.Data/Newest": (data_pb2.NewestRequest, "unary"),
    "/mpc.v1.Data/Begin": (data_pb2.BeginRequest, "unary"),
    "/mpc.v1.Data/PutPlan": (data_pb2.PutPlanRequest, "unary"),
    "/mpc.v1.Data/Plan": (data_pb2.PlanRequest, "replies"),
    "/mpc.v1.Data/Held": (data_pb2.HeldRequest, "replies"),
    "/mpc.v1.Data/Seeds": (data_pb2.SeedsRequest, "unary"),
    "/mpc.v1.Data/Block": (data_pb2.BlockPart, "requests"),
    "/mpc.v1.Data/Commit": (data_pb2.CommitPart, "requests"),
    "/mpc.v1.Data/Complete": (data_pb2.CompleteRequest, "unary"),
    "/mpc.v1.Data/Describe": (data_pb2.DescribeObjectRequest, "replies"),
    "/mpc.v1.Data/List": (data_pb2.ListRequest, "replies"),
    "/mpc.v1.Data/Remove": (data_pb2.SignedStatement, "unary"),
    "/mpc.v1.Consent/Say": (consent_pb2.Word, "unary"),
    "/mpc.v1.Consent/Grants": (consent_pb2.GrantsRequest, "replies"),
    "/mpc.v1.Consent/Left": (consent_pb2.LeftRequest, "unary"),
    "/mpc.v1.Consent/Audit": (consent_pb2.AuditRequest, "replies"),
    "/mpc.v1.Consent/Ask": (consent_pb2.AskRequest, "unary"),
    "/mpc.v1.Consent/Requests": (consent_pb2.RequestsRequest, "replies"),
    "/mpc.v1.Consent/Decide": (consent_pb2.DecideRequest, "unary"),
    "/mpc.v1.Consent/Policy": (consent_pb2.PolicyRequest, "unary"),
    "/mpc.v1.Consent/Clock": (consent_pb2.ClockRequest, "unary"),
    "/mpc.v1.Collect/OpenCollection": (data_pb2.SignedStatement, "unary"),
    "/mpc.v1.Collect/Standing": (collect_pb2.StandingRequest, "unary"),
    "/mpc.v1.Collect/CloseCollection": (collect_pb2.CollectionRequest, "unary"),
    "/mpc.v1.Collect/Gather": (collect_pb2.GatherPart, "requests"),
    "/mpc.v1.Collect/CompleteCollection": (collect_pb2.CompleteCollectionRequest, "unary"),
    "/mpc.v1.Peer/Exchange": (party_pb2.Frame, "both"),
    "/mpc.v1.Provider/Describe": (party_pb2.DescribeRequest, "unary"),
    "/mpc.v1.Provider/Deals": (provider_pb2.DealRequest, "many"),
    "/mpc.v1.Provider/Show": (provider_pb2.ShowPart, "requests"),
    "/mpc.v1.Provider/Weights": (provider_pb2.WeightsPart, "requests"),
    "/mpc.v1.Provider/Finish": (provider_pb2.FinishRequest, "unary"),
}


def test_every_rpc_is_walked_over() -> None:
    files = [each.DESCRIPTOR for each in (collect_pb2, consent_pb2, data_pb2, party_pb2, provider_pb2)]
    services = [service for file in files for service in file.services_by_name.values()]
    found = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert found == set(RPCS)
    assert party_pb2_grpc and provider_pb2_grpc


def call(cluster: InProcess, path: str, caller: str, requests: list[bytes]) -> MpcError | None:
    """Send raw bytes; None if they were answered."""
    callee = "provider" if "Provider" in path else "party-1"
    channel, kind = cluster.channel(caller, callee), RPCS[path][1]
    try:
        if kind == "unary":
            channel.unary_unary(path)(requests[0], timeout=SECONDS)
        elif kind == "replies":
            list(channel.unary_stream(path)(requests[0], timeout=SECONDS))
        elif kind == "many":
            list(channel.stream_stream(path)(iter(requests), timeout=SECONDS))
        elif kind == "requests":
            channel.stream_unary(path)(iter(requests), timeout=SECONDS)
        else:
            replies = [
                party_pb2.Frame.FromString(reply)
                for reply in channel.stream_stream(path)(iter(requests), timeout=SECONDS)
            ]
            assert all(reply.WhichOneof("body") in ("hello", "abort") for reply in replies)
            assert "internal" not in {reply.abort.code for reply in replies}
    except grpc.RpcError as error:
        unparsable = error.code() == grpc.StatusCode.INTERNAL and "deserializing request" in (error.details() or "")
        typed = from_rpc(error, callee, "127.0.0.1:1")
        assert unparsable or typed.code not in CODES, (path, caller, error)
        assert error.code() != grpc.StatusCode.UNAVAILABLE, "the process is gone"
        assert len(str(typed)) < 3000 and "Traceback" not in str(typed)
        return typed
    return None


CALLERS = st.sampled_from([COORDINATOR, OWNER, MODEL_OWNER, RECIPIENT, "party-0", "party-1", "provider", "stranger"])


def messages(cls: type, script: Script, being_put: RawPut, collected: Collection) -> st.SearchStrategy[bytes]:
    """Random fields, some of them those of the session that is there."""
    ids = st.sampled_from([32, 32, 32, 31, 0]).map(lambda size: script.id[:size])  # of the session that is there now
    known: dict[str, Any] = {
        "session_id": ids,
        "plan": st.sampled_from([script.plan.canonical, b"", b"{}", b"[" * 60_000, script.plan.canonical[:-1]]),
        "plan_digest": st.sampled_from([script.plan.digest, bytes(32), b""]),
        "parties": st.lists(st.sampled_from([*script.cluster.names, "", "x" * 1000]), max_size=4),
        "nonces": st.lists(st.sampled_from([*script.terms.nonces, bytes(32), b"", b"y" * 500]), max_size=4),
        "wire": st.sampled_from([script.input_wire, script.output_wire, "", "\x00" * 300, *script.compiled.weights]),
        "run": st.sampled_from([0, 1, 2, 3, 1 << 31, (1 << 32) - 1]),
        "batch": st.sampled_from([0, 1, 2, 4096, 4097, (1 << 32) - 1]),
        "batches": st.lists(st.sampled_from([0, 1, 4096, (1 << 32) - 1]), max_size=4),
        "session_ids": st.lists(ids, max_size=4),
        "digests": st.lists(st.sampled_from([bytes(32), b""]), max_size=4),
        "roster": st.sampled_from([roster_digest("provider", script.cluster.names, CLUSTER), b""]),
        "probe": st.just(False),
        "put": st.sampled_from([being_put.id, being_put.id, bytes(16), b""]),
        "schema": st.sampled_from([being_put.schema.content, b"{}", b"[" * 60_000, being_put.schema.content[:-1]]),
        "commitment": st.sampled_from([being_put.seeds[1][0].commitment(), bytes(32), b""]),
        "place": st.sampled_from([0, 0, 1, (1 << 32) - 1]),
        "block": st.sampled_from([0, 0, 1, (1 << 32) - 1]),
        "places": st.lists(st.sampled_from([0, 0, 1, (1 << 32) - 1]), max_size=4),
        "collection": st.sampled_from([collected.said.id, "0" * 64, ""]),
        "name": st.sampled_from([collected.name, being_put.schema.name, "", "a/b", "x" * 1000]),
        "object": st.sampled_from([being_put.manifest().id, bytes(32), b""]),
        "content": st.sampled_from([being_put.manifest().content, b"{}", b"[" * 60_000]),
    }

    if cls is consent_pb2.RequestsRequest:
        del known["plan"]  # says whether it is wanted
    if cls is data_pb2.SignedStatement:
        known["content"] |= st.just(dump(collected.said.model_dump(mode="json")))

    def build(message_class: type) -> st.SearchStrategy[Any]:
        fields = {}
        for field in message_class.DESCRIPTOR.fields:
            fields[field.name] = (
                known[field.name]
                if field.name in known
                else {
                    field.TYPE_BYTES: st.binary(max_size=64) | st.just(bytes(1 << 20)),
                    field.TYPE_STRING: st.text(max_size=20),
                    field.TYPE_UINT32: st.integers(0, (1 << 32) - 1),
                    field.TYPE_UINT64: st.integers(0, (1 << 64) - 1),
                    field.TYPE_BOOL: st.booleans(),
                    field.TYPE_DOUBLE: st.floats(),
                }.get(field.type, None)
            )
            if field.message_type is not None:
                fields[field.name] = build(GetMessageClass(field.message_type))
            if field.is_repeated and field.name not in known and fields[field.name] is not None:
                fields[field.name] = st.lists(fields[field.name], max_size=3)
        chosen = {name: strategy for name, strategy in fields.items() if strategy is not None}
        return st.fixed_dictionaries({}, optional=chosen).map(lambda given: message_class(**given))

    return build(cls).map(lambda message: message.SerializeToString())


@pytest.mark.parametrize("path", RPCS, ids=lambda path: path.rpartition("v1.")[2].replace("/", "."))
def test_an_answer_or_a_typed_error(
    cluster: InProcess, script: Script, being_put: RawPut, collected: Collection, path: str
) -> None:
    cls, _ = RPCS[path]
    shaped = messages(cls, script, being_put, collected)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @examples(25)
    @given(caller=CALLERS, requests=st.lists(shaped | st.binary(max_size=200), min_size=1, max_size=3))
    def attempt(caller: str, requests: list[bytes]) -> None:
        if script.id not in cluster.sessions(1):
            script.ready()
        call(cluster, path, caller, requests)

    attempt()
    for oversized in (bytes(1 << 20), b"\x0a" + b"\xff" * 9 + bytes(100), bytes(8 << 20)):
        call(cluster, path, COORDINATOR, [oversized])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 400_000, f"{grown} kB"
    for name in (*cluster.names, "provider"):
        stub = cluster.dealer(COORDINATOR) if name == "provider" else cluster.party(cluster.names.index(name))
        assert stub.Describe(party_pb2.DescribeRequest()).name == name


def test_plans_with_anything_in_them(cluster: InProcess, script: Script) -> None:
    """One leaf of a good plan replaced by something else: a nonce, or a plan error."""
    good = json.loads(script.plan.canonical)
    paths: list[tuple] = []

    def walk(node: Any, path: tuple) -> None:
        if isinstance(node, dict | list):
            for key, value in node.items() if isinstance(node, dict) else enumerate(node):
                walk(value, (*path, key))
        paths.append(path)

    walk(good, ())
    values = st.sampled_from(
        [
            None,
            True,
            0,
            1,
            -1,
            59,
            60,
            1 << 31,
            1 << 64,
            10**400,
            0.5,
            "",
            "1/0",
            "1e9",
            "batch",
            "x" * 70,
            [],
            {},
            [[]],
        ]
    )

    @examples(150)
    @given(path=st.sampled_from(paths), value=values, drop=st.booleans())
    def attempt(path: tuple, value: Any, drop: bool) -> None:
        plan = json.loads(script.plan.canonical)
        node = plan
        for key in path[:-1]:
            node = node[key]
        if not path:
            plan = value
        elif drop:
            del node[path[-1]]
        else:
            node[path[-1]] = value
        encoded = json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()
        request = party_pb2.ProposeRequest(plan=encoded).SerializeToString()
        error = call(cluster, "/mpc.v1.Party/Propose", COORDINATOR, [request])
        assert error is None or error.exit_code == 5, error

    attempt()
    assert EVERYONE.plans == ("any",)
