"""`mpc run`: encrypted inference from the command line."""

from __future__ import annotations

import io
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from mpc.compiler.compile import DEFAULT_RANGE, Compiled, compile_model
from mpc.compiler.graph import Range
from mpc.compiler.lower import Roles
from mpc.compiler.onnx_import import declared_ranges, input_names, load_model
from mpc.errors import ConfigError, InputError, UsageError
from parties.cli.display import Display, Stages, seconds, size
from parties.cli.options import FOLDER, JSON, RANGE, SECURITY, parse_ranges, require_folder, require_passive
from parties.client import Cluster, check_feeds
from parties.config import ClusterConfig, load, write_atomic
from parties.layout import COORDINATOR

_SHOWN_ROWS = 10
_PRECISE = 1e-3


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "inputs", required=True, multiple=True, metavar="[NAME=]X.npy|X.npz", help="The private data.")
@click.option("--output", type=click.Path(path_type=Path), help="Write all outputs to this .npz file.")
@click.option("--parties", type=click.IntRange(2), help="Start this many parties just for this run.")
@click.option("--cluster", type=click.Path(path_type=Path), help="Another cluster's cluster.toml.")
@SECURITY
@RANGE
@FOLDER
@JSON
@click.pass_obj
def run(
    display: Display,
    model: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    parties: int | None,
    cluster: Path | None,
    security: str,
    ranges: tuple[str, ...],
    folder: Path,
    as_json: bool,
) -> None:
    """Encrypted inference of MODEL (ONNX) on --input, by the running cluster or by --parties of its own."""
    require_passive(security)
    if output is not None:
        require_folder(output)
    if parties is not None and cluster is not None:
        raise UsageError("--parties starts a cluster of its own; --cluster names one that runs")
    with display.stages() as stage:
        stage("compiling")
        feeds = load_inputs(inputs, input_names(model))
        path = None if parties is not None else _cluster_file(cluster, folder)
        me = COORDINATOR if path is None else load(ClusterConfig, path).name
        compiled = _compile(display, model, feeds, ranges, Roles(me, me, (me,)))
        check_feeds(compiled.plan, feeds)
        stage("connecting" if path is not None else f"starting a provider and {parties} parties")
        with Cluster.connect(path) if path is not None else Cluster.local(parties or 2) as connected:
            named, price = _infer(connected, compiled, feeds, stage)
    if output is not None:
        _write(output, named)
    if as_json:
        content = {name: _plain(value) for name, value in named.items()}
        digest = compiled.plan.digest.hex()
        display.json({"model": str(model), "security": security, "plan": digest, **price, "outputs": content})
        return
    _print(display, named, price)


