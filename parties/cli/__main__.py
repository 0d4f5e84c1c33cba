"""`python -m parties.cli`."""

from parties.cli import main

main()
