"""Rows that many clients enter, of which one noised sum is told."""
