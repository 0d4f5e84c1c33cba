"""A party does only what its own policy allows, and says which line would allow it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable

import pytest

from mpc.errors import PolicyError
from parties.config.models import PolicyConfig
from parties.party.policy import Policy

DIGEST = bytes(range(32))
LISTS = [key for key, field in PolicyConfig.model_fields.items() if field.default == ()]
ALLOWED = PolicyConfig(
    plans=(DIGEST.hex(),), coordinators=("analyst",), owners=("hospital-a", "hospital-b"), recipients=("analyst",)
)


def test_what_is_listed_is_allowed() -> None:
    Policy(ALLOWED).check_session(DIGEST, "analyst", ["hospital-a", "hospital-b"], {"analyst"})


@pytest.mark.parametrize(
    ("key", "session"),
    [
        ("plans", (bytes(32), "analyst", ["hospital-a"], ["analyst"])),
        ("coordinators", (DIGEST, "mallory", ["hospital-a"], ["analyst"])),
        ("owners", (DIGEST, "analyst", ["hospital-a", "mallory"], ["analyst"])),
        ("recipients", (DIGEST, "analyst", ["hospital-a"], ["analyst", "mallory"])),
    ],
)
def test_each_refusal_names_the_line_that_would_allow_it(key: str, session: tuple) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy(ALLOWED).check_session(*session)
    assert f"policy.{key}" in (caught.value.cause or "")
    line = (caught.value.remedy or "").partition("reload): ")[2]
    fixed = ALLOWED.model_dump() | tomllib.loads(line)
    Policy(PolicyConfig(**fixed)).check_session(*session)  # the advice works
    assert list(tomllib.loads(line)) == [key]


def test_the_default_refuses_everyone() -> None:
    for key in ("plans", "coordinators", "owners", "recipients"):
        config = PolicyConfig(**(dict.fromkeys(LISTS, ("any",)) | {key: ()}))
        with pytest.raises(PolicyError, match="does not allow"):
            Policy(config).check_session(DIGEST, "a", ["b"], ["c"])


def test_any_allows_everyone() -> None:
    config = PolicyConfig(**dict.fromkeys(LISTS, ("any",)))
    Policy(config).check_session(bytes(32), "x", ["y"], ["z"])


def test_names_match_exactly() -> None:
    for name in ("Analyst", "analyst ", "analys", "any"):
        with pytest.raises(PolicyError):
            Policy(ALLOWED).check_session(DIGEST, name, [], [])


@pytest.mark.parametrize("key", ["coordinators", "owners", "recipients", "data_owners", "askers"])
def test_a_client_with_any_part_is_admitted(key: str) -> None:
    Policy(PolicyConfig(**{key: ("clerk",)})).admit("clerk")
    Policy(PolicyConfig(**{key: ("any",)})).admit("whoever")


def test_whoever_has_no_part_is_told_each_line_that_would_give_one() -> None:
    with pytest.raises(PolicyError, match="no part for 'mallory'") as caught:
        Policy(ALLOWED).admit("mallory")
    lines = (caught.value.remedy or "").partition("reload): ")[2].split(" or ")
    assert [[*tomllib.loads(line)] for line in lines] == [
        ["coordinators"],
        ["owners"],
        ["recipients"],
        ["data_owners"],
        ["askers"],
    ]
    for line in lines:
        Policy(PolicyConfig(**(ALLOWED.model_dump() | tomllib.loads(line)))).admit("mallory")  # the advice works
    with pytest.raises(PolicyError):
        Policy(PolicyConfig(plans=("any",))).admit("mallory")  # a plan gives nobody a part


def test_what_is_asked_first_is_asked_alone() -> None:
    """The coordinator and the plan's digest are judged before anything else is known."""
    policy = Policy(ALLOWED)
    policy.check_coordinator("analyst")
    policy.check_plan(DIGEST)
    with pytest.raises(PolicyError, match="does not allow the coordinator 'hospital-a'"):
        policy.check_coordinator("hospital-a")
    with pytest.raises(PolicyError, match="does not allow the plan"):
        policy.check_plan(bytes(32))


def test_a_process_of_the_cluster_has_no_part_whatever_the_lists_say() -> None:
    config = PolicyConfig(**dict.fromkeys(LISTS, ("any",)))
    policy = Policy(config, frozenset({"party-1", "provider"}))
    policy.check_session(DIGEST, "x", ["y"], ["z"])
    asked: list[Callable[[], None]] = [
        lambda: policy.admit("party-1"),
        lambda: policy.check_coordinator("provider"),
        lambda: policy.check_session(DIGEST, "x", ["y", "party-1"], ["z"]),
        lambda: policy.check_session(DIGEST, "x", ["y"], ["provider"]),
        lambda: policy.refuse_machines(["x", "party-1"]),
    ]
    for ask in asked:
        with pytest.raises(PolicyError, match="is a process of the cluster"):
            ask()
    policy.refuse_machines(["x", "y"])


def test_only_askers_wait_for_the_operators_word_and_no_process_of_the_cluster() -> None:
    machines = frozenset({"party-0"})
    assert not Policy(PolicyConfig(), machines).asks("analyst")
    listed = Policy(PolicyConfig(askers=("analyst", "party-0")), machines)
    assert listed.asks("analyst") and not listed.asks("mallory") and not listed.asks("party-0")
    anybody = Policy(PolicyConfig(askers=("any",)), machines)
    assert anybody.asks("mallory") and not anybody.asks("party-0")


def test_only_listed_clients_put_data() -> None:
    policy = Policy(PolicyConfig(data_owners=("hospital-a",)), frozenset({"party-0"}))
    policy.check_data_owner("hospital-a")
    with pytest.raises(PolicyError, match="data owner 'mallory'") as caught:
        policy.check_data_owner("mallory")
    assert 'data_owners = ["hospital-a", "mallory"]' in (caught.value.remedy or "")
    with pytest.raises(PolicyError, match="process of the cluster"):
        Policy(PolicyConfig(data_owners=("any",)), frozenset({"party-0"})).check_data_owner("party-0")
    Policy(PolicyConfig(data_owners=("any",))).check_data_owner("mallory")


@pytest.mark.parametrize("allowed", [("passive",), ("active",), ("passive", "active")])
def test_each_security_is_allowed_by_its_own_word(allowed: tuple) -> None:
    """Neither stands in for the other; nothing that is listed beside it helps."""
    policy = Policy(ALLOWED.model_copy(update={"security": allowed}))
    for security in ("passive", "active"):
        if security in allowed:
            policy.check_security(security)
            continue
        with pytest.raises(PolicyError, match=f"allows {allowed[0]} security, and not {security}") as caught:
            policy.check_security(security)
        assert f"--security {allowed[0]}" in (caught.value.remedy or "")
    assert PolicyConfig().security == ("passive", "active")


def test_a_policy_of_both_kinds_reads_both() -> None:
    for security, unchecked in ((("passive", "active"), True), (("active",), False), (("passive",), True)):
        Policy(PolicyConfig(security=security)).check_read(unchecked)
    with pytest.raises(PolicyError):
        Policy(PolicyConfig(security=("active",))).check_read(True)
