"""`mpc audit`: what parties say they have done, followed by their clients and, in all of it, by their operators."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mpc.errors import IntegrityError, MpcError, UsageError
from mpc.privacy.facts import CHARGE_UNIT, DELTA_UNIT
from mpc.text import shown
from parties.agreed.audit import START
from parties.cli.display import Display, many
from parties.cli.operators import PARTY, operators
from parties.cli.options import CLUSTER, FOLDER, JSON, cluster_file, require_folder
from parties.client.answering import Silent, ask_each, missing
from parties.client.cluster import Cluster
from parties.client.consent.auditing import (
    Chain,
    check_chains,
    follow_chain,
    heads_to_keep,
    read_export,
    read_head,
    write_export,
)

_SHOWN = 16
_UNITS = {"epsilon": CHARGE_UNIT, "delta": DELTA_UNIT}
"""Units in an audit row's epsilon and delta of one."""


@click.command()
@click.option("--against", metavar="HEAD", help="A head that you were given with a result: is it still there?")
@click.option("--output", type=click.Path(path_type=Path), help="Write a party's whole chain to this file.")
@click.option("--file", "export", type=click.Path(path_type=Path), help="Follow a chain that --output wrote.")
@PARTY
@CLUSTER
@FOLDER
@JSON
@click.pass_obj
def audit(
    display: Display,
    against: str | None,
    output: Path | None,
    export: Path | None,
    configs: tuple[Path, ...],
    cluster: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Follow the chain of what each party says it has done, from the last head that you know of it.

    You see the rows that are about you. A party that has put back an older ledger is shown: exit code 7. With --party,
    by that party's operator: all rows of its chain, from the first one on.
    """
    head = None if against is None else read_head(against)
    if sum((bool(configs), cluster is not None, export is not None)) > 1:
        raise UsageError("--party, --cluster and --file exclude each other", remedy="--party is for a party's operator")
    if output is not None:
        if len(configs) != 1:
            raise UsageError("--output writes one party's chain", remedy="--party config.toml, by its operator")
        require_folder(output)
    silent, none = Silent(), None
    if export is not None:
        found = [require_head(read_export(export), head)]
    elif configs:
        with operators(configs, folder) as (clients, wait):
            chains = ask_each(clients, lambda client: follow_chain(client, START, wait), silent)
        found = [*chains.values()]
        if len(configs) == 1:
            found = [require_head(each, head) for each in found]
        elif not any(require_head(each, head).fault is None for each in found):
            none = no_such_head(silent)
    else:
        found = _as_client(cluster_file(cluster, folder), head, silent)
    if output is not None and found[0].fault is None:
        write_export(output, found[0])
    _show(display, found, _fault(found) or none or missing(silent), as_json)


def require_head(chain: Chain, head: bytes | None) -> Chain:
    """Return a whole chain as faulty if a head is not on it."""
    if head is None or head == START or any(row["head"] == head.hex() for row in chain.rows):
        return chain
    return chain.with_fault("it has no row behind that head")


def no_such_head(silent: Silent) -> MpcError:
    """Return the error of a head that is on the chain of no party that answers, of several of which one gave it."""
    if silent:
        return silent[0].with_(cause="the party that gave that head may be this one: no other has a row behind it")
    return IntegrityError(
        "none of these parties has a row behind that head",
        cause="the ledger of the party that gave it was put back from a backup, or it is another party's head",
        remedy="give the configs of all parties that may have given it: --party",
    )


def _as_client(path: Path, head: bytes | None, silent: Silent) -> list[Chain]:
    with Cluster.connect(path) as connected:
        parties = connected.parties
        seconds = parties.config.deadlines.submit
        found = check_chains(parties.clients, parties.heads.known(), seconds, head, silent)
        parties.heads.keep(heads_to_keep(found))
    return found


def _fault(found: Sequence[Chain]) -> IntegrityError | None:
    """Return the error of the first chain that does not lead on, if there is one."""
    broken = next((each for each in found if each.fault is not None), None)
    if broken is None:
        return None
    return IntegrityError(
        f"{broken.party}'s audit chain does not lead on from the head that you know: {broken.fault}",
        cause="its ledger was put back from a backup, or the party lies",
        remedy="ask its operator; what was charged or revoked since may be forgotten there",
        peer=broken.party,
    )


def _show(display: Display, found: Sequence[Chain], error: MpcError | None, as_json: bool) -> None:
    """Show chains, and raise what is wrong with them behind that."""
    if as_json:
        display.json({"chains": [_chain(each) for each in found]}, error)
    for each in found if not as_json else ():
        for row in each.rows:
            display.result(f"{each.party} {_row(row)}")
        display.result(_summary(each))
    if error is not None:
        raise error


def _summary(each: Chain) -> str:
    """Say how far a chain was followed, and whether it is whole."""
    start = each.after == START
    since = "from its beginning" if start else f"since {each.after.hex()[:_SHOWN]}"
    whole = "the chain is whole" if each.fault is None else f"the chain leads no further: {shown(each.fault)}"
    return f"{each.party}: {many(each.count, 'row' if start else 'new row')} {since}, head {each.head.hex()}; {whole}"


def _chain(each: Chain) -> dict[str, Any]:
    return {
        "party": each.party,
        "after": each.after.hex(),
        "head": each.head.hex(),
        "count": each.count,
        "fault": each.fault,
        "rows": list(each.rows),
    }


def _row(row: dict[str, Any]) -> str:
    when = _moment(row["at"])
    hidden = ("about", "at", "head", "kind", "nonce", "number")
    facts = " ".join(f"{key}={_fact(row, key)}" for key in row if key not in hidden)
    return shown(f"{when} {row['kind']} {facts}")


def _moment(seconds: int) -> str:
    """Write a time, in seconds since 1970."""
    held = min(max(seconds, 0), 1 << 36)  # a party may say anything
    return datetime.datetime.fromtimestamp(held, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _fact(row: dict[str, Any], key: str) -> Any:
    """Return what a row says under a name: amounts of a charge, which it has in small units, as numbers; a time as
    one."""
    if key == "expires" and type(row[key]) is int:
        return _moment(row[key]).replace(" ", "T")
    value, unit = row[key], _UNITS.get(key) if row["kind"] == "charge" else None
    if unit is None or type(value) is not int or not 0 <= value < 1 << 80:  # a party may say anything
        return value
    return f"{value / unit:.6g}"
