"""Follow the parties' audit chains from heads that one knows: a party whose ledger was put back cannot lead on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpc.errors import IntegrityError, SessionError, UsageError
from parties.agreed.audit import START, follow, row_digest
from parties.client.channels import PartyClient
from parties.client.heads import is_head
from parties.pb import consent_pb2

_MOST_PAGES = 1 << 14


@dataclass(frozen=True)
class Chain:
    """One party's audit chain behind a head.

    Args:
        after: the head that it was followed from.
        head: the newest.
        count: rows between them.
        rows: those that this client may read, the oldest first.
        fault: why the chain does not lead there; None if it does.
    """

    party: str
    after: bytes
    head: bytes
    count: int
    rows: tuple[dict[str, Any], ...]
    fault: str | None = None


def follow_chain(party: PartyClient, after: bytes, seconds: float) -> Chain:
    """Follow a party's chain from a head to its newest row; every link of it is computed again here.

    Raises:
        MpcError: the party cannot be asked.
    """
    head, count, rows = after, 0, []
    try:
        for number, each in enumerate(_rows(party, after, seconds), 1):
            if follow(head, each.digest) != each.head or (each.row and row_digest(each.row) != each.digest):
                raise IntegrityError(f"{party.name} sends rows that do not follow from one another", peer=party.name)
            head, count = each.head, number
            if each.row:
                rows.append({**_content(party.name, each.row), "number": each.number, "head": each.head.hex()})
    except (SessionError, IntegrityError) as error:
        return Chain(party.name, after, head, count, tuple(rows), error.what)
    return Chain(party.name, after, head, count, tuple(rows))


def _content(party: str, row: bytes) -> dict[str, Any]:
    try:
        found = json.loads(row)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or type(found.get("at")) is not int or not isinstance(found.get("kind"), str):
        raise IntegrityError(f"{party} sends rows that are none", peer=party)
    return found


def _rows(party: PartyClient, after: bytes, seconds: float) -> Iterator[consent_pb2.AuditRow]:
    for _ in range(_MOST_PAGES):
        request = consent_pb2.AuditRequest(after=after)
        page = list(party.stream(lambda stub: stub.consent.Audit, request, seconds))
        yield from page
        if not page:
            return
        after = page[-1].head


def read_head(text: str) -> bytes:
    """Read a head as it is typed, 64 hex digits; `UsageError` if it is none."""
    if not is_head(text):
        raise UsageError("a head has 64 hex digits", remedy="mpc audit prints each party's")
    return bytes.fromhex(text)


def check_chains(
    clients: Sequence[PartyClient], known: Mapping[str, bytes], seconds: float, against: bytes | None = None
) -> list[Chain]:
    """Follow every party's chain: from `against` if it is that party's, else from the head that is known of it.

    Raises:
        IntegrityError: no party has a row behind `against`.
    """
    found = [follow_chain(client, known.get(client.name, START), seconds) for client in clients]
    if against is None:
        return found
    tried = [follow_chain(client, against, seconds) for client in clients]
    good = [each for each in tried if each.fault is None]
    if not good:
        raise IntegrityError(
            "no party has a row behind that head",
            cause="the ledger of the party that gave it was put back from a backup",
            remedy="ask the parties' operators; what was charged since may be forgotten there",
        )
    return [*good, *(each for each in found if each.party not in {one.party for one in good})]
