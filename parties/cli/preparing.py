"""A run before it is opened: what its options name is compiled, and files and datasets are found for its inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpc.compiler.compile import Compiled
from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_types
from mpc.compiler.roles import Roles
from parties.agreed.bindings import Binding
from parties.cli.compiling import compile_blindly, compile_for_data
from parties.cli.datasets import choose_datasets
from parties.cli.display import Display
from parties.cli.inputs import load_inputs
from parties.cli.options import parse_ranges, parse_shapes
from parties.client import bound


@dataclass(frozen=True)
class Said:
    """Options of a run that say what is computed, and of what."""

    model: Path
    inputs: tuple[str, ...]
    data: tuple[str, ...]
    ranges: tuple[str, ...]
    shapes: tuple[str, ...]
    samples: tuple[str, ...]
    roles: Roles


@dataclass(frozen=True)
class Prepared:
    """A plan, what this client enters into it, and what its stored wires stand for."""

    of: Compiled
    feeds: dict[str, np.ndarray]
    bindings: tuple[Binding, ...]


def prepare(display: Display, path: Path | None, said: Said, me: str, alone: bool) -> Prepared:
    """Compile the model, and find what it reads.

    Args:
        path: this client's cluster file, if there is one.
        alone: nobody but this client sees the plan, which may then be suited to the data.
    """
    loaded = Loaded(load_model(said.model))
    types = input_types(loaded)
    names = [*types]
    chosen = choose_datasets(path, said.data, names)
    known_ranges = parse_ranges(said.ranges, names)
    bound.refuse_said(known_ranges, chosen, "a range")
    mine = [name for name in names if said.roles.owner(name) == me and name not in chosen]
    feeds = load_inputs(said.inputs, names, mine, types)
    bound.refuse_said(feeds, chosen, "a file")
    roles = replace(said.roles, owners={**said.roles.owners, **bound.owners(chosen)})
    given = (display, loaded, feeds, known_ranges, parse_shapes(said.shapes, names), roles)
    if alone and not (said.samples or chosen):
        compiled = compile_for_data(*given)
    else:
        known = load_inputs(said.samples, names, types=types) if said.samples else None
        stored = {name: bound.described(selection) for name, selection in chosen.items()}
        compiled = compile_blindly(*given, known, stored)
    bindings = bound.bindings(compiled.plan, chosen)
    for note in bound.notes(chosen):
        display.say(f"note: {note}")
    return Prepared(compiled, feeds, bindings)
