"""Carry bytes: servers, channels, frames, and errors across a connection."""
