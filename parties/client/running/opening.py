"""Models that sessions are opened of: one that is compiled here, or one that lies at the parties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mpc.errors import warn
from parties.agreed.bindings import Binding
from parties.agreed.keeps import Keep
from parties.client.at_rest import bound, keeping
from parties.client.at_rest.matching import match_datasets
from parties.client.channels import Parties
from parties.client.model import Model, Placed, model_name, refuse_compiling
from parties.client.running.roles import SECRET, Recipients, assign, read_security, require_security

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled
    from parties.client.selection import Selection


@dataclass(frozen=True)
class Ready:
    """A plan with all that a session of it needs.

    Args:
        of: the compiled model, or the placed one.
        bindings: of the plan's stored wires, in its order.
        keeps: objects that its kept outputs become.
    """

    of: Compiled | Placed
    bindings: tuple[Binding, ...]
    keeps: tuple[Keep, ...] = ()


def prepare(
    parties: Parties,
    model: Any,
    owners: Mapping[str, str] | None,
    recipients: Recipients | None,
    data: Any,
    weights: str,
    compiling: Mapping[str, Any],
) -> Ready:
    """Compile a model, or give everybody a place in one that lies at the parties.

    Args:
        model, owners, recipients, data, weights: as of `Cluster.session`.
        compiling: ranges, samples, shapes, state, keep, noise, secret_weights and link, for a compiler alone;
            security for all.

    Raises:
        ModelError, UsageError, InputError, SessionError: as `Cluster.session`.
    """
    if isinstance(model, Model | Placed) or model_name(model) is not None:
        found = _stored(parties, model, owners, recipients, data, weights, compiling)
        return Ready(found, found.bindings)
    from mpc.compiler.onnx.load import Loaded, load_model
    from mpc.compiler.onnx.metadata import columns_of
    from mpc.compiler.onnx.signature import input_names
    from parties.client.compiling.cached import compile_cached  # imports onnx
    from parties.client.running.noised import as_noise
    from parties.client.running.states import bound_states, compiled_states, read_states

    loaded = Loaded(load_model(model))
    names = input_names(loaded)
    read = bound.read_choices(data, compiling["ranges"], names)
    chosen, told = match_datasets(read, columns_of(loaded.model), names)
    security = read_security(compiling["security"], parties.config.security)
    apart, link = compiling["secret_weights"], compiling["link"]
    roles = assign(parties.config.name, owners, recipients, weights, security, apart, link)
    named = keeping.read_keep(compiling["keep"], parties.config.name)
    roles = replace(roles, owners={**roles.owners, **bound.owners(chosen)}, keeps=frozenset(named))
    stored = {name: bound.described(selection) for name, selection in chosen.items()}
    states = read_states(compiling["state"], owners or (), chosen)
    noise = as_noise(compiling["epsilon"], compiling["mechanism"], compiling["delta"], chosen, parties)
    settings = {name: said for name, said in compiling.items() if name in ("ranges", "samples", "shapes")}
    compiled = compile_cached(
        loaded, roles=roles, stored=stored, states=compiled_states(states), noise=noise, **settings
    )
    bindings = bound.bindings(compiled.plan, chosen, bound_states(compiled.plan, states))
    bound.warn_of(chosen, compiled.plan)
    _warn_of_order(told, chosen)
    return Ready(compiled, bindings, keeping.keeps(parties, compiled.plan, named))


def _warn_of_order(told: Mapping[str, str], chosen: Mapping[str, Selection]) -> None:
    """Warn of the order of columns that the caller has not named."""
    for name, note in told.items():
        if chosen[name].every:
            warn(note)


def _stored(
    parties: Parties,
    model: Any,
    owners: Mapping[str, str] | None,
    recipients: Recipients | None,
    data: Any,
    weights: str,
    compiling: Mapping[str, Any],
) -> Placed:
    found = model
    if (name := model_name(model)) is not None:
        from parties.client.models import Models

        found = Models(parties).get(name)
    said = {**compiling, "weights": None if weights == SECRET else weights}
    said["secret_weights"] = said["secret_weights"] or None
    security = said.pop("security")
    if isinstance(found, Placed):
        refuse_compiling(found.manifest.name, {**said, "owners": owners, "recipients": recipients, "data": data})
        require_security(found.plan, read_security(security, parties.config.security))
        return found
    refuse_compiling(found.name, said)
    names = [given.name for given in found.plan.inputs]
    chosen, told = match_datasets(bound.read_choices(data, None, names), {}, names)
    placed: Placed = found.place(owners, recipients, chosen, security)
    bound.warn_of(chosen, found.plan)
    _warn_of_order(told, chosen)
    return placed
