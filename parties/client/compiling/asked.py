"""All that a compilation follows from, as one digest: the model, what was asked, and the compiler itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

import mpc
from mpc.compiler.onnx.load import is_whole
from mpc.encoding import digest
from mpc.prg import Seed

_LIBRARIES = ("numpy", "onnx")


@dataclass(frozen=True)
class Asked:
    """One question to the compiler.

    Args:
        seed: follows from the model and from all that was asked; it is as secret as the model.
    """

    seed: Seed

    @property
    def name(self) -> str:
        """The name of the file in which the answer is kept: it says nothing to who has not the model."""
        return self.seed.derive("name").secret.hex()[:32]

    @property
    def key(self) -> Seed:
        """The key of that file, of this version of the compiler alone."""
        return self.seed.derive("key", compiler())


def ask(model: onnx.ModelProto, choices: Mapping[str, Any]) -> Asked | None:
    """Return the question; None if something was asked that has no digest, or the model is too large for one.

    Nor has a model a digest whose weights are in another file: the answer follows from them, and is as secret as they.
    """
    if not is_whole(model):
        return None
    try:
        said = json.dumps(_plain(choices))
        content = model.SerializeToString(deterministic=True)
    except (TypeError, ValueError, EncodeError):
        return None
    return Asked(Seed(digest("mpc/v1/compile", hashlib.sha256(content).digest(), said)))


@cache
def compiler() -> bytes:
    """Digest everything that compiles: the library's sources, and the versions of what it computes with."""
    found = hashlib.sha256()
    root = Path(mpc.__file__).parent
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
    versions = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    return digest("mpc/v1/compiler", found.digest(), mpc.__version__, *versions)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, such that different ones differ; TypeError if its kind is unknown."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects")
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"array": [value.dtype.str, list(value.shape), content]}
    if isinstance(value, np.generic):
        return _plain(np.asarray(value))
    if isinstance(value, Fraction):
        return {"fraction": str(value)}
    if isinstance(value, Mapping):
        return {"mapping": sorted([[str(key), _plain(each)] for key, each in value.items()], key=lambda pair: pair[0])}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(map(str, value))}
    if is_dataclass(value) and not isinstance(value, type):
        said = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {type(value).__qualname__: said}
    raise TypeError(f"something of type {type(value).__name__}")
