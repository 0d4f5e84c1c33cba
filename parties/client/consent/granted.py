"""Read what an owner grants, as it is said in Python or on a command line: exact plans, or an epsilon."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

from mpc.errors import InputError, UsageError
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan, Security
from mpc.privacy.facts import GAUSSIAN, LAPLACE, Mechanism
from mpc.text import PROCESS_NAME, shown
from parties.agreed.bindings import Binding, rows_of
from parties.agreed.bits import tells_one_bit
from parties.agreed.objects import Manifest
from parties.agreed.questions import Dp, Exact, ExactPlan, Question
from parties.client.at_rest import bound
from parties.client.consent.granting import listed
from parties.client.model import Placed
from parties.client.running.roles import ACTIVE, PASSIVE

DELTA = Fraction(1, 10**6)
"""Delta that a grant or a budget allows unless it says otherwise; a question with Laplace noise costs about 2^-40."""
MECHANISMS: tuple[Mechanism, ...] = (LAPLACE, GAUSSIAN)
OUTPUTS = 64
Data = Mapping[str, bound.Chosen] | Sequence[Mapping[str, bound.Chosen]]
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?(e-?[0-9]{1,2})?|[0-9]{1,18}/[1-9][0-9]{0,17}", re.IGNORECASE)


def as_amount(given: Any, what: str) -> Fraction:
    """Read an epsilon or a delta as it is written: 0.1 is one tenth.

    Raises:
        UsageError: it is no number, or not above 0.
    """
    text = "" if isinstance(given, bool) else str(given)
    if not _NUMBER.fullmatch(text):  # matched first: Fraction("1e999999999") would compute for ever
        raise UsageError(f"{what} is no number above 0", remedy=f"{what}=0.1, or '1/3'")
    top, _, bottom = text.partition("/")
    found = Fraction(top) / int(bottom or 1)
    if found <= 0:
        raise UsageError(f"{what} is above 0", remedy=f"{what}=0.1")
    return found


def as_clients(given: Any, what: str) -> tuple[str, ...]:
    """Read names of clients, one or several.

    Raises:
        UsageError: they are none.
    """
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Collection) or not names:
        raise UsageError(f"{what} are names of clients", remedy=f"{what}=['analyst']")
    for name in names:
        if not isinstance(name, str) or not PROCESS_NAME.fullmatch(name):
            raise UsageError(f"no client is named {shown(str(name)[:80])!r}", remedy="names are those of certificates")
    return tuple(dict.fromkeys(names))


def as_plans(given: Any) -> list[Plan]:
    """Read plans: compiled models, plans, sessions or files of plans, one or several.

    Raises:
        UsageError, PlanError: they are none.
    """
    return [_plan(each) for each in _several(given)]


def _several(given: Any) -> Sequence[Any]:
    return given if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]


def _plan(given: Any) -> Plan:
    found = getattr(given, "plan", given)
    if isinstance(found, Plan):
        return found
    if isinstance(found, str | PathLike):
        try:
            return parse_plan(Path(found).read_bytes())
        except OSError as error:
            raise UsageError(f"the plan {shown(str(found))} cannot be read: {error.strerror}") from None
    raise UsageError("that is no plan", remedy="plans=cluster.session('m.onnx', data=...).plan, or a file of one")


def exact(
    plans: Any,
    data: Data | None,
    manifest: Manifest,
    weights: Mapping[str, Any],
    bit: bool,
    security: Security = PASSIVE,
) -> Question:
    """Describe exact plans, with all that they read.

    Args:
        data: input -> columns of a dataset, other owners' too, for all stored inputs of the plans; or several of these,
            each of which every plan may read.
        manifest: the dataset's that is granted.
        bit: each plan tells one bit.
        security: of the grant.

    Raises:
        UsageError, InputError: a plan reads something that is not said, or not this dataset, or tells more than a bit;
            or its runs are not checked, and the grant is of such alone.
    """
    if security == ACTIVE:
        require_checked(*(_plan(each) for each in _several(plans) if not isinstance(each, ExactPlan)))
    read = [data or {}] if data is None or isinstance(data, Mapping) else [*data]
    found = [_listed(plan, each, manifest, weights, bit) for plan in _several(plans) for each in read]
    found = list({each.model_dump_json(): each for each in found}.values())
    try:
        return Question(exact=Exact(plans=tuple(found), outputs_bits=1 if bit else None))
    except ValueError:
        raise UsageError(f"a grant of {len(found)} plans", remedy="one grant lists 1 to 256") from None


def require_checked(*plans: Plan) -> None:
    """Refuse to grant plans whose runs are not checked to checked sessions alone: nobody could use that.

    Raises:
        UsageError: one's runs are not checked.
    """
    if not all(each.is_checked for each in plans):
        raise UsageError(
            "runs of a plan that is granted are not checked, and the grant is of checked ones alone",
            cause="security='active' is said, or the cluster file says that every session is active",
            remedy="have the plan compiled with --security active, in Python security='active'",
        )


def _listed(
    given: Any, data: Mapping[str, bound.Chosen], manifest: Manifest, weights: Mapping[str, Any], bit: bool
) -> ExactPlan:
    if isinstance(given, ExactPlan):
        return given
    plan, bindings = _plan(given), bindings_of(given, data)
    if not any(each.object == manifest.id for each in bindings):
        raise InputError(
            f"the plan does not read {manifest.name}",
            remedy="grant the dataset that it reads: data={'x': ds[['age']]}",
        )
    if bit and not tells_one_bit(plan, rows_of(plan, bindings) or 1):
        raise UsageError(
            "the plan tells more than one bit",
            cause="a bit is one output of one row, which a comparison writes and nothing else reads",
            remedy="a model that ends in a comparison, of one row: data={'x': ds[['age']][7:8]}",
        )
    return listed(plan, bindings, weights)


def bindings_of(given: Any, data: Mapping[str, bound.Chosen]) -> tuple[Binding, ...]:
    """Return what the stored wires of a plan stand for: of a model that is placed, what it was placed with.

    Args:
        given: a plan, as `as_plans` reads one.
        data: input -> columns of a dataset, or of several; of those that the plan does not read, nothing follows.

    Raises:
        UsageError, InputError: something that is stored is not said.
    """
    if isinstance(given, Placed):
        return given.bindings
    plan = _plan(given)
    stored = {gate.out for gate in plan.stored}
    names = {each.name for each in plan.inputs if each.wire in stored}
    return bound.bindings(plan, {name: selection for name, selection in data.items() if name in names})


def as_mechanisms(given: Any) -> tuple[Mechanism, ...]:
    """Read kinds of noise, one or several; None for all.

    Raises:
        UsageError: there is no such kind.
    """
    named = MECHANISMS if given is None else (given,) if isinstance(given, str) else tuple(given)
    if not named or not {*named} <= {*MECHANISMS}:
        raise UsageError(
            f"there is no noise of the kind {shown(', '.join(map(str, named))[:80])!r}",
            remedy=f"mechanisms='{LAPLACE}', '{GAUSSIAN}', or both",
        )
    return tuple(each for each in MECHANISMS if each in named)


def noised(
    epsilon: Any, epsilon_each: Any, delta: Any, outputs: int, mechanisms: Any = None, apart: Sequence[str] = ()
) -> Question:
    """Describe answers with noise.

    Args:
        mechanisms: kinds of noise that may be; None: all.
        apart: datasets of other owners in which nobody of this one is.
        epsilon, delta: of all runs together.
        epsilon_each: of one run; None: as much as all together.

    Raises:
        UsageError: they are no numbers, or one run may cost more than all.
    """
    whole = as_amount(epsilon, "epsilon")
    each = whole if epsilon_each is None else as_amount(epsilon_each, "epsilon_each")
    kinds, most = as_mechanisms(mechanisms), as_amount(delta, "delta")
    try:
        return Question(
            dp=Dp(mechanisms=kinds, epsilon=whole, epsilon_each=each, delta=most, outputs=outputs, apart=tuple(apart)),
        )
    except ValueError:
        raise UsageError(
            "that is no grant of noised answers",
            cause="epsilon is at most 1,000,000, that of one run at most that of all, delta below 1, outputs 1 to 4096",
            remedy="epsilon=1.0, epsilon_each=0.1",
        ) from None
