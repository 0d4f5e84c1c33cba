"""Clusters on one machine: their folder, their processes, their links."""
