"""Turn the model's arrays into the integers that stand for them and back, and a batch into blocks.

Everything here is a pure function of the plan and of what is public, so that whoever takes
part in a run checks, splits and joins as all the others do.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc import fixedpoint
from mpc.compiler.arguments import as_arrays
from mpc.errors import InputError, UsageError, warn
from mpc.plan.ends import PlanInput, PlanOutput
from mpc.plan.plan import Plan
from parties.agreed.memory import needed_memory

_MOST = 1 << 31
BLOCK_ROWS = 1024
BLOCK_BYTES = 3 << 29
"""Rows, and memory of a party, that one run takes at most; larger batches are split, by everyone alike.  Two are under
way at a time: one is prepared while the one before it is online."""
CHECKED_BYTES = 15 << 28
"""The same of a run that is checked, which is dealt many times as much: two are under way if both fit in that."""
_RESOLVED = 2.0**-34
"""The part of a range that a comparison of trees tells apart."""
_FEWEST_STEPS = 512
_LEAST_ROWS = 8
_ORT_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)", "float16": "tensor(float16)"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output, as onnxruntime describes it."""

    name: str
    shape: list[int | str]
    type: str


def describe_inputs(plan: Plan) -> list[NodeArg]:
    """Return the names, shapes and types of the model's inputs."""
    return [
        NodeArg(given.name, [*given.of_numbers(plan.wire[given.wire].shape)], _ort_type(given.dtype))
        for given in plan.entered_inputs
    ]


def describe_outputs(plan: Plan) -> list[NodeArg]:
    """Return the names, shapes and types of the model's outputs."""
    return [NodeArg(out.name, [*out.shape], "seq(map)" if out.keys else _ort_type(out.dtype)) for out in plan.outputs]


def _ort_type(dtype: str) -> str:
    return _ORT_TYPES.get(dtype, f"tensor({dtype})")


# ------------------------------------------------------------------------------- whose


def owner_of(plan: Plan, given: PlanInput) -> str:
    """Name the owner of an input."""
    return plan.wire[given.wire].holders[0]


def owned(plan: Plan, name: str) -> tuple[str, ...]:
    """Name the inputs that somebody enters."""
    return tuple(given.name for given in plan.entered_inputs if owner_of(plan, given) == name)


def received(plan: Plan, name: str) -> tuple[str, ...]:
    """Name the outputs that somebody receives."""
    return tuple(out.name for out in plan.outputs if name in plan.wire[out.wire].holders)


def chosen(plan: Plan, me: str, names: Sequence[str] | None) -> list[str]:
    """Return the outputs that are asked for, or all that `me` receives if none is named.

    Raises:
        UsageError: there is none of that name, or it is not for `me`.
    """
    known = {out.name: out for out in plan.outputs}
    if names is not None and not _are_texts(names):
        raise UsageError(
            "output names are a list of names, or None for all",
            remedy=f"session.run([{next(iter(known))!r}], feeds)",
        )
    for name in names or ():
        if name not in known:
            raise UsageError(f"the model has no output {name!r}", remedy=f"its outputs are {', '.join(known)}")
        holders = plan.wire[known[name].wire].holders
        if me not in holders:
            raise UsageError(
                f"output {name!r} is not for {me}: {', '.join(holders)} receives it",
                remedy=f"who receives what is part of the plan: recipients={{{name!r}: (..., {me!r})}} changes it",
            )
    return list(names or received(plan, me))


def _are_texts(names: object) -> bool:
    if not isinstance(names, Sequence) or isinstance(names, str | bytes):
        return False
    return all(isinstance(name, str) for name in names)


# -------------------------------------------------------------------------------- feeds


def read_feeds(plan: Plan, me: str, given: Any) -> dict[str, np.ndarray]:
    """Read what `me` gives as arrays by input name.  It is a mapping, or one array if `me` enters one input; lists of
    numbers will do for arrays.

    Raises:
        UsageError, InputError: it has no form that means anything.
    """
    own, types = owned(plan, me), {each.name: each.dtype for each in plan.entered_inputs}
    if given is not None and not isinstance(given, Mapping):
        types = {name: types[name] for name in own}
    return as_arrays(given, types, "feeds", "{'x': array, ...}")


def read_count(given: Any, what: str, least: int = 1) -> int:
    """Read a whole number that somebody gives, of at least `least`.

    Raises:
        UsageError: it is none, less than `least`, or more than anything here can be.
    """
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not least <= given <= _MOST:
        shown = given if isinstance(given, int | np.integer) else f"of type {type(given).__name__}"
        raise UsageError(f"{what} cannot be {shown}", remedy=f"give a whole number, {least} or more")
    return int(given)


def check_feeds(plan: Plan, feeds: Mapping[str, np.ndarray]) -> int:
    """Check names, types, shapes and ranges of all inputs; return the number of rows.

    Raises:
        InputError: naming what is wrong.
    """
    return _check(plan, feeds, [given.name for given in plan.entered_inputs]) or 1


