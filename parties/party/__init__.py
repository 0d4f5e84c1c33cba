"""The party's daemon: what a party remembers and does."""
