"""Plans that lie: each is built by a function, and named after it."""

from __future__ import annotations

from collections.abc import Callable

from mpc.plan.plan import Plan

Build = Callable[[], Plan]
Lies = dict[str, tuple[Build, str]]
"""Name -> (what builds the plan, why whoever reads it has to refuse it)."""


def into(lies: Lies) -> Callable[[str], Callable[[Build], Build]]:
    """Make a decorator that lists a plan among these, with the reason for which it has to be refused."""

    def lie(reason: str) -> Callable[[Build], Build]:
        def keep(build: Build) -> Build:
            lies[build.__name__.replace("_", " ")] = (build, reason)
            return build

        return keep

    return lie
