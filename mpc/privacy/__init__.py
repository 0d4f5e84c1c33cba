"""Proves from a plan's public bytes alone what it tells of people."""
