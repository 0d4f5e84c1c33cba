"""Compiling for a command: which ranges undeclared inputs take, and what the user is told of it.

A plan is public to all parties, the provider and everybody with a ticket.  So nothing of it may follow from data that
are to stay private: only where all who see it are processes of the user's own is it suited to the data at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mpc.compiler.compile import DEFAULT_RANGE, Compiled
from mpc.compiler.from_graph import CALIBRATED
from mpc.compiler.graph.calibrate import are_bits, ranges_around, suited_ranges, uneven
from mpc.compiler.graph.graph import Range
from mpc.compiler.graph.noising import Noising
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.onnx.declared import declared_ranges, indexing, misfits, own_sizes
from mpc.compiler.onnx.load import Loaded, Source, load_model
from mpc.compiler.onnx.signature import Shapes, input_names
from mpc.compiler.roles import Roles
from mpc.errors import InputError, ModelError
from parties.cli.display import Display
from parties.client.compiling.cached import compile_cached

Feeds = dict[str, np.ndarray]
_ENTERED = (
    CALIBRATED.replace("the samples", "the rows that you enter")
    + ", and other rows can have another plan; --calibrate FILE has samples instead"
)
_LISTED = 8
"""Ranges of columns that a note lists."""


def compile_blindly(
    display: Display,
    model: Source,
    feeds: Feeds,
    declared: dict[str, Range],
    shapes: Shapes,
    roles: Roles,
    samples: Feeds | None = None,
    stored: Mapping[str, StoredInput] | None = None,
    noise: Noising | None = None,
) -> Compiled:
    """Compile without a look at what is entered, but for its shapes: others see the plan.

    Args:
        feeds: what this client enters.
        samples: data that may become known; undeclared ranges, and bounds that cannot be proved, rest on them.
        stored: inputs that lie at the parties.
        noise: what is asked of noise behind sums over rows.

    Raises:
        InputError: what is entered fits no range that was declared, and the default neither.
    """
    loaded = Loaded(load_model(model))
    known = {**declared_ranges(loaded.model), **declared, **(samples or {})}
    for name, values in feeds.items():
        if name not in known and _measurable(values) and np.nanmax(np.abs(values)) > DEFAULT_RANGE[1]:
            raise InputError(
                f"no range is declared for input {name!r}, and what you enter goes beyond "
                f"{DEFAULT_RANGE[0]:g}:{DEFAULT_RANGE[1]:g}",
                cause="ranges stand in the plan, which all parties see; so none is made from private data",
                remedy=f"declare what anybody may know of it: --range {name}=LOW:HIGH, or one pair for each column; "
                "or give --calibrate a file of data that may become known",
            )
    shapes = _with_own(loaded, shapes, samples or feeds)
    compiled = compile_cached(loaded, declared, roles, samples, shapes, stored, noise)
    return compiled if misfits(loaded.model, feeds) else noted(display, compiled)


def _with_own(model: Loaded, shapes: Shapes, feeds: Feeds) -> Shapes:
    """Return the shapes that were declared, and the arrays' own where none was."""
    return {**own_sizes(model.model, feeds), **shapes}


def compile_for_data(
    display: Display,
    model: Source,
    feeds: Feeds,
    declared: dict[str, Range],
    shapes: Shapes,
    roles: Roles,
) -> Compiled:
    """Compile where nobody but this user sees the plan; undeclared inputs take the default range, as everywhere.

    Where all ranges are declared the plan is theirs alone, as in every command, if it can be proved at all.
    Where this data does not fit the default, bounds cannot be proved for it, or precision suffers, they take a power
    of two around all of the input, or a range for each column, said aloud.  Columns of very different size have ranges
    of their own from the start.  Indices of the model's tables, as token ids are, have the table's; beside these an
    input of zeros and ones is taken for a mask, whose range is 0:1.
    """
    loaded = Loaded(load_model(model))
    names = input_names(loaded)
    shapes = _with_own(loaded, shapes, feeds)
    known = {**declared_ranges(loaded.model), **declared}
    wrong = misfits(loaded.model, feeds)
    ids = indexing(loaded.model, feeds)
    given = {*known, *wrong, *ids}
    undeclared = {name: values for name, values in feeds.items() if name not in given and _measurable(values)}
    samples = feeds if len(feeds) == len(names) else {}
    if not undeclared:
        compiled, _ = _best(loaded, declared, [{}], roles, samples, shapes, enough=np.inf)
        compiled = _of_rows_entered(compiled)
        return compiled if wrong else noted(display, compiled)
    even = not any(map(uneven, undeclared.values()))
    fits = even and all(np.nanmax(np.abs(values)) <= DEFAULT_RANGE[1] for values in undeclared.values())
    masks = {name: (0.0, 1.0) for name, values in undeclared.items() if ids and _masks(values)}
    candidates: list[dict[str, Range]] = [{}] if fits and not masks else []
    candidates += [{**suited_ranges(undeclared), **masks}, {**ranges_around(undeclared, columns=True), **masks}]
    compiled, taken = _best(loaded, declared, candidates, roles, samples, shapes)
    if wrong:  # that is told when the data are checked, and nothing else of them is worth a word
        return compiled
    for name, around in taken.items():
        display.say(_told(name, around))
    return noted(display, _of_rows_entered(compiled))


