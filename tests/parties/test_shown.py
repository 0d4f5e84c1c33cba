"""Manifests and seeds that do not fit one message: a party shows them to the provider in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mpc.errors import HandshakeError, MpcError, PeerError, PolicyError
from mpc.plan.plan import digest_of
from parties.agreed.terms import Terms
from parties.client.collections import collection
from parties.party import supply
from parties.pb import provider_pb2
from parties.provider import service
from parties.wire.pieces import pieces
from tests.support.collections import SIZE, enter_all, opened, over
from tests.support.parties import InProcess, eventually


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("shown"), 2) as running:
        yield running


@pytest.mark.parametrize("most", [0, supply.MOST_AT_ONCE])
def test_what_is_shown_in_pieces_is_what_is_shown_at_once(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(supply, "MOST_AT_ONCE", most)
    seen = list[int]()

    def watched(data: bytes) -> Iterator[bytes]:
        seen.append(len(data))
        return pieces(data)

    monkeypatch.setattr(supply, "pieces", watched)
    made = opened(cluster, f"shown-{most}", at_most=3, epsilon=5, delta="1/100000")
    rows = enter_all(cluster, made, 3)
    over(cluster, monkeypatch)
    found = collection.find(cluster.client(), made.name).sum()
    assert np.abs(found.value - sum(rows)).max() < 6.5 * found.std and found.value.shape == (SIZE,)
    assert len(seen) == (0 if most else 2)


def header(cluster: InProcess, size: int, **changes: object) -> provider_pb2.ShowPart:
    """Of a session whose plan nobody needs to read."""
    plan, nonces = b"{}", (b"a" * 32, b"b" * 32)
    terms = provider_pb2.SessionTerms(plan=plan, parties=cluster.names, nonces=nonces)
    session = Terms(digest_of(plan), "provider", cluster.names, nonces).session_id
    fields = {"session_id": session, "terms": terms, "size": size} | changes
    return provider_pb2.ShowPart(header=provider_pb2.ShowHeader(**fields))  # type: ignore[arg-type]


def chunk(size: int = 8) -> provider_pb2.ShowPart:
    return provider_pb2.ShowPart(chunk=b"\xff" * size)


@pytest.mark.parametrize(
    ("kind", "refusal", "reason"),
    [
        ("nothing", PeerError, "is its header"),
        ("no header", PeerError, "is its header"),
        ("too much", PolicyError, "are read for one session"),
        ("another id", HandshakeError, "does not belong to these terms"),
        ("no plan", MpcError, "plan"),
    ],
)
def test_what_is_shown_and_is_nothing_is_refused(
    cluster: InProcess, kind: str, refusal: type[MpcError], reason: str
) -> None:
    parts = {
        "nothing": [],
        "no header": [chunk()],
        "too much": [header(cluster, service.MOST_SHOWN + 1)],
        "another id": [header(cluster, 8, session_id=b"z" * 32), chunk()],
        "no plan": [header(cluster, 8), chunk()],
    }[kind]
    assert eventually(lambda: not cluster.provider.budget.taken)  # of tests before
    with pytest.raises(refusal, match=reason):
        cluster.dealer("party-0").Show(iter(parts))
    assert not cluster.provider.budget.taken and not cluster.provider.sessions()


def test_nobody_but_a_party_shows_anything(cluster: InProcess) -> None:
    with pytest.raises(PolicyError, match="its own parties only"):
        cluster.dealer("stranger").Show(iter([header(cluster, 8), chunk()]))


def test_memory_is_taken_as_pieces_come(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken when the header had come, and so held by who then sent nothing."""
    budget, taken, sizes = cluster.provider.budget, list[int](), list[int]()
    take = budget.take

    def watched(count: int, client: str = "") -> None:
        taken.append(count)
        take(count, client)

    def halves(data: bytes) -> list[bytes]:
        sizes.append(len(data))
        return [data[:100], data[100:]]

    made = opened(cluster, "as-pieces-come", at_most=3, epsilon=5, delta="1/100000")
    enter_all(cluster, made, 3)
    over(cluster, monkeypatch)
    monkeypatch.setattr(supply, "MOST_AT_ONCE", 0)
    monkeypatch.setattr(supply, "pieces", halves)
    monkeypatch.setattr(budget, "take", watched)
    assert collection.find(cluster.client(), made.name).sum().rows == 3
    assert len(sizes) == 2 and not {8 * size for size in sizes} & set(taken)
    assert taken.count(800) == 2 and all(8 * (size - 100) in taken for size in sizes)


@pytest.mark.parametrize("kind", ["fewer bytes", "more bytes", "garbage"])
def test_pieces_that_are_not_what_was_said_end_nothing_but_the_session(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Of a real session: it does not open, and what it held is given back; the next one does."""
    made = opened(cluster, f"pieces-{kind.replace(' ', '-')}", at_most=3, epsilon=5, delta="1/100000")
    enter_all(cluster, made, 3)
    over(cluster, monkeypatch)
    made = collection.find(cluster.client(), made.name)
    before = cluster.provider.budget.taken
    with monkeypatch.context() as bad:
        bad.setattr(supply, "MOST_AT_ONCE", 0)
        cut = {
            "fewer bytes": lambda data: [data[:-1]],
            "more bytes": lambda data: [data, b"x"],
            "garbage": lambda data: [b"\xff" * len(data)],
        }[kind]
        bad.setattr(supply, "pieces", cut)
        with pytest.raises(MpcError, match="bytes|no manifest|ended the session"):
            made.sum()
    assert made.sum().rows == 3
    assert eventually(lambda: cluster.provider.budget.taken <= before or not cluster.provider.sessions())
