"""Collections at one party: rows of many clients, of which one noised sum is told."""
