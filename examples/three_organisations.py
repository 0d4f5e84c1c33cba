"""Two party organisations, a provider and a clinic, each with a folder, a certificate and an address of its own.

What `mpc up` does for a cluster on one machine is written out here, as organisations on different machines do it: a
common authority issues certificates, each daemon has a config file, and each party says itself whom it computes for.
The addresses are four of this machine's, 127.0.0.1 to 127.0.0.4, which Linux has and macOS needs to be given.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from parties import Cluster

HERE = Path(__file__).resolve().parent
ADDRESSES = {"provider": "127.0.0.1:7710", "bank": "127.0.0.2:7710", "insurer": "127.0.0.3:7710"}
PARTIES, CLINIC = ("bank", "insurer"), "clinic"
TLS = '[tls]\nca = "ca.pem"\ncertificate = "certificate.pem"\nkey = "key.pem"\n'


def mpc(*words: str | Path) -> list[str]:
    """A command of the command line."""
    return [sys.executable, "-m", "parties.cli", *map(str, words)]


def address_of(name: str) -> str:
    return f'name = "{name}"\naddress = "{ADDRESSES[name]}"\n'


def certificates(folder: Path) -> None:
    """The authority, which all four trust: it knows nobody's data, and gives everybody a name."""
    subprocess.run(mpc("cert", "ca", folder / "authority"), check=True)
    for name in (*ADDRESSES, CLINIC):
        host = ADDRESSES.get(name, "127.0.0.4:0").rpartition(":")[0]
        issue = mpc("cert", "issue", name, "--ca", folder / "authority", "-o", folder / name, "--host", host)
        subprocess.run(issue, check=True)


def configs(folder: Path) -> None:
    """A file for each organisation: who it is, where the others are, and for whom it works."""
    roster = "".join(f"[[peers]]\n{address_of(name)}" for name in PARTIES)
    provider = f"[provider]\n{address_of('provider')}"
    for name in PARTIES:
        policy = f'[policy]\nplans = ["any"]\ncoordinators = ["{CLINIC}"]\nowners = ["{CLINIC}"]\n'
        policy += f'recipients = ["{CLINIC}"]\n'
        text = f'name = "{name}"\nlisten = "{ADDRESSES[name]}"\ndata_dir = "data"\n{TLS}{provider}{roster}{policy}'
        (folder / name / "config.toml").write_text(text)
    text = f'name = "provider"\nlisten = "{ADDRESSES["provider"]}"\ndata_dir = "data"\nparties = {list(PARTIES)}\n{TLS}'
    (folder / "provider" / "config.toml").write_text(text)
    parties = "".join(f"[[parties]]\n{address_of(name)}" for name in PARTIES)
    (folder / CLINIC / "cluster.toml").write_text(f'name = "{CLINIC}"\n{TLS}{provider}{parties}')


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        certificates(folder)
        configs(folder)
        daemons = []
        try:
            for name in ADDRESSES:
                role = "provider" if name == "provider" else "party"
                log = (folder / name / "log.jsonl").open("wb")
                serve = mpc(role, "serve", "--config", folder / name / "config.toml")
                daemons.append(subprocess.Popen(serve, stderr=log))
            cluster_file = folder / CLINIC / "cluster.toml"
            while subprocess.run(mpc("doctor", "--cluster", cluster_file), capture_output=True).returncode:
                if any(daemon.poll() is not None for daemon in daemons):
                    sys.exit("a daemon ended: see its log in " + str(folder))
                time.sleep(0.5)
            subprocess.run(mpc("doctor", "--cluster", cluster_file), check=True)
            patients = np.load(HERE / "breast_cancer_test.npz")["x"][:5]
            with Cluster.connect(cluster_file) as cluster, cluster.session(HERE / "breast_cancer_lr.onnx") as session:
                [benign] = session.run(None, {"x": patients})
            print("probabilities that it is benign:", [f"{value:.3f}" for value in benign.reshape(-1)])
        finally:
            for daemon in daemons:
                daemon.terminate()
            for daemon in daemons:
                daemon.wait()


if __name__ == "__main__":
    main()
