"""Labels, categories and dictionaries (ai.onnx.ml): how a recipient reads an output, and look-ups by value.

Labels stay an index until somebody computes with them.  A value that has no category is an error in
onnxruntime; here, where no error may depend on data, it is in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mpc.compiler.graph.graph import HALF_STEP, Shape
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.facts import Place, Truncated
from mpc.compiler.operators.logic import cut_window
from mpc.compiler.operators.registry import handles
from mpc.errors import ModelError
from mpc.text import label_fault, shown

ML = "ai.onnx.ml"
Label = int | str
Labels = tuple[Label, ...]
_MOST_LEVELS = 64
_MOST_CATEGORIES = 1 << 16
_LARGEST_WHOLE = 1 << 30


def labels_of(settings: Settings, integers: str, strings: str) -> Labels:
    """Return a list that is either integers or strings."""
    if settings.get(strings):
        return tuple(entry.decode() for entry in settings[strings])
    return tuple(int(entry) for entry in settings.get(integers, ()))


def read_as(state: Context, out: str, index: str, labels: Labels, shape: Shape | None = None) -> None:
    """Read `out` as the label at a place among these."""
    dtype = "string" if any(isinstance(label, str) for label in labels) else "int64"
    state.decode(out, index, shape=state.shapes[index] if shape is None else shape, dtype=dtype, labels=labels)


def require_printable(name: str, labels: Iterable[int | str]) -> None:
    """Refuse the labels or keys of an output that have characters which steer what recipients' programs print.

    Raises:
        ModelError: naming the output and the label.
    """
    for label in labels:
        fault = label_fault(label) if isinstance(label, str) else None
        if fault is not None:
            raise ModelError(
                f"output {name!r} has the class label {shown(str(label)[:80])!r}",
                cause=fault,
                remedy="rename that class before the model is trained or converted, or number the classes",
            )


def as_number(state: Context, name: str) -> None:
    """Turn integer labels into a value to compute with, under their name."""
    read = state.decoded[name]
    labels = read.labels or ()
    if not labels or any(isinstance(label, str) for label in labels):
        raise state.origin.refuse(
            "it computes with class names or dictionaries, which can only be outputs",
            remedy="train with numbered classes, or convert with the option zipmap=False",
        )
    if labels == tuple(range(len(labels))):
        state.reshape(read.value, read.shape, name)
    else:
        numbers = _picked(state, one_hot(state, read.value, range(len(labels))), labels, 0.0)
        state.reshape(numbers, read.shape, name)
    del state.decoded[name]
    state.integral.add(name)


# ------------------------------------------------------------------- look-ups


def one_hot(state: Context, x: str, categories: Sequence[float]) -> str:
    """Compare x with every category, on one more axis: 1 at its own, each a window of two neighbouring levels."""
    if not 1 <= len(categories) <= _MOST_CATEGORIES:
        raise state.origin.refuse(
            f"{len(categories)} categories; 1 to {_MOST_CATEGORIES} are possible",
            remedy="split the table; of an index, declare a range from 0 (--range NAME=0:LAST), which halves them",
        )
    if len(set(categories)) != len(categories):
        raise state.origin.refuse(
            "a category is there twice",
            remedy="list each category once: train the encoder anew, or drop the repeated ones",
        )
    windows = [_window(state, x, float(value)) for value in categories]
    levels = sorted({level for window in windows if window for level in window})
    if not levels:
        raise state.origin.refuse(
            "whole numbers are none of its categories",
            remedy=("make the input one of float32, or the categories whole numbers (OrdinalEncoder before the model)"),
        )
    parts = [
        state.steps(x, tuple(levels[start : start + _MOST_LEVELS])) for start in range(0, len(levels), _MOST_LEVELS)
    ]
    axis = len(state.shapes[x])
    bits = parts[0] if len(parts) == 1 else state.concat(parts, axis)
    place = {level: position for position, level in enumerate(levels)}
    ends = [state.take(bits, axis, [place[window[end]] if window else -1 for window in windows]) for end in (0, 1)]
    return state.sum(ends, (1.0, -1.0), known=(0.0, 1.0))


def _window(state: Context, x: str, value: float) -> tuple[float, float] | None:
    """low <= x < high exactly if x is this value; None if it never is."""
    if isinstance(state.facts.get(x), Truncated):
        return cut_window(value) if value.is_integer() else None
    if x in state.integral:
        return (value, value + 1) if value.is_integer() else None
    return value - HALF_STEP, value + HALF_STEP


def _picked(state: Context, hot: str, values: Sequence[Any], default: float) -> str:
    """The value of the category, of the shape before `one_hot`; a secret table."""
    table = np.array(values, dtype=np.float64)
    if not np.any(table % 1) and np.abs(table).max() > _LARGEST_WHOLE:
        raise state.origin.refuse(
            f"whole numbers up to {np.abs(table).max():.3g}, which would not stay exact",
            remedy=(
                f"use numbers up to {_LARGEST_WHOLE:,}: number the entries from 0, and look their "
                "values up in the result"
            ),
        )
    ends = min(default, float(table.min())), max(default, float(table.max()))
    found = state.affine(hot, (table - default)[:, None], np.array([default]), known=ends)
    if not np.any(table % 1) and float(default).is_integer():
        state.integral.add(found)
    return state.reshape(found, state.shapes[hot][:-1])


# ------------------------------------------------------------------- operators


@handles("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(state: Context, node: ModelNode, settings: Settings) -> None:
    """Take columns of data at public places, or entries of a table at secret ones."""
    data, places = node.input[:2]
    if state.is_constant(places):
        _columns(state, node)
    elif state.is_constant(data):
        _entries(state, node)
    else:
        raise state.origin.refuse(
            "secret places in secret data", remedy="leave that step out, or compute it on the result"
        )


def _columns(state: Context, node: ModelNode) -> None:
    shape = state.secret(node.input[0])
    places = state.integers(node.input[1], "the places")
    size = state.size(shape, -1, "an index")
    if not places or min(places) < 0 or max(places) >= size:
        raise state.origin.refuse(f"a place outside its {size} columns", remedy=f"choose columns from 0 to {size - 1}")
    whole = state.reshape(node.input[0], (1, *shape)) if len(shape) == 1 else node.input[0]
    state.take(whole, len(state.shapes[whole]) - 1, places, node.output[0])


def _entries(state: Context, node: ModelNode) -> None:
    """Take entries of one row: of labels by a reading, of numbers by a product with the one-hot place."""
    table, places = state.constant(node.input[0], "the table"), node.input[1]
    shape = state.secret(places)
    if places not in state.integral:
        raise state.origin.refuse(
            "its places are no whole numbers", remedy="make the places an input of int64, or the result of an ArgMax"
        )
    if sum(size != 1 for size in shape) > 1:
        _entries_of_rows(state, node, table, shape)
        return
    rows = next((size for size in shape if size != 1), 1)
    named = table.dtype.kind in "OSU"
    entries = table.reshape(-1, table.shape[-1]) if table.ndim else table.reshape(1, 1)
    if table.ndim > 2 or (named and len(entries) != 1):
        raise state.origin.refuse(
            f"a table of shape {table.shape}",
            remedy="give a table with one row of names; or of numbers, with rows and columns",
        )
    if len(entries) == 1 and table.dtype.kind in "OSUiu" and isinstance(state.facts.get(places), Place):
        labels = tuple(_text(entry) if named else int(entry) for entry in entries[0].tolist())
        read_as(state, node.output[0], places, labels, (1, rows))
        return
    hot = state.reshape(one_hot(state, places, range(entries.shape[1])), (rows, entries.shape[1]))
    if named:
        index = _picked(state, hot, range(entries.shape[1]), 0.0)
        read_as(state, node.output[0], index, tuple(_text(entry) for entry in entries[0].tolist()), (1, rows))
        return
    numbers = entries.astype(np.float64)
    chosen = state.affine(hot, numbers.T, known=(min(0.0, float(numbers.min())), max(0.0, float(numbers.max()))))
    found = state.transpose(chosen, (1, 0), node.output[0])
    if not np.any(entries % 1):
        state.integral.add(found)


def _entries_of_rows(state: Context, node: ModelNode, table: np.ndarray, shape: Shape) -> None:
    """Several places a row: their flat list is one that only a Reshape sees, so it keeps its axes."""
    if table.size != table.shape[-1] or table.dtype.kind in "OSU" or not state.only_feeds(node.output[0], {"Reshape"}):
        raise state.origin.refuse(
            f"places of shape {shape}; one a row is possible",
            remedy=(
                "flatten the table to one row of numbers and let a Reshape alone read the result; "
                "or look up one place a row"
            ),
        )
    found = _picked(state, one_hot(state, node.input[1], range(table.size)), table.reshape(-1).tolist(), 0.0)
    state.reshape(found, (1, *shape), node.output[0])


def _text(entry: Any) -> str:
    return entry.decode() if isinstance(entry, bytes) else str(entry)


@handles("ZipMap", domain=ML)
def zip_map(state: Context, node: ModelNode, settings: Settings) -> None:
    keys = labels_of(settings, "classlabels_int64s", "classlabels_strings")
    shape = state.secret(node.input[0])
    if len(shape) != 2 or shape[1] != len(keys):
        raise state.origin.refuse(
            f"{len(keys)} keys for a value of shape {shape}",
            attribute="classlabels_int64s",
            remedy=(
                "give one class label for each column of a matrix of scores; or convert with the option zipmap=False"
            ),
        )
    state.decode(node.output[0], node.input[0], dtype="float32", keys=keys)


@handles("OneHotEncoder", domain=ML)
def one_hot_encoder(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compare with each category; reals are cut to whole numbers first, towards zero."""
    if settings.get("cats_strings"):
        raise state.origin.refuse(
            "categories that are strings",
            attribute="cats_strings",
            remedy=(
                "number the categories before the model (scikit-learn's OrdinalEncoder), and train "
                "on the numbers (cats_int64s)"
            ),
        )
    x = node.input[0]
    state.secret(x)
    if x not in state.integral and not isinstance(state.facts.get(x), Truncated):
        x = state.reshape(x, state.shapes[x])
        state.facts[x] = Truncated()
    hot = one_hot(state, x, settings.get("cats_int64s", ()))
    state.reshape(hot, state.shapes[hot], node.output[0])
    state.integral.add(node.output[0])


