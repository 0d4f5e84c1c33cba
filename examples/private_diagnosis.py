"""A lab's network reads a patient's scan: the patient alone learns the diagnosis, and nobody sees scan or network.

The lab puts its network at the parties once and says who may use it; it is not needed afterwards.  The patient's
computer masks the scan, the parties compute, and the patient's computer unmasks the answer, a digit here: the images
are those of scikit-learn.  In life each has a computer, a certificate and a cluster file of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from digits_cnn import BRIGHT, classifier, images

from parties import Cluster, PolicyError

PATIENTS, STRANGER, LAB = ("ann", "ben"), "eve", "lab"
SCANS = 40


def lab(cluster: Cluster) -> None:
    """Put the network, and let patients use it on what they enter themselves, for themselves."""
    with Cluster.connect(cluster.client_file(LAB)) as mine:
        mine.models.put("scans", classifier(), ranges={"image": (0, BRIGHT)}, description="What a scan shows")
        for name in PATIENTS:
            mine.models.grant("scans", coordinators=name, recipients=name, data_owners=name, rows=SCANS, expires="90d")


def patient(cluster: Cluster, name: str, scans: np.ndarray) -> np.ndarray:
    """Have scans read; what is sent is masked, and what comes back only this patient can unmask."""
    with Cluster.connect(cluster.client_file(name)) as mine, mine.session("lab/scans") as session:
        [found] = session.run(None, {"image": scans})
        price = session.last_run
        print(f"{name}: {len(scans)} scans, {price.rounds} rounds, {price.sent_bytes / 1e3:.0f} kB a party")
        return found


def refused(attempt: Callable[[], object]) -> str:
    """What the parties say to somebody who was granted nothing."""
    try:
        attempt()
    except PolicyError as error:
        return error.what
    raise SystemExit("the parties have answered what nobody has allowed")


def main() -> None:
    _, _, scans, truth = images()
    with Cluster.local(parties=3, clients=(LAB, *PATIENTS, STRANGER)) as cluster:
        lab(cluster)
        halves = np.split(np.arange(2 * SCANS), 2)
        answers = [patient(cluster, name, scans[half]) for name, half in zip(PATIENTS, halves, strict=True)]
        right = np.concatenate(answers) == truth[: 2 * SCANS]
        print(f"{right.sum()} of {right.size} diagnoses are right")
        with Cluster.connect(cluster.client_file(STRANGER)) as eve:
            print(f"somebody else: {refused(lambda: eve.session('lab/scans'))}")
        with Cluster.connect(cluster.client_file("ann")) as ann:
            told = refused(lambda: ann.session("lab/scans", recipients=LAB))
            print(f"a diagnosis for the lab: {told}")


if __name__ == "__main__":
    main()
