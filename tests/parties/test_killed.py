"""A training survives the death of anybody: processes are killed with SIGKILL, at moments of every kind.

What comes of it is the training that nobody interrupted, but for the coins of rounding; nothing is used twice; whatever
is refused on the way says what helps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mpc.errors import MpcError, PeerError
from parties import Cluster, Trained
from tests.support import killing
from tests.support.effort import patient
from tests.support.killing import LONG, NEAR, STEPS, Mortal, off, require_remedy, require_whole, train

pytestmark = pytest.mark.timeout(600)

EACH_RUN = ("dealing", "preparing", "dealt", "burnt", "opened", "opening", "checked", "kept")
"""What a party comes to in each step; `NAME-done` behind it."""
EACH_CHECKPOINT = ("writing", "telling", "revealed", "settling", "existing", "closing", "session")
"""What it comes to once or more in each stretch."""

OUTSIDE = ("session", "closing-done")
"""Moments in which no session is open."""


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    with Mortal(tmp_path_factory.mktemp("mortal")) as running:
        with running.client() as cluster:
            killing.put(cluster)
        yield running


def moments() -> list[tuple[str, str, int]]:
    """(who, moment, how often it comes there first): in the first stretch, and in the second one."""
    found = []
    for name in EACH_RUN:
        for done in ("", "-done"):
            found += [("party-0", name + done, 2), ("party-1", name + done, 5)]
    for name in EACH_CHECKPOINT:
        for done in ("", "-done"):
            found += [("party-1", name + done, 1), ("party-0", name + done, 2)]
    for name in ("asked", "dealt", "part", "signing"):
        for done in ("", "-done"):
            found += [("provider", name + done, 3), ("provider", name + done, 8)]
    return found


def die_and_go_on(mortal: Mortal, who: str, moment: str, count: int, stored: bool) -> None:
    """Train until a daemon is dead, start it again, and train on."""
    name = f"{who}-{moment}-{count}-{stored}"
    mortal.arm(who, moment, count)
    try:
        with mortal.client() as cluster:
            try:
                train(cluster, name, stored)
            except MpcError as error:
                require_remedy(error)
        assert mortal.came_to(who) == moment
    finally:  # the next test finds all of them alive
        mortal.disarm(who)
        if mortal.came_to(who):
            mortal.revive(who)
    if who != "provider" and moment not in OUTSIDE:
        assert mortal.newest_session(who) == "burnt"
    with mortal.client() as cluster:
        require_whole(train_on(cluster, name, stored))


def train_on(cluster: Cluster, name: str, stored: bool) -> Trained:
    """Train on, again for as long as peers have not found the one that was started anew: they try once a second."""
    end = time.monotonic() + patient(LONG)
    while True:
        try:
            return train(cluster, name, stored)
        except PeerError as error:
            require_remedy(error)
            if time.monotonic() > end:
                raise


def test_what_tells_a_whole_training_from_others() -> None:
    """The integers of a plan, with any coins, end up within `NEAR`; steps left out, twice or out of turn far off."""
    training = killing.training()
    whole = killing.on_reals_in(training, [*range(1, STEPS + 1)])
    for coins in range(3):
        assert off(training, killing.on_integers_in(training, [*range(1, STEPS + 1)], coins), whole) < NEAR / 10
    others = [*killing.wrong_orders()]
    assert len(others) > 25
    assert min(off(training, killing.on_reals_in(training, order), whole) for order in others) > 20 * NEAR


@pytest.mark.parametrize(
    ("who", "moment", "count", "stored"),
    [("party-1", "settling", 1, True), ("provider", "part-done", 7, False)],
)
def test_security_17_a_daemon_is_killed_and_the_training_goes_on(
    mortal: Mortal, who: str, moment: str, count: int, stored: bool
) -> None:
    """Between what a checkpoint costs and its signatures; and while a step is dealt.  The session of then is burnt."""
    die_and_go_on(mortal, who, moment, count, stored)
    mortal.require_single_use()


def test_a_client_is_killed_and_the_training_goes_on(mortal: Mortal) -> None:
    """Between a run that is burnt and its answer, and while the next one is dealt."""
    die_as_a_client(mortal, "receiving", 5, False)
    mortal.require_single_use()


def die_as_a_client(mortal: Mortal, moment: str, count: int, stored: bool) -> None:
    name = f"client-{moment}-{count}-{stored}"
    mortal.arm("client", moment, count)
    status, said = killing.wait_for(mortal.start_client(name, stored))
    assert killing.is_killed(status), said
    assert mortal.came_to("client") == moment
    with mortal.client() as cluster:
        require_whole(train(cluster, name, stored))


@pytest.mark.slow
@pytest.mark.parametrize(("who", "moment", "count"), moments())
def test_security_17_daemons_are_killed_at_every_moment(mortal: Mortal, who: str, moment: str, count: int) -> None:
    die_and_go_on(mortal, who, moment, count, count % 2 == 0)
    mortal.require_single_use()


CLIENT = ("closing", "next", "ahead", "entering", "receiving", "describing")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "count"),
    [
        *(("opening", stretch) for stretch in (1, 2, 3)),  # once in each stretch
        *((moment, count) for moment in CLIENT for count in (1, 3, 4)),
    ],
)
def test_clients_are_killed_at_every_moment(mortal: Mortal, moment: str, count: int) -> None:
    for done in ("", "-done"):
        die_as_a_client(mortal, moment + done, count, count % 2 == 0)
    mortal.require_single_use()
