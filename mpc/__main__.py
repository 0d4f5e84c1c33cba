"""`python -m mpc` is the `mpc` command, which the other package has."""

from __future__ import annotations

from importlib import import_module

if __name__ == "__main__":
    import_module("parties.__main__").main()
