"""Compile models for their users, and find again what was compiled before."""
