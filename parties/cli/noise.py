"""`--epsilon`: noise that a command asks for, behind the sums over rows of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpc.errors import PlanError, UsageError
from mpc.privacy.facts import LAPLACE, StoredFacts
from mpc.privacy.guarantee import guarantee
from mpc.text import shown
from mpc.wires import BATCH

if TYPE_CHECKING:
    from mpc.compiler.graph.noising import Noising
    from mpc.plan.plan import Plan
    from parties.client.selection import Selection

_OPTIONS = (
    click.option(
        "--epsilon",
        "epsilons",
        multiple=True,
        metavar="[OUTPUT=]E",
        help="What an output that is made of sums over rows (ReduceSum over the first axis) may tell of a person: as "
        "much noise as that needs comes behind them.",
    ),
    click.option(
        "--mechanism",
        type=click.Choice(["laplace", "gaussian"]),
        help="Which noise; default: laplace. Gaussian noise is less in long vectors, and costs delta.",
    ),
    click.option("--delta", metavar="D", help="What an output's Gaussian noise may cost beside; default: 1e-8."),
)


@dataclass(frozen=True)
class Wanted:
    """Options that say how much noise, as they were typed."""

    epsilons: tuple[str, ...] = ()
    mechanism: str | None = None
    delta: str | None = None

    def __bool__(self) -> bool:
        return self != Wanted()

    def noising(
        self, outputs: Sequence[str], stored: Mapping[str, Selection], rows: int | None, cluster: Path | None = None
    ) -> Noising | None:
        """Return what is asked of noise; None if there is to be none.

        Args:
            outputs: the model's.
            stored: inputs that are read from datasets.
            rows: of the run, if they are known.
            cluster: this client's cluster file, if there is one.

        Raises:
            UsageError: it makes no sense.
        """
        if not self:
            return None
        if not self.epsilons:
            raise UsageError("--mechanism and --delta say which noise there is", remedy="--epsilon 0.5")
        from mpc.compiler.graph.noising import Noising  # with the compiler, which takes a while
        from parties.client.cluster import Cluster
        from parties.client.consent.granted import as_amount, as_mechanisms
        from parties.client.running.noised import facts_of

        asked = {}
        for text in self.epsilons:
            name, _, number = text.rpartition("=")
            if not name and len(outputs) != 1:
                raise UsageError(
                    f"the model has several outputs: which one is {shown(text)}?",
                    remedy=f"--epsilon OUTPUT={shown(text)}; its outputs are {', '.join(map(shown, outputs))}",
                )
            asked[name or outputs[0]] = as_amount(number, "epsilon")
        more: dict[str, Any] = {} if self.delta is None else {"delta": as_amount(self.delta, "delta")}
        more |= {} if rows is None else {"most": rows}
        kinds = as_mechanisms(self.mechanism or LAPLACE)
        if not stored or cluster is None:
            return Noising(asked, mechanisms=kinds, **more)
        with Cluster.connect(cluster) as connected:
            return Noising(asked, stored=facts_of(stored, connected.parties), mechanisms=kinds, **more)


def noise_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it receives them as `noise`."""

    @wraps(command)
    def chosen(epsilons: tuple[str, ...], mechanism: str | None, delta: str | None, **others: Any) -> None:
        command(noise=Wanted(epsilons, mechanism, delta), **others)

    for option in reversed(_OPTIONS):
        chosen = option(chosen)
    return chosen


def noise_of(plan: Plan) -> list[dict[str, Any]]:
    """List what is proved of a plan's noise, with a row a person; empty if it has none, or nothing is proved."""
    return noise_and_total(plan)[0]


def noise_and_total(plan: Plan) -> tuple[list[dict[str, Any]], dict[str, float] | None]:
    """Return what `noise_of` does, and what all noised sums together tell of a person; None if nothing is proved.

    Gaussian noise may protect people only together: then no sum's own delta says anything.
    """
    if not any(gate.kind in ("draw", "gaussian") for gate in plan.gates):
        return [], None
    lying = [gate.out for gate in plan.stored] or [name for given in plan.inputs for name in given.wires]
    people = {name: StoredFacts(1, 1, "data") for name in lying if plan.wire[name].shape[:1] == (BATCH,)}
    try:
        found = guarantee(plan, people)
        cost = found.of({name for vector in found.vectors for name in vector.sources})
    except PlanError:
        return [], None
    told = [
        {
            "wire": vector.wire,
            "elements": vector.elements,
            "mechanism": vector.mechanism,
            "epsilon": float(vector.loss.epsilon),
            "delta": float(vector.loss.delta),
            "std": float(vector.variance) ** 0.5 / float(plan.wire[vector.wire].scale),
        }
        for vector in found.vectors
    ]
    return told, {"epsilon": float(cost.epsilon), "delta": float(cost.delta)}
