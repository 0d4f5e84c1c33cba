"""Use of models: what their owners' grants ask of a session, beside who asks, for whom, where, when and how often."""

from __future__ import annotations

from parties.agreed.questions import ANY, Use
from parties.party.consent.asked import Asked, Part


def use_fault(use: Use, asked: Asked, part: Part, batch: int | None) -> str | None:
    """Say what of a session a grant of use does not allow; None if all of it is allowed.

    Args:
        batch: rows of the run that is about to tell its answer; None when a session opens.
    """
    if not asked.is_as_put(part):
        return "its weights are bound to another plan than the one that the model was put for, or to other places in it"
    read = asked.read_from()
    for given in asked.plan.inputs:
        for wire in given.wires:
            others = sorted({*asked.plan.wire[wire].holders} - {*use.data_owners})
            if use.data_owners != (ANY,) and others:
                return f"it names other data owners than {others[0]}"
            if wire not in read and not use.entered:
                return f"it is of datasets, and input {given.name!r} is entered for the run"
            for found in read.get(wire, ()):
                if use.datasets and not {found.name, found.id.hex(), *found.aliases} & {*use.datasets}:
                    return f"it does not name the dataset {found.name}"
    if use.rows is not None and batch is not None and batch > use.rows:
        return f"it is of runs of {use.rows} rows, and this one has {batch}"
    return None
