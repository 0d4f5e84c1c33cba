"""Requests that wait for a word, as their askers, the owners of the data and parties' operators see them.

What is shown of one is its record, which each party made by itself: records that differ in a byte are different
requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mpc.errors import IntegrityError, PeerError, UsageError
from mpc.privacy.facts import CHARGE_UNIT, DELTA_UNIT
from parties.agreed.requests import Proves, Reads, Request
from parties.client.answering import Silent, ask_each
from parties.client.channels import Parties, PartyClient
from parties.client.consent import granted, granting
from parties.client.consent.told import Left
from parties.pb import consent_pb2

SHORTEST = 8
"""Digits of an id that a command takes for it."""
_MOST_PLAN_BYTES = 1 << 26
_SHOWN = 16


@dataclass(frozen=True)
class Standing:
    """Standing of a request at one party, as that says.

    Args:
        state: "waiting", "approved" or "denied", there.
        operator: no rule of that party's policy covered it when it was asked last.
        made, expires: seconds since 1970.
        uses, used: runs that its operator has approved, and those that told an answer.
        reason: why it was denied.
    """

    party: str
    state: str
    operator: bool
    made: float
    expires: float
    uses: int
    used: int
    reason: str

    @property
    def text(self) -> str:
        """Words for people."""
        if self.state == "approved":
            return f"approved, {self.used} of {self.uses} used"
        if self.state == "denied":
            return f"denied: {self.reason}" if self.reason else "denied"
        return "waits for its operator" if self.operator else "waits for the owner"


@dataclass(frozen=True)
class Requested:
    """A request, and how it stands at the parties that have it."""

    request: Request
    standings: tuple[Standing, ...]

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self.request.id

    @property
    def lines(self) -> tuple[str, ...]:
        """Text for people: the record, then how it stands."""
        return (*self.request.lines, *(f"at        {each.party}: {each.text}" for each in self.standings))

    def grants(self, owner: str) -> list[str]:
        """List the commands with which an owner would allow it; none where no command can, or all of it is answered."""
        if all(each.state == "approved" and each.used >= each.uses for each in self.standings):
            return []
        names = [name for name in self.request.datasets if name.partition("/")[0] == owner]
        return [found for name in names if (found := _grant(self.request, name)) is not None]

    def content(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        said = self.request.model_dump(mode="json")
        standings = [{**vars(each)} for each in self.standings]
        return {"id": self.id, "request": said, "lines": list(self.request.lines), "parties": standings}


def commands(parties: Parties, found: Requested, owner: str) -> list[str]:
    """List the commands with which an owner would allow a request: grants, and budgets where too little is left.

    Where a party does not answer, nobody knows what is left, and the grants alone are listed.
    """
    grants = found.grants(owner)
    costs = {each.dataset: each for each in found.request.proves if each.epsilon is not None}
    names = [name for name in found.request.datasets if name.partition("/")[0] == owner and name in costs]
    if not grants or not names:
        return grants
    try:
        left = {name: granting.budget(parties, name) for name in names}
    except PeerError:
        return grants
    shared: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        shared.setdefault(tuple(sorted(left[name].group)) or (name,), []).append(name)
    budgets = [_budget(left[these[0]], group, [costs[name] for name in these]) for group, these in shared.items()]
    return [*grants, *(each for each in budgets if each is not None)]


def _budget(left: Left, group: Sequence[str], costs: Sequence[Proves]) -> str | None:
    """Return the command that makes a budget large enough for some answers more; None if it is."""
    epsilon = left.spent + sum(Fraction(each.epsilon or 0, CHARGE_UNIT) for each in costs)
    delta = left.spent_delta + sum(Fraction(each.delta or 0, DELTA_UNIT) for each in costs)
    if left.epsilon is not None and epsilon <= left.epsilon and delta <= (left.delta or 0):
        return None
    total, most = max(epsilon, left.epsilon or Fraction(0)), max(delta, left.delta or granted.DELTA)
    more = "".join(f" --with {name}" for name in group if name != left.dataset)
    more += "" if most == granted.DELTA else f" --delta {_rounded_up(most, DELTA_UNIT)}"
    return f"mpc budget set {left.dataset} --epsilon {_rounded_up(total, CHARGE_UNIT)}{more}"


def _rounded_up(amount: Fraction, unit: int) -> str:
    """Write an amount as a decimal number, which is not below it by a unit."""
    return f"{Decimal(-(-amount * unit // 1)) / unit:f}"


def _grant(request: Request, name: str) -> str | None:
    """Return the command that allows a request of one dataset, once."""
    people = f"--coordinator {request.coordinator}"
    people += "".join(f" --recipient {each}" for each in request.recipients)
    if any(each.input is None for each in request.reads if each.dataset == name):
        return f"mpc model grant {name} {people} --uses 1"
    proved = next(each for each in request.proves if each.dataset == name)
    if proved.epsilon is not None:
        each = f"{proved.epsilon / CHARGE_UNIT:.9g}"
        noised = {one.dataset for one in request.proves if one.epsilon is not None}
        owner = name.partition("/")[0]
        apart = [one for one in proved.apart if one in noised and one.partition("/")[0] != owner]
        stated = "".join(f" --apart {one}" for one in apart)
        return f"mpc grant add {name} {people} --epsilon {each} --epsilon-each {each}{stated} --uses 1"
    read = [each for each in request.reads if each.input is not None]
    if not all(each.first == 0 and each.rows == each.of for each in read):
        return None
    data = " ".join(_data(each) for each in read)
    file = f"request-{request.id[:_SHOWN]}.plan"
    write = f"mpc requests show {request.id[:_SHOWN]} --plan {file}"
    return f"{write}; mpc grant add {name} {people} --plan {file} {data} --uses 1"


def _data(each: Reads) -> str:
    return f"--data {each.input}={each.dataset}:{','.join(each.columns)}"


def list_requests(
    clients: Sequence[PartyClient], seconds: float, request: str = "", silent: Silent | None = None
) -> list[Requested]:
    """List the requests that parties show this caller, each once, those that were made first before others.

    Args:
        request: an id, for that one alone.
        silent: takes the errors of parties that do not answer: see `ask_each`.

    Raises:
        IntegrityError: a party shows something that is none.
    """
    asked = consent_pb2.RequestsRequest(id=request)

    def ask(client: PartyClient) -> list[consent_pb2.RequestEntry]:
        return list(client.stream(lambda stub: stub.consent.Requests, asked, seconds))

    found: dict[str, tuple[Request, list[Standing]]] = {}
    for name, entries in ask_each(clients, ask, silent).items():
        for entry in entries:
            read = _read(name, entry)
            found.setdefault(read.id, (read, []))[1].append(_standing(name, entry))
    made = [Requested(read, tuple(standings)) for read, standings in found.values()]
    return sorted(made, key=lambda each: min(one.made for one in each.standings))


def _read(party: str, entry: consent_pb2.RequestEntry) -> Request:
    try:
        return Request.parse(entry.record)
    except Exception as error:
        raise IntegrityError(f"{party} shows a request that is none", cause=str(error)[:200], peer=party) from None


def _standing(party: str, entry: consent_pb2.RequestEntry) -> Standing:
    return Standing(party, entry.state, entry.operator, entry.made, entry.expires, entry.uses, entry.used, entry.reason)


def choose(found: Sequence[Requested], wanted: str) -> Requested:
    """Return the request whose id begins so.

    Raises:
        UsageError: there is none, or several.
    """
    fits = [each for each in found if each.id.startswith(wanted.lower())] if len(wanted) >= SHORTEST else []
    if len(fits) != 1:
        raise UsageError(
            f"{len(fits)} requests begin with {wanted[:64]!r}",
            remedy=f"give {SHORTEST} digits or more of one that mpc requests lists, with --party for an operator",
        )
    return fits[0]


def plan_of(clients: Sequence[PartyClient], request: Request, seconds: float) -> bytes:
    """Return the plan of a request, canonical bytes, from any party that has it.

    Raises:
        IntegrityError: a party sends another one.
        UsageError: no party keeps it any more.
    """
    from mpc.plan.plan import digest_of

    asked = consent_pb2.RequestsRequest(id=request.id, plan=True)
    for client in clients:
        plan = bytearray()
        for entry in client.stream(lambda stub: stub.consent.Requests, asked, seconds):
            if len(plan) > _MOST_PLAN_BYTES:
                break
            plan += entry.plan
        if plan and digest_of(bytes(plan)).hex() != request.plan:
            raise IntegrityError(f"{client.name} sends another plan than was asked for", peer=client.name)
        if plan:
            return bytes(plan)
    raise UsageError("no party keeps the plan of that request any more", remedy="ask its coordinator for the plan")


def decide(client: PartyClient, request: str, uses: int, seconds: int, reason: str, wait: float) -> bytes:
    """Tell a party its operator's word about a request; the new head of its audit chain.

    Args:
        uses: runs that are approved; 0 denies it.
        seconds: that the approval holds.
        reason: of a denial, for who asked.
        wait: seconds for the answer.
    """
    said = consent_pb2.DecideRequest(id=request, approve=uses > 0, uses=uses, seconds=seconds, reason=reason)
    return client.begin(lambda stub: stub.consent.Decide, said, wait).result().head
