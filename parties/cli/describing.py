"""Describe a plan: the report that `mpc inspect` prints of it, and how people are shown that."""

from __future__ import annotations

import math
from typing import Any

from mpc.encoding import FIELD_BYTES
from mpc.gates.input import Input
from mpc.plan.choices import choices
from mpc.plan.cost import Cost, gate_cost, plan_cost, session_dealt
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES
from mpc.transcript import DIGEST_BYTES
from parties.agreed import programs
from parties.cli.display import Display, size
from parties.cli.options import PROMISE
from parties.cli.outputs import AT_REST, ENTERS
from parties.client.at_rest.model_listing import said_ranges
from parties.client.running.feeds import split
from parties.client.running.roles import PASSIVE, PUBLIC, SECRET, known_weights

_MOST_NODES = 8


def _cost(plan: Plan, batch: int) -> Cost:
    """Add up the cost of all runs that the batch is split into; memory is that of the largest."""
    parts = [plan_cost(plan, size) for size in split(plan, batch)]
    return Cost(
        rounds=sum(part.rounds for part in parts),
        sent=sum(part.sent for part in parts),
        dealt=sum(part.dealt for part in parts),
        held=max(part.held for part in parts),
    )


def _check(plan: Plan, batch: int) -> dict[str, Any] | None:
    """Count what checking adds to the cost of these runs, and once to that of a session, and say how gates compare;
    None if they are not."""
    if not plan.is_checked:
        return None
    cost, plain = _cost(plan, batch), _cost(plan.with_security(PASSIVE), batch)
    return {
        "rounds": cost.rounds - plain.rounds,
        "sent_bytes_per_peer": cost.sent - plain.sent,
        "dealt_bytes": cost.dealt - plain.dealt,
        "dealt_bytes_once": session_dealt(plan),
        "compares": [choice.text for choice in choices(plan, batch)],
    }


def describe(plan: Plan, origins: dict[str, str], batch: int, parties: int) -> dict[str, Any]:
    """Return the report that `mpc inspect --json` prints."""
    bound, cost = plan.bind(batch), _cost(plan, batch)
    gates = []
    for gate in plan.gates:
        part, wires = gate_cost(gate, bound.wire), [bound.wire[name] for name in gate.writes]
        setup = isinstance(gate, Input) and gate.is_weight
        gates.append(
            {
                "gate": gate.name,
                "node": origins.get(gate.name, ""),
                "phase": "session" if setup else "run",
                "public": gate in plan.public_weights,
                "shape": list(wires[0].sizes),
                "rounds": part.rounds,
                "sent_bytes_per_peer": part.sent,
                "dealt_bytes": part.dealt,
                "scale": str(wires[0].scale),
                "bits": max(wire.bits for wire in wires),
            }
        )
    learns = [
        {"who": list(bound.wire[out.wire].holders), "output": out.name, "shape": list(out.shape), "kept": out.keep}
        for out in bound.outputs
    ]
    enters = [
        {
            "who": list(bound.wire[given.wire].holders),
            "input": given.name,
            "range": [[*map(float, given.low)], [*map(float, given.high)]],
            "shape": list(given.of_numbers(bound.wire[given.wire].sizes)),
            "places": given.places,
            "entered_bytes_per_party": FIELD_BYTES * sum(math.prod(bound.wire[name].sizes) for name in given.wires),
            "missing": list(given.missing.columns) if given.missing else [],
            "stored": given not in plan.entered_inputs,
        }
        for given in plan.inputs
    ]
    owners = {holder for gate in plan.weights for holder in plan.wire[gate.out].holders}
    return {
        "digest": plan.digest.hex(),
        "batch": batch,
        "parties": parties,
        "rounds": cost.rounds,
        "sent_bytes_per_peer": cost.sent,
        "agreement_bytes_per_peer": DIGEST_BYTES * len(split(plan, batch)),
        "sent_bytes": cost.total_sent(parties),
        "runs": len(split(plan, batch)),
        "dealt_bytes": cost.dealt + SEED_BYTES * parties * len(split(plan, batch)),
        "correlation_bytes": cost.held,
        "security": plan.security,
        "check": _check(plan, batch),
        "model_owners": sorted(owners),
        "weights": known_weights(plan),
        "weight_numbers": _weight_numbers(plan),
        "stored_weights": any(gate.is_stored for gate in plan.weights),
        "enters": enters,
        "learns": learns,
        "gates": gates,
        **programs.described(plan),
    }


