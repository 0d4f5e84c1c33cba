"""Trainings that many tests ask for alike are compiled once a process: what compiles them is tested by itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import wraps
from typing import Any

from mpc.compiler.onnx.load import Loaded
from mpc.compiler.training.train import Training

Compile = Callable[..., Training]
_PLAIN = (str, bytes, int, float, bool, type(None), Fraction)


class _New(Exception):
    """Something may change, or is not known to say all of itself."""


def compiled_once(compile: Compile) -> Compile:
    """Return the same training for the same arguments; whatever a refused one refuses, it refuses again."""
    made: dict[Hashable, Training] = {}

    @wraps(compile)
    def compiled(*given: Any, **named: Any) -> Training:
        try:
            key = _key((given, named))
        except _New:
            return compile(*given, **named)
        if key not in made:
            made[key] = compile(*given, **named)
        return made[key]

    return compiled


def _key(value: Any) -> Hashable:
    """All that a value says, and of which type each part is."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, repr(value)
    if kind is Loaded:
        return kind, value.model.SerializeToString(deterministic=True)
    if isinstance(value, Mapping):
        return kind, tuple((_key(name), _key(each)) for name, each in value.items())
    if kind in (tuple, list):
        return kind, tuple(map(_key, value))
    if kind in (set, frozenset):
        return kind, frozenset(map(_key, value))
    if is_dataclass(value):
        return kind, tuple(_key(getattr(value, each.name)) for each in fields(value))
    raise _New
