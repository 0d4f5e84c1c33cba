"""Columns that have names in a model and in the data are matched by name, whatever their order is in either.

A model that names its columns says so in its metadata (`mpc.compiler.onnx.metadata`), or has an input of its own for
each.  Where it names none, columns are read in the order of the data, and who runs it is told which that is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import InputError
from mpc.text import shown

if TYPE_CHECKING:
    from parties.client.selection import Selection

Columns = Mapping[str, Sequence[str]]
"""Names of an input's columns, of the inputs that have any."""
_LISTED = 12


def match_datasets(
    chosen: Mapping[str, Selection], columns: Columns, inputs: Sequence[str]
) -> tuple[dict[str, Selection], dict[str, str]]:
    """Return the columns that each input reads, and by input which order was taken where the model names none.

    Args:
        columns: as the model names them.
        inputs: of the model; one that has the name of a column is that column.

    Raises:
        InputError: a model and a dataset name different columns.
    """
    found: dict[str, Selection] = {}
    told: dict[str, str] = {}
    for name, selection in chosen.items():
        known = [column.name for column in selection.manifest.columns]
        if name in columns:
            found[name] = _by_name(name, selection, [*columns[name]], known)
        elif len(inputs) > 1 and name in known and selection.names != (name,):
            if not selection.every:
                raise _another(name, selection, [name])
            found[name] = selection.take((name,))
        else:
            found[name] = selection
            if len(selection.names) > 1:
                told[name] = _order(name, selection.names, selection.manifest.name)
    return found, told


def _by_name(name: str, selection: Selection, wanted: Sequence[str], known: Collection[str]) -> Selection:
    if selection.every and {*wanted} <= {*known}:
        return selection.take(tuple(wanted))
    if sorted(selection.names) == sorted(wanted):
        return selection.take(tuple(wanted))
    raise _another(name, selection, wanted)


def _another(name: str, selection: Selection, wanted: Sequence[str]) -> InputError:
    """Make the error for columns that are not the ones which a model names."""
    dataset, known = selection.manifest.name, {column.name for column in selection.manifest.columns}
    lacking = [each for each in wanted if each not in known]
    if lacking:
        remedy = (
            f"{dataset} has no column {_listed(lacking)}: if others stand for these, name the model's columns as the "
            f"dataset does, in its metadata mpc.columns.{name}"
        )
    else:
        remedy = f"--data {name}={dataset}:{','.join(wanted)}, in Python data={{{name!r}: dataset[{[*wanted]!r}]}}"
    return InputError(
        f"input {shown(name)!r} reads the columns {_listed(wanted)}, and is given {_listed(selection.names)}",
        cause="the model names its columns, so these are matched by name",
        remedy=remedy,
    )


def by_column(inputs: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the inputs that a table is for which was given for none by name: the only one, or those named so."""
    return [*inputs] if len(inputs) == 1 else [name for name in inputs if name in known]


def match_frames(given: Any, columns: Columns, inputs: Sequence[str]) -> tuple[Any, list[str]]:
    """Return data with the columns of data frames in the order of the model, and which order was taken else.

    Args:
        given: as `session.run` takes it.
        inputs: that its caller enters.

    Raises:
        InputError: a frame does not have a column that the model names.
    """
    told: list[str] = []
    if (names := names_of(given)) is not None:
        mine = by_column(inputs, names)
        if len(inputs) > 1 and not mine:
            return given, told
        given = {name: given if len(inputs) == 1 else _taken(given, [name]) for name in mine}
    if not isinstance(given, Mapping):
        return given, told
    found = {}
    for name, value in given.items():
        names = names_of(value)
        if names is not None and name in columns:
            value = _taken(value, ordered(name, columns[name], names))
        elif names is not None and len(names) > 1:
            told.append(_order(name, names, "the data frame"))
        found[name] = value
    return found, told


def ordered(name: str, wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns of a table that an input reads, in the model's order; `InputError` if one is not there."""
    if lacking := [each for each in wanted if each not in names]:
        raise InputError(
            f"input {shown(name)!r} reads the columns {_listed(wanted)}, and the table has no {_listed(lacking)}",
            cause="the model names its columns, so these are matched by name",
            remedy="name the columns of the table as the model does; without names they are read in their order",
        )
    return [*wanted]


def order_of(name: str, names: Sequence[str]) -> str:
    """Say in which order the columns of a table are read."""
    return _order(name, names, "the table")


def names_of(value: Any) -> list[str] | None:
    """Return the names of a data frame's columns; None for what is none, or whose columns have no names."""
    if isinstance(value, np.ndarray | Mapping | list | tuple):
        return None
    names = getattr(value, "column_names", None) or getattr(value, "columns", None)
    try:
        found = [*names] if names is not None and hasattr(value, "shape") else []
    except TypeError:
        return None
    return found if found and all(isinstance(each, str) for each in found) else None


def _taken(frame: Any, names: list[str]) -> Any:
    return np.asarray(frame.select(names) if hasattr(frame, "select") else frame[names])


def _order(name: str, names: Sequence[str], where: str) -> str:
    return (
        f"input {shown(name)!r} reads the columns of {where} in this order: {_listed(names)}; the model does not name "
        f"them (its metadata mpc.columns.{name} would)"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_LISTED])) + (
        f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    )
