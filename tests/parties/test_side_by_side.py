"""Many sessions of one client at once, and many threads on one session: none waits for ever, none loses its session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mpc.errors import InputError, MpcError, SessionError
from parties.client.cluster import Cluster
from parties.config.models import Limits
from tests.support.parties import PATIENCE, InProcess, data, id_of, tiny_answer

PARTIES = 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), PARTIES, limits=Limits(max_sessions=16)) as cluster:
        yield cluster


@pytest.fixture
def client(running: InProcess) -> Iterator[Cluster]:
    with Cluster(running.client().config) as cluster:
        yield cluster
    assert running.is_idle()


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each of them returned, or the error that it raised; all of them begin together."""
    start = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> Any:
        start.wait(PATIENCE)
        try:
            return call()
        except MpcError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def check(found: Any, x: np.ndarray) -> None:
    assert not isinstance(found, MpcError), found
    assert np.abs(found[0] - tiny_answer(x)).max() < 1e-3


@pytest.mark.parametrize("count", [PARTIES + 2, 16])
def test_sessions_of_one_client_at_once(running: InProcess, client: Cluster, count: int) -> None:
    """All of them are online together, which three parties' worth of threads could not serve."""
    inputs = [data(2, seed=seed) for seed in range(count)]

    def one(x: np.ndarray) -> list[Any]:
        with client.open(running.compiled()) as session:
            session.run(None, {"x": x})
            return session.run(None, {"x": x})

    for found, x in zip(at_once([lambda x=x: one(x) for x in inputs]), inputs, strict=True):  # type: ignore[misc]
        check(found, x)


def test_threads_that_share_a_session(running: InProcess, client: Cluster) -> None:
    session = client.open(running.compiled())
    inputs = [data(1 + seed % 3, seed=seed) for seed in range(8)]
    for found, x in zip(
        at_once([lambda x=x: session.run(None, {"x": x}) for x in inputs]),  # type: ignore[misc]
        inputs,
        strict=True,
    ):
        check(found, x)


def test_a_wrong_argument_of_one_thread_harms_no_other(running: InProcess, client: Cluster) -> None:
    session, x = client.open(running.compiled()), data(1)
    wrong = np.full((1, 3), 99.0, np.float32)
    found = at_once([lambda v=v: session.run(None, {"x": v}) for v in (x, wrong, x, wrong)])  # type: ignore[misc]
    for good in found[::2]:
        check(good, x)
    assert [type(error) for error in found[1::2]] == [InputError, InputError]
    check(session.run(None, {"x": x}), x)


def test_a_run_that_fails_ends_the_session_for_all_who_share_it(running: InProcess, client: Cluster) -> None:
    session, x = client.open(running.compiled()), data(1)
    check(session.run(None, {"x": x}), x)
    running.of(0, id_of(session)).abort(SessionError("for this test"))
    found = at_once([lambda: session.run(None, {"x": x}) for _ in range(4)])
    assert all(isinstance(error, SessionError) for error in found), found
    assert sum("for this test" in error.what for error in found) == 1
    assert sum("for this test" in (error.cause or "") for error in found) == 3
