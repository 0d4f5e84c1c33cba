"""Every kind of gate, with random plans and values: parties = reference = mathematics, cost as declared."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.gates import GATES
from tests.support.cases import CASES, Case, maximum_case
from tests.support.effort import examples
from tests.support.worlds import Trial


def test_every_kind_of_gate_has_a_case() -> None:
    assert set(CASES) == set(GATES)


@pytest.mark.parametrize("kind", sorted(GATES))
def test_what_prepare_returns_is_what_evaluate_receives_and_is_frozen(kind: str) -> None:
    returned = get_type_hints(GATES[kind].prepare)["return"]
    given = get_type_hints(GATES[kind].evaluate)["kept"]
    assert given == returned or (returned is type(None) and given is type(None))
    for record in {returned, *get_args(returned)} - {type(None)}:
        if is_dataclass(record):
            assert record.__dataclass_params__.frozen and not record.__dataclass_params__.repr
        else:
            assert get_args(record), f"{record} is no frozen record"


def check(case: Case, parties: int, batches: list[int], seed: int) -> None:
    plan = case.builder.build()
    weights = {gate.out: case.values(gate.out, 1, seed) for gate in plan.weights}
    trial = Trial(plan, weights, parties, number=seed)
    for number, batch in enumerate(batches):
        case.judge(trial.run(case.inputs(batch, seed + number), batch).values)


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("kind", sorted(CASES))
def test_parties_equal_the_reference_at_the_declared_cost(kind: str, parties: int) -> None:
    @examples({2: 40, 3: 20, 5: 10}[parties])
    @given(
        case=CASES[kind],
        batches=st.lists(st.sampled_from([1, 2, 3, 9]), min_size=1, max_size=2),
        seed=st.integers(0, 1 << 30),
    )
    def attempt(case: Case, batches: list[int], seed: int) -> None:
        assert kind in {gate.kind for gate in case.builder.gates}
        check(case, parties, batches, seed)

    attempt()


@pytest.mark.slow
@examples(3)
@given(case=maximum_case(most=128), seed=st.integers(0, 1 << 30))
def test_maximum_of_up_to_128(case: Case, seed: int) -> None:
    check(case, 3, [2], seed)
