"""Read who enters and who receives what, as users say it.

Names become part of the plan, and so of the digest that operators agree to: recipients are
sorted, so that the order in which they are listed does not make another plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from mpc.errors import UsageError
from mpc.plan.link import Link
from parties.addresses import check_name

if TYPE_CHECKING:
    from mpc.compiler.roles import Roles
    from mpc.plan.plan import Plan, Security

PASSIVE: Literal["passive"] = "passive"
ACTIVE: Literal["active"] = "active"
SECRET, PUBLIC = "secret", "public"
"""What weights are to the parties and the provider."""
Recipients = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""Who receives all outputs, or output -> who receives it."""


def assign(
    me: str,
    owners: Mapping[str, str] | None = None,
    recipients: Recipients | None = None,
    weights: str = SECRET,
    security: Security = "passive",
    secret_weights: str | Sequence[str] = (),
    link: Link | str | None = None,
) -> Roles:
    """Assign the roles of a model whose owner and coordinator is `me`, which also has every role that is not said.

    Args:
        weights: `SECRET` or `PUBLIC`: whether the parties and the provider are told the model.
        security: as `read_security` says.
        secret_weights: names of constants and nodes whose weights stay secret where the model is public; `*` stands for
            any text.
        link: what lies between the processes, or its text; None if nobody says.

    Raises:
        UsageError: a name that can be no certificate's, another word for the weights, or a link that is none.
    """
    from mpc.compiler.roles import Roles  # who joins assigns none

    _check_forms(weights, owners)
    readers = recipients if isinstance(recipients, Mapping) else {}
    everyone = (me,) if recipients is None or isinstance(recipients, Mapping) else _names(recipients)
    return Roles(
        me,
        me,
        everyone,
        {given: _name(owner) for given, owner in (owners or {}).items()},
        {out: _names(names) for out, names in readers.items()},
        weights == PUBLIC,
        security=security,
        secret_weights=_patterns(weights, secret_weights),
        link=read_link(link),
    )


def read_link(said: Any) -> Link | None:
    if said is None or isinstance(said, Link):
        return said
    if not isinstance(said, str):
        raise UsageError(
            f"a link is a text, not of type {type(said).__name__}", remedy="link='lan', link='wan', or 'MS:MBIT'"
        )
    return Link.parse(said)


def read_security(asked: Any, least: Security) -> Security:
    """Return the security of what a client is about to run: as it is asked for, or else what its file says.

    Args:
        least: what the client's file says.

    Raises:
        UsageError: it is no such word, or less than the file says.
    """
    if asked not in (None, PASSIVE, ACTIVE):
        shown = repr(asked) if isinstance(asked, str) else f"of type {type(asked).__name__}"
        raise UsageError(f"security is {PASSIVE!r} or {ACTIVE!r}, not {shown}")
    if asked == PASSIVE and least == ACTIVE:
        raise UsageError(
            "passive security is asked for, and the cluster file says that every session is active",
            remedy='leave it out, or set security = "passive" in the cluster file',
        )
    return ACTIVE if ACTIVE in (asked, least) else PASSIVE


def require_security(plan: Plan, least: Security) -> None:
    """Raise UsageError if runs of a plan are not checked, and this client's file says that all are."""
    if least == ACTIVE and not plan.is_checked:
        raise UsageError(
            "the plan's runs are not checked, and the cluster file says that every session is active",
            remedy="have it compiled with --security active, in Python security='active'",
        )


def parse_roles(
    me: str,
    owners: Sequence[str],
    recipients: Sequence[str],
    weights: str = SECRET,
    security: Security = "passive",
    secret_weights: Sequence[str] = (),
    link: str | None = None,
) -> Roles:
    """Read roles from `--owner INPUT=NAME`, `--recipient [OUTPUT=]NAME`; names add up, one without output is for all
    outputs that have none of their own."""
    owned: dict[str, str] = {}
    for entry in owners:
        given, separator, name = entry.rpartition("=")
        if not separator:
            raise UsageError(f"--owner {entry} does not say of which input", remedy=f"--owner INPUT={entry}")
        if owned.setdefault(given, name) != name:
            raise UsageError(f"input {given!r} has two owners", remedy="give one --owner for each input")
    readers: dict[str, list[str]] = {}
    everyone: list[str] = []
    for entry in recipients:
        out, separator, name = entry.rpartition("=")
        (readers.setdefault(out, []) if separator else everyone).append(name)
    roles = assign(me, owned, everyone or None, weights, security, secret_weights, link)
    return replace(roles, readers={out: _names(names) for out, names in readers.items()})


def known_weights(plan: Plan) -> str | None:
    """Return `PUBLIC` or `SECRET`, as the plan's weights are, or that there are both; None if there are no weights."""
    begun = {state.init for state in plan.states}
    public, every = len(plan.public_weights), len([gate for gate in plan.weights if gate.out not in begun])
    if not every:
        return None
    return SECRET if not public else PUBLIC if public == every else f"partly {PUBLIC}"


def others(roles: Roles, me: str) -> list[str]:
    """Name everybody else who has a part."""
    names = {*roles.owners.values(), *roles.recipients, *(name for who in roles.readers.values() for name in who)}
    return sorted(names - {me})


def refuse_machines(plan: Plan, parties: Sequence[str], provider: str) -> None:
    """Raise UsageError if one of the cluster's own processes owns or receives anything: the provider knows all masks,
    and a party's certificate is for what parties say to each other."""
    for name in sorted((plan.owners | plan.recipients) & {*parties, provider}):
        raise UsageError(
            f"{name!r} is a process of the cluster, not a client: it can neither own an input nor receive an output",
            remedy="give its operator a certificate of its own for that: mpc cert issue",
        )


def _check_forms(weights: object, owners: object) -> None:
    if not isinstance(weights, str) or weights not in (SECRET, PUBLIC):
        shown = repr(weights) if isinstance(weights, str) else f"of type {type(weights).__name__}"
        raise UsageError(f"weights are {SECRET!r} or {PUBLIC!r}, not {shown}")
    if owners is not None and not isinstance(owners, Mapping):
        raise UsageError("owners are by input", remedy="owners={'x': 'bob'}")


def _patterns(weights: str, given: object) -> tuple[str, ...]:
    """Read which weights stay secret where the model is public; `mpc.compiler.onnx.split` has what they match."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, Sequence | Set) or not all(isinstance(each, str) and each for each in listed):
        raise UsageError("secret weights are names", remedy="secret_weights=['*lora_A*', '*lora_B*']")
    if listed and weights != PUBLIC:
        raise UsageError(
            "weights are named that stay secret, and all weights are secret",
            remedy="leave the names out, or have all others told: --weights public, in Python weights='public'",
        )
    return tuple(sorted({*listed}))


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(names, Sequence | Set):
        raise UsageError("recipients are names", remedy="recipients='carol', or {'y': ('bob', 'carol')} by output")
    found = tuple(sorted({_name(name) for name in ([names] if isinstance(names, str) else names)}))
    if not found:
        raise UsageError("an output has no recipient", remedy="name at least one: recipients=('carol',)")
    return found


def _name(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise UsageError(
            f"{name!r} cannot be anybody's certificate name",
            cause=str(error),
            remedy="names are those in cluster files",
        ) from None
