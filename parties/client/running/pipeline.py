"""Decide which run is prepared when: the next one while one is online, where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mpc.errors import LocalProtocolError
from parties.client.channels import Awaited, gather

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Ahead(Generic[Answer]):
    """A run that is prepared before it is its turn, and how many rows it has."""

    batch: int
    answers: Sequence[Awaited[Answer]]


class Pipeline(Generic[Answer]):
    """Has the runs of one session prepared, in the order of their numbers: 1, 2, 3, ...

    What was dealt ahead is prepared while nobody waits: before the first run, and after each.  What is dealt as it
    goes is prepared while the run before it is online.

    Args:
        prepare: begins to prepare a run, given its number, its rows and the rows of all runs that the batch goes on
            with; returns the answers of all parties, which come later.
        looks_ahead: False where others take part: they see what is prepared, and would enter inputs of two runs at a
            time.
        dealt: rows of the runs that were dealt ahead; None for a session that is dealt as it goes.
        at_once: as `prepare`, of a run whose inputs are entered as soon as it is prepared; `prepare` unless said.
    """

    def __init__(
        self,
        prepare: Callable[[int, int, int], Sequence[Awaited[Answer]]],
        looks_ahead: bool,
        dealt: Sequence[int] | None = None,
        at_once: Callable[[int, int, int], Sequence[Awaited[Answer]]] | None = None,
    ) -> None:
        self._at_once = at_once or prepare
        self._prepare, self._looks_ahead, self._dealt = prepare, looks_ahead, dealt
        self._ahead: _Ahead[Answer] | None = None
        self.begun = 0

    @property
    def left(self) -> tuple[int, ...]:
        """Rows of the runs that are left of what was dealt ahead; none if nothing was."""
        return tuple(self._dealt[self.begun :]) if self._dealt is not None else ()

    @property
    def ahead(self) -> int | None:
        """Number of the run that is prepared before it is its turn; None if there is none."""
        return None if self._ahead is None else self.begun + 1

    def opened(self) -> None:
        """Note that the session is open: the first run of what was dealt ahead is prepared."""
        self._look_ahead(self.left)

    def next(
        self, batch: int, following: Sequence[int] = (), meanwhile: Callable[[int], None] = lambda number: None
    ) -> list[Answer]:
        """Wait until every party has prepared the next run, and return their answers; `begun` is its number then.

        Args:
            batch: rows of the run.
            following: rows of each of the runs that the same batch goes on with.
            meanwhile: called with the run's number while parties prepare it.

        Raises:
            LocalProtocolError: it was prepared ahead for another number of rows.
        """
        self.begun += 1
        ahead = self._ahead
        if ahead is not None and ahead.batch != batch:
            raise LocalProtocolError(f"run {self.begun} was prepared for {ahead.batch} rows, not for {batch}")
        answers = ahead.answers if ahead is not None else self._at_once(self.begun, batch, sum(following))
        meanwhile(self.begun)
        found = gather(answers)
        self._ahead = None
        return found

    def entered(self, following: Sequence[int], expected: Sequence[int] = ()) -> None:
        """Note that the run's inputs are on their way, and that these runs follow: it is online from now on.

        Args:
            following: rows of each of the runs that the same batch goes on with.
            expected: rows of runs that come then, if any do.
        """
        if self._dealt is None and following:
            self._look_ahead(following)
        elif self._dealt is None:
            self._look_ahead(expected[:1])

    def received(self) -> None:
        """Note that the run is over."""
        if self._dealt is not None:
            self._look_ahead(self.left)

    def forget(self) -> None:
        """Let go of the run that is prepared ahead, which cancels its calls."""
        self._ahead = None

    def _look_ahead(self, following: Sequence[int]) -> None:
        if following and self._looks_ahead:
            answers = self._prepare(self.begun + 1, following[0], sum(following[1:]))
            self._ahead = _Ahead(following[0], answers)
