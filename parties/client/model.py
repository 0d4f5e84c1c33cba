"""A model at the parties as its users see it: what its owner says of it, its plan, and a place in it for each of them.

There is no ONNX file and no weight here.  The plan is public: shapes, scales and bounds, no more than every session of
the model tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.compiler.graph.stored import marks_name
from mpc.compiler.onnx.metadata import ModelMeta
from mpc.errors import InputError, PlanError, UsageError
from mpc.plan.placing import place
from mpc.plan.plan import Plan
from mpc.text import shown
from parties.agreed.bindings import Binding
from parties.agreed.fields import OBJECT_NAME
from parties.agreed.models import weight_bindings
from parties.agreed.objects import Manifest
from parties.client.at_rest import bound
from parties.client.at_rest.model_listing import ModelDescription
from parties.client.channels import Parties
from parties.client.consent import granting
from parties.client.consent.told import Verdict
from parties.client.running.feeds import NodeArg, describe_inputs, describe_outputs
from parties.client.running.roles import ACTIVE, Recipients, assign, read_security, refuse_machines

if TYPE_CHECKING:
    from parties.client.dataset import Dataset
    from parties.client.selection import Selection

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,252}}/{OBJECT_NAME.pattern}")


@dataclass(frozen=True)
class Placed:
    """A model's plan for certain people and datasets; a session is opened of it as of a compiled model.

    Args:
        bindings: of its stored wires, the model's weights among them.
        manifest: the model's.
    """

    plan: Plan
    bindings: tuple[Binding, ...]
    manifest: Manifest
    meta: ModelMeta = field(default=ModelMeta(), repr=False)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Weights that this client enters: none, for they lie at the parties."""
        return {}

    @property
    def messages(self) -> list[str]:
        """Messages for this client: none, for what a compiler says of a model stays with the model's owner."""
        return []


class Model:
    """A model that lies at the parties.

    `cluster.session(model)` uses it, if its owner's grant allows that.
    """

    def __init__(self, manifest: Manifest, plan: Plan, parties: Parties) -> None:
        self.manifest, self.plan, self._parties = manifest, plan, parties

    @property
    def name(self) -> str:
        """OWNER/NAME."""
        return self.manifest.name

    @property
    def owner(self) -> str:
        """Name of the client that put the model."""
        return self.manifest.owner

    @property
    def version(self) -> int:
        """Number of its version, counted from 1."""
        return self.manifest.version

    def get_inputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of the inputs."""
        return describe_inputs(self.plan)

    def get_outputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of the outputs."""
        return describe_outputs(self.plan)

    @cached_property
    def _description(self) -> ModelDescription:
        return ModelDescription(self.manifest, self.plan)

    def describe(self) -> ModelDescription:
        """Return all that its owner says of it: inputs with their ranges, outputs, terms."""
        return self._description

    def place(
        self,
        owners: Mapping[str, str] | None = None,
        recipients: Recipients | None = None,
        data: Mapping[str, Selection | Dataset] | None = None,
        security: str | None = None,
    ) -> Placed:
        """Give everybody a place in the model's plan.

        Args:
            owners: input -> who enters it; this client, unless said.
            recipients: who receives all outputs, or output -> who receives it; this client, unless said.
            data: input -> columns of a dataset, or a dataset, that it is read from.
            security: "active" has each run checked, also of a model that was put without that.

        Raises:
            UsageError: a name is no input's, no output's or no client's.
            InputError: the model does not read these columns.
        """
        chosen = bound.read_choices(data)
        roles = assign(self._parties.config.name, owners, recipients)
        inputs, outputs = [given.name for given in self.plan.inputs], [out.name for out in self.plan.outputs]
        for said, known, what in (
            ({*roles.owners, *chosen}, inputs, "input"),
            ({*roles.readers}, outputs, "output"),
        ):
            if unknown := sorted(said - {*known}):
                raise UsageError(
                    f"{self.name} has no {what} {shown(unknown[0])!r}", remedy=f"its {what}s are {', '.join(known)}"
                )
        bound.refuse_said(roles.owners, chosen, "an owner")
        marks = {marks_name(name): selection for name, selection in chosen.items() if marks_name(name) in inputs}
        lying = {**chosen, **marks}
        entering = {**{name: roles.owner(name) for name in inputs}, **bound.owners(lying)}
        plan = place(self.plan, entering, {name: roles.recipients_of(name) for name in outputs}, [*lying])
        if read_security(security, self._parties.config.security) == ACTIVE:
            plan = plan.with_security(ACTIVE)
        refuse_machines(plan, self._parties.names, self._parties.config.provider.name)
        weights = {each.wire: each for each in weight_bindings(plan, self.manifest)}
        try:
            return Placed(plan, bound.bindings(plan, chosen, weights), self.manifest)
        except (InputError, PlanError) as fault:
            if not chosen:
                raise
            raise InputError(
                f"{self.name} cannot read these columns: {fault.what}",
                cause=fault.cause,
                remedy=f"ask {self.owner} to put it for this dataset: cluster.models.put(..., data={{'x': dataset}})",
            ) from None

    def ask(self, **roles: Any) -> tuple[Verdict, ...]:
        """Ask every party whether it would open a session of the model, and if not, whose word is missing.

        Nothing is opened, charged, or shown to a provider.

        Args:
            roles: owners, recipients, data: of `place`.

        Raises:
            PolicyError: a party's policy does not let this client run the plan.
        """
        placed = self.place(**roles)
        return tuple(granting.ask(self._parties, placed.plan, placed.bindings))

    def __repr__(self) -> str:
        inputs, outputs = (
            ", ".join(shown(each.name) for each in ends) for ends in (self.get_inputs(), self.get_outputs())
        )
        return f"Model({self.name!r}, version {self.version}: {inputs} -> {outputs})"

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()


def model_name(given: object) -> str | None:
    """Return the name of a model at the parties that is meant: "@OWNER/NAME", or OWNER/NAME where no such file is."""
    if not isinstance(given, str):
        return None
    if given.startswith("@"):
        return given[1:]
    meant = _NAME.fullmatch(given) is not None and not given.endswith(".onnx")
    return given if meant and not Path(given).exists() else None


def refuse_stored(given: object) -> None:
    """Raise UsageError if this is a model at the parties, of which nothing is dealt ahead."""
    if isinstance(given, Model | Placed) or model_name(given) is not None:
        raise UsageError(
            "nothing is dealt ahead for what lies at the parties",
            cause="the provider is shown its masks when a session opens, and forgets them with it",
            remedy="open a session, and keep it for many runs: cluster.session('OWNER/NAME')",
        )


def refuse_compiling(name: str, said: Mapping[str, object]) -> None:
    """Raise UsageError if something is said of a model at the parties that a compiler would have to be told."""
    for what, value in said.items():
        if value is not None:
            raise UsageError(
                f"{name} lies at the parties as it was compiled, and {what} would have to be said before",
                remedy=f"leave {what} out; describe() of the model has its ranges and shapes",
            )
