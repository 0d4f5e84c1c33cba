"""Runs that are checked: keys, tags, the replay of gates on tags, and the check before anything is revealed."""
