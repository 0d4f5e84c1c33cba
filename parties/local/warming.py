"""Having the kernels compiled before anybody waits for them, by one process of all that need them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mpc import kernel_cache
from mpc.errors import ConfigError

_LAST_WORDS = 10


def warm(say: Callable[[str], None]) -> bool:
    """Compile the kernels, if nobody has yet, in a process of its own, and wait for it.

    Args:
        say: told why that takes a minute, and once in a process's life where compiled kernels are if they cannot be
            kept where they belong.

    Returns:
        True if all processes now find them compiled; False if each has to compile its own.

    Raises:
        ConfigError: the compiler fails.
    """
    place = kernel_cache.place()
    if place.note and place not in _told:
        _told.add(place)
        say(place.note)
    if place.folder is None or place.complete:
        return place.complete
    say("compiling the kernels for this machine, once; it takes about a minute")
    command = [sys.executable, "-P", "-m", "mpc.interpret.warmup"]
    done = subprocess.run(
        command, env=environment(os.environ), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").splitlines()[-_LAST_WORDS:]
        raise ConfigError(
            "the kernels cannot be compiled",
            cause="\n".join(line[:500] for line in lines) or f"exit status {done.returncode}",
            remedy="python -m mpc.interpret.warmup shows it again",
        )
    return place.complete


_told: set[kernel_cache.Place] = set()


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that finds this one's modules and this one's compiled kernels."""
    child = dict(environ)
    folder = kernel_cache.place().folder
    if folder is not None:
        child[kernel_cache.VARIABLE] = str(folder.parent)
    root = Path(__file__).parents[2]
    if root.name != "site-packages":  # a source tree: it runs the code that this process runs
        child["PYTHONPATH"] = os.pathsep.join(filter(None, (child.get("PYTHONPATH"), str(root))))
    return child