def check_own(plan: Plan, me: str, feeds: Mapping[str, np.ndarray]) -> int | None:
    """Check the inputs that `me` enters, as `check_feeds` does; return the number of rows, None if they do not say it.

    Raises:
        InputError: naming what is wrong, or whose the input is.
    """
    for given in plan.entered_inputs:
        if given.name in feeds and owner_of(plan, given) != me:
            raise InputError(
                f"input {given.name!r} is not {me}'s to give: {owner_of(plan, given)} enters it",
                remedy=f"leave it out, or join as {owner_of(plan, given)}, with that one's own cluster file",
            )
    return _check(plan, feeds, owned(plan, me))


def _check(plan: Plan, feeds: Mapping[str, np.ndarray], names: Collection[str]) -> int | None:
    expected = {given.name: given for given in plan.entered_inputs}
    for name in feeds:
        if name not in expected:
            raise InputError(f"the model has no input {name!r}", remedy=f"its inputs are {', '.join(expected)}")
    batches: set[int] = set()
    for name in names:
        if name not in feeds:
            raise InputError(f"input {name!r} is missing", remedy=f"the inputs to give are {', '.join(names)}")
        batch = _check_feed(plan, expected[name], np.asarray(feeds[name]))
        if batch is not None:
            batches.add(batch)
    if len(batches) > 1:
        raise InputError(f"the inputs have different batch sizes: {sorted(batches)}")
    return batches.pop() if batches else None


def _check_feed(plan: Plan, given: PlanInput, array: np.ndarray) -> int | None:
    """Check one input; return its number of rows, or None if its shape is fixed."""
    shape = given.of_numbers(plan.wire[given.wire].shape)
    if array.dtype != np.dtype(given.dtype):
        raise InputError(
            f"input {given.name!r} has dtype {array.dtype}, the model takes {given.dtype}",
            remedy=f"convert it: x.astype(numpy.{given.dtype})",
        )
    if 0 in array.shape:
        raise InputError(f"input {given.name!r} is empty: its shape is {array.shape}", remedy="give at least one row")
    fits = len(array.shape) == len(shape) and all(d in ("batch", n) for d, n in zip(shape, array.shape, strict=False))
    if not fits:
        raise InputError(
            f"input {given.name!r} has shape {array.shape}, the model takes ({', '.join(map(str, shape))})",
            remedy="reshape the data",
        )
    fixedpoint.check_range(array, given.low, given.high, given.name, given.missing.columns if given.missing else ())
    return next((int(n) for d, n in zip(shape, array.shape, strict=True) if d == "batch"), None)


def agree_on_batch(plan: Plan, found: int | None, said: int | None) -> int:
    """Return the rows of a run that its coordinator starts: what its own inputs have, or what it says.

    Raises:
        InputError, UsageError: they differ, or neither is there.
    """
    if said is not None and said < 1:
        raise UsageError(f"a batch of {said}", remedy="give the number of rows, 1 or more")
    if found is not None and said is not None and found != said:
        raise InputError(
            f"the inputs have {found} rows, and the batch is said to be {said}",
            remedy="leave the batch out: it follows from them",
        )
    if found is None and said is None and any(not is_fixed(plan, given.wire) for given in plan.entered_inputs):
        raise UsageError(
            "none of the inputs that you give says how many rows there are",
            remedy="say it: session.run(None, feeds, batch=N), mpc run --batch N",
        )
    return found or said or 1


