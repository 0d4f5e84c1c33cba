"""Carry out a session: who takes part, what is entered, masked and unmasked, what is dealt ahead."""
