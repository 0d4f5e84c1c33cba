"""`mpc bench`: what private inference costs on this machine, beside the same model in the clear."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_names
from mpc.plan.link import Link
from parties.bench.chart import check_plot, draw_bench
from parties.bench.inputs import made_up, rows
from parties.bench.machine import describe_machine
from parties.bench.measure import measure
from parties.bench.plaintext import baselines
from parties.cli.compiling import compile_for_data
from parties.cli.display import JSON_VERSION, Display, seconds, size
from parties.cli.inputs import load_inputs
from parties.cli.options import JSON, RANGE, SECRET_WEIGHTS, SHAPE, WEIGHTS, parse_ranges, parse_shapes
from parties.client.cluster import Cluster
from parties.client.running.roles import ACTIVE, PASSIVE, assign
from parties.local.layout import COORDINATOR
from parties.machine import cores, cores_each

_NOTHING = "-"
_SECONDS = {
    "plaintext_s": "plaintext, onnxruntime, 1 thread",
    "plaintext_all_threads_s": "plaintext, onnxruntime, all threads",
    "pytorch_s": "plaintext, PyTorch, 1 thread",
    "pytorch_all_threads_s": "plaintext, PyTorch, all threads",
    "setup_s": "set-up: weights shared, once a session",
    "offline_s": "offline: dealing, sending, preparing",
    "provider_s": "  of it the provider, to a power of two",
    "online_s": "online",
    "online_cpu_s": "  CPU of the largest party",
    "wall_s": "a whole run, as its client waits",
}
_COUNTS = {
    "sent_bytes": "sent by the largest party, to all",
    "dealt_bytes": "dealt by the provider",
    "peak_memory_bytes": "memory of the largest process",
}
_SLOWDOWNS = {
    "slowdown_online": "slowdown, online",
    "slowdown_total": "slowdown, online + offline",
    "slowdown_online_pytorch": "slowdown against PyTorch, online",
    "slowdown_total_pytorch": "slowdown against PyTorch, online + offline",
}


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]X.npy|X.npz", help="Data; made up if left out.")
@click.option("--batch", "batches", multiple=True, default=(1,), type=click.IntRange(1), help="Rows of a run; several.")
@click.option("--parties", default=2, show_default=True, type=click.IntRange(2), help="How many are started for this.")
@click.option("--repeat", default=9, show_default=True, type=click.IntRange(1), help="Medians are of so many runs.")
@click.option("--link", "link_text", metavar="LINK", help="lan, wan or MS:MBIT between all processes.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="F.png|F.svg", help="Draw seconds against the batch.")
@click.option(
    "--security",
    default=PASSIVE,
    show_default=True,
    type=click.Choice([PASSIVE, ACTIVE]),
    help="Active: runs that are checked beside runs that are not.",
)
@WEIGHTS
@SECRET_WEIGHTS
@RANGE
@SHAPE
@JSON
@click.pass_obj
def bench(
    display: Display,
    models: tuple[Path, ...],
    inputs: tuple[str, ...],
    batches: tuple[int, ...],
    parties: int,
    repeat: int,
    link_text: str | None,
    plot: Path | None,
    security: str,
    weights: str,
    secret_weights: tuple[str, ...],
    ranges: tuple[str, ...],
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure MODELs (ONNX) among parties and in the clear, by turns, in a local cluster of --parties.

    --json prints an array of objects, one for each model and batch. --link puts milliseconds (there and back) and
    megabits a second between all processes: lan is 0.3:1000, wan 40:100; plans are compiled for it.
    """
    link = Link.parse(link_text) if link_text else None
    if plot:
        check_plot(plot)
    machine, found = describe_machine(cores_each(parties + 1)), []
    with display.stages() as stage:
        stage(f"starting a provider and {parties} parties")
        with Cluster.local(parties, link=link, say=display.say) as cluster:
            through = _describe_link(link, cluster)
            for model in models:
                loaded = Loaded(load_model(model))
                names = input_names(loaded)
                feeds = load_inputs(inputs, names)
                declared, open_shapes = parse_ranges(ranges, names), parse_shapes(shapes, names)
                clear = baselines(model, cores())
                for missing in dict.fromkeys(one.missing for one in clear if one.answer is None):
                    display.say(f"note: {model.name}: {missing}")
                if not feeds:
                    display.say(f"note: {model.name}: no --input; rows are made up, spread over each input's range")
                for each in (PASSIVE, ACTIVE) if security == ACTIVE else (PASSIVE,):
                    roles = assign(COORDINATOR, None, None, weights, each, secret_weights, link)
                    compiled = compile_for_data(display, loaded, feeds, declared, open_shapes, roles)
                    started = time.perf_counter()
                    with cluster.open(compiled) as session:
                        session.narrowing = None  # what is measured are numbers that nobody means
                        setup = time.perf_counter() - started
                        for batch in batches:
                            stage(f"{model.name}, batch {batch}, {each}")
                            given = feeds or made_up(compiled.plan, batch)
                            given = rows(compiled.plan, given, batch, lambda text: display.say(f"note: {text}"))
                            head = {"model": str(model), "batch": batch, "parties": parties, "security": each}
                            head.update(weights=weights, link=through)
                            row = measure(cluster, session, clear, given, repeat, lambda t: display.say(f"note: {t}"))
                            found.append({"version": JSON_VERSION, **head, "setup_s": setup, **row, "machine": machine})
    if plot:
        draw_bench(plot, found)
        display.say(f"note: the chart is in {plot}")
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for model in models:
        _print_table(display, model, [row for row in found if row["model"] == str(model)])
    if through:
        display.result(
            f"through a link of {through['round_trip_ms']:g} ms there and back (measured: "
            f"{through['measured_round_trip_ms']:.2f} ms) and {through['mbit']:g} Mbit/s"
        )
    display.result(
        f"{machine['cpu']}, {machine['cores']} cores for all processes, threads of each daemon: {machine['threads']}, "
        f"load {machine['load']} at the start; medians of {min(row['runs_measured'] for row in found)} runs or more"
    )


