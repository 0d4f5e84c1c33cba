"""Read what a model's file says about itself, as onnxruntime's `get_modelmeta` gives it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpc.errors import ModelError
from mpc.text import label_fault, shown

if TYPE_CHECKING:
    import onnx

_OWN = "mpc.columns."
_QUANTISED = "mpc.quantised"
_OTHERS = ("feature_names", "feature_names_in_", "input_columns", "columns")
_COUNTING = re.compile(r"(f|x|column|feature|col)?[ _]?[0-9]+", re.IGNORECASE)
"""Matches what libraries call columns that have no names."""


@dataclass(frozen=True)
class ModelMeta:
    """Names as onnxruntime's.  It stays with the model's owner: nothing of it is in the plan."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of inputs' columns, as `columns_of` reads them."""


def read_meta(model: onnx.ModelProto) -> ModelMeta:
    """Read what a model says about itself."""
    return ModelMeta(
        producer_name=model.producer_name,
        graph_name=model.graph.name,
        domain=model.domain,
        description=model.doc_string,
        graph_description=model.graph.doc_string,
        version=model.model_version,
        custom_metadata_map={entry.key: entry.value for entry in model.metadata_props},
        columns=columns_of(model),
    )


def columns_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Read how a model names the columns of its inputs: the last axis of each, in order.

    Metadata `mpc.columns.NAME` says it of the input NAME, as a JSON list of texts.  Of a model with one input also
    `feature_names` and what others call it is read, if it is such a list of as many names as there are columns; names
    that only count, as f0, f1, f2, are none.

    Raises:
        ModelError: `mpc.columns.NAME` is no list of different names, as many as the input has columns, or of no input.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    sizes = {value.name: _last(value) for value in model.graph.input if value.name not in constants}
    said = {entry.key: entry.value for entry in model.metadata_props}
    found = {}
    for key, value in said.items():
        if key.startswith(_OWN):
            name = key.removeprefix(_OWN)
            names = _names(value)
            if names is None or name not in sizes or sizes[name] not in (None, len(names)):
                raise ModelError(
                    f"the model's metadata {shown(key[:200])} is no list of names, one a column of an input",
                    remedy=f"{_OWN}{next(iter(sizes), 'x')} = {json.dumps(['age', 'bmi'])}, a JSON list",
                )
            found[name] = names
    if len(sizes) == 1 and not found:
        [(name, size)] = sizes.items()
        others = (_names(said[key]) for key in _OTHERS if key in said)
        for names in others:
            if names and len(names) == size and not all(map(_COUNTING.fullmatch, names)):
                found[name] = names
    return found


def rounds_quantised(model: onnx.ModelProto) -> bool:
    """Tell whether what a model quantises becomes whole numbers, as it does unless its metadata say otherwise.

    Metadata `mpc.quantised` = `float` leaves the roundings out: values are held between their type's ends alone.

    Raises:
        ModelError: it is neither `exact` nor `float`.
    """
    found = {entry.value for entry in model.metadata_props if entry.key == _QUANTISED} or {"exact"}
    if not found <= {"exact", "float"}:
        raise ModelError(
            f"the model's metadata {_QUANTISED} is {shown(sorted(found)[0][:80])!r}",
            remedy=f"{_QUANTISED} = exact, or float, which leaves the roundings out",
        )
    return found == {"exact"}


def _last(value: onnx.ValueInfoProto) -> int | None:
    """Return the columns of an input; None if they are not known."""
    sizes = value.type.tensor_type.shape.dim
    return sizes[-1].dim_value or None if len(sizes) > 1 else None


def _names(text: str) -> tuple[str, ...] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # lists in lists, thousands deep
        return None
    texts = isinstance(found, list) and all(isinstance(each, str) and label_fault(each) is None for each in found)
    return tuple(found) if texts and found and len({*found}) == len(found) else None
