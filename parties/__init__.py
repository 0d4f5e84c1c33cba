"""parties: everything that talks or remembers - daemons, wire, ledger, SDK, CLI.

Users import from here; what is not in `__all__` may change with any version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpc.errors import (
    ConfigError,
    DeadlineError,
    EncodingError,
    EntropyError,
    HandshakeError,
    InputError,
    IntegrityError,
    LocalProtocolError,
    ModelError,
    MpcError,
    MpcWarning,
    PeerError,
    PlanError,
    PolicyError,
    PrivateDataError,
    ReuseError,
    SessionError,
    UsageError,
    WaitingError,
)

if TYPE_CHECKING:
    from mpc.compiler.training.optimisers import SGD
    from mpc.compiler.training.precision import Precision
    from parties.client.at_rest.keeping import Keeping
    from parties.client.cluster import Cluster
    from parties.client.dataset import Dataset
    from parties.client.estimators.classes import MLPClassifier
    from parties.client.estimators.linear import LinearRegression, LogisticRegression
    from parties.client.guest import Guest
    from parties.client.model import Model
    from parties.client.running.coordinated import RunReport
    from parties.client.running.states import State
    from parties.client.running.stocks import Stock
    from parties.client.session import Session
    from parties.client.training.trained import Trained
    from parties.client.training.trainer import Trainer

__all__ = [
    "Cluster",
    "ConfigError",
    "Dataset",
    "DeadlineError",
    "EncodingError",
    "EntropyError",
    "Guest",
    "HandshakeError",
    "InputError",
    "IntegrityError",
    "Keeping",
    "LinearRegression",
    "LocalProtocolError",
    "LogisticRegression",
    "MLPClassifier",
    "Model",
    "ModelError",
    "MpcError",
    "MpcWarning",
    "PeerError",
    "PlanError",
    "PolicyError",
    "Precision",
    "PrivateDataError",
    "ReuseError",
    "RunReport",
    "SGD",
    "Session",
    "SessionError",
    "State",
    "Stock",
    "Trained",
    "Trainer",
    "UsageError",
    "WaitingError",
]
_LATE = {
    "Cluster": "parties.client.cluster",
    "Dataset": "parties.client.dataset",
    "Guest": "parties.client.guest",
    "Model": "parties.client.model",
    "Keeping": "parties.client.at_rest.keeping",
    "LinearRegression": "parties.client.estimators.linear",
    "LogisticRegression": "parties.client.estimators.linear",
    "MLPClassifier": "parties.client.estimators.classes",
    "Precision": "mpc.compiler.training.precision",
    "RunReport": "parties.client.running.coordinated",
    "SGD": "mpc.compiler.training.optimisers",
    "Session": "parties.client.session",
    "State": "parties.client.running.states",
    "Stock": "parties.client.running.stocks",
    "Trained": "parties.client.training.trained",
    "Trainer": "parties.client.training.trainer",
}


def __getattr__(name: str) -> Any:
    """Import the SDK when it is first used: `mpc ps` does not wait for it."""
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
