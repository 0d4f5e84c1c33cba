"""The compiler's own graph of real numbers, and the passes over it."""
