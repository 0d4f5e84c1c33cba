"""The counter beside the ledger, by which a ledger that was put back from a copy is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpc.errors import ConfigError

EPOCH = "epoch"


@dataclass(frozen=True)
class Epoch:
    """Which ledger this is, and how often it or a session was opened."""

    id: str
    counter: int


def read_epoch(folder: Path) -> Epoch | None:
    try:
        words = (folder / EPOCH).read_bytes()[:128].decode("ascii", "replace").split()
        return Epoch(words[0], int(words[1]))
    except FileNotFoundError:
        return None
    except (ValueError, IndexError):
        raise restored(folder, f"{folder / EPOCH} is damaged") from None


def failing(what: str, local: bool = False) -> ConfigError:
    return ConfigError(
        what,
        cause="the disk is full or read-only, or the file is damaged",
        remedy="check the disk of that party; if the file is damaged, give the party a new, empty data_dir",
        local=local,
    )


def restored(folder: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"the ledger in {folder} was restored from a backup",
        cause=f"{cause}; it may have forgotten correlations that were used since",
        remedy="give the party a new, empty data_dir; open sessions are lost, certificates stay",
        local=True,
    )
