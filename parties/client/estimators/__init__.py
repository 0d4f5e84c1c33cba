"""Estimators in scikit-learn's shape, trained without anybody seeing rows or weights: `base` says what they share."""
