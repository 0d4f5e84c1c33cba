"""Turn each operator of the graph into gates."""
