"""A party's side of the provider: fetch a bundle, use it while it arrives, check its manifest.

The provider sends the seed at once, corrections as it deals them, and behind each segment what it signs of it, the
manifest behind the first.  A party expands and prepares meanwhile, which tells nobody anything; what it was dealt of a
segment is checked before anything that was computed with it leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import grpc
import numpy as np

from mpc.correlations import BundleId, corrected_party
from mpc.encoding import view_field
from mpc.errors import IntegrityError, PeerError, SessionError
from mpc.plan.cost import public_bytes
from mpc.plan.plan import Plan
from mpc.plan.segments import segments
from parties.agreed import manifest
from parties.agreed.bindings import write_bindings
from parties.agreed.endorsements import write_endorsements
from parties.agreed.keeps import write_keeps
from parties.agreed.memory import prepared_ahead
from parties.agreed.signed import Signed
from parties.agreed.terms import Terms
from parties.config.models import PartyConfig
from parties.party.arriving import Arriving, Source, read_next
from parties.party.deals import Deals
from parties.party.delivery import Delivery, Signatures
from parties.party.stored import StoredRows
from parties.pb import provider_pb2, provider_pb2_grpc
from parties.trust.identity import Identity
from parties.wire.frames import Chunk
from parties.wire.pieces import pieces, time_for
from parties.wire.status import from_rpc
from parties.wire.transport import FRAME_BYTES, connect, patience


class Supply(Protocol):
    """Where a session's bundles come from: dealt by the provider as they are asked for, or dealt ahead and stored."""

    stored: bool
    """The bundles were dealt ahead: the ledger lists them, and opens their session once."""

    def fetch_weights(self, session_id: bytes, terms: Terms, plan: Plan, stored: StoredRows | None = None) -> Delivery:
        """Fetch the bundle of the weights, the first of a session; show whoever deals seeds of what is stored."""

    def fetch(self, terms: Terms, bundle: BundleId, weights: bytes) -> Delivery:
        """Fetch the bundle of one run.

        weights: digest of the public weights that this party holds; empty if there are none.
        """

    def hand_over(self, terms: Terms, weights: Mapping[str, np.ndarray]) -> None:
        """Tell whoever deals the session's public weights, in plan order."""


MOST_AT_ONCE = FRAME_BYTES // 2
"""Bytes of a session's terms that travel in one message with what is shown of stored objects."""


