"""Compiling for a command: which ranges undeclared inputs take, and what the user is told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpc.compiler.calibrate import ranges_around
from mpc.compiler.compile import DEFAULT_RANGE, PRECISE, Compiled, compile_model
from mpc.compiler.declared import declared_ranges
from mpc.compiler.graph import Range
from mpc.compiler.lower import Roles
from mpc.compiler.onnx_import import Shapes, input_names
from mpc.compiler.onnx_load import load_model
from mpc.errors import ModelError
from parties.cli.display import Display

Feeds = dict[str, np.ndarray]


def compile_for_data(
    display: Display,
    model: Path,
    feeds: Feeds,
    declared: dict[str, Range],
    shapes: Shapes,
    roles: Roles,
) -> Compiled:
    """Compile; inputs that nobody declared a range for take the default, as everywhere.

    Where this data does not fit it, bounds cannot be proved for it, or precision suffers, they take a power of two
    around all of the input, or around each column, said aloud.
    """
    names = input_names(model)
    shapes = {**{name: (None, *values.shape[1:]) for name, values in feeds.items()}, **shapes}
    known = {**declared_ranges(load_model(model)), **declared}
    missing = {name: values for name, values in feeds.items() if name not in known and _measurable(values)}
    for name in names:
        if name not in known and name not in feeds:
            display.say(f"note: no range is declared for input {name!r}; -32:32 is taken (--range {name}=LOW:HIGH)")
    samples = feeds if len(feeds) == len(names) else {}
    if not missing:
        return noted(display, _best(model, declared, [("", {})], roles, samples, shapes)[0])
    fits = all(np.abs(values).max() <= DEFAULT_RANGE[1] for values in missing.values())
    candidates: list[tuple[str, dict[str, Range]]] = [("", {})] if fits else []
    candidates.append(("a power of two around this data is taken", ranges_around(missing)))
    candidates.append(("a power of two around each column of this data is taken", ranges_around(missing, columns=True)))
    compiled, form = _best(model, declared, candidates, roles, samples, shapes)
    low, high = DEFAULT_RANGE
    for name in missing:
        seen = f"{form}, and the parties see it in the plan" if form else f"{low:g}:{high:g} is taken"
        display.say(f"note: no range is declared for input {name!r}; {seen} (--range {name}=LOW:HIGH declares one)")
    return noted(display, compiled)


def _best(
    model: Path,
    declared: dict[str, Range],
    candidates: list[tuple[str, dict[str, Range]]],
    roles: Roles,
    samples: Feeds,
    shapes: Shapes,
) -> tuple[Compiled, str]:
    """The first ranges for which the model compiles and is precise, else the most precise; and what they are.

    If none does, bounds are calibrated on the data itself, if all of it is here.
    """
    found: list[tuple[Compiled, str]] = []
    refusals: list[ModelError] = []
    for form, around in candidates:
        try:
            found.append((compile_model(model, {**declared, **around}, roles, shapes=shapes), form))
        except ModelError as error:
            refusals.append(error)
            continue
        if max(found[-1][0].errors.values()) <= PRECISE:
            return found[-1]
    if samples and all(_measurable(values) for values in samples.values()):
        form, around = next((one for one in candidates if one[0]), candidates[0])
        try:
            found.append((compile_model(model, {**declared, **around}, roles, samples, shapes), form))
        except ModelError as error:
            refusals.append(error)
    if not found:
        raise refusals[-1]
    return min(found, key=lambda one: max(one[0].errors.values()))


def _measurable(values: np.ndarray) -> bool:
    return values.dtype.kind in "fiu" and values.size > 0 and values.ndim > 0 and bool(np.isfinite(values).all())


def noted(display: Display, compiled: Compiled) -> Compiled:
    for note in compiled.notes:
        display.say(f"note: {note}")
    for name, error in compiled.errors.items():
        if error > PRECISE:
            display.say(
                f"note: fixed point limits output {name!r} to an expected error of {error:.1g}; "
                "narrower input ranges, or one a column, make it more precise"
            )
    return compiled
