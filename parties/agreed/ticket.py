"""A ticket: what somebody else needs to take part in a session that a coordinator has opened.

It is public and gives no right to anything: the parties hand masks and outputs to whom the plan
names, by certificate.  It holds the plan and the session's terms.  Who joins recomputes the
plan's digest and the session id, which stands for all of it: a party that agreed to anything
else does not know that id.  The encoding is canonical JSON, so one session has one ticket.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from mpc.errors import HandshakeError, MpcError, PlanError
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.text import check_name as check_text
from parties.addresses import check_name
from parties.agreed.bindings import Binding, check_bindings
from parties.agreed.keeps import Keep, check_keeps
from parties.agreed.terms import Terms

FORMAT = "mpc-ticket-3"
LARGEST = 1 << 26
"""Characters of the largest ticket that is read."""
_BINDING_KEYS = {"columns", "first", "object", "rows", "wire"}
_AGAIN = "ask the coordinator for the ticket again, and do not change it"
_KEEP_KEYS = {"created", "expires", "name", "outputs", "previous", "version", "visible"}
_KEYS = {"bindings", "format", "keeps", "nonces", "parties", "plan", "plan_digest", "provider", "session"}


@dataclass(frozen=True)
class Ticket:
    """A plan, and the terms of one session of it.

    Raises:
        PlanError: the terms are another plan's.
    """

    plan: Plan
    terms: Terms

    def __post_init__(self) -> None:
        if self.plan.digest != self.terms.plan_digest:
            raise _altered("its plan is not the one that the session's parties agreed to")

    @property
    def text(self) -> str:
        """One line of ASCII."""
        terms = self.terms
        return _dump(
            {
                "bindings": [_shown(binding) for binding in terms.bindings],
                "format": FORMAT,
                "keeps": [_shown_keep(keep) for keep in terms.keeps],
                "nonces": [nonce.hex() for nonce in terms.nonces],
                "parties": list(terms.parties),
                "plan": json.loads(self.plan.canonical),
                "plan_digest": terms.plan_digest.hex(),
                "provider": terms.provider,
                "session": terms.session_id.hex(),
            }
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a ticket from its `text`.

        Raises:
            PlanError: not a ticket, not in its one encoding, or altered on its way.
        """
        content = _load(text.strip())
        try:
            plan = parse_plan(_dump(content["plan"]).encode())
            terms = Terms(
                bytes.fromhex(content["plan_digest"]),
                check_name(content["provider"]),
                tuple(check_name(name) for name in content["parties"]),
                tuple(bytes.fromhex(nonce) for nonce in content["nonces"]),
                tuple(_binding(each) for each in content["bindings"]),
                tuple(_keep(each) for each in content["keeps"]),
            )
            check_bindings(plan, terms.bindings)
            check_keeps(plan, terms.keeps)
            ticket = cls(plan, terms)
            session = ticket.terms.session_id.hex()
        except PlanError as error:
            raise error.with_(remedy=error.remedy or _AGAIN) from error.__cause__
        except (MpcError, ValueError, TypeError, AttributeError, RecursionError):
            raise _altered("its terms are malformed") from None
        if session != content["session"]:
            raise _altered("its session id does not belong to its terms", "or another version of mpc made it")
        if ticket.text != text.strip():
            raise _altered("it is not in its canonical encoding")
        return ticket

    def require_roster(self, provider: str, parties: tuple[str, ...]) -> None:
        """Raise HandshakeError unless the session is one of the very parties that this client's own config names."""
        if (self.terms.provider, self.terms.parties) != (provider, parties):
            raise HandshakeError(
                "the ticket is for other parties than those in your cluster file",
                cause=f"it names {self.terms.provider} and {', '.join(self.terms.parties)}, "
                f"your file {provider} and {', '.join(parties)}",
                remedy="use the cluster file for these parties; the order counts",
            )


def _shown(binding: Binding) -> dict[str, Any]:
    return {
        "columns": list(binding.columns),
        "first": binding.first,
        "object": binding.object.hex(),
        "rows": binding.rows,
        "wire": binding.wire,
    }


def _binding(content: dict[str, Any]) -> Binding:
    for name in (content["wire"], *content["columns"]):
        check_text(name, "the column")
    numbers = [content["first"], content["rows"]]
    if any(type(number) is not int for number in numbers) or set(content) != _BINDING_KEYS:
        raise ValueError
    return Binding(content["wire"], bytes.fromhex(content["object"]), tuple(content["columns"]), *numbers)


def _shown_keep(keep: Keep) -> dict[str, Any]:
    said = {"name": keep.name, "outputs": list(keep.outputs), "version": keep.version, "previous": keep.previous}
    return {**said, "created": keep.created, "expires": keep.expires, "visible": list(keep.visible)}


def _keep(content: dict[str, Any]) -> Keep:
    for name in content["outputs"]:
        check_text(name, "the output")
    numbers = [content[name] for name in ("created", "expires", "version")]
    if any(type(number) is not int for number in numbers) or set(content) != _KEEP_KEYS:
        raise ValueError
    outputs, visible = tuple(content["outputs"]), tuple(content["visible"])
    created, expires, version = numbers
    return Keep(content["name"], outputs, version, content["previous"], created, expires, visible)


def _load(text: str) -> dict[str, Any]:
    if len(text) > LARGEST:
        raise PlanError("the ticket is too large", cause=f"more than {LARGEST >> 20} million characters")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT or set(content) != _KEYS:
        raise PlanError(
            "this is not a ticket",
            cause="it was cut short or altered, or is another kind of file",
            remedy="take the file that 'mpc run --ticket FILE' wrote, or session.ticket, as it is",
        )
    return content


def _altered(what: str, or_else: str = "") -> PlanError:
    return PlanError(
        f"the ticket is not whole: {what}",
        cause=", ".join(filter(None, ("it was altered on its way", or_else))),
        remedy=_AGAIN,
    )


def _dump(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
