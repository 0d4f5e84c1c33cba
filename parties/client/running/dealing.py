"""Have correlations dealt ahead for a model: what is compiled and ordered when nothing runs yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpc.errors import UsageError
from mpc.plan.plan import Plan, Security
from parties.client.channels import Parties
from parties.client.compiling.cached import compile_cached
from parties.client.model import refuse_stored
from parties.client.running import stocks as ordering
from parties.client.running.feeds import read_count
from parties.client.running.roles import assign, read_security, refuse_machines, require_security
from parties.client.running.room import sizes
from parties.client.running.states import read_states
from parties.client.running.stocks import Stock

if TYPE_CHECKING:
    from mpc.compiler.onnx.load import Source

_ROLES = ("owners", "recipients", "weights", "secret_weights", "link")
_CHOICES = {*_ROLES, "ranges", "samples", "shapes", "state", "security"}


def deal(
    parties: Parties, model: Source | Plan, runs: int, batch: int, sessions: int, choices: dict[str, Any]
) -> list[Stock]:
    """Have dealt what `Cluster.deal` says; return a stock a session.

    Raises:
        UsageError, ModelError, PolicyError, PeerError, PlanError: as `Cluster.deal`.
    """
    runs, sessions = read_count(runs, "the number of runs"), read_count(sessions, "the number of sessions")
    batch = read_count(batch, "the batch")
    if unknown := set(choices) - _CHOICES:
        raise UsageError(f"there is no argument {min(unknown)!r}", remedy=f"possible are {', '.join(sorted(_CHOICES))}")
    if runs % sessions:
        raise UsageError(f"{runs} runs cannot be shared by {sessions} sessions", remedy="make it a multiple")
    least = read_security(choices.pop("security", None), parties.config.security)
    plan = model if isinstance(model, Plan) else _compiled(parties.config.name, model, choices, least)
    require_security(plan, least)
    refuse_machines(plan, parties.names, parties.config.provider.name)
    batches = sizes(parties, plan, batch) * (runs // sessions)
    return [ordering.order(parties, plan, batches) for _ in range(sessions)]


def _compiled(me: str, model: Source, choices: dict[str, Any], security: Security) -> Plan:
    refuse_stored(model)
    said = {name: choices.pop(name) for name in _ROLES if name in choices}
    roles = assign(me, **said, security=security)
    states = read_states(choices.pop("state", None), said.get("owners") or ())
    return compile_cached(model, roles=roles, states=states, **choices).plan
