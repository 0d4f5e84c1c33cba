"""Outputs that stay at the parties as datasets, as their keeper says it, and the refresh of what lies there.

What is kept belongs to the client that coordinates the session, and to everybody whose data it came from: its use needs
the words of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mpc.errors import InputError, UsageError
from mpc.plan.plan import Plan
from mpc.stored import BLOCK_ROWS
from mpc.text import shown
from parties.agreed.fields import OBJECT_NAME
from parties.agreed.keeps import Keep, check_keeps
from parties.agreed.memory import needed_memory
from parties.agreed.objects import Manifest
from parties.agreed.refreshing import identity_plan, refresh_bindings, refresh_outputs
from parties.client.at_rest import catalogue
from parties.client.at_rest.said import as_expiry, as_readers
from parties.client.at_rest.versions import next_version
from parties.client.channels import Parties
from parties.client.running.coordinated import CoordinatedSession
from parties.client.running.feeds import BLOCK_BYTES

Progress = Callable[[int, int], None]
"""Told how many rows are done, and how many there are."""


@dataclass(frozen=True)
class Keeping:
    """Dataset that an output becomes.

    Args:
        name: "NAME" or "OWNER/NAME", where OWNER is this client.
        visible: True: whoever a party lets in may see that it is there, and what it came from; False: this client; or
            names of clients.
        expires: when it is removed at the latest: "90d", a date, or None; never later than what it came from.
    """

    name: str
    visible: Any = False
    expires: Any = None


def read_keep(given: Any, me: str) -> dict[str, Keeping]:
    """Read what outputs are kept as: output -> a name, or a `Keeping`.

    Raises:
        UsageError: it is something else, or another client's name.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError("what is kept is by output", remedy=f"keep={{'y': '{me}/scores'}}")
    found = {}
    for output, said in given.items():
        each = Keeping(said) if isinstance(said, str) else said
        if not isinstance(each, Keeping) or not isinstance(each.name, str):
            raise UsageError(
                f"output {shown(str(output))!r} is kept under a name", remedy=f"keep={{'y': '{me}/scores'}}"
            )
        owner, _, short = (each.name if "/" in each.name else f"{me}/{each.name}").partition("/")
        if owner != me or not OBJECT_NAME.fullmatch(short):
            raise UsageError(
                f"{shown(each.name)} is no name of yours: you are {me}",
                remedy=f"{me}/NAME, with 1 to 63 letters, digits, '.', '_' and '-'",
            )
        found[str(output)] = Keeping(f"{owner}/{short}", each.visible, each.expires)
    return found


def keeps(parties: Parties, plan: Plan, said: Mapping[str, Keeping]) -> tuple[Keep, ...]:
    """Return the objects that a plan's kept outputs become, each as the next version of its name.

    Outputs of one name are columns of one object, in the plan's order.

    Raises:
        UsageError: an output is kept that the plan does not keep, or one object is described in two ways.
        SessionError: the parties do not say which version is the next one.
    """
    named: dict[str, list[str]] = {}
    for out in plan.kept:
        if out.name not in said:
            raise UsageError(f"output {shown(out.name)!r} is kept, and has no name", remedy="keep={'y': 'scores'}")
        named.setdefault(said[out.name].name, []).append(out.name)
    if unknown := set(said) - {out.name for out in plan.kept}:
        raise UsageError(f"the plan does not keep an output {shown(min(unknown))!r}", remedy="compile it with keep=")
    found = []
    for name, outputs in named.items():
        ways = {(str(said[each].visible), str(said[each].expires)) for each in outputs}
        if len(ways) > 1:
            raise UsageError(f"{name} is kept in two ways", remedy="say of all its outputs the same")
        one = said[outputs[0]]
        version, previous = next_version(parties, name)
        now, readers = int(time.time()), as_readers(one.visible)
        found.append(Keep(name, tuple(outputs), version, previous, now, as_expiry(one.expires) or 0, readers))
    check_keeps(plan, found, parties.config.name)
    return tuple(found)


def refresh(parties: Parties, manifest: Manifest, progress: Progress = lambda done, of: None) -> Manifest:
    """Mask an object of this client's anew, as the next version of its name; return its manifest.

    Values stay; x^ and every party's seeds are new, and the old ones are erased.  Blocks go through one after another.

    Raises:
        PolicyError, SessionError: it is not this client's, or needs the word of somebody whose data it came from.
    """
    if manifest.owner != parties.config.name:
        raise UsageError(
            f"{manifest.name} is {manifest.owner}'s, who alone can refresh it", remedy=f"ask {manifest.owner}"
        )
    plan = identity_plan(manifest).with_security(parties.config.security)
    bindings = refresh_bindings(manifest)
    version, previous = next_version(parties, manifest.name)
    if previous != manifest.id.hex():
        version += 1  # behind a version that some parties alone have
    now = int(time.time())
    keep = Keep(manifest.name, refresh_outputs(manifest), version, manifest.id.hex(), now)
    session = CoordinatedSession(parties, plan, {}, bindings=bindings, keeps=(keep,))
    try:
        sizes, done = refresh_runs(plan, manifest.rows), 0
        for number, size in enumerate(sizes):
            session.run({}, size, time.perf_counter, sizes[number + 1 :])
            done += size
            progress(done, manifest.rows)
    finally:
        session.close()
    made = catalogue.describe(parties, manifest.name)
    if made.kept is None or manifest.id.hex() not in made.aliases:
        raise InputError(
            f"{manifest.name} is another object by now",
            cause="another process has put or refreshed it meanwhile",
            remedy="look at its newest version, and refresh that",
        )
    return made


def refresh_runs(plan: Plan, rows: int) -> list[int]:
    """Split the rows of an object into runs that a party's memory bears, each of whole blocks but for the last."""
    needed = needed_memory(plan, BLOCK_ROWS) // BLOCK_ROWS
    most = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, needed)))
    full, rest = divmod(rows, most)
    return [most] * full + ([rest] if rest else [])
