"""Follow the parties' audit chains from heads that one knows: a party whose ledger was put back cannot lead on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpc.errors import IntegrityError, PeerError, SessionError, UsageError
from parties.agreed.audit import START, follow, row_digest
from parties.client.answering import Silent, ask_each
from parties.client.channels import PartyClient
from parties.client.consent.heads import is_head
from parties.disk import write_atomic
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
        links: of all rows: (digest, bytes; b"" where this client may not read them).
    """

    party: str
    after: bytes
    head: bytes
    count: int
    rows: tuple[dict[str, Any], ...]
    fault: str | None = None
    links: tuple[tuple[bytes, bytes], ...] = ()

    def with_fault(self, fault: str) -> Chain:
        """Return the chain with a fault that was found besides."""
        return self if self.fault is not None else replace(self, fault=fault)


def follow_chain(party: PartyClient, after: bytes, seconds: float) -> Chain:
    """Follow a party's chain from a head to its newest row; every link of it is computed again here.

    Raises:
        MpcError: the party cannot be asked.
    """
    return _follow(party.name, after, _rows(party, after, seconds))


def _follow(party: str, after: bytes, sent: Iterator[consent_pb2.AuditRow]) -> Chain:
    head, rows, links = after, [], []
    fault = None
    try:
        for each in sent:
            if follow(head, each.digest) != each.head or (each.row and row_digest(each.row) != each.digest):
                raise IntegrityError(f"{party} sends rows that do not follow from one another", peer=party)
            content = _content(party, each.row) if each.row else None
            head = each.head
            links.append((each.digest, each.row))
            if content is not None:
                rows.append({**content, "number": each.number, "head": each.head.hex()})
    except (SessionError, IntegrityError) as error:
        fault = error.what
    return Chain(party, after, head, len(links), tuple(rows), fault, tuple(links))


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
    clients: Sequence[PartyClient],
    known: Mapping[str, bytes],
    seconds: float,
    against: bytes | None = None,
    silent: Silent | None = None,
) -> list[Chain]:
    """Follow every party's chain: from `against` if it is that party's, else from the head that is known of it.

    A fault behind a head that is known is returned whatever becomes of `against`, beside that party's other chain.

    Args:
        silent: takes the errors of parties that do not answer: see `ask_each`.

    Raises:
        IntegrityError: no party has a row behind `against`, and all have answered.
        PeerError: a party does not answer, and no fault was found at the others.
    """

    def both(client: PartyClient) -> tuple[Chain, Chain | None]:
        first = follow_chain(client, known.get(client.name, START), seconds)
        try:
            return first, None if against is None else follow_chain(client, against, seconds)
        except PeerError:
            if first.fault is None:
                raise
            return first, None  # what is proven stands, whether it answers once more or not

    chains = ask_each(clients, both, silent).values()
    found = [chain for chain, _ in chains]
    if against is None:
        return found
    good = [tried for _, tried in chains if tried is not None and tried.fault is None]
    broken = [each for each in found if each.fault is not None]
    if not good and silent and broken:
        return found
    if not good and silent:
        raise silent[0].with_(cause="the party that gave that head may be this one: no other has a row behind it")
    if not good:
        also = f"; {broken[0].party}'s chain does not lead on from the head that you know of it" if broken else ""
        raise IntegrityError(
            "no party has a row behind that head",
            cause=f"the ledger of the party that gave it was put back from a backup{also}",
            remedy="ask the parties' operators; what was charged since may be forgotten there",
            peer=broken[0].party if broken else None,
        )
    led = {each.party for each in good}
    return [*good, *(each for each in found if each in broken or each.party not in led)]


def heads_to_keep(found: Sequence[Chain]) -> dict[str, bytes]:
    """Return the newest heads, by party; none of a party with a fault, since the older one that is kept proves it."""
    broken = {each.party for each in found if each.fault is not None}
    return {each.party: each.head for each in found if each.party not in broken}


# -- a chain in a file

_FORMAT = "mpc-audit-1"


def write_export(path: Path, chain: Chain) -> None:
    """Write a whole chain to a file: a line that says whose it is, then one for each row, as it was written."""
    lines = [json.dumps({"format": _FORMAT, "party": chain.party, "head": chain.head.hex()})]
    lines += [json.dumps({"digest": digest.hex(), "row": row.decode()}) for digest, row in chain.links]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def read_export(path: Path) -> Chain:
    """Follow the chain in a file from its start; what was altered in it is a fault.

    Raises:
        UsageError: it is no such file.
    """
    try:
        said, *lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if said["format"] != _FORMAT:
            raise ValueError
        party, last = str(said["party"]), bytes.fromhex(said["head"])
        links = [(bytes.fromhex(line["digest"]), str(line["row"]).encode()) for line in lines]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path} is no audit chain", remedy="mpc audit --party config.toml --output FILE") from None
    found = _follow(party, START, _linked(links))
    return found if found.head == last else found.with_fault("it does not lead to the head that the file names")


def _linked(links: Sequence[tuple[bytes, bytes]]) -> Iterator[consent_pb2.AuditRow]:
    head = START
    for number, (digest, row) in enumerate(links, 1):
        head = follow(head, digest)
        yield consent_pb2.AuditRow(number=number, head=head, digest=digest, row=row)
