"""The `mpc` command, and `python -m parties`.

Until the command is loaded an interrupt ends the process at once and without a word; then the command says so itself.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line with the process's own arguments."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from parties import cli

    cli.main()


if __name__ == "__main__":
    main()
