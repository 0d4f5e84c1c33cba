"""How each operator of the graph becomes gates."""
