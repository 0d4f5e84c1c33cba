"""Models with noise on datasets: what the compiler has to know of the people in them, and what an answer costs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any

from mpc.compiler.graph.noising import Noising
from mpc.errors import MpcError, UsageError
from mpc.privacy.facts import StoredFacts
from parties.client.channels import Parties
from parties.client.consent import granting
from parties.client.consent.granted import as_amount, as_mechanisms
from parties.client.selection import Selection


def facts_of(data: Mapping[str, Selection], parties: Parties | None = None) -> dict[str, StoredFacts]:
    """Return what is public of the people in the rows that inputs are read from.

    Args:
        parties: who have the owners' words about people that are apart; None: nothing is known of that.
    """
    names = {chosen.manifest.name for chosen in data.values()}
    apart = _apart(parties, names) if parties is not None and len(names) > 1 else set()
    found = {}
    for name, chosen in data.items():
        others = {
            _origin(each) for each in data.values() if frozenset((chosen.manifest.name, each.manifest.name)) in apart
        }
        people = chosen.manifest.rows_per_person
        found[name] = StoredFacts(len(chosen.bound_rows), people, _origin(chosen), apart=frozenset(others))
    return found


def _origin(chosen: Selection) -> str:
    return f"{chosen.manifest.id.hex()}/{chosen.bound_rows.start}"


def _apart(parties: Parties, names: set[str]) -> set[frozenset[str]]:
    """Pairs of datasets of which both owners state, in grants to this client, that nobody is in both."""
    stated: dict[str, set[str]] = {}
    with suppress(MpcError):
        for each in granting.given(parties):
            dp = each.grant.question.dp
            if dp is not None and not each.revoked and parties.config.name in each.grant.coordinators:
                stated.setdefault(each.grant.dataset, set()).update(dp.apart)
    return {
        frozenset((one, other))
        for one in names
        for other in stated.get(one, ())
        if other in names and one in stated.get(other, ())
    }


def as_noise(
    given: Any, mechanism: Any, delta: Any, data: Mapping[str, Selection], parties: Parties | None = None
) -> Noising | None:
    """Read the noise that a session is asked for; None for none.

    Args:
        given: output -> epsilon.
        mechanism: one of the kinds of noise; None: Laplace noise.
        delta: what an output's Gaussian noise may cost beside.
        data: input -> columns of a dataset.
        parties: as of `facts_of`.

    Raises:
        UsageError: it makes no sense.
    """
    if given is None:
        if mechanism is not None or delta is not None:
            raise UsageError("mechanism and delta say which noise there is", remedy="epsilon={'y': 0.5}")
        return None
    if not isinstance(given, Mapping) or not given:
        raise UsageError("an epsilon is for an output", remedy="epsilon={'y': 0.5}")
    asked: dict[str, Fraction] = {name: as_amount(each, "epsilon") for name, each in given.items()}
    more: dict[str, Any] = {} if delta is None else {"delta": as_amount(delta, "delta")}
    if data:
        more |= {"stored": facts_of(data, parties), "most": min(len(each.bound_rows) for each in data.values())}
    kinds = as_mechanisms("laplace" if mechanism is None else mechanism)
    return Noising(asked, mechanisms=kinds, **more)
