"""How a daemon computes: on how many threads, and by which of two ways it expands."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, repeat

import pytest

from mpc import prg
from mpc.kernels import cores
from parties.process import computing


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(computing, "threadpool_limits", lambda **_: None)
    yield
    cores.use_threads(1)


@pytest.mark.parametrize(("by_ctr", "by_gcm"), [(3.0, 2.0), (2.0, 3.0)])
@pytest.mark.parametrize("threads", [1, 2])
def test_streams_are_made_the_faster_way_and_by_several_threads_by_ctr(
    monkeypatch: pytest.MonkeyPatch, threads: int, by_ctr: float, by_gcm: float
) -> None:
    ways: list[bool] = []
    monkeypatch.setattr(prg, "use_galois", ways.append)
    clock = accumulate(repeat(0.0), lambda now, _: now + (by_gcm if ways[-1] else by_ctr) / 2)
    monkeypatch.setattr(computing.time, "thread_time", lambda: next(clock))
    assert computing.use_cores(threads) == threads == cores.threads()
    assert ways[-1] is (threads == 1 and by_gcm < by_ctr)