def _masks(values: np.ndarray) -> bool:
    """Are these zeros and ones, as a mask has?  Of real numbers at least one is a one: zeros alone say nothing."""
    return are_bits(values) or (bool(np.isin(values, (0, 1)).all()) and bool((values == 1).any()))


def _of_rows_entered(compiled: Compiled) -> Compiled:
    """Let the note on bounds without a proof say that the samples are the rows that are entered."""
    notes = tuple(_ENTERED if text == CALIBRATED else text for text in compiled.notes)
    return replace(compiled, notes=notes)


def _best(
    model: Loaded,
    declared: dict[str, Range],
    candidates: list[dict[str, Range]],
    roles: Roles,
    samples: Feeds,
    shapes: Shapes,
    enough: float = 1,
) -> tuple[Compiled, dict[str, Range]]:
    """Return the compilation of the first ranges that are precise enough, else of the most precise, with these ranges.

    If none does, bounds are calibrated on the data itself, if all of it is here.

    Args:
        enough: the largest imprecision that will do; infinity takes whatever is proved.
    """
    found: list[tuple[Compiled, dict[str, Range]]] = []
    refusals: list[ModelError] = []
    for around in candidates:
        try:
            found.append((compile_cached(model, {**declared, **around}, roles, shapes=shapes), around))
        except ModelError as error:
            refusals.append(error)
            continue
        if found[-1][0].imprecision <= enough:
            return found[-1]
    if samples and all(_measurable(values) for values in samples.values()):
        around = next((one for one in candidates if one), candidates[0])
        try:
            found.append((compile_cached(model, {**declared, **around}, roles, samples, shapes), around))
        except ModelError as error:
            refusals.append(error)
        except InputError:  # a number is missing that may not be: that is told when the data are checked
            pass
    if not found:
        raise refusals[-1]
    return min(found, key=lambda one: one[0].imprecision)


def _told(name: str, taken: Range) -> str:
    """Say which range an input took that nobody declared one for, and who sees it."""
    declare = f"--range {name}=LOW:HIGH"
    low, high = (np.atleast_1d(np.asarray(end)).tolist() for end in taken)
    listed = [f"{a:.10g}:{b:.10g}" for a, b in zip(low, high, strict=True)]
    more = f", and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    around = "each column of this data" if len(listed) > 1 else "this data"
    seen = ", ".join(listed[:_LISTED]) + more
    declare += ",LOW:HIGH,... declare them" if len(listed) > 1 else " declares one"
    return (
        f"note: no range is declared for input {name!r}; one around {around} is taken, as wide as a power of two, and "
        f"the parties see it in the plan: {seen} ({declare})"
    )


def _measurable(values: np.ndarray) -> bool:
    """Tell whether these are numbers, none of them infinite; missing ones say nothing of a range."""
    numbers = values.dtype.kind in "fiu" and values.size > 0 and values.ndim > 0
    return numbers and not np.isinf(values).any() and not np.isnan(values).all()


def noted(display: Display, compiled: Compiled) -> Compiled:
    """Tell the user what a compilation has to say; return the compilation."""
    for text in compiled.messages:
        display.say(f"note: {text}")
    return compiled
