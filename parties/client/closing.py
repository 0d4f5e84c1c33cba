"""Objects that end with their block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """A context manager that closes when its block ends; after an error it hangs up and waits for nobody."""

    @abstractmethod
    def close(self) -> None:
        """End in good order, waiting for the others."""

    @abstractmethod
    def abandon(self) -> None:
        """End at once, waiting for nobody."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
