"""How hard to try: a sample always, more with MPC_FULL=1."""

from __future__ import annotations

import os

from hypothesis import settings

FULL = os.environ.get("MPC_FULL") == "1"


def examples(count: int) -> settings:
    """`count` hypothesis examples, ten times as many with MPC_FULL=1."""
    return settings(max_examples=count * 10 if FULL else count)
