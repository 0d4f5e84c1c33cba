"""Three hospitals put a table each; a registry asks for averages, with noise, until the hospitals' budgets are spent.

Nobody sees a patient: not the registry, not the parties, not another hospital.  Each hospital signs what may be asked
of its own table, every party holds the registry to that, and what an answer cost is never given back.
"""

from __future__ import annotations

import numpy as np

from parties import Cluster, PrivateDataError

HOSPITALS = ("north", "south", "west")
REGISTRY = "registry"
ROWS, BUDGET, EACH = 2_000, 2.0, 1.0


def patients(number: int) -> dict[str, np.ndarray]:
    """A hospital's table: ages and days of stay, which are longer the older somebody is."""
    draw = np.random.default_rng(number)
    age = draw.integers(18, 96, ROWS)
    return {"age": age, "days": np.clip(draw.poisson(2 + age / 20), 0, 30)}


def put(cluster: Cluster, number: int, hospital: str) -> None:
    """What a hospital does: it puts its table, says what may be asked, and is not needed afterwards."""
    with Cluster.connect(cluster.client_file(hospital)) as mine:
        mine.datasets.put("stays", patients(number), ranges={"age": (0, 120), "days": (0, 30)}, rows_per_person=1)
        mine.set_budget("stays", epsilon=BUDGET)
        mine.datasets.grant(
            "stays", coordinators=[REGISTRY], recipients=[REGISTRY], epsilon=BUDGET, epsilon_each=EACH, expires="1y"
        )


def ask(registry: Cluster) -> float:
    """What the registry does: the same question of each table; the mean over all of them."""
    means = []
    for hospital in HOSPITALS:
        stays = registry.dataset(f"{hospital}/stays")
        answer = stays["days"].mean().get(epsilon=EACH)
        left = float(answer.left or 0)
        print(f"{hospital:<6} {answer.value:.2f} days, noise of {answer.std:.3f}, {left:g} of epsilon left")
        means.append(answer.value)
    return float(np.mean(means))


def main() -> None:
    with Cluster.local(parties=3, clients=(*HOSPITALS, REGISTRY)) as cluster:
        for number, hospital in enumerate(HOSPITALS):
            put(cluster, number, hospital)
        true = np.mean([patients(number)["days"].mean() for number in range(len(HOSPITALS))])
        with Cluster.connect(cluster.client_file(REGISTRY)) as registry:
            print(f"without a grant for it: {refused(registry)}")
            first, second = ask(registry), ask(registry)
            print(f"off by {max(abs(first - true), abs(second - true)):.2f} days at most")
            print(f"a third time: {refused(registry, EACH)}")


def refused(registry: Cluster, epsilon: float | None = None) -> str:
    """An exact answer is nobody's but the owner's, and no noised one is left when the budget is spent."""
    try:
        registry.dataset("north/stays")["days"].mean().get(epsilon=epsilon)
    except PrivateDataError as error:
        return error.what
    raise SystemExit("the parties have answered what nobody has allowed")


if __name__ == "__main__":
    main()
