"""What a client's own head proves of a party is told, whatever other parties and other heads say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mpc.errors import IntegrityError, PeerError
from parties.client.answering import Silent
from parties.client.channels import PartyClient
from parties.client.consent import auditing
from parties.client.consent.auditing import Chain

KNOWN, OLDER, OTHER = b"k" * 32, b"o" * 32, b"h" * 32
CLIENTS = cast(list[PartyClient], [SimpleNamespace(name=f"party-{index}") for index in range(2)])


@pytest.fixture
def parties(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, bytes], Any]:
    """What parties answer, by party and head: None leads on, a text is a fault, an error is raised."""
    answers: dict[tuple[str, bytes], Any] = {("party-0", KNOWN): "it has no row behind that head"}

    def follow(client: PartyClient, after: bytes, seconds: float) -> Chain:
        answer = answers.get((client.name, after))
        if isinstance(answer, PeerError):
            raise answer.again()
        return Chain(client.name, after, b"n" * 32, 0, (), answer)

    monkeypatch.setattr(auditing, "follow_chain", follow)
    return answers


def check(against: bytes, silent: Silent) -> list[Chain]:
    return auditing.check_chains(CLIENTS, {"party-0": KNOWN, "party-1": OTHER}, 1, against, silent)


DOWN = PeerError("it cannot be reached", peer="party-1")
ABSENT = "it has no row behind that head"


@pytest.mark.parametrize("second", [ABSENT, PeerError("it hung up", peer="party-0")])
def test_a_party_that_is_down_hides_no_proven_fault(parties: dict[tuple[str, bytes], Any], second: Any) -> None:
    """Nor does the guilty party, if it does not answer a second time."""
    parties |= {("party-0", OLDER): second, ("party-1", OTHER): DOWN, ("party-1", OLDER): DOWN}
    silent = Silent()
    assert [(each.party, each.fault) for each in check(OLDER, silent)] == [("party-0", ABSENT)]
    assert [each.peer for each in silent] == ["party-1"]


def test_a_party_that_is_down_may_have_given_the_head_if_nothing_is_proven(
    parties: dict[tuple[str, bytes], Any],
) -> None:
    parties |= {("party-0", KNOWN): None, ("party-0", OLDER): ABSENT, ("party-1", OTHER): DOWN}
    with pytest.raises(PeerError, match="cannot be reached"):
        check(OLDER, Silent())


def test_an_older_head_that_is_still_there_hides_no_proven_fault(parties: dict[tuple[str, bytes], Any]) -> None:
    """A ledger that was put back has the rows before; the head that proves it is kept."""
    parties[("party-1", OLDER)] = ABSENT
    found = check(OLDER, Silent())
    assert set(auditing.heads_to_keep(found)) == {"party-1"}
    faults = [(each.party, each.after, each.fault) for each in found]
    assert faults == [("party-0", OLDER, None), ("party-0", KNOWN, ABSENT), ("party-1", OTHER, None)]


def test_whose_chain_is_broken_is_said_where_no_party_has_the_head(parties: dict[tuple[str, bytes], Any]) -> None:
    parties |= {("party-0", OLDER): ABSENT, ("party-1", OLDER): ABSENT}
    with pytest.raises(IntegrityError, match="no party has a row behind that head") as caught:
        check(OLDER, Silent())
    assert caught.value.peer == "party-0" and "party-0's chain does not lead on" in str(caught.value.cause)
