"""A lab has a model, a hospital has patients: the hospital gets the answers, and neither shows the other anything.

Here both run in one program.  In life each has a computer, a certificate and a cluster file of its own; what passes
between them is the ticket, which is public.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from parties import Cluster

HERE = Path(__file__).resolve().parent
MODEL, PATIENTS = HERE / "breast_cancer_lr.onnx", HERE / "breast_cancer_test.npz"


def lab(cluster: Cluster, ticket_is_there: threading.Event, tickets: list[str], patients: int) -> None:
    """Share the model's weights among the parties; compute for so many patients; learn nothing of them."""
    with cluster.session(MODEL, owners={"x": "hospital"}, recipients="hospital") as session:
        tickets.append(session.ticket)
        ticket_is_there.set()
        session.run(None, batch=patients)  # returns when the hospital has its answers


def hospital(cluster: Cluster, ticket: str, patients: np.ndarray) -> np.ndarray:
    """Enter masked patients, and receive the answers."""
    [probabilities] = cluster.join(ticket).run({"x": patients})
    return probabilities


def main() -> None:
    data = np.load(PATIENTS)
    patients, benign = data["x"], data["y"].reshape(-1)
    with Cluster.local(parties=2, clients=("hospital",)) as cluster:  # the cluster's first client is the lab
        ticket_is_there, tickets = threading.Event(), list[str]()
        working = threading.Thread(target=lab, args=(cluster, ticket_is_there, tickets, len(patients)))
        working.start()
        ticket_is_there.wait()
        with Cluster.connect(cluster.client_file("hospital")) as own:
            answers = hospital(own, tickets[0], patients)
        working.join()
    right = (answers.reshape(-1) >= 0.5) == benign
    print(f"{len(patients)} patients, {right.mean():.1%} of the answers right")
    print("the lab saw no patient and no answer, the hospital no weight, the parties nothing at all")


if __name__ == "__main__":
    main()
