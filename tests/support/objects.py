"""Objects for tests: tables of integers, and manifests that nobody has put."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from parties.agreed.objects import BLOCK_ROWS, Column, Manifest, Schema
from tests.support.parties import CLUSTER

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


def table(plain: Schema, seed: int = 3) -> dict[str, np.ndarray]:
    """Integers of every column, inside its range."""
    rng = np.random.default_rng(seed)
    return {
        column.name: rng.integers(*column.ends, (plain.rows, *column.shape), dtype=np.int64, endpoint=True)
        for column in plain.columns
    }


def blocks(values: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """The table, block after block."""
    rows = len(next(iter(values.values())))
    for start in range(0, rows, BLOCK_ROWS):
        yield {name: array[start : start + BLOCK_ROWS] for name, array in values.items()}
