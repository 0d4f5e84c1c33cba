"""Parties that have less memory than usual: batches are split into runs that all of them take."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.plan.plan import Plan, Security
from parties.agreed.memory import needed_memory, plan_memory
from parties.client.channels import Parties
from parties.client.guest import Guest
from parties.client.running import feeds, room
from parties.client.running.feeds import is_room_for_two, split
from parties.client.session import Session
from parties.config.models import Limits, PartyConfig
from tests.support.parties import COORDINATOR, RECIPIENT, InProcess, data, id_of, tiny_answer

ROWS, FEWER = 600, 200
AMPLE = Limits(max_memory_bytes=1 << 50)
BOTH: tuple[Security, ...] = ("passive", "active")


class Uneven(InProcess):
    """One client may have the memory for runs of some rows at party-1: for two, where they are not checked."""

    rows, security = FEWER, BOTH[0]

    @property
    def roles(self) -> Roles:
        return Roles(COORDINATOR, COORDINATOR, (COORDINATOR, RECIPIENT), security=self.security)

    @property
    def room(self) -> int:
        return needed_memory(self.compiled(self.roles).plan, self.rows) * (1 if self.security == "active" else 2)

    def party_config(self, index: int) -> PartyConfig:
        config = super().party_config(index)
        most = plan_memory(self.compiled(self.roles).plan, AMPLE) + self.room
        limits = config.limits.model_copy(update={"max_memory_bytes_per_caller": most})
        return config.model_copy(update={"limits": limits}) if index == 1 else config


@pytest.mark.parametrize("security", BOTH)
def test_a_batch_is_split_for_the_party_with_least_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: Security
) -> None:
    """Also for whoever joins with a ticket, and has not asked the parties."""
    monkeypatch.setattr(room, "LEAST_BYTES", 1)
    monkeypatch.setattr(Uneven, "security", security)
    with Uneven(tmp_path, 2) as cluster:
        compiled, x, seen = cluster.compiled(cluster.roles), data(ROWS), list[Any]()
        assert split(compiled.plan, ROWS) == [ROWS]
        session = Session(cluster.client(), compiled)
        guest = Guest(cluster.client(RECIPIENT), session.remote.ticket)
        joined = threading.Thread(target=lambda: seen.extend(guest.run()))
        joined.start()
        [y] = session.run(None, {"x": x})
        joined.join()
        states = cluster.run_states(0, id_of(session))
        session.close()
    assert len(states) == len(split(compiled.plan, ROWS, cluster.room)) >= 3
    for found in (y, *seen):
        assert np.abs(found - tiny_answer(x)).max() < 1e-3
    assert len(seen) == 1


@pytest.mark.parametrize("security", BOTH)
def test_a_party_makes_runs_smaller_down_to_a_floor_and_never_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: Security
) -> None:
    cluster = Uneven(tmp_path, 2)
    plan: Plan = cluster.compiled(Roles(security=security)).plan

    def sizes(told: int | None) -> list[int]:
        monkeypatch.setattr(Parties, "memory", told)
        return room.sizes(cluster.client(), plan, 1024)

    assert sizes(1) == sizes(None) == split(plan, 1024) == [1024]  # it needs less than the floor
    least = needed_memory(plan, 256)
    monkeypatch.setattr(room, "LEAST_BYTES", least)
    assert sizes(1) == sizes(least) == split(plan, 1024, least) and 4 <= len(sizes(1)) <= 16
    assert sizes(None) == sizes(1 << 50) == [1024]
    half = needed_memory(plan, 512)
    assert not is_room_for_two(plan, 512, 512, half) and is_room_for_two(plan, 512, 512, 2 * half)


def test_what_one_run_takes_as_a_whole_is_not_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such plans may allow fewer rows than other runs have at most."""
    cluster = Uneven(tmp_path, 2)
    plan: Plan = cluster.compiled(Roles()).plan

    def unasked(*_: object) -> int:
        raise AssertionError("the plan has no run of so many rows")

    for module in (room, feeds):
        monkeypatch.setattr(module, "is_whole", lambda _: True)
        monkeypatch.setattr(module, "needed_memory", unasked)
    assert room.sizes(cluster.client(), plan, 5000) == [5000]
    assert room.is_room_beside(cluster.client(), plan, 5000, 5000)