def _describe_link(link: Link | None, cluster: Cluster) -> dict[str, float] | None:
    """Describe the link: the one that was asked for, and the time that a byte really takes."""
    if link is None or cluster.relay is None:
        return None
    measured = cluster.relay.round_trip()
    return {"round_trip_ms": link.round_trip, "measured_round_trip_ms": measured, "mbit": link.rate}


def _print_table(display: Display, model: Path, found: list[dict[str, Any]]) -> None:
    """Print one column for each batch, one line for each phase; what could not be measured is a dash, or no line."""
    lines = [(label, [_cell(row[key], seconds) for row in found]) for key, label in _SECONDS.items()]
    lines.append(("rounds", [str(row["rounds"]) for row in found]))
    lines += [(label, [_cell(row[key], size) for row in found]) for key, label in _COUNTS.items()]
    lines += [(label, [_cell(row[key], lambda v: f"{v:,.1f} x") for row in found]) for key, label in _SLOWDOWNS.items()]
    lines.append(("largest error", [_cell(row["max_abs_error"], lambda v: f"{v:.1e}") for row in found]))
    lines.append(("same answer", [_cell(row["argmax_agreement"], lambda v: f"{v:.2%}") for row in found]))
    both = len({row["security"] for row in found}) > 1
    heads = [f">batch {row['batch']}" + f", {row['security']}" * both for row in found]
    columns = [f"{model.name}, {found[0]['parties']} parties", *heads]
    display.table(columns, [(label, *cells) for label, cells in lines if {*cells} != {_NOTHING}])
    display.result("")


def _cell(value: Any, shown: Any) -> str:
    return _NOTHING if value is None else str(shown(value))
