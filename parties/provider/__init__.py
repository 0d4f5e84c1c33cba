"""The crypto-provider's daemon: it deals correlated randomness."""
