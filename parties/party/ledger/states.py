"""The states of sessions and runs, and which follows which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SessionState(StrEnum):
    STOCKED = "stocked"  # its correlations lie on disk, and nobody has used any of them
    OPEN = "open"
    CLOSED = "closed"
    ABORTED = "aborted"
    BURNT = "burnt"


class RunState(StrEnum):
    DEALT = "dealt"
    BURNT = "burnt"
    OPENED = "opened"
    CHECKED = "checked"
    REVEALED = "revealed"
    KEPT = "kept"  # nothing of it was told: it went on as state
    ABORTED = "aborted"


# Every step a run can take; None is a run the ledger has not seen.
TRANSITIONS: dict[RunState | None, frozenset[RunState]] = {
    None: frozenset({RunState.DEALT}),
    RunState.DEALT: frozenset({RunState.BURNT, RunState.ABORTED}),
    RunState.BURNT: frozenset({RunState.OPENED, RunState.ABORTED}),
    RunState.OPENED: frozenset({RunState.CHECKED, RunState.ABORTED}),
    RunState.CHECKED: frozenset({RunState.REVEALED, RunState.KEPT, RunState.ABORTED}),
    RunState.REVEALED: frozenset(),
    RunState.KEPT: frozenset(),
    RunState.ABORTED: frozenset(),
}
CONSUMED = frozenset({RunState.BURNT, RunState.OPENED, RunState.CHECKED, RunState.REVEALED, RunState.KEPT})
FINAL = (RunState.REVEALED, RunState.KEPT, RunState.ABORTED)
# On disk before the call returns: the first masked byte leaves after `burnt`, the first mask after
# `revealed`, which waits for no disk where the write of `burnt` says already that the run may be
# told.  The others may be lost, which only loses history: a session still open at the next start
# is burnt, whichever state its runs were in.
DURABLE = frozenset({RunState.BURNT, RunState.REVEALED})
# Known to the process alone: what follows them is written.
UNWRITTEN = frozenset({RunState.OPENED, RunState.CHECKED})


@dataclass(frozen=True)
class SessionRecord:
    """One line of `mpc ps`; opened_at in seconds since 1970."""

    session_id: str
    plan_digest: str
    coordinator: str
    state: SessionState
    opened_at: float
    reason: str | None
    runs: int
    revealed: int
