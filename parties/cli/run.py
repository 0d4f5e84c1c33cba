"""`mpc run`: encrypted inference from the command line."""

from __future__ import annotations

import io
import math
import time
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from mpc.compiler.compile import compile_model
from mpc.compiler.lower import Roles
from mpc.compiler.onnx_import import declared_ranges, input_names, load_model
from mpc.errors import ConfigError, InputError, UsageError
from parties.cli.display import Display, seconds, size
from parties.cli.options import FOLDER, JSON, RANGE, SECURITY, parse_ranges, require_passive
from parties.client import Cluster
from parties.config import write_atomic

_SHOWN_ROWS = 10


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
    if output is not None and (not output.parent.is_dir() or output.is_dir()):
        raise UsageError(f"cannot write {output}", cause="there is no such folder, or it is one")
    with display.stages() as stage:
        stage("compiling")
        feeds = load_inputs(inputs, input_names(model))
        declared = parse_ranges(ranges, list(feeds))
        declared = _with_automatic(display, model, declared, feeds)
        stage("connecting" if parties is None else f"starting a provider and {parties} parties")
        with _cluster(parties, cluster, folder) as connected:
            me = connected.config.name
            compiled = compile_model(model, declared, Roles(me, me, (me,)))
            stage("sharing the weights")
            started = time.perf_counter()
            session = connected.open(compiled)
            setup = time.perf_counter() - started
            stage("computing on shares")
            values = session.run(None, feeds)
            session.close()
    named = dict(zip((out.name for out in session.plan.outputs), values, strict=True))
    if session.last_run is None:
        raise UsageError("nothing ran")
    price = {**asdict(session.last_run), "setup_s": setup}
    if output is not None:
        _write(output, named)
    if as_json:
        content = {name: _plain(value) for name, value in named.items()}
        digest = session.plan.digest.hex()
        display.json({"model": str(model), "security": security, "plan": digest, **price, "outputs": content})
        return
    _print(display, named, price)


def _cluster(parties: int | None, cluster: Path | None, folder: Path) -> AbstractContextManager[Cluster]:
    if parties is not None:
        if cluster is not None:
            raise UsageError("--parties starts a cluster of its own; --cluster names one that runs")
        return Cluster.local(parties)
    path = cluster or folder / "cluster.toml"
    if not path.is_file():
        raise ConfigError(f"no cluster: {path} does not exist", remedy="mpc up --detach, or add --parties 3")
    return Cluster.connect(path)


def _with_automatic(
    display: Display, model: Path, declared: dict[str, tuple[float, float]], feeds: dict[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """For inputs that nobody declared a range for: the power of two around this data, said aloud."""
    known = {**declared_ranges(load_model(model)), **declared}
    for name, values in feeds.items():
        if name in known or values.dtype.kind not in "fiu" or not values.size or not np.isfinite(values).all():
            continue
        most = 2.0 ** math.ceil(math.log2(max(1.0, float(np.abs(values.astype(np.float64)).max()))))
        display.say(
            f"note: no range is declared for input {name!r}; {-most:g}:{most:g} is taken from this data, "
            f"and the parties see it (--range {name}=LOW:HIGH declares one)"
        )
        declared = {**declared, name: (-most, most)}
    return declared


# ------------------------------------------------------------------------------ files


def load_inputs(entries: tuple[str, ...], names: list[str]) -> dict[str, np.ndarray]:
    """Arrays by input name, from `[NAME=]FILE` entries.

    Raises:
        InputError: a file is missing, not .npy or .npz, or does not say which input it is.
    """
    feeds: dict[str, np.ndarray] = {}
    for entry in entries:
        name, separator, path = entry.partition("=")
        if not separator or Path(entry).is_file():
            name, path = "", entry
        for key, value in _read(Path(path)).items():
            feeds[_input_name(name, key, names, path)] = value
    return feeds


def _input_name(given: str, key: str, names: list[str], path: str) -> str:
    if given:
        return given
    if key in names:
        return key
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"which input is {key or path!r}?", remedy=f"--input NAME={path}, NAME one of {', '.join(names)}"
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"no input file at {path}", remedy="check the path")
    try:
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        arrays = {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise InputError(
            f"{path} is not a .npy or .npz file of numbers",
            cause=str(error).split("\n", 1)[0][:200],
            remedy="save it with numpy.save or numpy.savez",
        ) from None
    except Exception as error:  # zipfile and zlib have errors of their own
        raise InputError(f"{path} is damaged ({type(error).__name__})", remedy="save it again") from None
    if not arrays:
        raise InputError(f"{path} holds no array")
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
    display.result("")
    display.result(f"online        {seconds(price['online_s'])}  (largest party's CPU {seconds(price['online_cpu_s'])})")
    display.result(f"offline       {seconds(price['offline_s'])}  (of it the provider {seconds(price['provider_s'])})")
    display.result(f"set-up        {seconds(price['setup_s'])}  (weights shared, once a session)")
    display.result(f"rounds        {price['rounds']}")
    display.result(f"sent          {size(price['sent_bytes'])} by the largest party, to all {price['parties'] - 1} peers")
    display.result(f"dealt         {size(price['dealt_bytes'])}")
    display.result(f"learned by    {', '.join(price['recipients'])}")
