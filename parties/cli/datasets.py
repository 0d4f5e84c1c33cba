"""Datasets that a command names as inputs: `--data [INPUT=]OWNER/NAME[:COLUMN,...][@FIRST:END]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mpc.errors import UsageError
from mpc.text import shown
from parties.client.at_rest.bound import choose
from parties.client.at_rest.matching import by_column
from parties.client.cluster import Cluster
from parties.client.selection import Selection


def choose_datasets(cluster: Path | None, given: Sequence[str], names: Sequence[str]) -> dict[str, Selection]:
    """Find the columns that stand for inputs.

    Args:
        cluster: this client's cluster file.
        given: as they were typed.
        names: the model's inputs.

    Returns:
        input -> columns of a dataset; all columns if none is named.

    Raises:
        UsageError: there is no such input, or it is not said which.
        SessionError: there is no dataset of that name that this client may see.
    """
    if not given or cluster is None:
        return {}
    with Cluster.connect(cluster) as connected:
        return selections(connected, given, names)


def selections(connected: Cluster, given: Sequence[str], names: Sequence[str]) -> dict[str, Selection]:
    """Find the columns that stand for inputs, in a cluster that is connected; as `choose_datasets`."""
    found = _found(connected, given, names, joined=False)
    return {name: only for name, (only,) in found.items()}


def joined_selections(
    connected: Cluster, given: Sequence[str], names: Sequence[str]
) -> dict[str, tuple[Selection, ...]]:
    """Find the columns that stand for inputs, of one dataset or of several: an input that is named again has more rows.

    Raises:
        UsageError, SessionError: as `choose_datasets`.
    """
    return _found(connected, given, names, joined=True)


def _found(
    connected: Cluster, given: Sequence[str], names: Sequence[str], joined: bool
) -> dict[str, tuple[Selection, ...]]:
    found: dict[str, tuple[Selection, ...]] = {}
    for typed in given:
        text, rows = _rows(typed)
        name, _, place = text.rpartition("=")
        dataset, _, columns = place.partition(":")
        if not name and len(names) != 1:
            whole = connected.dataset(dataset)
            known = columns.split(",") if columns else whole.columns
            mine = [each for each in by_column(names, known) if joined or each not in found]
            if mine:
                found |= {each: (*found.get(each, ()), _of(whole[[each]], rows)) for each in mine}
                continue
            raise UsageError(
                f"the model has several inputs: which one is {shown(text)}?",
                remedy=f"--data INPUT={shown(typed)}; its inputs are {', '.join(map(shown, names))}",
            )
        name = name or names[0]
        if name not in names:
            raise UsageError(
                f"the model has no input {shown(name)}", remedy=f"its inputs are {', '.join(map(shown, names))}"
            )
        if name in found and not joined:
            raise UsageError(f"two datasets are named for input {shown(name)}", remedy="name one")
        whole = connected.dataset(dataset)
        chosen = _of(whole[columns.split(",")] if columns else choose(name, whole), rows)
        found[name] = (*found.get(name, ()), chosen)
    return found


_ROWS = re.compile(r"(.+)@([0-9]{0,12}):([0-9]{0,12})", re.DOTALL)


def _rows(text: str) -> tuple[str, slice | None]:
    """Part what was typed into what is read and which rows of it; None for all of them."""
    found = _ROWS.fullmatch(text)
    if found is None:
        return text, None
    first, end = (int(digits) if digits else None for digits in found.groups()[1:])
    return found[1], slice(first, end)


def _of(columns: Selection, rows: slice | None) -> Selection:
    if rows is None or rows == slice(None):
        return columns
    return columns.neighbours(rows)
