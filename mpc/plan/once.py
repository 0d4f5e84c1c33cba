"""Compute once what follows from a plan alone, though every run asks for it: its cost, its memory, its rounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from mpc.plan.plan import Plan

Asked = ParamSpec("Asked")
Found = TypeVar("Found")


def once(compute: Callable[Concatenate[Plan, Asked], Found]) -> Callable[Concatenate[Plan, Asked], Found]:
    """Have a function of a plan, and of numbers beside it, compute once for each of these; the plan keeps what it
    returned, which nobody changes.

    What it raises is raised every time.
    """

    @wraps(compute)
    def asked(plan: Plan, /, *args: Asked.args, **more: Asked.kwargs) -> Found:
        key = (compute, *args, *sorted(more.items()))  # the function itself: two of one name are two
        found: Found = plan.remember(key, lambda: compute(plan, *args, **more))
        return found

    return asked
