"""Say what the daemons do: JSON lines on stderr, and counters for Prometheus.

Redaction denies by default: only plain values (text, numbers, paths, short lists of them) are
written; bytes, arrays, secret types and unknown objects are not, nor is the message of a foreign
exception, which may quote a value (numpy and pydantic do).
"""

from __future__ import annotations

import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import date
from enum import Enum
from types import TracebackType
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from structlog.typing import EventDict, Processor

from mpc.errors import ConfigError, MpcError, by_code
from parties.addresses import Endpoint
from parties.ration import Ration

REDACTED = "<redacted>"
_SECRET_WORDS = frozenset({"seed", "key", "share", "mask", "secret"})
_LONGEST_NUMBERS = 8  # a shape fits; a longer run of numbers is data
_DEEPEST = 6
_STRUCTLOG_OWN = frozenset({"_record", "_from_structlog"})  # taken out again before rendering
# Their messages name types, attributes, modules and files, never values.
_SPEAKABLE = (MpcError, OSError, TypeError, AttributeError, NameError, ImportError)

# --- redaction --------------------------------------------------------------------------


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """structlog processor: replace what may be secret, everywhere inside the event."""
    return {key: value if key in _STRUCTLOG_OWN else _clean(key, value, 0) for key, value in event.items()}


def _clean(key: str, value: Any, depth: int) -> Any:
    if _is_secret_word(key) or hasattr(value, "__secret__") or depth > _DEEPEST:
        return REDACTED
    if isinstance(value, Enum):
        return _clean(key, value.value, depth + 1)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, BaseException):
        return describe(value)
    if isinstance(value, os.PathLike | date):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _clean(str(name), item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = list(value)
        if len(items) > _LONGEST_NUMBERS and all(isinstance(item, int | float) for item in items):
            return REDACTED
        return [_clean("", item, depth + 1) for item in items]
    if isinstance(value, bytes | bytearray | memoryview) or hasattr(value, "__array_interface__"):
        return REDACTED
    return f"<{type(value).__name__}>"


def _is_secret_word(key: str) -> bool:
    words = key.lower().replace("-", "_").replace(".", "_").split("_")
    return any(word.removesuffix("s") in _SECRET_WORDS for word in words)


def describe(error: BaseException) -> str:
    """Type and, where it cannot quote a value, message of an exception."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, _SPEAKABLE) else f"{kind}: <message withheld>"


def _format_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = "".join(_chain(error))
    return event


def _chain(error: BaseException) -> list[str]:
    # Not traceback.format_exception: it prints the messages of every exception in the chain.
    rows: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        rows = [*traceback.format_tb(current.__traceback__), f"{describe(current)}\n", *rows]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return rows


# --- times ------------------------------------------------------------------------------


def coarse(seconds: float) -> float:
    """The power of two at or below a time, in seconds; 0 for none.

    For times that others are told of work on secrets. Loops take equal time for all secrets, but caches and the
    processor's clock may not: what is left of them stays inside one octave in nearly all runs.
    """
    return math.ldexp(1.0, math.frexp(seconds)[1] - 1) if seconds > 0 else 0.0


# --- logging ----------------------------------------------------------------------------


def configure(process: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log record of this process, ours and the libraries', to `stream` as JSON lines.

    process: the name on each line.  level: debug, info, warning or error; libraries speak from warning on.
    Uncaught exceptions are logged the same way.
    """

    def add_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, "process": process}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_process,
        _format_exception,
        redact,
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_clean_arguments)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.WARNING))
    logging.getLogger("mpc").setLevel(threshold)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *_: logging.getLogger("mpc"),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    sys.excepthook = _log_uncaught


def _clean_arguments(record: logging.LogRecord) -> bool:
    # A library's `log.warning("%s", value)`: the arguments, before they become one text.
    if isinstance(record.args, Mapping):
        record.args = {name: _clean(name, value, 0) for name, value in record.args.items()}
    elif record.args:
        record.args = tuple(_clean("", value, 0) for value in record.args)
    return True


def logger(**context: Any) -> structlog.stdlib.BoundLogger:
    """A logger; `context` goes on each of its lines."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(**context)
    return bound


RATION = Ration()
"""Of the lines that others cause in this process's log."""


def rationed(kind: tuple[str, ...], level: int, event: str, **fields: Any) -> None:
    """A line that somebody else has caused: of each kind so many a minute, and how many were left out."""
    left_out = RATION.take((event, *kind))
    if left_out is not None:
        more = {"left_out_before": left_out} if left_out else {}
        logger().log(level, event, **fields, **more)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logger().critical("uncaught exception", exc_info=(kind, error, trace))


# --- metrics ----------------------------------------------------------------------------


class Counters:
    """The process's counters, in a registry of their own; names end in `_total` when scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = self._counter("mpc_sessions", "Sessions by the state they reached", ["state"])
        self.runs = self._counter("mpc_runs", "Runs by the state they reached", ["state"])
        self.aborts = self._counter("mpc_aborts", "Aborted sessions by error code", ["code"])
        self.rounds = self._counter("mpc_rounds", "Rounds of communication with the other parties")
        self.sent_bytes = self._counter("mpc_sent_bytes", "Payload bytes sent to the other parties")
        self.certificate_days = self._gauge("mpc_certificate_days_left", "Days until this process's certificate ends")
        self.disk_ok = self._gauge("mpc_disk_ok", "1 while the data folder and the ledger can be written")
        self.dealt_bytes = self._counter("mpc_dealt_bytes", "Correlation bytes sent (provider) or received (party)")

    def count_abort(self, code: str) -> None:
        """One abort; a code this version does not know counts as `internal`, so a peer cannot make up labels."""
        self.aborts.labels(code=by_code(code).code).inc()

    def serve(self, endpoint: Endpoint) -> Callable[[], None]:
        """Answer scrapes over HTTP at `endpoint` from a daemon thread; returns what stops it.  ConfigError if taken."""
        try:
            server, thread = start_http_server(endpoint.port, endpoint.host, self.registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot listen on {endpoint}",
                cause=error.strerror,
                remedy="choose another address: metrics = ...",
            ) from None

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(name, text, labels or [], registry=self.registry)
