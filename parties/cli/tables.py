"""Tables of numbers as text, .csv and .tsv, as inputs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mpc.compiler.arguments import in_type
from mpc.errors import InputError
from parties.client.at_rest.matching import Columns, order_of, ordered
from parties.client.tables.text import read_numbers


def read_table(
    path: Path,
    own: Sequence[str],
    names: Sequence[str],
    types: Mapping[str, str],
    columns: Columns = MappingProxyType({}),
    told: list[str] | None = None,
) -> dict[str, np.ndarray]:
    """Read a table as inputs: all of it as the one input, or each input from the column of its name.

    Args:
        own: inputs that it may be for.
        names: of all inputs of the model.
        types: numpy types of inputs; float32 for one that is not there.
        columns: as the model names them: those of the table are read in that order.
        told: to which is added in which order they are read else, if the table names them.

    Raises:
        InputError: it is no table of numbers, or it does not say which input it is.
    """
    header, rows = read_numbers(path)
    values = np.array(rows)
    if len(own) == 1:
        [name] = own
        if name not in names:
            raise InputError(f"the model has no input {name!r}", remedy=f"its inputs are {', '.join(names)}")
        if header and name in columns:
            values = values[:, [header.index(each) for each in ordered(name, columns[name], header)]]
        elif len(header) > 1 and told is not None:
            told.append(order_of(name, header))
        return {name: _typed(values, types, name)}
    places = {name: header.index(name) for name in own if name in header}
    if not places:
        raise InputError(
            f"{path} has no column by the name of an input",
            cause=f"the inputs are {', '.join(own) or 'none of yours'}",
            remedy=f"name the columns in the first line, or say which input all of it is: --input NAME={path}",
        )
    return {name: _typed(values[:, [column]], types, name) for name, column in places.items()}


def _typed(values: np.ndarray, types: Mapping[str, str], name: str) -> np.ndarray:
    """Return numbers in an input's type; whole ones only, where the type has those only."""
    kind = np.dtype(types.get(name) or "float32")
    whole = kind.kind != "f" and np.array_equal(values, np.rint(values))
    return in_type(values.astype(np.int64) if whole else values, str(kind))
