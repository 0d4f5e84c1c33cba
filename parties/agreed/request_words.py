"""Words of a request: the lines that its asker, the owners of the data and operators are shown of it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from mpc.privacy.facts import CHARGE_UNIT, DELTA_UNIT
from mpc.wires import Dimension
from parties.agreed import programs

if TYPE_CHECKING:
    from parties.agreed.requests import Keeps, Proves, Reads, Request, Weighs

_SHOWN = 16


def lines_of(request: Request) -> tuple[str, ...]:
    """Describe a request in lines for people, equal wherever it is shown."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(request.gates.items()))
    kept = {each.output for each in request.learns if each.kept and not each.recipients}
    return (
        f"request   {request.id}",
        f"asked by  {request.coordinator}, with the key {request.key[:_SHOWN]}",
        f"cluster   {request.cluster or 'without an id'}: {', '.join(request.parties)}; provider {request.provider}",
        f"plan      {request.plan}",
        *(["checked   each run, before anything of it is told"] if request.security == "active" else []),
        f"gates     {kinds}",
        *(f"reads     {_read(each)}" for each in request.reads),
        *(f"enters    {each.owner}: input {each.input!r} {_shape(each.shape)}" for each in request.enters),
        *(f"weights   {each.arrays} arrays, {_secrecy(each)}, entered by {each.owner}" for each in request.weighs),
        *(
            f"learns    {', '.join(each.recipients) or 'nobody'}: output {each.output!r} {_shape(each.shape)}"
            f"{', which stays at the parties too' * each.kept}"
            for each in request.learns
        ),
        *(f"{label:<10}{words}" for label, words in programs.said(request.handed_on, kept)),
        *(f"keeps     {each.name}, of {', '.join(map(repr, each.outputs))}: {_seen(each)}" for each in request.keeps),
        *(f"tells     {_proved(each)}" for each in request.proves),
    )


def _read(each: Reads) -> str:
    what = "a weight" if each.input is None else f"input {each.input!r}"
    rows = f"rows {each.first:,} to {each.first + each.rows - 1:,} of {each.of:,}"
    where = f"{each.dataset}, version {each.version} ({each.object[:_SHOWN]})"
    unchecked = "; kept in a session that was not checked" * each.unchecked
    return f"{what}: {where}: {', '.join(each.columns)}; {rows}{unchecked}"


def _shape(shape: tuple[Dimension, ...]) -> str:
    whole = "" if any(isinstance(size, str) for size in shape) else f", {prod(map(int, shape)):,} elements"
    return f"({', '.join(map(str, shape))}){whole}"


def _seen(each: Keeps) -> str:
    return f"seen by {', '.join(each.visible)}" if each.visible else "seen by its owner alone"


def _secrecy(each: Weighs) -> str:
    return "told to all parties and the provider" if each.public else "secret"


def _proved(each: Proves) -> str:
    if each.epsilon is None or each.delta is None:
        return f"exact answers about {each.dataset}: nothing is proved of what they tell of a person"
    epsilon, delta = each.epsilon / CHARGE_UNIT, each.delta / DELTA_UNIT
    others = f" who is in none of {', '.join(each.apart)}" if len(each.apart) > 1 else ""
    others = f" who is not in {each.apart[0]}" if len(each.apart) == 1 else others
    return f"epsilon {epsilon:.9g}, delta {delta:.3g} a run of a person in {each.dataset}{others}"