@handles("LabelEncoder", domain=ML, labels=True)
def label_encoder(state: Context, node: ModelNode, settings: Settings) -> None:
    keys, values, default = _mapping(state, settings)
    source, out = node.input[0], node.output[0]
    if source in state.decoded and state.decoded[source].labels is not None:
        read = state.decoded[source]
        table = dict(zip(keys, values, strict=True))
        mapped = [table.get(label, default) for label in read.labels or ()]
        if any(isinstance(value, float) for value in mapped):
            found = _picked(state, one_hot(state, read.value, range(len(mapped))), mapped, 0.0)
            state.reshape(found, read.shape, out)
        else:
            read_as(state, out, read.value, tuple(mapped), read.shape)
        return
    state.secret(source)
    if any(isinstance(key, str) for key in keys):
        raise state.origin.refuse(
            "keys that are strings, for numbers",
            attribute="keys_strings",
            remedy=("number the categories before the model (scikit-learn's OrdinalEncoder), and use keys_int64s"),
        )
    hot = one_hot(state, source, [float(key) for key in keys])
    if isinstance(default, str):
        # the last label is that of all other values
        index = _picked(state, hot, range(len(values)), float(len(values)))
        read_as(state, out, index, (*values, default))
        return
    found = _picked(state, hot, values, float(default))
    state.reshape(found, state.shapes[found], out)


