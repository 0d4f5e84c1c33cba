"""Lists of models at the parties, and all that is said of one: as text, in notebooks, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from mpc.text import shown
from mpc.wires import Dimension
from parties.agreed.objects import Manifest
from parties.client.at_rest.listing import Listing, Told, cut, terms
from parties.client.at_rest.said import day

_LISTED = 12
"""Ranges of columns that are written out each by itself."""


class ModelListing(Listing):
    """Models, as parties list them."""

    _MANY, _SAID = "models", "plan"

    @property
    def table(self) -> list[tuple[str, ...]]:
        """Rows of texts, the head first."""
        head = ("name", "version", "expires", "description")
        return [head, *((e.name, str(e.version), day(e.expires), cut(e.description)) for e in self)]


class ModelDescription(Told):
    """All that an owner says of a model, and what its plan says of its inputs and outputs."""

    def __init__(self, manifest: Manifest, plan: Plan) -> None:
        self.manifest, self.plan = manifest, plan

    @property
    def lines(self) -> list[str]:
        """Sentences on the model as a whole."""
        whole = self.manifest
        return [
            *(shown(line) for line in whole.description.split("\n") if line),
            f"{len(whole.columns)} arrays of weights, {whole.elements:,} numbers; owner {whole.owner}",
            terms(whole),
            f"plan {self.plan.digest.hex()}",
        ]

    @property
    def table(self) -> list[tuple[str, ...]]:
        """Inputs and outputs as rows of texts, the head first."""
        head = ("", "name", "shape", "type", "range")
        rows = [
            (
                "input",
                shown(given.name),
                _shape(given.of_numbers(self.plan.wire[given.wire].shape)),
                given.dtype,
                _range(given),
            )
            for given in self.plan.inputs
        ]
        rows += [("output", shown(out.name), _shape(out.shape), out.dtype, "") for out in self.plan.outputs]
        return [head, *rows]

    def content(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        whole, plan = self.manifest, self.plan
        inputs = [
            {
                "name": given.name,
                "shape": [*given.of_numbers(plan.wire[given.wire].shape)],
                "type": given.dtype,
                "range": [[*map(float, given.low)], [*map(float, given.high)]],
            }
            for given in plan.inputs
        ]
        outputs = [{"name": out.name, "shape": [*out.shape], "type": out.dtype} for out in plan.outputs]
        return {
            "name": whole.name,
            "owner": whole.owner,
            "version": whole.version,
            "id": whole.id.hex(),
            "plan": plan.digest.hex(),
            "description": whole.description,
            "visible": list(whole.visible),
            "created": whole.created,
            "expires": whole.expires,
            "weights": len(whole.columns),
            "inputs": inputs,
            "outputs": outputs,
        }


def _shape(shape: tuple[Dimension, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _range(given: PlanInput) -> str:
    return said_ranges([*map(float, given.low)], [*map(float, given.high)])


def said_ranges(low: Sequence[float], high: Sequence[float]) -> str:
    """Write an input's range, or one for each of its columns, as `--range` takes them while they are few."""
    each = [f"{bottom:g}:{top:g}" for bottom, top in zip(low, high, strict=True)]
    if len(each) <= _LISTED:
        return ",".join(each)
    groups = [(text, [place for place, _ in found]) for text, found in groupby(enumerate(each), lambda one: one[1])]
    said = [f"{text} in column{'s' * (len(places) > 1)} {_places(places)}" for text, places in groups[:_LISTED]]
    left = sum(len(places) for _, places in groups[_LISTED:])
    return ", ".join([*said, *([f"and ranges of {left:,} more columns (--json has all)"] if left else [])])


def _places(places: Sequence[int]) -> str:
    return f"{places[0]}" if len(places) == 1 else f"{places[0]}-{places[-1]}"
