"""The command line, `mpc`."""
import sys
from pathlib import Path
def main():
    role, _, _, cfg = sys.argv[1:5]
    from parties import daemon
    from parties.config import load, PartyConfig, ProviderConfig
    if role=='party': daemon.run_party(load(PartyConfig, Path(cfg)))
    else: daemon.run_provider(load(ProviderConfig, Path(cfg)))
