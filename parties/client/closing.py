"""Objects that end with their block."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """A context manager that closes at its end, and does not wait for anybody if that is an error."""

    def close(self) -> None:
        raise NotImplementedError  # pragma: no cover - both subclasses have one

    def abandon(self) -> None:
        raise NotImplementedError  # pragma: no cover

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
