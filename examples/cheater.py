"""One of two parties cheats: without checks nobody notices that the answers are wrong, with checks it gets none.

The cheater is a daemon of this project's tests that adds half a unit to its share of what is opened last
(tests/support/cheating_party.py); the other party, the provider and the client are as they are shipped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime

from mpc.errors import IntegrityError
from parties import Cluster
from parties.local import launcher
from parties.local.layout import LocalLayout, Member

HERE = Path(__file__).resolve().parent
MODEL = HERE / "breast_cancer_lr.onnx"
CHEATER = "party-1"


def command(member: Member) -> list[str]:
    """Start one party as a cheater, and every other process as it is."""
    usual = launcher.daemon_command(member)
    if member.name != CHEATER:
        return usual
    daemon = HERE.parent / "tests" / "support" / "cheating_party.py"
    return [sys.executable, "-P", str(daemon), "party", "serve", "--config", str(member.config)]


def ask(cluster: Cluster, x: np.ndarray, security: str) -> np.ndarray:
    with cluster.session(MODEL, security=security) as session:
        answers: np.ndarray = session.run(None, {"x": x})[0]
    return answers


def main() -> None:
    x = np.load(HERE / "breast_cancer_test.npz")["x"][:20]
    truth = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    with TemporaryDirectory() as folder:
        layout = LocalLayout.create(Path(folder) / "cluster", parties=2)
        launcher.start(layout, command=command)
        try:
            with Cluster.connect(layout.cluster_file) as cluster:
                wrong = np.abs(ask(cluster, x, "passive") - truth) > 0.1
                print(f"passive: {wrong.sum()} of {wrong.size} answers are wrong, and nobody was told")
                try:
                    ask(cluster, x, "active")
                except IntegrityError as caught:
                    print(f"active: {caught} (exit code {caught.exit_code})")
                else:
                    raise SystemExit("active: the cheater was not caught")
        finally:
            launcher.stop(layout)


if __name__ == "__main__":
    main()
