"""Objects for tests: tables of integers, and manifests that nobody has put."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import blake3
import numpy as np

from mpc.encoding import encode_field
from mpc.prg import Seed
from mpc.stored import BLOCK_ROWS
from parties.agreed.columns import Column
from parties.agreed.objects import Manifest, Schema, contents_digest
from parties.client.at_rest import upload
from parties.client.at_rest.masking import mask
from parties.client.at_rest.upload import Described
from parties.client.channels import Parties
from parties.entropy import token
from parties.pb import data_pb2
from parties.pb.data_pb2 import SignedStatement
from tests.support.parties import CLUSTER, InProcess

MADE = 1_800_000_000

AGE = Column(name="age", type="integer", low=0, high=120, unit="years", description="at admission")
BMI = Column(name="bmi", type="number", scale=Fraction(1 << 16), low=10, high=70, description="weight over height^2")
SCAN = Column(name="scan", type="array", scale=Fraction(256), low=-1, high=1, shape=(2, 3))
SITE = Column(name="site", type="category", low=0, high=2, categories=("north", "south", "west"))
LOST = Column(name="bmi lost", type="missing", low=0, high=1, missing_of="bmi")
COLUMNS = (AGE, BMI, SCAN, SITE, LOST)


def schema(parties: Sequence[str] = ("party-0", "party-1"), **changes: Any) -> Schema:
    """The schema of a small table."""
    fields: dict[str, Any] = {
        "owner": "hospital",
        "name": "hospital/patients",
        "cluster": CLUSTER,
        "parties": tuple(parties),
        "rows": 5,
        "columns": COLUMNS,
        "description": "Admissions of a year",
        "visible": ("analyst",),
        "created": MADE,
    }
    return Schema(**{**fields, **changes})


def manifest(plain: Schema) -> Manifest:
    """A manifest with commitments to seeds that nobody has."""
    rng = np.random.default_rng(5)
    commitments = {
        column.name: [[rng.bytes(32) for _ in plain.parties] for _ in range(plain.block_count)]
        for column in plain.columns
    }
    return Manifest.of(plain, commitments, rng.bytes(32))


def described(name: str = "patients", rows: int = 5, columns: tuple[Column, ...] = COLUMNS, **more: Any) -> Described:
    """What the owner of a small table says of it."""
    return Described(name, columns, rows, **{"visible": ("analyst",), "description": "Admissions of a year", **more})


def table(said: Described | Schema, seed: int = 3) -> dict[str, np.ndarray]:
    """Integers of every column, inside its range."""
    rng = np.random.default_rng(seed)
    return {
        column.name: rng.integers(*column.ends, (said.rows, *column.shape), dtype=np.int64, endpoint=True)
        for column in said.columns
    }


def blocks(values: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """The table, block after block."""
    rows = len(next(iter(values.values())))
    for start in range(0, rows, BLOCK_ROWS):
        yield {name: array[start : start + BLOCK_ROWS] for name, array in values.items()}


def put(client: Parties, said: Described, values: Mapping[str, np.ndarray] | None = None) -> Manifest:
    """Put a table as its owner's client does."""
    return upload.put(client, said, blocks(table(said) if values is None else values))


class RawPut:
    """A put of one block a column, call by call, by an owner that may lie."""

    def __init__(self, cluster: InProcess, owner: str = "hospital", **changes: Any) -> None:
        self.cluster, self.owner, self.id, self.salt = cluster, owner, token(16), token(32)
        fields = {"owner": owner, "name": f"{owner}/patients", "created": int(time.time()), "columns": (AGE,)}
        self.schema = schema(cluster.names, **{**fields, **changes})
        self.seeds: list[list[Seed]] = []
        self.parties = range(len(cluster.names))

    def call(self, index: int, method: str, request: Any) -> Any:
        return getattr(self.cluster.data(index, self.owner), method)(request)

    def begin(self) -> RawPut:
        for index in self.parties:
            self.call(index, "Begin", data_pb2.BeginRequest(put=self.id, schema=self.schema.content))
        return self

    def draw(self, index: int) -> list[Seed]:
        """Fresh seeds of one party, one a column."""
        request = data_pb2.SeedsRequest(put=self.id, block=0, places=range(len(self.schema.columns)))
        return [Seed(each.seed) for each in self.call(index, "Seeds", request).seeds]

    def send(self, index: int, place: int, masked: np.ndarray | bytes, commitment: bytes | None = None) -> bytes:
        header = data_pb2.BlockHeader(
            put=self.id, place=place, block=0, commitment=commitment or self.seeds[index][place].commitment()
        )
        data = masked if isinstance(masked, bytes) else encode_field(masked)
        chunks = [data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)]
        parts = [data_pb2.BlockPart(header=header), *(data_pb2.BlockPart(chunk=chunk) for chunk in chunks)]
        digest: bytes = self.call(index, "Block", iter(parts)).digest
        return digest

    def masked(self, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        columns = enumerate(self.schema.columns)
        return [mask(values[column.name], [own[place] for own in self.seeds]) for place, column in columns]

    def enter(self, values: Mapping[str, np.ndarray] | None = None) -> RawPut:
        """Seeds, and x^ to all parties."""
        self.seeds = [self.draw(index) for index in self.parties]
        self.x = self.masked(table(self.schema) if values is None else values)
        for index in self.parties:
            for place, masked in enumerate(self.x):
                self.send(index, place, masked)
        return self

    def manifest(self, **changes: Any) -> Manifest:
        commitments = {
            column.name: [[own[place].commitment() for own in self.seeds]]
            for place, column in enumerate(self.schema.columns)
        }
        digests = [blake3.blake3(encode_field(masked)).digest() for masked in self.x]
        whole = Manifest.of(self.schema, commitments, contents_digest(self.salt, digests))
        return whole.model_copy(update=changes)

    def commit(self, index: int, whole: Manifest, signer: str | None = None) -> SignedStatement:
        signed = whole.sign(self.cluster.identity(signer or self.owner))
        header = data_pb2.CommitHeader(
            put=self.id,
            salt=self.salt,
            signature=signed.signature,
            certificate=signed.certificate,
            size=len(signed.content),
        )
        parts = [data_pb2.CommitPart(header=header), data_pb2.CommitPart(chunk=signed.content)]
        receipt: SignedStatement = self.call(index, "Commit", iter(parts))
        return receipt

    def complete(self, index: int, whole: Manifest, receipts: Sequence[SignedStatement]) -> None:
        self.call(index, "Complete", data_pb2.CompleteRequest(object=whole.id, receipts=receipts))
