"""A model that was trained and that nobody holds: it runs on weights where they lie, or its owner is told them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mpc.compiler.lowering.lower import Lowered
from mpc.compiler.training.train import Training
from mpc.compiler.training.trained import compile_prediction, compile_telling
from mpc.plan.link import Link
from parties.agreed.bindings import Binding
from parties.agreed.objects import Manifest
from parties.client.channels import Parties
from parties.client.closing import Closing
from parties.client.running.coordinated import RunReport
from parties.client.running.feeds import NodeArg, describe_inputs, describe_outputs
from parties.client.running.prepared import Prepared
from parties.client.session import Session


class Trained(Closing):
    """A trained model, whose weights are shares at the parties.  `trainer.fit(...)` returns one.

    A context manager: its session is opened with its first run, and open until it is closed, or its cluster is.

    Args:
        manifest: of the weights.
    """

    def __init__(
        self,
        parties: Parties,
        opened: Callable[[Session], None],
        training: Training,
        manifest: Manifest,
        predicting: Prepared,
    ) -> None:
        self.manifest, self._parties, self._opened = manifest, parties, opened
        self._training, self._predicting = training, predicting
        self._session: Session | None = None

    @property
    def name(self) -> str:
        """OWNER/NAME of the dataset that the weights are, one column each."""
        return self.manifest.name

    @property
    def last_run(self) -> RunReport | None:
        """Return the price of the last `run`; None before the first."""
        return None if self._session is None else self._session.last_run

    def get_inputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of the inputs."""
        return describe_inputs(self._predicting.plan)

    def get_outputs(self) -> list[NodeArg]:
        """Return the names, shapes and types of the outputs."""
        return describe_outputs(self._predicting.plan)

    def run(
        self, output_names: Sequence[str] | None = None, feeds: Mapping[str, np.ndarray] | np.ndarray | None = None
    ) -> list[Any]:
        """Run the model on private data, as `Session.run` does.

        Raises:
            InputError, UsageError: as `Session.run`.
            SessionError, PolicyError: the parties do not read these weights for this client, or no longer.
        """
        if self._session is None:
            self._session = self._open(self._predicting)
        return self._session.run(output_names, feeds)

    def release(self) -> dict[str, np.ndarray]:
        """Have the weights told to this client, whose they are: by the model's names, as real numbers.

        Each has the shape and the order of axes that it has in the model's file.

        Raises:
            PolicyError, SessionError: the parties do not tell this client.
        """
        telling = _reading(compile_telling(self._training, self.manifest.owner))
        names = [*self._training.keeps.values()]
        with self._open(telling) as session:
            told = session.run(names)
        return {name: self._training.in_file(name, each) for name, each in zip(self._training.keeps, told, strict=True)}

    def close(self) -> None:
        """End the session of `run`, if there is one; the weights stay at the parties."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def abandon(self) -> None:
        """End the session of `run` at once."""
        if self._session is not None:
            self._session.abandon()
            self._session = None

    def _open(self, reading: Prepared) -> Session:
        states = {state.init: state.name for state in reading.plan.states}
        bindings = [
            Binding(gate.out, self.manifest.id, (self._training.keeps[states[gate.out]],), 0, 1)
            for gate in reading.plan.stored
        ]
        session = Session(self._parties, reading, bindings=bindings)
        self._opened(session)
        return session


def predictor(training: Training, owner: str, link: Link | None = None) -> Prepared:
    """Return what runs the model that a training leaves.

    Raises:
        ModelError: a bound of it does not fit.
    """
    return _reading(compile_prediction(training, owner, link))


def _reading(lowered: Lowered) -> Prepared:
    return Prepared(lowered.plan, lowered.weights, [*lowered.notes])
