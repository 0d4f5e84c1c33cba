"""Datasets that a command names as inputs: `--data [INPUT=]OWNER/NAME[:COLUMN,...]`."""

from __future__ import annotations

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
    found: dict[str, Selection] = {}
    for text in given:
        name, _, place = text.rpartition("=")
        dataset, _, columns = place.partition(":")
        if not name and len(names) != 1:
            whole = connected.dataset(dataset)
            known = columns.split(",") if columns else whole.columns
            mine = [each for each in by_column(names, known) if each not in found]
            if mine:
                found |= {each: whole[[each]] for each in mine}
                continue
            raise UsageError(
                f"the model has several inputs: which one is {shown(text)}?",
                remedy=f"--data INPUT={shown(text)}; its inputs are {', '.join(map(shown, names))}",
            )
        name = name or names[0]
        if name not in names:
            raise UsageError(
                f"the model has no input {shown(name)}", remedy=f"its inputs are {', '.join(map(shown, names))}"
            )
        if name in found:
            raise UsageError(f"two datasets are named for input {shown(name)}", remedy="name one")
        whole = connected.dataset(dataset)
        found[name] = whole[columns.split(",")] if columns else choose(name, whole)
    return found
