"""Models at the parties, for owners who put them and for those who use them: `cluster.models`, `cluster.model(name)`.

An owner compiles a model and puts its weights once, masked; whoever a grant allows uses it afterwards, with the parties
alone.  Nobody but the owner ever has a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.compiler.compile import Compiled
from mpc.compiler.roles import Roles
from mpc.errors import warn
from mpc.plan.parse import parse_plan
from mpc.plan.placing import template
from mpc.plan.plan import Plan
from parties.addresses import ANY
from parties.agreed.grants import Grant
from parties.agreed.models import weight_columns
from parties.agreed.questions import Question, Use
from parties.client.at_rest import bound, catalogue, keeping, upload
from parties.client.at_rest.model_listing import ModelListing
from parties.client.at_rest.objects import Objects
from parties.client.at_rest.said import as_expiry, as_readers, own_name
from parties.client.compiling.cached import compile_cached
from parties.client.consent import granted, granting
from parties.client.consent.told import Given
from parties.client.model import Model

if TYPE_CHECKING:
    from mpc.compiler.compile import Ranges
    from mpc.compiler.graph.graph import Range
    from mpc.compiler.onnx.load import Source
    from mpc.compiler.onnx.signature import Shapes
    from parties.client.dataset import Dataset
    from parties.client.selection import Selection

Progress = Callable[[int, int], None]
"""Told how many weights are at all parties, and how many there are."""


class Models(Objects[ModelListing]):
    """Models that this client owns or may see."""

    _ONE, _OTHER, _GROUP, _LISTED = "model", "dataset", "model", ModelListing

    def put(
        self,
        name: str,
        model: Source,
        ranges: Ranges | Range | None = None,
        description: str = "",
        visible: bool | Sequence[str] = True,
        expires: Any = None,
        data: Mapping[str, Selection | Dataset] | None = None,
        samples: Mapping[str, np.ndarray] | np.ndarray | None = None,
        shapes: Shapes | Sequence[int | str | None] | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """Compile a model and put its weights at the parties, masked, as the next version of its name.

        This client is its owner.  Its plan is public to those who may see the model, as the plan of every session is to
        those who take part in it: shapes, scales and bounds.  An interrupted put goes on where it was.

        Args:
            name: "NAME" or "OWNER/NAME", where OWNER is this client.
            model, ranges, samples, shapes: as of `Cluster.session`.
            description: for people, who find the model by its words.
            visible: True: whoever a party lets in; False: this client; or names of clients.
            expires: when it is removed: "2y", "90d", a date, or None for never.
            data: input -> columns of a dataset, or a dataset: the model then reads these, and others of the same
                units and ranges, and takes inputs that are entered for a run besides.

        Raises:
            ModelError, UsageError: the model, or what is said of it.
            PolicyError, SessionError, PeerError: a party refuses, or is lost; the put can be made again.
        """
        short = own_name(self._me, name)
        compiled = self._compile(model, ranges, data, samples, shapes)
        plan = self._plan(compiled)
        columns = weight_columns(plan)
        for message in compiled.messages:
            warn(message)
        described = upload.Described(
            name=short,
            columns=columns,
            rows=1,
            description=description,
            visible=as_readers(visible),
            expires=as_expiry(expires),
            plan=plan,
        )
        made = upload.put(self._parties, described, self._blocks(plan, compiled.weights), progress)
        return Model(made, plan, self._parties)

    def _compile(self, model: Any, ranges: Any, data: Any, samples: Any, shapes: Any) -> Compiled:
        chosen = bound.read_choices(data, ranges)
        least = self._parties.config.security
        roles = Roles(self._me, self._me, (self._me,), bound.owners(chosen), security=least)
        stored = {name: bound.described(selection) for name, selection in chosen.items()}
        return compile_cached(model, ranges, roles, samples, shapes, stored)

    def _plan(self, compiled: Compiled) -> Plan:
        plan = template(compiled.plan.with_stored_weights(), self._me)
        return parse_plan(plan.canonical)  # as everybody will

    def _blocks(self, plan: Plan, weights: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        yield {
            f"w{number}": np.ascontiguousarray(weights[gate.out].reshape(1, *plan.wire[gate.out].sizes))
            for number, gate in enumerate(plan.weights, 1)
        }

    def get(self, name: str) -> Model:
        """Return the newest version of a model; "NAME" is one of this client's own.

        Raises:
            SessionError: there is none that this client may see.
            UsageError: it is a dataset.
        """
        manifest = self._manifest(name)
        return Model(manifest, catalogue.plan_of(self._parties, manifest), self._parties)

    describe = get

    def refresh(self, name: str, progress: Progress | None = None) -> Model:
        """Mask a model of this client's anew, as its next version: weights stay, all that hides them is new.

        What somebody had of the old version opens the new one no more, and the parties erase the old one.  Grants of
        the old version hold for the new one.

        Raises:
            UsageError: it is not this client's, or a dataset.
        """
        found = self.get(self._full_own(name))
        made = keeping.refresh(self._parties, found.manifest, progress or (lambda done, of: None))
        return Model(made, catalogue.plan_of(self._parties, made), self._parties)

    def grant(
        self,
        name: str,
        coordinators: Any,
        recipients: Any = None,
        data_owners: Any = None,
        entered: bool = True,
        datasets: Sequence[str] = (),
        rows: int | None = None,
        uses: int | None = None,
        expires: Any = None,
        versions: bool = False,
        security: str | None = None,
    ) -> Grant:
        """Allow others to use a model of this client's, by its own plan and no other.

        Parties decide by what is signed here, whatever a coordinator says.

        Args:
            name: "NAME" or "OWNER/NAME", where OWNER is this client.
            coordinators: names of clients that may open sessions.
            recipients: of those that may learn outputs; None: those who open sessions.
            data_owners: of those that may enter inputs, or own the datasets that these are read from; None: anybody.
            entered: inputs may be entered for a run.  Whoever enters them chooses them, so the outputs tell what
                somebody likes to try; False: they are read from datasets.
            datasets: the only ones that inputs may be read from, "OWNER/NAME" or ids; (): any of a data owner's.
            rows: of one run, at most.
            uses: the most runs; None: as many as there are until it expires.
            expires: "36h", "90d", "2y", a date; None: never.
            versions: all versions of that name, of now and later; False: the newest one.
            security: "active": only in sessions whose runs are checked, and that read nothing kept in unchecked ones;
                None: as your cluster file says.

        Raises:
            UsageError: that makes no sense.
            SessionError, PolicyError: there is no such model, or a party does not take the grant.
        """
        found = self.get(self._full_own(name))
        asking = granted.as_clients(coordinators, "coordinators")
        learning = asking if recipients is None else granted.as_clients(recipients, "recipients")
        owners = (ANY,) if data_owners is None else granted.as_clients(data_owners, "data_owners")
        named = (datasets,) if isinstance(datasets, str) else tuple(datasets)
        try:
            use = Use(data_owners=owners, entered=entered, datasets=named, rows=rows)
        except ValueError as error:
            raise granting.senseless(error, "use of a model") from None
        of = found.name if versions else found.manifest.id.hex()
        until = as_expiry(expires)
        made = granting.give(self._parties, of, Question(use=use), asking, learning, uses, until, security)
        blind = (
            [each for each in asking if not found.manifest.seen_by(each)] if found.manifest.visible != (ANY,) else []
        )
        if blind:
            warn(f"{', '.join(blind)} may not see {found.name}, and cannot use it: put it with visible={blind!r}")
        return made

    def grants(self) -> tuple[Given, ...]:
        """List the grants of models that this client has given, and those that name it."""
        return tuple(each for each in granting.given(self._parties) if each.grant.question.use is not None)