class LiveSupply:
    """The connection to the one provider that this party's config names."""

    stored = False

    def __init__(self, config: PartyConfig, identity: Identity) -> None:
        self._config, self._identity = config, identity
        self._channel = connect(identity, config.provider.name, config.provider.address)
        self._stub = provider_pb2_grpc.ProviderStub(self._channel)
        self._limits: dict[bytes, Plan] = {}
        self._deals = Deals(self._channel)

    def fetch_weights(self, session_id: bytes, terms: Terms, plan: Plan, stored: StoredRows | None = None) -> Delivery:
        """The bundle of the weights, which opens the session at the provider, and with it what it has to see of data
        at rest."""
        self._limits[session_id] = plan
        agreed = provider_pb2.SessionTerms(plan=plan.canonical, parties=terms.parties, nonces=terms.nonces)
        agreed.keeps.extend(write_keeps(terms.keeps))
        if stored is not None:
            agreed.bindings.extend(write_bindings(terms.bindings))
            shown = provider_pb2.Shown(
                objects=[_object(each) for each in stored.objects()],
                seeds=[provider_pb2.StoredSeeds(seeds=[seed.secret for seed in seeds]) for seeds in stored.seeds()],
            )
            if agreed.ByteSize() + shown.ByteSize() > MOST_AT_ONCE:
                self._show(terms, agreed, shown)
            else:
                agreed.objects.extend(shown.objects)
                agreed.seeds.extend(shown.seeds)
        return self._fetch(terms, BundleId.of_weights(session_id), plan, {"terms": agreed})

    def _show(self, terms: Terms, agreed: provider_pb2.SessionTerms, shown: provider_pb2.Shown) -> None:
        """Show the provider what it has to see of data at rest, in pieces: objects of many blocks are large."""
        provider, data = self._config.provider, shown.SerializeToString()
        header = provider_pb2.ShowHeader(session_id=terms.session_id, terms=agreed, size=len(data))

        def parts() -> Iterator[provider_pb2.ShowPart]:
            yield provider_pb2.ShowPart(header=header)
            for piece in pieces(data):
                yield provider_pb2.ShowPart(chunk=piece)

        try:
            within = time_for(self._config.deadlines.setup, len(data))
            self._stub.Show(parts(), timeout=patience(within), wait_for_ready=False)
        except grpc.RpcError as error:
            raise from_rpc(error, provider.name, provider.address, self._identity) from None

    def hand_over(self, terms: Terms, weights: Mapping[str, np.ndarray]) -> None:
        """Tell the provider the session's public weights, in plan order: it deals for what is made of them."""
        provider = self._config.provider

        def parts() -> Iterator[provider_pb2.WeightsPart]:
            yield provider_pb2.WeightsPart(header=provider_pb2.WeightsHeader(session_id=terms.session_id))
            for values in weights.values():
                for piece in pieces(view_field(values)):
                    yield provider_pb2.WeightsPart(chunk=piece)

        try:
            within = time_for(self._config.deadlines.setup, sum(each.nbytes for each in weights.values()))
            self._stub.Weights(parts(), timeout=patience(within), wait_for_ready=False)
        except grpc.RpcError as error:
            raise from_rpc(error, provider.name, provider.address, self._identity) from None

    def fetch(self, terms: Terms, bundle: BundleId, weights: bytes) -> Delivery:
        """The bundle of one run.

        weights: digest of the public weights that this party holds; empty if there are none.
        """
        plan = self._limits.get(bundle.session)
        if plan is None:
            raise SessionError("the session ended while this run was prepared")
        bound = plan.at(bundle.entry.number).bind(bundle.batch)
        return self._fetch(terms, bundle, bound, {"weights": weights})

    def finish(self, session_id: bytes) -> None:
        """Tell the provider, without waiting, that the session is over."""
        if self._limits.pop(session_id, None) is not None:
            self._deals.finish(session_id)
            request = provider_pb2.FinishRequest(session_id=session_id)
            with suppress(ValueError):  # this process is stopping, and the channel is closed already
                call = self._stub.Finish.future(request, timeout=self._config.deadlines.connect)
                call.add_done_callback(lambda _: None)  # it holds the call: one that nobody holds is cancelled

    def _fetch(self, terms: Terms, bundle: BundleId, plan: Plan, more: dict[str, Any]) -> Delivery:
        """The part of a bundle of a bound plan that is this party's.

        Nobody waits longer than `deadlines.setup` for anything to come; the stream may take as long as a run.
        """
        provider, seconds = self._config.provider, self._config.deadlines.setup
        parts = segments(plan, bundle.entry)
        mine = terms.parties[corrected_party(bundle, len(terms.parties))] == self._config.name
        request = provider_pb2.DealRequest(
            session_id=bundle.session, run=bundle.entry.number, batch=bundle.batch, **more
        )
        replies = self._deals.ask(request, len(parts))
        source = Source(self._identity, provider.name, provider.address, seconds, replies.cancel)
        handed = public_bytes(plan) if bundle.entry.number == 1 else 0  # the provider waits for those
        first = read_next(replies, replace(source, seconds=time_for(seconds, handed)), bounded=True)
        if first is None:
            raise PeerError("the provider answered nothing", peer=provider.name)
        if isinstance(first, Chunk) or first.WhichOneof("part") != "header":
            raise PeerError("the provider's first message has no header", peer=provider.name)
        if first.header.corrections != (parts[-1].stop if mine else 0):
            raise IntegrityError("the provider deals more or less than the plan says", peer=provider.name)
        seed = manifest.read_seed(first.header.seed, provider.name)
        signatures = Signatures(self._identity.trust, terms, bundle)
        window: int | None = self._config.limits.max_window_bytes
        if not bundle.entry.is_weights:
            window = prepared_ahead(plan, window)
        return Arriving(seed, parts, mine, signatures, window, bundle.digest_key(seed), replies, source)

    def close(self) -> None:
        self._channel.close()


def _object(signed: Signed) -> provider_pb2.StoredObject:
    return provider_pb2.StoredObject(
        manifest=signed.content,
        signature=signed.signature,
        certificate=signed.certificate,
        endorsements=write_endorsements(signed),
    )
