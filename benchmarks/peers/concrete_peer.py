"""Concrete ML: one server that knows the model, input under FHE; network L only, its sigmoid at the client."""

from typing import Any

import numpy as np
from concrete.ml.sklearn import LogisticRegression
from serving import answer, network, random_input, requests, summary, timed
from sklearn.linear_model import LogisticRegression as Plain

_BITS = 12
_CALIBRATION = 500


def build(name: str) -> Any:
    """The network, compiled for inputs like those that everybody gets."""
    found, _, weights = network(name)
    rows = random_input(found, _CALIBRATION)
    plain = Plain().fit(rows, np.arange(_CALIBRATION) % 2)
    plain.coef_, plain.intercept_ = weights["fc1.weight"].astype(float), weights["fc1.bias"].astype(float)
    model = LogisticRegression.from_sklearn_model(plain, rows, n_bits=_BITS)
    model.compile(rows)
    return model


def serve(request: dict) -> dict:
    if request["network"] != "L":
        return {"failed": "L only"}
    x, model = random_input(network("L")[0], request["batch"]), build("L")
    times, result = timed(lambda: model.predict_proba(x, fhe="execute")[:, 1], request["repeat"])
    return summary("L", request["batch"], times, result)


def main() -> None:
    for request in requests():
        answer(serve(request))


if __name__ == "__main__":
    main()
