"""Three bags of many may be looked into, by one approved network, for one bit each: and by nothing else, ever.

An airline's scans lie at the parties.  An institute has put the network that is approved for finding what is forbidden
(a handwritten eight, here).  The airline's word names that network with its weights, three bags, and one bit a use;
each party holds customs to it.  No person sees a scan, and whoever changes network, bag or number of uses is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from digits_cnn import BRIGHT, detector, images

from parties import Cluster, MpcError, PrivateDataError

AIRLINE, INSTITUTE, CUSTOMS = "airline", "institute", "customs"
FORBIDDEN, BAGS = 8, 60


def airline_puts(cluster: Cluster, scans: np.ndarray) -> None:
    with Cluster.connect(cluster.client_file(AIRLINE)) as airline:
        airline.datasets.put("bags", {"scan": scans}, ranges={"scan": (0, BRIGHT)}, rows_per_person=1, expires="30d")


def institute_puts(cluster: Cluster) -> None:
    """The approved network: for scans of the airline's kind, for customs, from datasets alone."""
    with Cluster.connect(cluster.client_file(INSTITUTE)) as institute:
        bags = institute.dataset("airline/bags")
        institute.models.put("forbidden", detector(FORBIDDEN), data={"image": bags["scan"]})
        institute.models.grant(
            "forbidden", coordinators=CUSTOMS, recipients=CUSTOMS, data_owners=AIRLINE, entered=False, expires="30d"
        )


def airline_grants(cluster: Cluster, named: list[int]) -> None:
    """The warrant names some bags; each may be looked into once, by this network, for one bit."""
    with Cluster.connect(cluster.client_file(AIRLINE)) as airline:
        network, scans = airline.model("institute/forbidden"), airline.dataset("bags")["scan"]
        for bag in named:
            plan = network.place(recipients=CUSTOMS, data={"image": scans[bag : bag + 1]})
            airline.datasets.grant("bags", CUSTOMS, plans=plan, bit=True, uses=1, expires="1d")


def look(customs: Cluster, bag: int) -> bool:
    """Ask for a bag's bit."""
    scan = customs.dataset("airline/bags")["scan"][bag : bag + 1]
    with customs.session("institute/forbidden", data={"image": scan}) as session:
        [alarm] = session.run(None)
        return bool(alarm[0, 0])


def refused(attempt: Callable[[], object]) -> str:
    """What the parties say."""
    try:
        attempt()
    except MpcError as error:
        return error.what
    raise SystemExit("the parties have answered what nobody has allowed")


def main() -> None:
    _, _, scans, digits = images()
    scans, digits = scans[:BAGS], digits[:BAGS]
    named = [int(np.flatnonzero(digits == FORBIDDEN)[0]), 0, 30]
    with Cluster.local(parties=2, clients=(AIRLINE, INSTITUTE, CUSTOMS)) as cluster:
        airline_puts(cluster, scans)
        institute_puts(cluster)
        airline_grants(cluster, named)
        with Cluster.connect(cluster.client_file(CUSTOMS)) as customs:
            print(f"another bag: {refused(lambda: look(customs, named[0] + 1))}")
            data = {"image": customs.dataset("airline/bags")["scan"][named[0] : named[0] + 1]}
            print(f"another network: {refused(lambda: customs.session(detector(3), data=data))}")
            for bag in named:
                alarm = look(customs, bag)
                print(f"bag {bag}: {'alarm' if alarm else 'nothing'}, and it shows a {digits[bag]}")
            print(f"once more: {refused(lambda: look(customs, named[0]))}")
            try:
                customs.dataset("airline/bags")["scan"].mean(axis=0).get(epsilon=1)
            except PrivateDataError as error:
                print(f"the bags' average: {error.what}")


if __name__ == "__main__":
    main()
