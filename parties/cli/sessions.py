"""`mpc sessions`: what is open at the parties, and how to end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from mpc.errors import MpcError, UsageError
from parties.cli.display import Display, seconds
from parties.cli.operators import operator_of
from parties.cli.options import CLUSTER, FOLDER, JSON, no_cluster
from parties.client.answering import Silent, ask_each, missing
from parties.client.channels import PartyClient, gather, most_telling
from parties.config.load import load
from parties.config.models import ClusterConfig
from parties.pb import party_pb2
from parties.trust.identity import Identity

_SHOWN = 16
_SHORTEST = 8


@dataclass
class Found:
    """A session, as the parties that have it say: the longest of their times."""

    session: str
    plan: str
    coordinator: str
    state: str
    open_seconds: float
    silent_seconds: float
    runs: int
    parties: list[str] = field(default_factory=list)


@click.command()
@CLUSTER
@click.option(
    "--party",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A party's config, by its operator: all sessions of that party, whoever opened them.",
)
@click.option("--abort", "ended", multiple=True, metavar="ID", help="End this one, at all parties; 8 digits of it do.")
@FOLDER
@JSON
@click.pass_obj
def sessions(
    display: Display, cluster: Path | None, party: Path | None, ended: tuple[str, ...], folder: Path, as_json: bool
) -> None:
    """Show the open sessions that you coordinate, or with --party all of that party's."""
    if cluster is not None and party is not None:
        raise UsageError("--cluster and --party exclude each other", remedy="--party is for a party's operator")
    clients, wait = (
        operator_of(party) if party else _client(cluster or folder / "cluster.toml", None if cluster else folder)
    )
    try:
        silent = Silent()
        found = _list(clients, wait, silent)
        chosen = [_choose(found, each) for each in ended]
        for each in chosen:
            _end(clients, each, wait)
    finally:
        for client in clients:
            client.close()
    error = missing(silent)
    if as_json:
        display.json({"sessions": [asdict(each) for each in found], "ended": [each.session for each in chosen]}, error)
    else:
        for each in chosen:
            display.say(f"ended session {each.session}")
        if not ended and found:
            show(display, found)
        elif not ended:
            display.say("no open sessions")
    if error is not None:
        raise error


def _client(path: Path, folder: Path | None) -> tuple[list[PartyClient], float]:
    if not path.is_file():
        raise no_cluster(path, folder, "--cluster FILE")
    config = load(ClusterConfig, path)
    identity = Identity.load(config.tls, config.name, members=config.machines)
    return [PartyClient(identity, peer) for peer in config.parties], config.deadlines.connect


def _list(clients: Sequence[PartyClient], wait: float, silent: Silent) -> list[Found]:
    """Ask all parties, and sort their answers by session; `silent` takes the errors of those that do not answer."""
    found: dict[bytes, Found] = {}

    def ask(client: PartyClient) -> list[party_pb2.OpenSession]:
        return list(client.stream(lambda stub: stub.Sessions, party_pb2.SessionsRequest(), wait))

    for name, listed in ask_each(clients, ask, silent).items():
        for each in listed:
            _merge(found.setdefault(each.session_id, _first(each)), name, each)
    return sorted(found.values(), key=lambda each: -each.open_seconds)


def _first(told: party_pb2.OpenSession) -> Found:
    return Found(told.session_id.hex(), told.plan_digest.hex(), told.coordinator, told.state, 0.0, 0.0, 0)


def _merge(found: Found, name: str, told: party_pb2.OpenSession) -> None:
    found.parties.append(name)
    found.open_seconds = max(found.open_seconds, told.open_seconds)
    found.silent_seconds = max(found.silent_seconds, told.silent_seconds)
    found.runs = max(found.runs, told.runs)


def _choose(found: Sequence[Found], wanted: str) -> Found:
    matching = [each for each in found if each.session.startswith(wanted.lower())]
    if len(wanted) < _SHORTEST or len(matching) > 1:
        raise UsageError(f"{wanted!r} may stand for several sessions", remedy="give more of its digits: mpc sessions")
    if not matching:
        raise UsageError(f"there is no open session {wanted!r} of yours", remedy="mpc sessions lists what there is")
    return matching[0]


def _end(clients: Sequence[PartyClient], session: Found, wait: float) -> None:
    """End a session at all parties that have it.  Each tells the others: one that is gone keeps nobody waiting."""
    request = party_pb2.EndRequest(session_id=bytes.fromhex(session.session))
    ended = 0
    errors: list[MpcError] = []
    for reply in [
        client.begin(lambda stub: stub.End, request, wait) for client in clients if client.name in session.parties
    ]:
        try:
            gather([reply])
            ended += 1
        except MpcError as error:  # it may have heard of it from a peer before
            errors.append(error)
    if not ended:
        raise most_telling(errors).again()


def show(display: Display, found: Sequence[Found]) -> None:
    """Print one line a session; where no terminal says how wide it is, none is cut."""
    rows = [
        (
            each.session[:_SHOWN],
            each.coordinator,
            each.state,
            seconds(each.open_seconds),
            f"{seconds(each.silent_seconds)} ago",
            each.runs,
            ", ".join(each.parties),
        )
        for each in found
    ]
    display.table(["session", "coordinator", "state", "open for", "last heard of", "runs", "at"], rows)
