"""The policy under any lists and any callers: allowed if and only if all four lists say so, and machines never."""

from __future__ import annotations

import tomllib
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mpc.errors import PolicyError
from parties.addresses import ANY
from parties.config.models import PolicyConfig
from parties.party.policy import Policy
from tests.support.effort import examples

MACHINES = frozenset({"party-0", "provider"})
NAMES = ("alice", "bob", "carol", *sorted(MACHINES))
PLANS = (bytes(32), bytes(range(32)), b"\xff" * 32)
KEYS = ("plans", "coordinators", "owners", "recipients")
PEOPLE = KEYS[1:]
WORDS = {"plans": [plan.hex() for plan in PLANS], **dict.fromkeys(PEOPLE, NAMES)}

keys, names, plans, some = st.sampled_from(KEYS), st.sampled_from(NAMES), st.sampled_from(PLANS), st.sets
lists = keys.flatmap(lambda key: st.tuples(st.just(key), st.lists(st.sampled_from(WORDS[key]), unique=True)))


class Operators(RuleBasedStateMachine):
    """A policy beside a model of it: four sets, where None is everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, set[str] | None] = {key: set() for key in KEYS}

    @property
    def policy(self) -> Policy:
        """What the party has when it starts with these lists."""
        config = {key: (ANY,) if names is None else tuple(sorted(names)) for key, names in self.lists.items()}
        return Policy(PolicyConfig(**config), MACHINES)

    # -- what an operator does

    @rule(change=lists)
    def list_these(self, change: tuple[str, list[str]]) -> None:
        self.lists[change[0]] = set(change[1])

    @rule(key=keys)
    def allow_any(self, key: str) -> None:
        self.lists[key] = None

    @rule(plan=plans, coordinator=names, owners=some(names), recipients=some(names))
    def allow_a_session(self, plan: bytes, coordinator: str, owners: set[str], recipients: set[str]) -> None:
        """Chance alone seldom allows all of one."""
        for key, asked in zip(KEYS, ({plan.hex()}, {coordinator}, owners, recipients), strict=True):
            known = self.lists[key]
            self.lists[key] = None if known is None else known | asked
        self.ask_for_a_session(plan, coordinator, owners, recipients)

    # -- what clients ask

    @rule(plan=plans, coordinator=names, owners=some(names), recipients=some(names))
    def ask_for_a_session(self, plan: bytes, coordinator: str, owners: set[str], recipients: set[str]) -> None:
        asked = dict(zip(KEYS, ({plan.hex()}, {coordinator}, owners, recipients), strict=True))
        allowed = all(self.allows(key, words) for key, words in asked.items())
        self.check(allowed, lambda: self.policy.check_session(plan, coordinator, owners, recipients))

    @rule(plan=plans, coordinator=names, owners=some(names), recipients=some(names))
    def take_the_advice(self, plan: bytes, coordinator: str, owners: set[str], recipients: set[str]) -> None:
        """An operator who agrees sets the lines that refusals name, one a restart: nobody else is let in by it."""
        asked = dict(zip(KEYS, ({plan.hex()}, {coordinator}, owners, recipients), strict=True))
        for _ in KEYS:
            try:
                self.policy.check_session(plan, coordinator, owners, recipients)
                return
            except PolicyError as refusal:
                lines = tomllib.loads((refusal.remedy or "").partition("reload): ")[2])
                if not lines:  # a machine: none makes a client of it
                    assert MACHINES & {coordinator, *owners, *recipients}
                    return
                [(key, line)] = lines.items()
                known = self.lists[key]
                assert known is not None and set(line) == known | asked[key] and not known >= asked[key]
                self.lists[key] = set(line)
        self.policy.check_session(plan, coordinator, owners, recipients)

    # -- what is always so

    @invariant()
    def what_is_asked_first_agrees_with_the_whole(self) -> None:
        policy = self.policy
        for plan in PLANS:
            self.check(self.allows("plans", {plan.hex()}), lambda plan=plan: policy.check_plan(plan))
        for name in NAMES:
            coordinates = self.allows("coordinators", {name})
            self.check(coordinates, lambda name=name: policy.check_coordinator(name))
            has_a_part = any(self.allows(key, {name}) for key in PEOPLE)
            self.check(has_a_part, lambda name=name: policy.admit(name))

    @invariant()
    def machines_have_no_part(self) -> None:
        for machine in MACHINES:
            for call in (self.policy.admit, self.policy.check_coordinator):
                with pytest.raises(PolicyError, match="process of the cluster"):
                    call(machine)

    # -- the model

    def allows(self, key: str, asked: set[str]) -> bool:
        known = self.lists[key]
        return (known is None or asked <= known) and (key == "plans" or not MACHINES & asked)

    def check(self, allowed: bool, call: Callable[[], None]) -> None:
        if allowed:
            call()
            return
        with pytest.raises(PolicyError) as caught:
            call()
        assert caught.value.remedy


Operators.TestCase.settings = settings(examples(25), stateful_step_count=25, deadline=None)
TestOperators = Operators.TestCase
