"""A party's side of the provider: fetch a bundle, use it while it arrives, check its manifest.

The provider sends the seed at once, corrections as it deals them, and the signed manifest last.  A
party expands and prepares meanwhile, which tells nobody anything; what it was dealt is checked
before the run can be used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import numpy as np

from mpc.correlations import BundleId, Corrections, CorrectionsDigest, corrected_party
from mpc.encoding import view_field
from mpc.errors import IntegrityError, MpcError, PeerError, SessionError
from mpc.plan.cost import plan_cost, session_dealt
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES, Seed
from parties import telemetry
from parties.agreed import manifest
from parties.agreed.bindings import write_bindings
from parties.agreed.endorsements import write_endorsements
from parties.agreed.keeps import write_keeps
from parties.agreed.manifest import Manifest
from parties.agreed.signed import Signed
from parties.agreed.terms import Terms
from parties.config.models import PartyConfig
from parties.party.stored import StoredRows
from parties.pb import party_pb2, provider_pb2, provider_pb2_grpc
from parties.trust.identity import Identity
from parties.wire import frames
from parties.wire.frames import Chunk
from parties.wire.inflow import Inflow
from parties.wire.pieces import pieces, room
from parties.wire.status import from_rpc
from parties.wire.transport import connect, patience


@dataclass(frozen=True)
class Receipt:
    """A bundle's manifest, which is checked, and what receiving it took.

    Args:
        size: bytes of correlations received.
    """

    manifest: Manifest
    signed: party_pb2.Manifest
    deal_seconds: float
    size: int


@dataclass(frozen=True)
class Delivery:
    """A bundle that is here or on its way.

    Args:
        corrections: None unless this party is the corrected one.
        finish: waits until all of it is here and checked against its manifest; before that, nothing that was
            computed with it may leave this process.
    """

    seed: Seed
    corrections: Corrections | None = field(repr=False)
    finish: Callable[[], Receipt] = field(repr=False)


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


class LiveSupply:
    """The connection to the one provider that this party's config names."""

    stored = False

    def __init__(self, config: PartyConfig, identity: Identity) -> None:
        self._config, self._identity = config, identity
        self._channel = connect(identity, config.provider.name, config.provider.address)
        self._stub = provider_pb2_grpc.ProviderStub(self._channel)
        self._limits: dict[bytes, Plan] = {}

    def fetch_weights(self, session_id: bytes, terms: Terms, plan: Plan, stored: StoredRows | None = None) -> Delivery:
        """The bundle of the weights, which opens the session at the provider, and with it what it has to see of data
        at rest."""
        self._limits[session_id] = plan
        agreed = provider_pb2.SessionTerms(plan=plan.canonical, parties=terms.parties, nonces=terms.nonces)
        agreed.keeps.extend(write_keeps(terms.keeps))
        if stored is not None:
            agreed.bindings.extend(write_bindings(terms.bindings))
            agreed.objects.extend(_object(each) for each in stored.objects())
            agreed.seeds.extend(
                provider_pb2.StoredSeeds(seeds=[seed.secret for seed in seeds]) for seeds in stored.seeds()
            )
        return self._fetch(terms, BundleId.of_weights(session_id), session_dealt(plan), {"terms": agreed})

    def hand_over(self, terms: Terms, weights: Mapping[str, np.ndarray]) -> None:
        """Tell the provider the session's public weights, in plan order: it deals for what is made of them."""
        provider = self._config.provider

        def parts() -> Iterator[provider_pb2.WeightsPart]:
            yield provider_pb2.WeightsPart(header=provider_pb2.WeightsHeader(session_id=terms.session_id))
            for values in weights.values():
                for piece in pieces(view_field(values)):
                    yield provider_pb2.WeightsPart(chunk=piece)

        try:
            self._stub.Weights(parts(), timeout=patience(self._config.deadlines.setup), wait_for_ready=False)
        except grpc.RpcError as error:
            raise from_rpc(error, provider.name, provider.address, self._identity) from None

    def fetch(self, terms: Terms, bundle: BundleId, weights: bytes) -> Delivery:
        """The bundle of one run.

        weights: digest of the public weights that this party holds; empty if there are none.
        """
        plan = self._limits.get(bundle.session)
        if plan is None:
            raise SessionError("the session ended while this run was prepared")
        most = plan_cost(plan.at(bundle.entry.number), bundle.batch).dealt
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
        mine = terms.parties[corrected_party(bundle, len(terms.parties))] == self._config.name
        expected = most if mine else 0
        request = provider_pb2.DealRequest(
            session_id=bundle.session, run=bundle.entry.number, batch=bundle.batch, **more
        )
        try:
            replies = frames.deal(self._channel, request, patience(self._config.deadlines.setup))
            first = next(replies)
        except grpc.RpcError as error:
            raise from_rpc(error, provider.name, provider.address, self._identity) from None
        except StopIteration:
            raise PeerError("the provider answered nothing", peer=provider.name) from None
        if isinstance(first, Chunk) or first.WhichOneof("part") != "header":
            raise PeerError("the provider's first message has no header", peer=provider.name)
        if first.header.corrections != expected:
            raise IntegrityError("the provider deals more or less than the plan says", peer=provider.name)
        seed = manifest.read_seed(first.header.seed, provider.name)
        digest = CorrectionsDigest(bundle.digest_key(seed), expected)
        arriving = _Arriving(expected, digest, replies, self._identity, provider.name, provider.address)

        def finish() -> Receipt:
            end, found = arriving.finish()
            checked = manifest.verify(self._identity.trust, terms, bundle, end.manifest)
            if mine:
                checked.check_corrections(found)
            return Receipt(checked, end.manifest, end.deal_seconds, SEED_BYTES + expected)

        return Delivery(seed, arriving if mine else None, finish)

    def close(self) -> None:
        self._channel.close()


