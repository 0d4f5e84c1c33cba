"""Hypothesis profiles: the usual one repeats exactly, MPC_FULL=1 explores."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.effort import FULL

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, suppress_health_check=_QUIET)
settings.register_profile("exploring", deadline=None, print_blob=True, suppress_health_check=_QUIET)
settings.load_profile("exploring" if FULL else "repeatable")