def print_report(display: Display, report: dict[str, Any]) -> None:
    """Print a report of `describe` for people."""
    rows = [
        (
            entry["gate"],
            entry["node"],
            "x".join(map(str, entry["shape"])),
            entry["rounds"] or "-",
            size(entry["sent_bytes_per_peer"]) if entry["sent_bytes_per_peer"] else "-",
            size(entry["dealt_bytes"]) if entry["dealt_bytes"] else "-",
            _scale(entry["scale"]),
            f"2^{entry['bits']}",
        )
        for entry in report["gates"]
        if entry["phase"] == "run"
    ]
    display.table(["gate", "node", ">shape", ">rounds", ">sent to each peer", ">dealt", ">scale", ">bound"], rows)
    display.result("")
    display.result(f"digest        {report['digest']}")
    split = f" (split into {report['runs']} runs)" if report["runs"] > 1 else ""
    display.result(f"rounds        {report['rounds']}{split}")
    for entry in report["noise"]:
        display.result(
            f"noise         {entry['mechanism']}, of {entry['elements']} sums, standard deviation {entry['std']:.4g}: "
            f"epsilon {entry['epsilon']:g}, delta {entry['delta']:.2g}, if each person is in one row"
        )
    if len(report["noise"]) > 1:
        whole = report["noise_together"]
        display.result(f"              all of them together: epsilon {whole['epsilon']:g}, delta {whole['delta']:.2g}")
    if report["undeclared"]:
        names = ", ".join(map(repr, report["undeclared"]))
        display.result(f"              (no range is declared for {names}: 'mpc run' may take another one, that suits")
        display.result(
            "              the data, and another plan with other rounds; --range, here and there, settles it)"
        )
    each = size(report["sent_bytes_per_peer"])
    display.result(
        f"sent          {each} by each party to each peer (batch {report['batch']}), of which "
        f"{size(report['agreement_bytes_per_peer'])} to compare what was entered"
    )
    display.result(f"dealt         {size(report['dealt_bytes'])} by the provider to {report['parties']} parties, a run")
    if (check := report["check"]) is not None:
        display.result(
            f"checked       each run before anything of it is told: of this {check['rounds']} rounds, "
            f"{size(check['sent_bytes_per_peer'])} to each peer, {size(check['dealt_bytes'])} dealt; once a session "
            f"{size(check['dealt_bytes_once'])} dealt"
        )
        display.result(f"              ({PROMISE})")
        for line in check["compares"]:
            display.result(f"compares      {line}")
    weights = sum(entry["phase"] == "session" for entry in report["gates"])
    if weights:
        how = "put at the parties" if report["stored_weights"] else "entered once a session"
        entered = f"{how} by {', '.join(report['model_owners'])}"
        display.result(f"weights       {weights} arrays, {report['weights']}, {entered}")
        if report["weights"] != SECRET:
            display.result("              (all parties and the provider know public weights, other clients do not)")
        if all(report["weight_numbers"].values()):
            display.result("              (" + ", ".join(_numbers(each, report) for each in (SECRET, PUBLIC)) + ")")
    for entry in report["enters"]:
        within = said_ranges(*entry["range"])
        missing = f", {_may_miss(entry['missing'], entry['shape'][-1])}" if entry["missing"] else ""
        how = AT_REST if entry["stored"] else ENTERS
        display.result(f"{how:<14}{', '.join(entry['who'])}: input {entry['input']!r} in {within}{missing}")
        if entry["places"] is not None:
            display.result(
                f"              (each number as {entry['places']:,} zeros and ones, "
                f"{size(entry['entered_bytes_per_party'])} to each party; nothing is compared)"
            )
    for entry in report["learns"]:
        what = f"output {entry['output']!r} {tuple(entry['shape'])}"
        if entry["kept"]:
            display.result(f"keeps         the parties, for the coordinator: {what}")
        if entry["who"]:
            display.result(f"learns        {', '.join(entry['who'])}: {what}")
    kept = {entry["output"] for entry in report["learns"] if entry["kept"] and not entry["who"]}
    for label, words in programs.said(report, kept):
        display.result(f"{label:<14}{words}")
    display.result("everyone      the plan: shapes, scales, bounds, ranges and names above; no weight, no datum")


def _weight_numbers(plan: Plan) -> dict[str, int]:
    """Count the secret and the public numbers among the weights of a plan."""
    found = {SECRET: 0, PUBLIC: 0}
    for gate in plan.weights:
        found[PUBLIC if gate.is_public(plan.wire) else SECRET] += math.prod(plan.wire[gate.out].sizes)
    return found


def _numbers(which: str, report: dict[str, Any]) -> str:
    """Say how many numbers of the weights are secret, or public, and of which nodes those are that are few."""
    nodes = dict.fromkeys(
        each["node"] for each in report["gates"] if each["phase"] == "session" and each["public"] is (which == PUBLIC)
    )
    named = f", of {', '.join(nodes)}" if which == SECRET and len(nodes) <= _MOST_NODES else f", of {len(nodes)} nodes"
    return f"{report['weight_numbers'][which]:,} numbers are {which}{named}"


def _may_miss(columns: list[int], size: int) -> str:
    """Word which columns of an input NaN may stand in."""
    if len(columns) == size:
        return "where any number may be missing (NaN)"
    groups: list[list[int]] = []
    for column in columns:
        if groups and groups[-1][-1] + 1 == column:
            groups[-1].append(column)
        else:
            groups.append([column])
    ends = ", ".join(str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups)
    return f"where numbers of column{'s' if len(columns) > 1 else ''} {ends} may be missing (NaN)"


def _scale(text: str) -> str:
    number = int(text) if text.isdigit() else 0
    return f"2^{number.bit_length() - 1}" if number and number & (number - 1) == 0 else text
