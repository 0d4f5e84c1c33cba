"""Check what all parties of a session hand over to somebody who takes part: manifests and mask seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from mpc.correlations import BundleId
from mpc.errors import IntegrityError
from mpc.prg import Seed
from parties.agreed import manifest
from parties.agreed.manifest import Manifest
from parties.agreed.terms import Terms
from parties.client.channels import Parties
from parties.pb import party_pb2

Answer = TypeVar("Answer")


class HandedOver:
    """Manifests and seeds that the parties of one session hand over, each checked before it is used.

    Args:
        terms: of that session.
    """

    def __init__(self, parties: Parties, terms: Terms) -> None:
        self._parties, self._terms = parties, terms
        self._verified: tuple[tuple[object, ...], Manifest | None] = ((), None)

    def named(self, answers: Sequence[Answer]) -> Iterator[tuple[str, Answer]]:
        """Pair each party's answer with the party's name; answers come in the roster's order."""
        return zip(self._parties.names, answers, strict=True)

    def manifest(self, sender: str, bundle: BundleId, signed: party_pb2.Manifest) -> Manifest:
        """Return the manifest that a party handed over, if the session's provider signed it for exactly this bundle.

        All parties hand over the same one, with masks and with results: it is verified once.
        """
        found = (bundle, signed.content, signed.signature, signed.certificate)
        known, checked = self._verified
        if found == known and checked is not None:
            return checked
        try:
            checked = manifest.verify(self._parties.identity.trust, self._terms, bundle, signed)
            self._verified = (found, checked)
            return checked
        except IntegrityError as error:
            raise IntegrityError(f"{sender} handed over a false manifest", cause=error.what, peer=sender) from None

    def collect(
        self,
        wires: list[str],
        manifests: list[Manifest],
        answers: Sequence[Sequence[party_pb2.WireSeed | party_pb2.OutputSeed]],
    ) -> dict[str, list[Seed]]:
        """Collect exactly one seed of each wire from each party: with one missing, a value is less masked than it
        looks.

        A provider that was restarted knows nothing of what it dealt before, and deals for the terms of an old session
        to any party of it that asks.  So what it signed is believed if all parties hand over that one manifest: an
        honest one hands over the one that it computes with.

        Raises:
            IntegrityError: a seed is none, or not the one that was dealt, or the manifests are not all one.
        """
        if any(checked != manifests[0] for checked in manifests):
            raise IntegrityError(
                "the parties handed over different manifests of one bundle",
                cause="the provider has dealt twice for this session, and a party deviates from the protocol",
                remedy="do not use this session's results; start a new one",
            )
        collected: dict[str, list[Seed]] = {wire: [] for wire in wires}
        for checked, (name, parts) in zip(manifests, self.named(answers), strict=True):
            if sorted(part.wire for part in parts) != sorted(wires):
                raise IntegrityError(f"{name} did not hand over one mask seed for each wire", peer=name)
            for part in parts:
                seed = manifest.read_seed(part.seed, name)
                checked.check_seed(part.wire, name, seed)
                collected[part.wire].append(seed)
        return collected
