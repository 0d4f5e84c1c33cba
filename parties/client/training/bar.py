"""A training's progress on a terminal: steps, bytes, the time that is left, and the loss where it is released."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console

    from parties.client.training.trainer import Trainer


class Bar:
    """A bar on stderr, or nothing where that is no terminal.  A context manager; call it after each step.

    Args:
        trainer: whose last step and losses it shows.
        console: what it is drawn on; stderr if None.
    """

    def __init__(self, trainer: Trainer, console: Console | None = None) -> None:
        self._trainer, self._console, self.sent_bytes = trainer, console, 0
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Draw the bar, if there is a terminal."""
        if self._console is None and not sys.stderr.isatty():
            return self  # nor is rich imported
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = self._console or Console(stderr=True)
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(bar_width=24),
                TextColumn("{task.description}", markup=False),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._progress.start()
        return self

    def __call__(self, done: int, steps: int) -> None:
        """Show that so many steps are done."""
        self.sent_bytes += self._trainer.last_step.sent_bytes if self._trainer.last_step else 0
        if self._progress is None:
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=steps)
        self._progress.update(self._task, completed=done, description=self.text(done, steps))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take the bar away while somebody prints, and draw it again."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        yield
        self._progress.start()

    def text(self, done: int, steps: int) -> str:
        """Say how far the training is, in a line."""
        line = f"step {done:,}/{steps:,}, {self.sent_bytes / 1e6:,.1f} MB sent"
        losses = self._trainer.losses
        return f"{line}, loss {losses[max(losses)]:.4g}" if losses else line

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
