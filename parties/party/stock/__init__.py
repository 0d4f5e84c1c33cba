"""Correlations that were dealt ahead and lie on the party's disk."""
