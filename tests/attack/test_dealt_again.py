"""A party has a provider that was restarted deal for an open session once more, and hands over what that one signed.

Both manifests are the provider's, for one session, run and batch, so each seed is what one of them says.  An owner
that adds up masks of two deals, or a recipient that subtracts them, is off by the difference, and no check of the
parties sees it.  So clients want one manifest of all parties; and where runs are checked a provider deals nothing
before all parties have asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.correlations import Bundle, BundleId
from mpc.errors import IntegrityError, PeerError
from mpc.fixedpoint import encode
from mpc.plan.checking import dealt_tags
from mpc.plan.plan import Security
from mpc.prg import Seed
from parties.client.running.coordinated import CoordinatedSession
from parties.party.coordinating import Ended
from parties.party.services import PartyService
from parties.pb import party_pb2
from parties.pb.party_pb2 import Manifest
from parties.pb.provider_pb2 import DealRequest, SessionTerms
from parties.provider.sessions import ProviderSession
from tests.support.effort import patient
from tests.support.parties import InProcess, altered, data, tiny_answer

BATCH, CHEATER = 2, 1
Seeds = Any
"""A reply's mask seeds, by wire."""


class Again(PartyService):
    """Hands over what it was dealt again."""

    at: str = ""
    submitted: list[int]
    replace: Callable[[int, Manifest, Seeds], None]

    def Masks(self, request: party_pb2.MasksRequest, context: Any) -> party_pb2.MasksReply:
        reply = super().Masks(request, context)
        if Again.at == ("input" if request.run else "weights"):
            Again.replace(request.run, reply.manifest, reply.seeds)
        return reply

    def SubmitWhole(self, request: party_pb2.WholeInput, context: Any) -> party_pb2.SubmitReply:
        Again.submitted.append(request.header.run)
        return super().SubmitWhole(request, context)

    def result(self, request: party_pb2.ResultRequest, context: Any) -> Ended:
        def alter(part: party_pb2.ResultPart) -> None:
            if Again.at == "output" and part.WhichOneof("part") == "header":
                Again.replace(request.run, part.header.manifest, part.header.outputs)

        return altered(super().result(request, context), alter)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 3, services={CHEATER: Again}) as running:
        yield running


@pytest.fixture(autouse=True)
def honest() -> Iterator[None]:
    Again.submitted = []
    yield
    Again.at = ""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider deals as soon as anybody asks: clients have to see by themselves what comes of it."""
    monkeypatch.setattr(ProviderSession, "whole", True)
    monkeypatch.setattr(ProviderSession, "require_whole", lambda self: None)


def dealt_again(cluster: InProcess, session: bytes, run: int) -> tuple[Bundle, Manifest]:
    """Return what the cheater has of a bundle that is dealt once more, by a provider that has forgotten the session."""
    found = cluster.of(CHEATER, session)
    terms = SessionTerms(plan=found.plan.canonical, parties=found.terms.parties, nonces=found.terms.nonces)
    cluster.stop_provider()
    cluster.start_provider()
    dealer = cluster.dealer(cluster.names[CHEATER])
    parts = dealer.deal(DealRequest(session_id=session, run=0, batch=1, terms=terms))
    bundle, plan = BundleId.of_weights(session), found.plan
    if run:
        parts = dealer.deal(DealRequest(session_id=session, run=run, batch=BATCH))
        bundle, plan = BundleId.of_run(session, run, BATCH), found.plan.at(run).bind(BATCH)
    seed, tags = Seed(parts[0].header.seed), dealt_tags(plan, bundle.entry)
    return Bundle(bundle, seed, plan.dealt(bundle.entry), plan.wire, None, tags), parts[-1].end.manifest


def attempt(cluster: InProcess, security: Security) -> None:
    """A run, in which the cheater replaces what it hands over; its answer is right if there is one."""

    def replace(run: int, manifest: Manifest, seeds: Seeds) -> None:
        [session] = cluster.sessions(CHEATER)
        bundle, signed = dealt_again(cluster, session, run)
        assert signed.content != manifest.content
        manifest.CopyFrom(signed)
        for each in seeds:
            each.seed = bundle.mask_seed(each.wire).secret

    Again.replace = staticmethod(replace)
    compiled = cluster.compiled(Roles(security=security))
    session = CoordinatedSession(cluster.client(), compiled.plan, compiled.weights)
    try:
        [given], [out] = session.plan.inputs, session.plan.outputs
        integers = encode(data(BATCH), session.plan.wire[given.wire].scale)
        found, _ = session.run({given.wire: integers}, BATCH, time.perf_counter)
        scale = float(session.plan.wire[out.wire].scale)
        np.testing.assert_allclose(found[out.wire] / scale, tiny_answer(data(BATCH)), atol=1e-3)
    finally:
        session.close()


@pytest.mark.parametrize(("at", "left"), [("weights", []), ("input", [0] * 4), ("output", [0] * 4 + [1])])
def test_security_active_what_was_dealt_again_is_not_believed(
    cluster: InProcess, hasty: None, at: str, left: list[int]
) -> None:
    Again.at = at
    with pytest.raises(IntegrityError, match="different manifests of one bundle") as caught:
        attempt(cluster, "active")
    assert caught.value.exit_code == 7
    assert Again.submitted == left, "nothing left its owner under masks of two deals"
    assert cluster.is_idle()


def test_the_control(cluster: InProcess) -> None:
    """Also where nobody wants runs checked."""
    attempt(cluster, "passive")


def test_security_active_a_party_alone_is_dealt_nothing(cluster: InProcess) -> None:
    """Not when the provider was restarted, and not before the others have greeted and asked."""
    compiled = cluster.compiled(Roles(security="active"))
    session = CoordinatedSession(cluster.client(), compiled.plan, compiled.weights)
    try:
        terms = SessionTerms(plan=session.plan.canonical, parties=session.terms.parties, nonces=session.terms.nonces)
        cluster.stop_provider()
        cluster.start_provider()
        request = DealRequest(session_id=session.id, run=0, batch=1, terms=terms)
        with pytest.raises(PeerError, match="party-0 has not asked for the session") as caught:
            cluster.dealer(cluster.names[CHEATER]).deal(request, patient(2))
        assert caught.value.peer == "party-0"
        assert not cluster.provider.sessions()[0].bundles
    finally:
        session.close()
