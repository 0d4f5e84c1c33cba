"""The public program that all parties agree on: its form, its checks, its rounds and its cost."""
