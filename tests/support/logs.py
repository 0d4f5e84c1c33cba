"""What this process logs, for tests that look for secrets in it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from parties import telemetry


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything this process logs, at the loudest level."""
    stream = io.StringIO()
    root, mpc_logger = logging.getLogger(), logging.getLogger("mpc")
    before = (list(root.handlers), root.level, mpc_logger.level, sys.excepthook)
    telemetry.configure("test", "debug", stream)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    mpc_logger.setLevel(before[2])
    sys.excepthook = before[3]
    structlog.reset_defaults()
