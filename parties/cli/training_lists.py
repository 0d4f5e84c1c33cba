"""A training list as whoever is to grant it reads it: steps, rows, what is told to whom, and what comes afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mpc.errors import UsageError
from mpc.text import shown
from parties.agreed import programs
from parties.agreed.questions import Bound
from parties.client.training.training_list import AFTERWARDS, LARGEST, Listed, TrainingList, Use, read_list, told

BEGINNING = b'{"training":'
"""Begin every list so, and no plan and no ticket."""
_DETAILED = 3
_WORDS = {"predictions": "runs the model on rows that it enters", "weights": "is told the weights"}


def load_list(path: Path) -> TrainingList:
    """Read a list from a file.

    Raises:
        UsageError: the file cannot be read.
        InputError, PlanError: it is no list, or not what it says.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"the list {shown(str(path))} cannot be read: {error.strerror}") from None
    return read_list(content)


def lines_of(found: TrainingList, names: Mapping[str, str], allowed: Collection[Use] | None = None) -> Iterator[str]:
    """Say what a list is of, for people.

    Args:
        names: of datasets, by id.
        allowed: what of the model is granted; None where nothing is being granted.
    """
    stretches = found.granted()
    steps = sum(_steps(each) for each in stretches)
    sessions = f", in {len(stretches)} sessions" if len(stretches) > 1 else ""
    yield f"trains        {found.coordinator}: {steps:,} steps{sessions}"
    for reads in dict.fromkeys(_reads(each, names) for each in stretches):
        yield from (f"reads         {line}" for line in reads)
    yield from dict.fromkeys(
        f"tells         {' and '.join(wire.holders)} the number {shown(name)!r}, as the program says"
        for each in stretches
        for name, wire in told(each.plan).items()
    )
    for each in stretches[:_DETAILED]:
        yield f"plan          {each.exact.plan}"
        for label, words in programs.said(programs.described(each.plan), programs.kept_alone(each.plan)):
            if label in ("program", ""):
                yield f"{label:<14}{words}"
    if len(stretches) > _DETAILED:
        alike = all(each.plan.gates == stretches[1].plan.gates for each in stretches[_DETAILED:])
        by = "by the same step" if alike else "by other steps"
        yield f"              ... {len(stretches) - _DETAILED} more sessions, {by}"
    for each in (each for each in found.plans if each.use in AFTERWARDS):
        granted = "" if allowed is None or each.use in allowed else f": not granted (--allow {each.use})"
        yield f"afterwards    {found.coordinator} {_WORDS[each.use]}{granted}"


def report_of(found: TrainingList, names: Mapping[str, str]) -> dict[str, Any]:
    """Return what JSON has of a list."""
    plans = [
        {"use": each.use, "plan": each.exact.plan, "steps": _steps(each), "reads": [*_reads(each, names)]}
        for each in found.plans
    ]
    return {"coordinator": found.coordinator, "plans": plans}


def _steps(each: Listed) -> int:
    program = each.plan.program
    return 0 if program is None else program.steps


def _reads(each: Listed, names: Mapping[str, str]) -> tuple[str, ...]:
    inputs = {given.wire: given.name for given in each.plan.inputs}
    found = []
    for wire, bound in each.exact.bindings.items():
        for part in (bound,) if isinstance(bound, Bound) else bound:
            dataset = names.get(part.dataset, part.dataset[:16])
            rows = f"{part.rows:,} rows" + (f" from row {part.first:,} on" if part.first else "")
            columns = shown(", ".join(part.columns))
            found.append(f"input {shown(inputs.get(wire, wire))!r} from {dataset}: {columns}; {rows}")
    return tuple(found)
