"""The systems that are compared: how each is installed, started, asked, and ended."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / "environments"
_PYTHON = "3.11"  # the newest that all of them have packages for

FIRST, DEALER, MAJORITY = "passive; first party trusted", "passive; dealer trusted", "passive, honest majority"


@dataclass(frozen=True)
class Peer:
    """One other system.

    Args:
        installs: arguments of `pip install`, one call each.
        imports: what must be importable.
        phases: which of them its seconds hold.
        limits: network -> largest batch that is worth waiting for.
        environment: another peer's whose environment serves this one too.
        arguments: of the script.
    """

    title: str
    script: str
    installs: tuple[tuple[str, ...], ...]
    imports: str
    parties: int
    adversary: str
    phases: str
    limits: dict[str, int] = field(default_factory=dict)
    environment: str = ""
    arguments: tuple[str, ...] = ()


_CRYPTEN = (
    ("torch==2.13.0", "numpy", "omegaconf", "onnx", "pandas", "pyyaml", "scipy", "scikit-learn"),
    ("--no-deps", "crypten==0.4.1"),  # it asks for a package, sklearn, that refuses to be installed
)
PEERS = {
    "crypten": Peer("CrypTen 0.4.1", "crypten_peer.py", _CRYPTEN, "torch", 2, FIRST, "online; triples for free"),
    "dealer": Peer(
        "CrypTen 0.4.1 with its dealer",
        "crypten_peer.py",
        _CRYPTEN,
        "torch",
        2,
        DEALER,
        "offline + online",
        environment="crypten",
        arguments=("--dealer",),
    ),
    "spu": Peer(
        "SPU 0.9.5, SEMI2K",
        "spu_peer.py",
        (("spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy<2"),),
        "spu, jax",
        2,
        FIRST,
        "online; triples made meanwhile",
    ),
    "mpyc": Peer(
        "MPyC 0.11",
        "mpyc_peer.py",
        (("mpyc==0.11", "gmpy2", "numpy"),),
        "mpyc.runtime, gmpy2",
        3,
        MAJORITY,
        "all online",
        {"A": 32, "S": 1, "C": 1},
    ),
    "concrete": Peer(
        "Concrete ML 1.9 (FHE)",
        "concrete_peer.py",
        (("concrete-ml==1.9.0",),),
        "concrete.ml.sklearn",
        1,
        "one server, knows the model",
        "all online",
    ),
    "torch": Peer(
        "PyTorch, 1 thread", "torch_peer.py", _CRYPTEN, "torch", 1, "none", "in the clear", environment="crypten"
    ),
}


def install(name: str) -> str:
    """Make the environment if it is not there; why it cannot be used, or nothing."""
    peer = PEERS[name]
    folder = ENVIRONMENTS / (peer.environment or name)
    if not folder.exists():
        print(f"{name}: installing into {folder.name}/", file=sys.stderr)
        python = shutil.which(f"python{_PYTHON}") or sys.executable
        commands = [[python, "-m", "venv", str(folder)]]
        commands += [[str(folder / "bin/pip"), "install", "-q", *wanted] for wanted in peer.installs]
        for command in commands:
            if why := _failure(command):
                shutil.rmtree(folder, ignore_errors=True)
                return why
    return _failure([str(folder / "bin/python"), "-c", f"import {peer.imports}"])


def _failure(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return f"{Path(command[0]).name}: {error.strerror}"
    if not done.returncode:
        return ""
    return (done.stderr.strip().splitlines() or [f"{Path(command[0]).name} failed"])[-1][:160]


class Running:
    """A peer's process, which answers a line for a line.  A context manager.

    Args:
        script: which to run instead of the peer's own.
    """

    def __init__(self, name: str, script: str = "") -> None:
        peer = PEERS[name]
        self._log = (ENVIRONMENTS / f"{name}.log").open("w")
        self._lines: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            [
                str(ENVIRONMENTS / (peer.environment or name) / "bin/python"),
                str(HERE / (script or peer.script)),
                *peer.arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=HERE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # its parties end with it
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("{"):  # whatever else it says
                self._lines.put(line)
        self._lines.put("")

    def ask(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Its answer; an object with `failed` if there is none."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=deadline)
        except (OSError, ValueError):
            line = ""
        except queue.Empty:
            self.close(patience=0)
            return {"failed": f"no answer within {deadline:g} s"}
        return json.loads(line) if line else {"failed": f"it stopped; see {Path(self._log.name).name}"}

    def close(self, patience: float = 10) -> None:
        """End it: by the end of its input, else, after `patience` seconds, by force.  Safe to call twice."""
        if self._log.closed:
            return
        try:
            self._process.stdin.close()
            self._process.wait(patience)
        except (OSError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: whoever of its parties is left
        except OSError:
            pass
        self._process.wait()
        self._log.close()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
