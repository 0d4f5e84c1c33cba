"""The policy that is in force at a party, which its operator can exchange while it runs.

Whoever asks, asks the policy of that moment: when something is proposed, when it is opened, and again in the
transaction that writes `revealed`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction

from mpc.errors import ConfigError, PolicyError
from mpc.plan.plan import Plan
from parties.config.models import PartyConfig
from parties.party.policy import Policy
from parties.telemetry import logger


class Rules:
    """A party's policy, and where another one is read.  Thread-safe.

    Args:
        read: reads the party's config again; None where there is no file.

    `problem` says why the last reading failed, `changed` which keys it changed, and `restart` which settings beside the
    policy differ in the file.
    """

    def __init__(self, config: PartyConfig, read: Callable[[], PartyConfig] | None = None) -> None:
        self._config, self.read = config, read
        self._reading = threading.Lock()
        self.policy = Policy(config.policy, config.machines)
        self.read_at = time.time()
        self.problem: ConfigError | None = None
        self.changed: tuple[str, ...] = ()
        self.restart: tuple[str, ...] = ()

    @property
    def most_epsilon(self) -> Fraction | None:
        """The most epsilon that noised answers about one dataset may spend; None: as its owner says."""
        most = self.policy.config.max_epsilon
        return None if most is None else Fraction(most)

    def reload(self) -> None:
        """Read the policy again; it holds from here on, as a whole.  Where it cannot be read the old one stays.

        Raises:
            ConfigError: there is no file, or what is in it is no config; `problem` keeps that.
        """
        with self._reading:
            self._reload()

    def _reload(self) -> None:
        try:
            if self.read is None:
                raise ConfigError("this party has no config file to read its policy from", remedy="restart it")
            found = self.read()
            if found.name != self._config.name:
                raise ConfigError(f"the config is {found.name}'s now, not {self._config.name}'s", local=True)
        except ConfigError as error:
            self.problem = error.again()
            logger().error("the policy cannot be read again, and the old one stays in force", why=str(error))
            raise
        self.changed = _differ(self._config.policy.model_dump(), found.policy.model_dump())
        self.restart = tuple(key for key in _differ(self._config.model_dump(), found.model_dump()) if key != "policy")
        self._config = self._config.model_copy(update={"policy": found.policy})
        self.policy, self.problem, self.read_at = Policy(found.policy, self._config.machines), None, time.time()
        logger().info("the policy was read again", changed=self.changed, needs_a_restart=self.restart)

    # -- refusals as callers are told them

    def admit(self, client: str) -> None:
        """Raise PolicyError unless the caller can have any part here."""
        self._ask(lambda policy: policy.admit(client))

    def admit_coordinator(self, client: str) -> None:
        """Raise PolicyError unless the caller may coordinate, or wait for the operator's word."""
        if not self.policy.asks(client):
            self._ask(lambda policy: policy.check_coordinator(client))

    def admit_data_owner(self, client: str) -> None:
        """Raise PolicyError unless the caller may put data."""
        self._ask(lambda policy: policy.check_data_owner(client))

    def require_readable(self, plan_digest: bytes, client: str) -> None:
        """Raise PolicyError unless a plan of that digest may be read: it is allowed, or may wait for a word."""
        if self.policy.asks(client):
            return

        def check(policy: Policy) -> None:
            policy.check_coordinator(client)
            policy.check_plan(plan_digest)

        self._ask(check, _PLANS)

    def require(self, plan: Plan, client: str) -> None:
        """Raise PolicyError unless the policy lets somebody run a plan."""

        keepers = {client} if plan.kept else set()

        def check(policy: Policy) -> None:
            policy.check_session(plan.digest, client, plan.owners, plan.recipients | keepers)
            for keeper in keepers:
                policy.check_data_owner(keeper)

        self._ask(check, _PLANS)

    def covers(self, plan: Plan, client: str) -> bool:
        """Does the policy let somebody run a plan?"""
        try:
            self.require(plan, client)
        except PolicyError:
            return False
        return True

    def require_security(self, plan: Plan) -> None:
        """Raise PolicyError unless sessions of the plan's security may run; no approval stands in for that."""
        self.policy.check_security(plan.security)

    def require_read(self, unchecked: bool) -> None:
        """Raise PolicyError if something unchecked is read, and the policy is of checked sessions alone."""
        self.policy.check_read(unchecked)

    def require_no_machines(self, plan: Plan, client: str) -> None:
        """Raise PolicyError if a process of the cluster is to have a part: no word of anybody's allows that."""
        self._ask(lambda policy: policy.refuse_machines({client, *plan.owners, *plan.recipients}))

    def _ask(self, check: Callable[[Policy], None], more: str = "") -> None:
        """Ask the policy; what this party allows is for its operator alone, and in its log."""
        try:
            check(self.policy)
        except PolicyError as refusal:
            remedy = f"ask the operator of {self._config.name}, its log has more{more}"
            raise PolicyError(refusal.what, remedy=remedy) from refusal


_PLANS = "; ranges and names are part of plans"


def _differ(old: dict[str, object], new: dict[str, object]) -> tuple[str, ...]:
    """List the keys whose values differ."""
    return tuple(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))
