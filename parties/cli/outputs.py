"""Outputs, as the commands that receive some write and print them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from mpc.errors import UsageError
from mpc.plan.plan import Plan
from mpc.text import shown
from parties.cli.display import Display
from parties.cli.options import require_npz
from parties.client.running.feeds import owner_of, received
from parties.client.running.roles import SECRET, known_weights
from parties.disk import write_atomic

_SHOWN_ROWS = 10
ENTERS, AT_REST = "enters", "at rest"
"""How an input, or the weights, come into a session: from their owner, or from the parties, where they lie."""


def require_output(output: Path | None, plan: Plan, me: str) -> None:
    """Raise UsageError if there is to be a file of outputs and there are none for it, or no place."""
    if output is None:
        return
    require_npz(output)
    if not received(plan, me):
        raise UsageError(
            f"there is nothing to write to {output}: {', '.join(sorted(plan.recipients))} receives the outputs",
            remedy="leave --output out; --recipient says who receives them",
        )


def keep_choices(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Read `--keep [OUTPUT=]NAME`: output -> name.

    Raises:
        UsageError: it is not said which output, or one twice.
    """
    found: dict[str, str] = {}
    for text in given:
        output, _, name = text.rpartition("=")
        if not output and len(names) != 1:
            raise UsageError(
                f"the model has several outputs: which one is kept as {shown(text)}?",
                remedy=f"--keep OUTPUT={shown(text)}; its outputs are {', '.join(map(shown, names))}",
            )
        if found.setdefault(output or names[0], name) != name:
            raise UsageError(f"output {shown(output or names[0])!r} is kept twice", remedy="name it once")
    return found


def write_outputs(path: Path, outputs: dict[str, Any]) -> None:
    """Write outputs to a .npz file that this user alone can read, whatever their names are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in outputs.items():  # numpy.savez takes names as arguments, and has one called "file" itself
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, np.asanyarray(_array(value)), allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def plain_outputs(outputs: dict[str, Any]) -> dict[str, Any]:
    """Turn outputs into lists and numbers, for JSON."""
    return {name: value if isinstance(value, list) else value.tolist() for name, value in outputs.items()}


def print_outputs(display: Display, outputs: dict[str, Any], path: Path | None) -> None:
    """Print the first rows of each output; `path` is the file that has all of them, if there is one."""
    where = f"all are in {path}" if path is not None else "--output FILE.npz keeps all"
    for name, value in outputs.items():
        array = _array(value)
        display.result(f"{name}  {'x'.join(map(str, array.shape))}")
        rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        for row in rows[:_SHOWN_ROWS]:
            display.result("  " + "  ".join(f"{v:.6g}" if array.dtype.kind == "f" else str(v) for v in row[:12]))
        if len(rows) > _SHOWN_ROWS:
            display.result(f"  ... {len(rows) - _SHOWN_ROWS} more rows; {where}")


def say_roles(display: Display, plan: Plan) -> None:
    """Say who enters and who learns what, to people who are about to take part."""
    display.say(f"plan          {plan.digest.hex()}")
    known = f", {weights}" if (weights := known_weights(plan)) != SECRET else ""
    stored = [gate for gate in plan.weights if gate.is_stored]
    for how, gates in ((ENTERS, plan.entered_once), (AT_REST, stored)):
        owners = sorted({name for gate in gates for name in plan.wire[gate.out].holders})
        if owners:
            display.say(f"{how:<14}{', '.join(owners)}: the model's weights{known}")
    for given in plan.inputs:
        how = ENTERS if given in plan.entered_inputs else AT_REST
        display.say(f"{how:<14}{owner_of(plan, given)}: input {given.name!r}")
    for out in plan.outputs:
        who = ", ".join(plan.wire[out.wire].holders)
        if out.keep:
            display.say(f"keeps         the parties, for the coordinator: output {out.name!r}")
        if who:
            display.say(f"learns        {who}: output {out.name!r}")


def _array(value: Any) -> np.ndarray:
    """Return an output as an array of numbers or text; dictionaries become one row of values each."""
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value])
    array = np.asarray(value)
    return array.astype(str) if array.dtype == object else array
