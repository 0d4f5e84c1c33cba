"""Flower's documented interface, as far as a strategy and a mod touch it: messages, records, strategies.

Flower itself asks for another protobuf than this project, so `Simulation` plays its part: each node gets its message,
and replies come back in another order.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest


class Array:
    """A named array's value."""

    def __init__(self, ndarray: np.ndarray) -> None:
        self._values = np.array(ndarray)

    def numpy(self) -> np.ndarray:
        return self._values


class ArrayRecord(dict[str, Array]):
    """Arrays by name, or numbered."""

    def __init__(self, given: dict[str, Array] | list[np.ndarray] | None = None) -> None:
        found = {str(n): Array(each) for n, each in enumerate(given)} if isinstance(given, list) else given
        super().__init__(found or {})

    def to_numpy_ndarrays(self) -> list[np.ndarray]:
        return [each.numpy() for each in self.values()]


class MetricRecord(dict[str, Any]):
    """Numbers by name: nothing else may be in it."""

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        super().__init__(given or {})
        assert all(isinstance(each, int | float) and not isinstance(each, bool) for each in self.values())


class ConfigRecord(dict[str, Any]):
    """Settings by name."""


class RecordDict(dict[str, Any]):
    """All that a message carries."""

    def _of(self, kind: type) -> dict[str, Any]:
        return {key: each for key, each in self.items() if isinstance(each, kind)}

    @property
    def array_records(self) -> dict[str, ArrayRecord]:
        return self._of(ArrayRecord)

    @property
    def config_records(self) -> dict[str, ConfigRecord]:
        return self._of(ConfigRecord)


@dataclass
class Metadata:
    message_type: str
    dst_node_id: int


@dataclass
class Message:
    """What goes to a node, or comes from it."""

    content: RecordDict
    metadata: Metadata
    failed: bool = False

    def has_error(self) -> bool:
        return self.failed


class Strategy(ABC):
    """What a strategy has to have."""

    @abstractmethod
    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Message]: ...

    @abstractmethod
    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]: ...

    @abstractmethod
    def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Message]: ...

    @abstractmethod
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> Any: ...

    @abstractmethod
    def summary(self) -> None: ...


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have these stand in for Flower."""
    app, serverapp, strategy = (ModuleType(f"flwr{end}") for end in (".app", ".serverapp", ".serverapp.strategy"))
    for kind in (Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict, Message):
        setattr(app, kind.__name__, kind)
    strategy.Strategy = Strategy  # type: ignore[attr-defined]
    for module in (ModuleType("flwr"), app, serverapp, strategy):
        monkeypatch.setitem(sys.modules, module.__name__, module)


class Everybody(Strategy):
    """Has all nodes train and evaluate, and looks at every reply to a training: there must be nothing in it."""

    def __init__(self) -> None:
        self.evaluated: list[dict[str, Any]] = []

    def _to_all(self, kind: str, arrays: Any, config: Any, grid: Any) -> list[Message]:
        record = RecordDict({"arrays": arrays, "config": config})
        return [Message(record, Metadata(kind, node)) for node in grid]

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Message]:
        return self._to_all("train", arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]:
        raise AssertionError("the inner strategy averages nothing")

    def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Message]:
        return self._to_all("evaluate", arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> Any:
        self.evaluated += [each.content["metrics"] for each in replies if not each.has_error()]
        return MetricRecord({"clients": len(self.evaluated)})

    def summary(self) -> None:
        """Say nothing."""


@dataclass
class Context:
    """Which node an app runs at."""

    node_config: dict[str, Any]


App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]


@dataclass
class Simulation:
    """Nodes, each with the app and its mods.

    Args:
        seen: all that a server was sent in answer to a training.
        lost: nodes that fail.
    """

    app: App
    mod: Mod
    nodes: int
    lost: frozenset[int] = frozenset()
    seen: list[RecordDict] = field(default_factory=list)

    def send(self, messages: Iterable[Message]) -> list[Message]:
        """Send copies, as through a network, and return the replies, the last ones first."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self._answer, [deepcopy(each) for each in messages]))[::-1]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node in self.lost:
            return Message(RecordDict(), message.metadata, failed=True)
        reply = self.mod(message, Context({"partition-id": node}), self.app)
        if message.metadata.message_type == "train":
            self.seen.append(reply.content)
        return reply

    def run(self, strategy: Any, arrays: ArrayRecord, rounds: int) -> tuple[ArrayRecord, list[Any]]:
        """Run rounds as `Strategy.start` does; the arrays, and what each training and evaluation told."""
        told, config = list[Any](), ConfigRecord()
        strategy.summary()
        for number in range(1, rounds + 1):
            trained = self.send(strategy.configure_train(number, arrays, config, range(self.nodes)))
            found, metrics = strategy.aggregate_train(number, trained)
            arrays = arrays if found is None else found
            evaluated = self.send(strategy.configure_evaluate(number, arrays, ConfigRecord(), range(self.nodes)))
            told.append((metrics, strategy.aggregate_evaluate(number, evaluated)))
        return arrays, told
