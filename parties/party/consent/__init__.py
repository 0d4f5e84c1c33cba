"""Owners' consent at a party: who may ask what of their data, what was spent, and a chain of all that happened."""