def _object(signed: Signed) -> provider_pb2.StoredObject:
    return provider_pb2.StoredObject(
        manifest=signed.content,
        signature=signed.signature,
        certificate=signed.certificate,
        endorsements=write_endorsements(signed),
    )


class _Arriving:
    """Corrections on their way into memory that is there for all of them; a thread of their own receives them.

    Thread-safe.  What ends the stream early is raised by whoever waits.  Where there are none, whoever waits for the
    end reads it.
    """

    def __init__(
        self,
        size: int,
        digest: CorrectionsDigest,
        parts: Iterable[provider_pb2.DealPart | Chunk],
        identity: Identity,
        provider: str,
        address: str,
    ) -> None:
        self.size = size
        self._identity, self._provider, self._address = identity, provider, address
        self._data, self._filled = room(size), 0
        self._digest = digest
        self._end: provider_pb2.DealEnd | None = None
        self._inflow = Inflow()
        self._parts: Iterable[provider_pb2.DealPart | Chunk] = () if size else parts
        self._thread: threading.Thread | None = None
        if size:
            self._thread = threading.Thread(target=self._receive, args=(parts,), name="dealt", daemon=True)
            self._thread.start()  # and lets go of this object when it ends

    def read(self, start: int, stop: int) -> memoryview:
        """These bytes; waits until they are here."""
        with self._inflow.lock:
            if not self._inflow.wait(lambda: self._filled >= stop):
                raise PeerError("the provider did not deal what it said", peer=self._provider)
        return self._data[start:stop].toreadonly()

    def finish(self) -> tuple[provider_pb2.DealEnd, bytes]:
        """Wait for the end: it, and the digest of all corrections."""
        if self._thread is not None:
            self._thread.join()
        else:
            self._receive(self._parts)
            self._parts = ()
        self._inflow.check()
        if self._end is None:
            raise PeerError("the provider did not finish what it dealt", peer=self._provider)
        return self._end, self._digest.value

    def _receive(self, parts: Iterable[provider_pb2.DealPart | Chunk]) -> None:
        try:
            for part in parts:
                self._accept(part)
            if self._filled < self.size:
                raise PeerError(f"{self._filled} of {self.size} bytes of corrections arrived", peer=self._provider)
            self._inflow.close()
        except grpc.RpcError as error:
            self._inflow.fail(from_rpc(error, self._provider, self._address, self._identity))
        except MpcError as error:
            self._inflow.fail(error)
        except Exception as error:
            telemetry.logger().error("unexpected error while corrections arrived", exc_info=error)
            self._inflow.fail(PeerError("corrections could not be received", peer=self._provider))

    def _accept(self, part: provider_pb2.DealPart | Chunk) -> None:
        if self._end is not None:
            raise PeerError("the provider goes on after its end", peer=self._provider)
        if not isinstance(part, Chunk):
            if part.WhichOneof("part") != "end":
                raise PeerError("the provider sent a message out of turn", peer=self._provider)
            self._end = part.end
            return
        filled = self._filled + len(part.data)
        if filled > self.size:
            raise PeerError(f"more than the {self.size} bytes of corrections that there are", peer=self._provider)
        self._digest.update(part.data)
        self._data[self._filled : filled] = part.data
        with self._inflow.lock:
            self._filled = filled
            self._inflow.arrived()
