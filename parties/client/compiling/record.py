"""A compiled model as bytes, and back: JSON with the plan's own form in it, then the weights' integers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from mpc.compiler.compile import Compiled
from mpc.compiler.graph.graph import Origin
from mpc.compiler.onnx.metadata import ModelMeta
from mpc.compiler.rehearsal.rehearse import Rehearsal
from mpc.compiler.rehearsal.tally import Expected
from mpc.errors import MpcError
from mpc.plan.parse import parse_plan

_LENGTH_BYTES = 8
_TYPES = tuple(np.dtype(f"<i{size}") for size in (1, 2, 4, 8))


def write_record(compiled: Compiled) -> Iterator[bytes | memoryview]:
    """Yield a compiled model piece by piece; what its outputs are expected to be off by is found first, if it was not.

    What can be compiled again from it (`Compiled.again`) and what was proved of noise are left out.
    """
    weights = {name: _narrow(values) for name, values in compiled.weights.items()}
    meta = asdict(compiled.meta)
    head = {
        "plan": compiled.plan.canonical.decode(),
        "weights": [[name, each.dtype.str, list(each.shape)] for name, each in weights.items()],
        "origins": {gate: [origin.node, origin.operator] for gate, origin in compiled.origins.items()},
        "expected": {name: asdict(each) for name, each in compiled.rehearsal.expected.items()},
        "rehearsed": list(compiled.rehearsal.notes),
        "rough": {name: float(error) for name, error in compiled.rough.items()},
        "undeclared": list(compiled.undeclared),
        "notes": list(compiled.notes),
        "meta": meta,
    }
    said = json.dumps(head, default=_number).encode()
    yield len(said).to_bytes(_LENGTH_BYTES, "big") + said
    for each in weights.values():
        yield np.ascontiguousarray(each).reshape(-1).data.cast("B")


def read_record(content: memoryview) -> Compiled | None:
    """Return the compiled model; None if these bytes are none of this version."""
    try:
        start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
        head = json.loads(bytes(content[_LENGTH_BYTES:start]))
        plan, weights = parse_plan(head["plan"].encode()), {}
        for name, kind, shape in head["weights"]:
            dtype, sizes = np.dtype(kind), tuple(shape)
            if dtype not in _TYPES or plan.wire[name].sizes != sizes:
                return None
            stop = start + dtype.itemsize * int(np.prod(sizes, dtype=np.int64))
            weights[name] = np.frombuffer(content[start:stop], dtype=dtype).reshape(sizes).astype(np.int64)
            start = stop
        if start != len(content):
            return None
        meta = head["meta"]
        meta["columns"] = {name: tuple(each) for name, each in meta["columns"].items()}
        return Compiled(
            plan,
            weights,
            {gate: Origin(*each) for gate, each in head["origins"].items()},
            Rehearsal.held({name: Expected(**each) for name, each in head["expected"].items()}, head["rehearsed"]),
            head["rough"],
            tuple(head["undeclared"]),
            tuple(head["notes"]),
            ModelMeta(**meta),
        )
    except (MpcError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _narrow(values: np.ndarray) -> np.ndarray:
    """Return integers in the smallest type that holds them all."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    dtype = next(each for each in _TYPES if np.iinfo(each).min <= low and high <= np.iinfo(each).max)
    return values.astype(dtype)


def _number(value: Any) -> Any:
    """Return a number of numpy's as JSON has it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"something of type {type(value).__name__}")
