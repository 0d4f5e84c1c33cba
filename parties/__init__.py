"""parties: everything that talks or remembers - daemons, transport, ledger, SDK, CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpc.errors import MpcWarning

if TYPE_CHECKING:
    from parties.client.cluster import Cluster, Guest
    from parties.client.session import Session

__all__ = ["Cluster", "Guest", "MpcWarning", "Session"]


def __getattr__(name: str) -> Any:
    """The SDK is imported when it is first used: `mpc ps` does not wait for compiled kernels."""
    if name in __all__:
        from parties.client import cluster as client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
