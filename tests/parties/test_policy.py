"""A party does only what its own policy allows, and says which line would allow it."""

from __future__ import annotations

import tomllib

import pytest

from mpc.errors import PolicyError
from parties.config.models import PolicyConfig
from parties.party.policy import Policy

DIGEST = bytes(range(32))
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
    line = (caught.value.remedy or "").partition("restart: ")[2]
    fixed = ALLOWED.model_dump() | tomllib.loads(line)
    Policy(PolicyConfig(**fixed)).check_session(*session)  # the advice works
    assert list(tomllib.loads(line)) == [key]


def test_the_default_refuses_everyone() -> None:
    for key in ("plans", "coordinators", "owners", "recipients"):
        config = PolicyConfig(**(dict.fromkeys(PolicyConfig.model_fields, ("any",)) | {key: ()}))
        with pytest.raises(PolicyError, match="does not allow"):
            Policy(config).check_session(DIGEST, "a", ["b"], ["c"])


def test_any_allows_everyone() -> None:
    config = PolicyConfig(**dict.fromkeys(PolicyConfig.model_fields, ("any",)))
    Policy(config).check_session(bytes(32), "x", ["y"], ["z"])


def test_names_match_exactly() -> None:
    for name in ("Analyst", "analyst ", "analys", "any"):
        with pytest.raises(PolicyError):
            Policy(ALLOWED).check_session(DIGEST, name, [], [])
