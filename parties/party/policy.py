"""A party's own policy: nothing runs that its operator did not allow by name.

An error names the refused thing and the config line that would allow it.  It is for the log
and the operator; what a peer sees is its code alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from mpc.errors import PolicyError
from parties.addresses import ANY
from parties.config.models import PolicyConfig

_PARTS = ("coordinators", "owners", "recipients", "data_owners", "askers")
_RELOAD = "reload it (mpc policy reload)"


@dataclass(frozen=True)
class Policy:
    """Asked once per session, before any share exists.

    Args:
        machines: names of the roster and the provider.  Their certificates are for what the cluster's processes say to
            each other: none of them coordinates, owns or receives anything, whatever the lists say.
    """

    config: PolicyConfig
    machines: frozenset[str] = frozenset()

    def check_session(
        self, plan_digest: bytes, coordinator: str, owners: Collection[str], recipients: Collection[str]
    ) -> None:
        """Raise PolicyError unless the plan, its coordinator, every owner and every recipient are allowed."""
        self._check("plans", "plan", {plan_digest.hex()})
        self._check("coordinators", "coordinator", {coordinator})
        self._check("owners", "input owner", owners)
        self._check("recipients", "output recipient", recipients)

    def asks(self, client: str) -> bool:
        """May what a client asks wait for the operator's word, where no rule covers it?"""
        return client not in self.machines and (self.config.askers == (ANY,) or client in self.config.askers)

    def check_coordinator(self, client: str) -> None:
        """Raise PolicyError unless the caller may coordinate sessions: asked before anything of it is read."""
        self._check("coordinators", "coordinator", {client})

    def check_plan(self, plan_digest: bytes) -> None:
        """Raise PolicyError unless the plan of that digest is allowed: asked before it is parsed."""
        self._check("plans", "plan", {plan_digest.hex()})

    def check_data_owner(self, client: str) -> None:
        """Raise PolicyError unless the caller may put data: asked before anything of it is read."""
        self._check("data_owners", "data owner", {client})

    def check_security(self, security: str) -> None:
        """Raise PolicyError unless sessions of this security may run; it says what is possible, to whoever asks."""
        if security not in self.config.security:
            allowed = " or ".join(self.config.security)
            raise PolicyError(
                f"this party's policy allows {allowed} security, and not {security}",
                cause="policy.security in this party's config; nothing runs with less, or otherwise, than it says",
                remedy=f"ask for --security {allowed}, in Python security={self.config.security[0]!r}; a refresh is as "
                "the cluster file says",
            )

    def check_read(self, unchecked: bool) -> None:
        """Raise PolicyError if something unchecked is read, and only checked sessions may run.

        Args:
            unchecked: was something that a session reads kept in one whose runs were not checked?
        """
        if unchecked and "passive" not in self.config.security:
            raise PolicyError(
                "this party's policy allows active security, and something that is read was kept in a session that was "
                "not checked",
                cause="policy.security in this party's config; nothing is computed from less than it says",
                remedy="keep it anew with --security active, or have its owner put it anew; mpc data show NAME says "
                "which it is",
            )

    def admit(self, client: str) -> None:
        """Raise PolicyError unless the caller can have any part at all: asked before anything of it is read."""
        self._refuse_machines("client", {client})
        lists = [getattr(self.config, key) for key in _PARTS]
        if not any(allowed == (ANY,) or client in allowed for allowed in lists):
            lines = [f"{key} = {_listed([*allowed, client])}" for key, allowed in zip(_PARTS, lists, strict=True)]
            raise PolicyError(
                f"this party's policy has no part for {client!r}",
                cause=f"none of policy.{', policy.'.join(_PARTS)} in this party's config lists it",
                remedy=f"if you agree, set what it may be under [policy] and {_RELOAD}: {' or '.join(lines)}",
            )

    def refuse_machines(self, clients: Collection[str]) -> None:
        """Raise PolicyError if one of them is a process of the cluster."""
        self._refuse_machines("client", clients)

    def _check(self, key: str, role: str, asked: Collection[str]) -> None:
        if key != "plans":
            self._refuse_machines(role, asked)
        allowed: tuple[str, ...] = getattr(self.config, key)
        refused = [] if allowed == (ANY,) else sorted(set(asked) - set(allowed))
        if refused:
            raise PolicyError(
                f"this party's policy does not allow the {role} {', '.join(map(repr, refused))}",
                cause=f"policy.{key} in this party's config does not list it",
                remedy=f"if you agree, set this under [policy] and {_RELOAD}: {key} = {_listed([*allowed, *refused])}",
            )

    def _refuse_machines(self, role: str, asked: Collection[str]) -> None:
        refused = sorted(self.machines.intersection(asked))
        if refused:
            raise PolicyError(
                f"{', '.join(map(repr, refused))} is a process of the cluster, and no {role} in its own certificate",
                cause="'any' stands for clients only, and config files may not list a process as one",
                remedy="give its operator a certificate of its own for that: mpc cert issue",
            )


def _listed(names: Collection[str]) -> str:
    """Write names as TOML has a list: as JSON has it, on one line."""
    return json.dumps([*names], ensure_ascii=False)
