"""Words of owners and operators: what is granted, what waits, what is left, and the chain that says all of it."""