def to_integers(plan: Plan, feeds: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
    """Encode the inputs that are named: int64 integers by input wire, at the wire's scale.  Where numbers may be
    missing, an input has two wires."""
    found = {}
    for given in plan.entered_inputs:
        if given.name not in names:
            continue
        values = np.asarray(feeds[given.name])
        if given.missing is not None:
            missing = np.isnan(values)
            if given.missing.wire is not None:
                found[given.missing.wire] = missing.astype(np.int64)
            values = np.where(missing, given.stand_in, values)
        if given.places is not None:
            found[given.wire] = fixedpoint.encode_places(values, given.places)
            continue
        found[given.wire] = fixedpoint.encode_columns(
            values, plan.wire[given.wire].scale, given.offset, given.factor, f"input {given.name!r}"
        )
    return found


def coarse_columns(plan: Plan, feeds: Mapping[str, np.ndarray]) -> list[str]:
    """Describe, in sentences for whoever enters them, the columns of tables whose values differ by less than their
    ranges resolve well.

    Bounds and expected errors are for data that are spread over the declared range; of a column that fills a small
    part of it, less is left.
    """
    found = []
    for given in plan.entered_inputs:
        values = np.asarray(feeds.get(given.name, ()))
        if values.ndim != 2 or len(values) < _LEAST_ROWS or not given.dtype.startswith("float"):
            continue
        reals = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
        low, high, factor = (np.array([float(e) for e in ends]) for ends in (given.low, given.high, given.factor))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of columns without a number
            spread = np.nan_to_num(np.nanstd(reals, axis=0))
        steps = spread / np.maximum(1 / (factor * float(plan.wire[given.wire].scale)), (high - low) * _RESOLVED)
        lost = np.flatnonzero((spread > 0) & (steps < _FEWEST_STEPS))
        found += [
            f"column {column} (the first is column 0) of input {given.name!r} varies by about {spread[column]:.2g}, "
            f"and its range resolves steps of {spread[column] / steps[column]:.2g}: what depends on it is hardly "
            f"right; declare a range a column (--range {given.name}=LOW:HIGH,LOW:HIGH,..., in Python "
            f"ranges={{{given.name!r}: (lows, highs)}})"
            for column in lost[:1].tolist()
        ]
    return found


def note_coarse_columns(plan: Plan, feeds: Mapping[str, np.ndarray], notes: list[str]) -> None:
    """Add to `notes` what no note says of these data yet, and warn of it with an `MpcWarning`."""
    for text in coarse_columns(plan, feeds):
        if text not in notes:
            notes.append(text)
            warn(text)


# ------------------------------------------------------------------------------- blocks


def split(plan: Plan, batch: int, room: int | None = None) -> list[int]:
    """Split a batch into runs as even as can be; return the rows of each.

    room: bytes of memory that runs may need at a party, if they are known to be few.
    """
    if is_whole(plan):
        return [batch]
    rows = most_rows(plan, room)
    runs = -(-batch // rows)
    each, more = divmod(batch, runs)
    return [each + 1] * more + [each] * (runs - more)


def is_whole(plan: Plan) -> bool:
    """Does one run take a batch as a whole?  It does if an output is about all of it, or if runs hand on state:
    another split would be another computation.
    """
    return bool(plan.states) or any(is_fixed(plan, out.wire) for out in plan.outputs)


def most_rows(plan: Plan, room: int | None = None) -> int:
    """Return the rows that one run takes at most; room: as `split`."""
    needed = max(1, needed_memory(plan, BLOCK_ROWS) // BLOCK_ROWS)
    if not plan.is_checked:
        most = BLOCK_BYTES if room is None else min(BLOCK_BYTES, room // 2)
        return max(1, min(BLOCK_ROWS, most // needed))
    most = CHECKED_BYTES if room is None else min(CHECKED_BYTES, room)
    rows = max(1, min(BLOCK_ROWS, most // needed))
    while rows > 1 and (needed := needed_memory(plan, rows)) > most:  # not as many times as it has rows
        rows = max(1, min(rows - 1, rows * most // needed))
    return rows


def is_room_for_two(plan: Plan, batch: int, next_batch: int, room: int | None = None) -> bool:
    """May a run be prepared while the one before it is online?  room: as `split`."""
    most = CHECKED_BYTES if plan.is_checked else 2 * BLOCK_BYTES
    if room is not None and room < most:
        most = room
    elif not plan.is_checked:
        return True
    return needed_memory(plan, batch) + needed_memory(plan, next_batch) <= most


def block(plan: Plan, integers: Mapping[str, np.ndarray], start: int, size: int) -> dict[str, np.ndarray]:
    """Cut out the rows of one run, of every input that has rows."""
    return {name: v if is_fixed(plan, name) else v[start : start + size] for name, v in integers.items()}


def is_fixed(plan: Plan, wire: str) -> bool:
    """Has this wire no batch dimension?"""
    return "batch" not in plan.wire[wire].shape


# ------------------------------------------------------------------------------ outputs


def read_outputs(plan: Plan, batch: int, opened: Sequence[Mapping[str, np.ndarray]], names: Sequence[str]) -> list[Any]:
    """Return outputs in the order of their names, from what the runs of a batch have opened."""
    bound = plan.bind(batch)
    outputs = {out.name: out for out in bound.outputs}
    values = []
    for name in names:
        parts = [part[outputs[name].wire] for part in opened]
        values.append(read_output(outputs[name], bound, np.concatenate(parts) if len(parts) > 1 else parts[0]))
    return values


def read_output(out: PlanOutput, plan: Plan, integers: np.ndarray) -> Any:
    """Decode opened integers into the model's own output."""
    shape = tuple(int(d) for d in out.shape)
    if out.labels is not None:
        picked = [out.labels[int(index)] for index in integers.reshape(-1)]
        return np.array(picked, dtype=object if out.dtype == "string" else out.dtype).reshape(shape)
    reals = fixedpoint.decode(integers, plan.wire[out.wire].scale).reshape(shape)
    if out.keys is not None:
        return [dict(zip(out.keys, map(float, row), strict=True)) for row in reals]
    return np.asarray(reals if out.dtype.startswith("float") else np.rint(reals)).astype(out.dtype)
