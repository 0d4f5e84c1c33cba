"""The public API: whoever changes a name or an argument changes it here too, and says so in CHANGELOG.md."""

from __future__ import annotations

import inspect
from typing import Any

import mpc.errors
import parties

API: dict[str, Any] = {
    "Cluster": {
        "abandon": "",
        "client_file": "name",
        "collect": "name, size, low, high, terms",
        "collection": "name",
        "budget": "name, delta=",
        "close": "",
        "connect": "path, security=",
        "dataset": "name",
        "datasets": "property",
        "deal": "model, runs, batch=, sessions=, choices",
        "drop": "stock",
        "fit_private": "x, y, epsilon, delta=, steps=, rate=, margin=, center=, spread=, wait=, link=",
        "join": "ticket, plan=",
        "layout": "property",
        "model": "name",
        "models": "property",
        "local": "parties=, threads=, clients=, link=, say=, security=",
        "open": "compiled, batch=, calls=, bindings=, keeps=, wait=",
        "set_budget": "name, epsilon, delta=, group=",
        "session": "model, ranges=, owners=, recipients=, samples=, shapes=, batch=, weights=, data=, state=, keep=, "
        "wait=, epsilon=, mechanism=, delta=, security=, sample=, secret_weights=, link=",
        "stocks": "plan=",
        "trainer": "model, sample=, choices",
    },
    "ConfigError": "MpcError",
    "Dataset": {
        "code": "column, label",
        "columns": "property",
        "describe": "",
        "labels": "column",
        "name": "property",
        "owner": "property",
        "rows": "property",
        "sample": "rows=",
    },
    "DeadlineError": "PeerError",
    "EncodingError": "PeerError",
    "EntropyError": "MpcError",
    "Guest": {"get_inputs": "", "get_outputs": "", "receive": "run", "run": "feeds=", "submit": "run, feeds"},
    "HandshakeError": "PeerError",
    "InputError": "PlanError",
    "IntegrityError": "MpcError",
    "LocalProtocolError": "MpcError",
    "ReuseError": "LocalProtocolError",
    "WaitingError": "PolicyError",
    "Keeping": {"fields": "name, visible, expires"},
    "LinearRegression": {
        "close": "",
        "fit": "X, y",
        "get_params": "deep=",
        "predict": "X",
        "release": "",
        "score": "X, y",
        "set_params": "parameters",
    },
    "LogisticRegression": {
        "close": "",
        "decision_function": "X",
        "fit": "X, y",
        "get_params": "deep=",
        "predict": "X",
        "predict_proba": "X",
        "release": "",
        "score": "X, y",
        "set_params": "parameters",
    },
    "MLPClassifier": {
        "close": "",
        "decision_function": "X",
        "fit": "X, y",
        "get_params": "deep=",
        "predict": "X",
        "predict_proba": "X",
        "release": "",
        "score": "X, y",
        "set_params": "parameters",
    },
    "Model": {
        "ask": "roles",
        "describe": "",
        "get_inputs": "",
        "get_outputs": "",
        "name": "property",
        "owner": "property",
        "place": "owners=, recipients=, data=, security=",
        "version": "property",
    },
    "ModelError": "PlanError",
    "MpcError": "Exception",
    "MpcWarning": "UserWarning",
    "PeerError": "MpcError",
    "PlanError": "MpcError",
    "PolicyError": "MpcError",
    "Precision": {"fields": "activations, gradients, loss, weights, ceiling, logits"},
    "PrivateDataError": "PolicyError",
    "RunReport": {
        "fields": "batch, parties, rounds, sent_bytes, dealt_bytes, online_s, offline_s, provider_s, "
        "online_cpu_s, recipients, stocked"
    },
    "SGD": {
        "decay": "property",
        "fields": "lr, momentum, weight_decay",
        "halvings": "property",
        "kept": "property",
        "rate": "batch, most=",
    },
    "Session": {
        "abandon": "",
        "close": "",
        "get_inputs": "",
        "get_modelmeta": "",
        "get_outputs": "",
        "get_providers": "",
        "notes": "property",
        "on_progress": "report",
        "run": "output_names=, feeds=, batch=, input_feed=, run_options=",
        "stocked": "property",
        "ticket": "property",
    },
    "SessionError": "PeerError",
    "State": {"fields": "input, start, public"},
    "Stock": {"calls": "sizes", "fields": "terms, batches, size, made_at, missing"},
    "Trained": {
        "abandon": "",
        "close": "",
        "get_inputs": "",
        "get_outputs": "",
        "last_run": "property",
        "name": "property",
        "release": "",
        "run": "output_names=, feeds=",
    },
    "Trainer": {
        "cost": "rows, epochs=, checkpoint_every=, release=, check_every=, measure=",
        "expected_errors": "property",
        "fit": "x, y, epochs=, name=, seed=, progress=, checkpoint_every=, release=, check_every=, wait=",
        "listed": "x, y, epochs=, name=, seed=, checkpoint_every=, release=, check_every=",
        "notes": "property",
        "resume": "x, y, epochs=, name=, seed=, progress=, checkpoint_every=, release=, check_every=, wait=",
        "training_list": "x, y, epochs=, name=, seed=, checkpoint_every=, release=, check_every=",
    },
    "UsageError": "MpcError",
}


def arguments(function: Any) -> str:
    """Names of a function's arguments; `=` behind those that may be left out."""
    found = inspect.signature(getattr(function, "__func__", function)).parameters.values()
    return ", ".join(
        f"{each.name}{'' if each.default is each.empty else '='}" for each in found if each.name not in ("self", "cls")
    )


def shape(thing: type) -> Any:
    """What a user sees of a class: an error's base; else methods, properties, fields, inherited too."""
    if issubclass(thing, BaseException):
        return thing.__mro__[1].__name__
    public = {name: inspect.getattr_static(thing, name) for name in dir(thing) if not name.startswith("_")}
    found = {
        name: "property" if isinstance(value, property) else arguments(value)
        for name, value in public.items()
        if callable(value) or isinstance(value, classmethod | staticmethod | property)
    }
    if fields := getattr(thing, "__dataclass_fields__", None):
        found["fields"] = ", ".join(fields)
    return found


def test_the_public_api_is_this() -> None:
    assert parties.__all__ == sorted(parties.__all__)
    assert {name: shape(getattr(parties, name)) for name in parties.__all__} == API


def test_every_error_that_a_user_meets_is_imported_from_here() -> None:
    """Whoever catches an error of the SDK needs no module of `mpc`."""
    kinds = [
        kind for kind in vars(mpc.errors).values() if isinstance(kind, type) and issubclass(kind, mpc.errors.MpcError)
    ]
    assert len(kinds) >= 18
    assert {kind.__name__ for kind in kinds} <= {*parties.__all__}


def test_whatever_is_public_says_what_it_is() -> None:
    for name in parties.__all__:
        thing = getattr(parties, name)
        assert thing.__doc__, name
        if not issubclass(thing, BaseException):
            assert all(getattr(thing, method).__doc__ for method in API[name] if method != "fields"), name


def test_one_version() -> None:
    """It stands in `mpc/__init__.py` alone; the distribution is built with it."""
    from importlib.metadata import version

    assert version("mpc") == mpc.__version__
