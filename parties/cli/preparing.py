"""A run before it is opened: what its options name is compiled, and files and datasets are found for its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mpc.compiler.compile import Compiled
from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.metadata import columns_of
from mpc.compiler.onnx.signature import input_types, output_names
from mpc.compiler.roles import Roles
from mpc.errors import UsageError
from parties.agreed.bindings import Binding
from parties.cli.compiling import compile_blindly, compile_for_data
from parties.cli.datasets import choose_datasets, selections
from parties.cli.display import Display
from parties.cli.inputs import load_inputs
from parties.cli.noise import Wanted
from parties.cli.options import parse_ranges, parse_shapes
from parties.cli.outputs import keep_choices
from parties.client.at_rest import bound
from parties.client.at_rest.keeping import Keeping, read_keep
from parties.client.at_rest.matching import match_datasets
from parties.client.cluster import Cluster
from parties.client.model import Placed, model_name, refuse_compiling
from parties.client.running.roles import ACTIVE
from parties.client.selection import Selection


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
    kept: tuple[str, ...] = ()
    noise: Wanted = Wanted()


@dataclass(frozen=True)
class Prepared:
    """A plan, what this client enters into it, what its stored wires stand for, and what its outputs are kept as."""

    of: Compiled | Placed
    feeds: dict[str, np.ndarray]
    bindings: tuple[Binding, ...]
    kept: Mapping[str, Keeping] = field(default_factory=dict)


def prepare(display: Display, path: Path | None, said: Said, me: str, alone: bool) -> Prepared:
    """Compile the model, or find it at the parties, and find what it reads.

    Args:
        path: this client's cluster file, if there is one.
        alone: nobody but this client sees the plan, which may then be suited to the data.
    """
    name = model_name(str(said.model))
    if name is not None:
        return _stored(display, path, said, me, name)
    loaded = Loaded(load_model(said.model))
    types = input_types(loaded)
    names = [*types]
    columns, told = columns_of(loaded.model), list[str]()
    chosen, orders = match_datasets(choose_datasets(path, said.data, names), columns, names)
    known_ranges = parse_ranges(said.ranges, names)
    bound.refuse_said(known_ranges, chosen, "a range")
    mine = [name for name in names if said.roles.owner(name) == me and name not in chosen]
    feeds = load_inputs(said.inputs, names, mine, types, columns, told)
    bound.refuse_said(feeds, chosen, "a file")
    kept = read_keep(keep_choices(said.kept, output_names(loaded)), me)
    owners = {**said.roles.owners, **bound.owners(chosen)}
    roles = replace(said.roles, owners=owners, keeps=frozenset(kept))
    given = (display, loaded, feeds, known_ranges, parse_shapes(said.shapes, names), roles)
    lengths = {len(each) for each in feeds.values() if each.ndim} | {len(each.bound_rows) for each in chosen.values()}
    noise = said.noise.noising(output_names(loaded), chosen, min(lengths, default=None), path)
    if alone and not (said.samples or chosen or kept or noise):
        compiled = compile_for_data(*given)
    else:
        known = load_inputs(said.samples, names, types=types, columns=columns) if said.samples else None
        stored = {name: bound.described(selection) for name, selection in chosen.items()}
        compiled = compile_blindly(*given, known, stored, noise)
    bindings = bound.bindings(compiled.plan, chosen)
    for note in [*bound.notes(chosen, compiled.plan), *orders.values(), *told]:
        display.say(f"note: {note}")
    return Prepared(compiled, feeds, bindings, kept)


def _stored(display: Display, path: Path | None, said: Said, me: str, name: str) -> Prepared:
    if path is None:
        raise UsageError("--parties starts a cluster of its own, where no models are", remedy="mpc up; mpc model put")
    public = "public" if said.roles.public_weights else None
    options = {
        "--range": said.ranges,
        "--shape": said.shapes,
        "--calibrate": said.samples,
        "--weights": public,
        "--secret-weights": said.roles.secret_weights,
        "--keep": said.kept,
        "--epsilon": said.noise.epsilons,
    }
    refuse_compiling(name, {option: given or None for option, given in options.items()})
    with Cluster.connect(path) as connected:
        placed, chosen = place_model(connected, name, said.roles, said.data)
    types: dict[str, str] = {given.name: given.dtype for given in placed.plan.inputs}
    mine = [given for given in types if said.roles.owner(given) == me and given not in chosen]
    told: list[str] = []
    feeds = load_inputs(said.inputs, [*types], mine, types, told=told)
    bound.refuse_said(feeds, chosen, "a file")
    orders = match_datasets(chosen, {}, [*types])[1]
    for note in [*bound.notes(chosen, placed.plan), *orders.values(), *told]:
        display.say(f"note: {note}")
    return Prepared(placed, feeds, placed.bindings)


def place_model(
    connected: Cluster, name: str, roles: Roles, data: tuple[str, ...]
) -> tuple[Placed, dict[str, Selection]]:
    """Find a model at the parties, and give everybody a place in its plan; also what its inputs are read from.

    Args:
        data: as `--data` has it.

    Raises:
        SessionError: there is no such model that this client may see.
        UsageError, InputError: it has no such input or output, or does not read these columns.
    """
    found = connected.model(name)
    names = [given.name for given in found.plan.inputs]
    chosen, _ = match_datasets(selections(connected, data, names), {}, names)
    readers = {out.name: roles.recipients_of(out.name) for out in found.plan.outputs} | roles.readers
    asked = ACTIVE if roles.security == ACTIVE else None
    return found.place(roles.owners, readers, chosen, asked), chosen
