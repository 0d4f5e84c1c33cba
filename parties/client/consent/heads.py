"""Heads of the parties' audit chains, as results brought them: whoever keeps one can show that a ledger was put back.

One small file for each name, beside the key.  Only the newest head of each party is kept; it stands for all before it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpc.errors import ConfigError
from parties.agreed.audit import HEAD_BYTES
from parties.config.models import ClusterConfig
from parties.disk import write_atomic

_EVERY = 1.0
"""Seconds between two writes of the file; it is written at the end too."""


def place_of_heads(config: ClusterConfig) -> Path:
    """Return the path of the file in which this client keeps heads."""
    return config.tls.key.parent / f"{config.name}.heads.json"


class Heads:
    """Newest head of each party's chain.  Thread-safe; the file is made with the first result.

    Args:
        path: of the file, which only its owner may read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fresh: dict[str, str] = {}
        self._written = 0.0

    def keep(self, heads: Mapping[str, bytes]) -> None:
        """Keep what a result brought, by party."""
        with self._lock:
            self._fresh.update({party: head.hex() for party, head in heads.items() if len(head) == HEAD_BYTES})
            if self._fresh and time.monotonic() - self._written >= _EVERY:
                self._write()

    def close(self) -> None:
        """Write what is not written yet; safe to call twice."""
        with self._lock:
            if self._fresh:
                self._write()

    def known(self) -> dict[str, bytes]:
        """Return the heads in the file, by party; `ConfigError` if it cannot be read."""
        with self._lock:
            return {party: bytes.fromhex(head) for party, head in {**self._read(), **self._fresh}.items()}

    def _write(self) -> None:
        try:
            write_atomic(self._path, json.dumps({**self._read(), **self._fresh}, sort_keys=True).encode())
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        self._fresh, self._written = {}, time.monotonic()

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unusable(str(error)) from None
        if not isinstance(found, dict) or any(not is_head(head) for head in found.values()):
            raise self._unusable("it was altered")
        return found

    def _unusable(self, why: str) -> ConfigError:
        return ConfigError(
            f"the heads of audit chains that this client keeps in {self._path} cannot be used: {why}",
            remedy="make its folder writable; if the file was damaged, delete it: only what it proves is lost",
            local=True,
        )


def is_head(text: Any) -> bool:
    """Is it a head, as 64 hex digits?"""
    try:
        return isinstance(text, str) and len(bytes.fromhex(text)) == HEAD_BYTES
    except ValueError:
        return False
