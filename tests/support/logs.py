"""Catch what this process logs, whatever another test told it to log before."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from parties import telemetry


@contextmanager
def put_back() -> Iterator[None]:
    """Put back how logs were configured before, and what is done with uncaught exceptions."""
    root, mpc_logger = logging.getLogger(), logging.getLogger("mpc")
    before = (list(root.handlers), root.level, mpc_logger.level, sys.excepthook)
    configured, earlier = structlog.is_configured(), structlog.get_config()
    try:
        yield
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        mpc_logger.setLevel(before[2])
        sys.excepthook = before[3]
        structlog.reset_defaults()
        if configured:
            structlog.configure(**earlier)


@contextmanager
def logged(level: str, process: str = "test") -> Iterator[io.StringIO]:
    """Catch every line of `level` and above, as JSON."""
    stream = io.StringIO()
    with put_back():
        telemetry.configure(process, level, stream)
        yield stream


def lines(log: io.StringIO, event: str | None = None) -> list[dict]:
    """Return the caught lines, or those of one event."""
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [entry for entry in found if event in (None, entry["event"])]


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Leave no test the configuration of another one that served as a daemon within this process."""
    with put_back():
        yield


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Catch everything this process logs, at the loudest level."""
    with logged("debug") as stream:
        yield stream


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Catch what this process logs as a daemon does by default."""
    with logged("info") as stream:
        yield stream