def _mapping(state: Context, settings: Settings) -> tuple[list[Any], list[Any], Any]:
    """(keys, values, the value of everything else)"""
    if settings.get("classes_strings"):
        raise state.origin.refuse("a list of classes", remedy="convert for ai.onnx.ml 2 or newer")
    keys, values = _entries_of(state, settings, "keys"), _entries_of(state, settings, "values")
    if not keys or len(keys) != len(values):
        raise state.origin.refuse(
            f"{len(keys)} keys for {len(values)} values",
            attribute="keys_int64s",
            remedy=(
                "give one value for each key, one or more: keys_int64s or keys_floats, and "
                "values_int64s, values_floats or values_strings"
            ),
        )
    if len(set(keys)) != len(keys):
        raise state.origin.refuse(
            "a key is there twice", attribute="keys_int64s", remedy="list each key once, with the value that is meant"
        )
    if isinstance(values[0], str):
        default: Any = settings.get("default_string", b"_Unused").decode()
    elif isinstance(values[0], int):
        default = int(settings.get("default_int64", -1))
    else:
        default = float(settings.get("default_float", -0.0))
    if "default_tensor" in settings:
        default = _plain(state.array(settings["default_tensor"]).reshape(-1)[0])
    return keys, values, default


def _entries_of(state: Context, settings: Settings, side: str) -> list[Any]:
    for kind in ("int64s", "floats", "strings"):
        if settings.get(f"{side}_{kind}"):
            return [_plain(entry) for entry in settings[f"{side}_{kind}"]]
    if f"{side}_tensor" in settings:
        return [_plain(entry) for entry in state.array(settings[f"{side}_tensor"]).reshape(-1).tolist()]
    return []


def _plain(entry: Any) -> int | float | str:
    """As Python has it; whole numbers in floating point stay what they are."""
    if isinstance(entry, bytes | str):
        return _text(entry)
    return float(entry) if isinstance(entry, float | np.floating) else int(entry)
