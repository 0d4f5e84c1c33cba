"""A party's side of the provider: fetch a bundle, check its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from mpc.compiler.plan import Plan
from mpc.correlations import BundleId, corrected_party
from mpc.cost import plan_cost
from mpc.encoding import view_field
from mpc.errors import IntegrityError, PeerError, SessionError
from mpc.prg import SEED_BYTES, Seed
from parties import manifest
from parties.certificates import Identity
from parties.config import PartyConfig
from parties.manifest import Manifest
from parties.pb import party_pb2, provider_pb2, provider_pb2_grpc
from parties.terms import Terms
from parties.transport import collect, connect, from_rpc, pieces


@dataclass(frozen=True)
class Delivery:
    """What the provider sent for one bundle, checked against its manifest.

    Args:
        corrections: None unless this party is the corrected one.
        size: bytes of correlations received.
    """

    seed: Seed
    corrections: memoryview | None = field(repr=False)
    manifest: Manifest
    signed: party_pb2.Manifest
    deal_seconds: float
    size: int


class Dealings:
    """The connection to the one provider that this party's config names."""

    def __init__(self, config: PartyConfig, identity: Identity) -> None:
        self._config, self._identity = config, identity
        self._channel = connect(identity, config.provider.name, config.provider.address)
        self._stub = provider_pb2_grpc.ProviderStub(self._channel)
        self._limits: dict[bytes, Plan] = {}

    def fetch_weights(self, session_id: bytes, terms: Terms, plan: Plan) -> Delivery:
        """The bundle of the weights, which opens the session at the provider."""
        self._limits[session_id] = plan
        agreed = provider_pb2.SessionTerms(plan=plan.canonical, parties=terms.parties, nonces=terms.nonces)
        return self._fetch(terms, BundleId(session_id, 0, 1), 0, {"terms": agreed})

    def hand_over(self, terms: Terms, weights: Mapping[str, np.ndarray]) -> None:
        """Tell the provider the session's public weights, in plan order: it deals for what is made of them."""
        provider = self._config.provider

        def parts() -> Iterator[provider_pb2.WeightsPart]:
            yield provider_pb2.WeightsPart(header=provider_pb2.WeightsHeader(session_id=terms.session_id))
            for values in weights.values():
                for piece in pieces(view_field(values)):
                    yield provider_pb2.WeightsPart(chunk=piece)

        try:
            self._stub.Weights(parts(), timeout=self._config.deadlines.setup, wait_for_ready=False)
        except grpc.RpcError as error:
            raise from_rpc(error, provider.name, provider.address) from None

    def fetch(self, terms: Terms, bundle: BundleId, weights: bytes) -> Delivery:
        """The bundle of one run.

        weights: digest of the public weights that this party holds; empty if there are none.
        """
        plan = self._limits.get(bundle.session)
        if plan is None:
            raise SessionError("the session ended while this run was prepared")
        most = plan_cost(plan, bundle.batch).dealt
        return self._fetch(terms, bundle, most, {"weights": weights})

    def finish(self, session_id: bytes) -> None:
        """Tell the provider, without waiting, that the session is over."""
        if self._limits.pop(session_id, None) is not None:
            request = provider_pb2.FinishRequest(session_id=session_id)
            with suppress(ValueError):  # this process is stopping, and the channel is closed already
                call = self._stub.Finish.future(request, timeout=self._config.deadlines.connect)
                call.add_done_callback(lambda _: None)  # it holds the call: one that nobody holds is cancelled

    def _fetch(self, terms: Terms, bundle: BundleId, most: int, more: dict[str, Any]) -> Delivery:
        provider = self._config.provider
        request = provider_pb2.DealRequest(session_id=bundle.session, run=bundle.run, batch=bundle.batch, **more)
        try:
            replies = self._stub.Deal(request, timeout=self._config.deadlines.setup, wait_for_ready=False)
            first = next(replies)
            if first.WhichOneof("part") != "header":
                raise PeerError("the provider's first message has no header", peer=provider.name)
            header = first.header
            mine = self._is_corrected(terms, bundle)
            expected = most if mine else 0
            if header.corrections != expected:
                raise IntegrityError("the provider deals more or less than the plan says", peer=provider.name)
            corrections = collect((reply.chunk for reply in replies), expected, "corrections", provider.name)
        except grpc.RpcError as error:
            raise from_rpc(error, provider.name, provider.address) from None
        except StopIteration:
            raise PeerError("the provider answered nothing", peer=provider.name) from None
        checked = manifest.verify(self._identity.ca_pem, terms, bundle, header.manifest)
        if mine:
            checked.check_corrections(corrections)
        return Delivery(
            manifest.read_seed(header.seed, provider.name),
            corrections if mine else None,
            checked,
            header.manifest,
            header.deal_seconds,
            SEED_BYTES + len(corrections),
        )

    def _is_corrected(self, terms: Terms, bundle: BundleId) -> bool:
        return terms.parties[corrected_party(bundle, len(terms.parties))] == self._config.name

    def close(self) -> None:
        self._channel.close()