def _infer(
    cluster: Cluster, compiled: Compiled, feeds: dict[str, np.ndarray], stage: Stages
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(outputs by name, the price)."""
    stage("sharing the weights")
    started = time.perf_counter()
    session = cluster.open(compiled)
    setup = time.perf_counter() - started
    session.on_progress(stage.rounds)
    stage("computing on shares")
    values = session.run(None, feeds)
    session.close()
    price = asdict(session.last_run) if session.last_run is not None else {}
    return dict(zip((out.name for out in compiled.plan.outputs), values, strict=True)), {**price, "setup_s": setup}


def _cluster_file(cluster: Path | None, folder: Path) -> Path:
    path = cluster or folder / "cluster.toml"
    if not path.is_file():
        remedy = "check the path" if cluster else "mpc up --detach, or add --parties 3"
        raise ConfigError(f"no cluster: {path} does not exist", remedy=remedy)
    return path


def _compile(
    display: Display, model: Path, feeds: dict[str, np.ndarray], ranges: tuple[str, ...], roles: Roles
) -> Compiled:
    """Compile; inputs that nobody declared a range for take the default, as everywhere.

    Where this data does not fit it, or precision suffers, they take a power of two around all of the input, or
    around each column, said aloud.
    """
    declared = parse_ranges(ranges, list(feeds))
    known = {**declared_ranges(load_model(model)), **declared}
    missing = [name for name, values in feeds.items() if name not in known and _measurable(values)]
    if not missing:
        return _note_error(display, compile_model(model, declared, roles))
    fits = all(np.abs(feeds[name]).max() <= DEFAULT_RANGE[1] for name in missing)
    whole = {name: _around(np.abs(feeds[name]).max()) for name in missing}
    compiled = compile_model(model, declared if fits else {**declared, **whole}, roles)
    form = "" if fits else "a power of two around this data is taken"
    if max(compiled.errors.values()) > _PRECISE:
        columns = {
            name: _around(np.abs(feeds[name]).reshape(-1, feeds[name].shape[-1]).max(axis=0)) for name in missing
        }
        finer = compile_model(model, {**declared, **columns}, roles)
        if max(finer.errors.values()) < max(compiled.errors.values()):
            compiled, form = finer, "a power of two around each column of this data is taken"
    low, high = DEFAULT_RANGE
    for name in missing:
        seen = f"{form}, and the parties see it in the plan" if form else f"{low:g}:{high:g} is taken"
        display.say(f"note: no range is declared for input {name!r}; {seen} (--range {name}=LOW:HIGH declares one)")
    return _note_error(display, compiled)


def _measurable(values: np.ndarray) -> bool:
    return values.dtype.kind in "fiu" and values.size > 0 and values.ndim > 0 and bool(np.isfinite(values).all())


def _around(most: np.ndarray) -> Range:
    """-2^e : 2^e for each of the given sizes, 2^-10 at least."""
    ends = np.exp2(np.ceil(np.log2(np.maximum(most.astype(np.float64), 2.0**-10))))
    if ends.ndim == 0:
        return -float(ends), float(ends)
    return tuple((-ends).tolist()), tuple(ends.tolist())


def _note_error(display: Display, compiled: Compiled) -> Compiled:
    for name, error in compiled.errors.items():
        if error > _PRECISE:
            display.say(
                f"note: fixed point limits output {name!r} to an expected error of {error:.1g}; "
                "narrower input ranges, or one a column, make it more precise"
            )
    return compiled


# ------------------------------------------------------------------------------ files


def load_inputs(entries: tuple[str, ...], names: list[str]) -> dict[str, np.ndarray]:
    """Arrays by input name, from `[NAME=]FILE` entries.

    Raises:
        InputError: a file is missing, not .npy or .npz, or does not say which input it is.
    """
    feeds: dict[str, np.ndarray] = {}
    for entry in entries:
        name, path = _split(entry, names)
        for key, value in _read(Path(path)).items():
            wanted = _input_name(name, key, names, path)
            if wanted in feeds:
                raise InputError(
                    f"two arrays are given for input {wanted!r}", remedy="give one --input NAME=FILE for each"
                )
            feeds[wanted] = value
    return feeds


def _split(entry: str, names: list[str]) -> tuple[str, str]:
    """(name or "", path); names of inputs and paths of files may have '=' in them."""
    if Path(entry).exists():
        return "", entry
    known = [name for name in names if entry.startswith(f"{name}=")]
    if known:
        name = max(known, key=len)
        return name, entry[len(name) + 1 :]
    name, separator, path = entry.partition("=")
    return (name, path) if separator else ("", entry)


def _input_name(given: str, key: str, names: list[str], path: str) -> str:
    if given and given not in names:
        raise InputError(f"the model has no input {given!r}", remedy=f"its inputs are {', '.join(names)}")
    if given:
        return given
    if key in names:
        return key
    if len(names) == 1:
        return names[0]
    raise InputError(f"which input is {key or path!r}?", remedy=f"--input NAME={path}, NAME one of {', '.join(names)}")


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"input file {path} {what}", remedy="check the path")
    try:
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        arrays = {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, KeyError):
        raise InputError(
            f"{path} is not a .npy or .npz file of numbers",
            cause="it holds Python objects, is cut short, or is in another format",
            remedy="save numbers with numpy.save or numpy.savez",
        ) from None
    except Exception as error:  # zipfile and zlib have errors of their own
        raise InputError(f"{path} is damaged ({type(error).__name__})", remedy="save it again") from None
    if not arrays:
        raise InputError(f"{path} holds no array", remedy="save one with numpy.save")
    return arrays


def _write(path: Path, outputs: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    arrays = {name: _array(value) for name, value in outputs.items()}
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue(), 0o644)


def _array(value: Any) -> np.ndarray:
    """An output as an array of numbers or text; dictionaries become one row of values each."""
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value])
    return value.astype(str) if value.dtype == object else value


def _plain(value: Any) -> Any:
    return value if isinstance(value, list) else value.tolist()


# ---------------------------------------------------------------------------- on screen


def _print(display: Display, outputs: dict[str, Any], price: dict[str, Any]) -> None:
    for name, value in outputs.items():
        array = _array(value)
        display.result(f"{name}  {'x'.join(map(str, array.shape))}")
        rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        for row in rows[:_SHOWN_ROWS]:
            display.result("  " + "  ".join(f"{v:.6g}" if array.dtype.kind == "f" else str(v) for v in row[:12]))
        if len(rows) > _SHOWN_ROWS:
            display.result(f"  ... {len(rows) - _SHOWN_ROWS} more rows; --output FILE.npz keeps all")
    display.say("")
    display.say(f"online        {seconds(price['online_s'])}  (largest party's CPU {seconds(price['online_cpu_s'])})")
    display.say(f"offline       {seconds(price['offline_s'])}  (of it the provider {seconds(price['provider_s'])})")
    display.say(f"set-up        {seconds(price['setup_s'])}  (weights shared, once a session)")
    display.say(f"rounds        {price['rounds']}")
    peers = "its peer" if price["parties"] == 2 else f"all {price['parties'] - 1} peers"
    display.say(f"sent          {size(price['sent_bytes'])} by the largest party to {peers}")
    display.say(f"dealt         {size(price['dealt_bytes'])}")
    display.say(f"learned by    {', '.join(price['recipients'])}")
