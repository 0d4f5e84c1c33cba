"""Train a model that stays shared: on which rows, in which stretches, at what price, and what is told on the way."""
