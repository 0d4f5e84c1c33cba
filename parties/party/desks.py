"""The threads in which a party answers calls, by kind."""

from __future__ import annotations

from parties.config.models import PartyConfig
from parties.wire.desk import Desk

_SPARE = 8


class PartyDesks:
    """A party's threads for calls.  Who has as many sessions as there may be is never refused.

    Args:
        calls: a session's coordinator, owner and recipient, each with one call at a time, and one ahead.
        results: what is waited for, with the next run's.
        sessions: an open call a session, for its coordinator, and some whose session has just ended.
        peers: one stream a session, and some that end or are refused.
        control: what must always be heard: who this is, which sessions there are, that one is wanted or is not.
        data: what is put, and asked about, at rest.
    """

    def __init__(self, config: PartyConfig) -> None:
        sessions = config.limits.max_sessions
        self.calls = Desk("calls", 3 * sessions + _SPARE)
        self.results = Desk("results", 2 * sessions + _SPARE)
        self.sessions = Desk("sessions", 2 * sessions + _SPARE)
        self.peers = Desk("peers", sessions + _SPARE, len(config.peers) - 1)
        self.control = Desk("control", _SPARE)
        self.data = Desk("data", _SPARE)

    @property
    def all(self) -> tuple[Desk, ...]:
        return self.calls, self.results, self.sessions, self.peers, self.control, self.data
