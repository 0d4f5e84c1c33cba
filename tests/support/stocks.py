"""Stocks of the tiny model on a cluster in this process, and sessions of them driven call by call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpc.compiler.roles import Roles
from parties.agreed.terms import Terms
from parties.client.running import stocks as ordering
from parties.client.running.stocks import Stock
from parties.party.stock.files import FOLDER
from parties.pb import party_pb2
from tests.support.parties import COORDINATOR, SEPARATE, InProcess, Script


def deal(cluster: InProcess, batches: Sequence[int] = (1, 1, 1), roles: Roles = SEPARATE) -> Stock:
    """A stock that the coordinator ordered."""
    return ordering.order(cluster.client(), cluster.compiled(roles).plan, batches)


def script_of(cluster: InProcess, stock: Stock, roles: Roles = SEPARATE) -> Script:
    """The session that a stock is, not yet opened."""
    script = cluster.script(roles)
    script.terms, script.id = stock.terms, stock.terms.session_id
    return script


def opening(terms: Terms) -> party_pb2.OpenRequest:
    """The call that takes a stock."""
    return party_pb2.OpenRequest(
        plan_digest=terms.plan_digest, parties=terms.parties, nonces=terms.nonces, stocked=True
    )


def open_stock(cluster: InProcess, stock: Stock, roles: Roles = SEPARATE, caller: str = COORDINATOR) -> Script:
    """The session, opened at every party."""
    script = script_of(cluster, stock, roles)
    script.everyone(lambda index: cluster.party(index, caller).Open(opening(stock.terms)))
    return script


def folder(cluster: InProcess, index: int, stock: Stock) -> Path:
    """Where a party keeps it."""
    return cluster.party_config(index).data_dir / FOLDER / stock.terms.session_id.hex()


def being_dealt(cluster: InProcess, index: int) -> set[str]:
    """Stocks of which something lies on a party's disk, and which its ledger does not list yet."""
    root = cluster.party_config(index).data_dir / FOLDER
    on_disk = {path.name for path in root.iterdir()} if root.is_dir() else set()
    return on_disk - {session_id.hex() for session_id in cluster.ledgers[index].stocked()}
