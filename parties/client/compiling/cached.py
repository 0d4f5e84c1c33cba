"""Compile a model, or take what this user compiled of it before: a large model takes a minute, and is used again.

What took long is in a folder of the user's (`cache`), under a key that follows from the model itself and from all that
was asked of the compiler (`asked`).  What is not there, or cannot be read, is compiled: nothing but time depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mpc.compiler.compile import Compiled, Ranges, compile_model
from mpc.compiler.graph.graph import Range
from mpc.compiler.graph.noising import Noising
from mpc.compiler.graph.states import State
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.onnx.load import Loaded, Source, load_model
from mpc.compiler.onnx.signature import Shapes
from mpc.compiler.roles import Roles
from parties.client.compiling.asked import ask
from parties.client.compiling.cache import PlanCache, usual_cache
from parties.client.compiling.record import read_record, write_record

LEAST_SECONDS = 1.0
"""CPU seconds that a compilation takes at least, to be kept."""


def compile_cached(
    model: Source,
    ranges: Ranges | Range | None = None,
    roles: Roles | None = None,
    samples: Mapping[str, np.ndarray] | np.ndarray | None = None,
    shapes: Shapes | Sequence[int | str | None] | None = None,
    stored: Mapping[str, StoredInput] | None = None,
    noise: Noising | None = None,
    states: Mapping[str, State] | None = None,
    *,
    opened: Callable[[], PlanCache | None] = usual_cache,
    least: float = LEAST_SECONDS,
) -> Compiled:
    """Return what `compile_model` makes of the same arguments, now or before.

    Noise is never looked up: what is proved of it is proved each time.

    Args:
        opened: returns the cache; None if there is none.
        least: CPU seconds from which on a compilation is kept.

    Raises:
        ModelError, UsageError, InputError: as `compile_model`.
    """
    loaded = Loaded(load_model(model))
    cache = None if noise and noise.epsilon else opened()
    choices = {"ranges": ranges, "roles": roles, "samples": samples, "shapes": shapes} | {
        "stored": stored,
        "states": states,
    }
    asked = None if cache is None else ask(loaded.model, choices)
    if cache is not None and asked is not None and cache.has(asked.name):
        content = cache.read(asked.name, asked.key)
        found = None if content is None else read_record(content)
        if found is not None:
            return found
    began = time.process_time()
    compiled = compile_model(loaded, ranges, roles, samples, shapes, stored, noise, states)
    slow = time.process_time() - began >= least
    if cache is not None and asked is not None and slow and is_kept(compiled):
        cache.write(asked.name, asked.key, write_record(compiled))
    return compiled


def is_kept(compiled: Compiled) -> bool:
    """Tell whether a compilation is of a kind that is kept: none that may be made again in passing, none with noise."""
    return compiled.again is None and compiled.guarantee is None
