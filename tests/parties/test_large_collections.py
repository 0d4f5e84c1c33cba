"""A thousand clients with a thousand numbers each, at the parties' vaults.

Every check, write and signature of theirs is made, and no connection; a few hold real ones (`test_collections`, `mpc
collect`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import blake3
import numpy as np
import pytest

from mpc.encoding import encode_field
from mpc.prg import Seed
from parties.agreed.collecting import contribution_name
from parties.agreed.objects import Manifest, Schema, contents_digest
from parties.agreed.signed import Signed, key_of
from parties.client.at_rest.masking import mask
from parties.client.collections import collection
from parties.entropy import token
from parties.party.vault.puts import Puts
from parties.trust import pem
from parties.trust.identity import CA_CERTIFICATE, CA_KEY, Identity
from tests.support.authority import Issuer
from tests.support.parties import COORDINATOR, InProcess

pytestmark = pytest.mark.timeout(900)
CLIENTS, SIZE = 1000, 1000
FEW = 4
"""Clients that connect as clients do."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("many"), 2) as running:
        yield running


def issuer(cluster: InProcess) -> Callable[[str], Identity]:
    """Certificates of the cluster's CA, of which it keeps no list: of so many, that takes longer than all else."""
    [own] = pem.certificates(pem.read(cluster.ca / CA_CERTIFICATE), cluster.ca / CA_CERTIFICATE)
    root = Issuer(own, pem.private_key(pem.read(cluster.ca / CA_KEY, private=True), cluster.ca / CA_KEY))
    pattern = cluster.identity(COORDINATOR)

    def issue(name: str) -> Identity:
        made = root.leaf(name, cluster.folder / "many" / name)
        shown = {"certificate_pem": made.certificate.read_bytes(), "key_pem": made.key.read_bytes()}
        return replace(pattern, name=name, **shown)

    return issue


class Client:
    """A client's half of a put, without connections."""

    def __init__(self, made: collection.Collection, identity: Identity, vaults: list[Puts]) -> None:
        said, self.identity, self.vaults = made.said, identity, vaults
        self.key, self.put, self.salt = key_of(identity.certificate_pem), token(16), token(32)
        self.schema = Schema(
            owner=identity.name,
            name=contribution_name(identity.name, said.id),
            cluster=said.cluster,
            parties=said.parties,
            rows=1,
            columns=(said.column,),
            created=int(time.time()),
            expires=said.expires,
            collection=said.id,
        )

    def enter(self, values: np.ndarray) -> None:
        """Begin, mask, send, sign and complete at all parties."""
        who, seeds = (self.identity.name, self.key), list[Seed]()
        for puts in self.vaults:
            puts.begin(self.put, self.schema.content, *who)
            seeds += puts.seeds(self.put, 0, [0], self.key)
        masked = mask(values.reshape(1, -1), seeds)
        data = encode_field(masked)
        for puts, seed in zip(self.vaults, seeds, strict=True):
            puts.receive(self.put, 0, 0, seed.commitment(), [data], *who)
        contents = contents_digest(self.salt, [blake3.blake3(data).digest()])
        commitments = {self.schema.columns[0].name: [[seed.commitment() for seed in seeds]]}
        whole = Manifest.of(self.schema, commitments, contents)
        signed = whole.sign(self.identity)
        receipts: list[Signed] = [puts.commit(self.put, signed, self.salt, *who) for puts in self.vaults]
        for puts in self.vaults:
            puts.complete(whole.id, receipts, *who)


def rows(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, (count, size))


def test_a_thousand_clients_with_a_thousand_numbers_each(cluster: InProcess) -> None:
    count, entered = CLIENTS, rows(CLIENTS, SIZE)
    made = collection.open_collection(
        cluster.client(), "thousands", SIZE, -1, 1, at_least=count, at_most=count, epsilon=5, until=3000
    )
    issue, scale = issuer(cluster), float(made.said.column.scale)
    vaults = [Puts(node.vault) for node in cluster.nodes]
    for number in range(count - FEW):
        Client(made, issue(f"client-{number}"), vaults).enter(np.rint(entered[number] * scale).astype(np.int64))
    for number in range(count - FEW, count):
        collection.find(cluster.client(f"client-{number}"), made.name).enter(entered[number])
    assert made.standing.entered == count
    found = made.mean()
    assert found.rows == count
    off = found.value - entered.mean(axis=0)
    assert np.abs(off).max() < 6 * found.std
    assert 0.8 * found.std < np.sqrt(np.mean(off**2)) < 1.2 * found.std
