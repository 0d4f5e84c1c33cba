"""From scikit-learn and back: train in the clear, convert with skl2onnx, predict on data that stays hidden.

Needs `pip install scikit-learn skl2onnx`.
"""

from __future__ import annotations

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from parties import Cluster


def main() -> None:
    x, y = load_wine(return_X_y=True)
    x = x.astype(np.float32)
    train, test, train_y, test_y = train_test_split(x, y, random_state=0)
    model = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=20, max_depth=3, random_state=0))
    model.fit(train, train_y)

    # Everybody may know how large each column can get; nobody learns a value.
    ranges = (np.floor(x.min(axis=0)), np.ceil(x.max(axis=0)))
    exported = to_onnx(model, train[:1], options={"zipmap": False})
    with Cluster.local(parties=2) as cluster, cluster.session(exported, ranges=ranges) as session:
        labels, probabilities = session.run(None, {"X": test})
        report = session.last_run

    print(f"{len(test)} wines in {report.rounds} rounds, {report.sent_bytes:,} bytes sent by each party")
    print(f"accuracy, private    {(labels == test_y).mean():.1%}")
    print(f"accuracy, plaintext  {(model.predict(test) == test_y).mean():.1%}")
    print(f"largest difference   {np.abs(probabilities - model.predict_proba(test)).max():.1e} of probabilities")


if __name__ == "__main__":
    main()
