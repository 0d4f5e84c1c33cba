"""A daemon, or a client, that kills itself with SIGKILL at a moment that a test has armed; it runs as a script.

    python failpoints.py party serve --config FILE

It is the real process, with the real signal: what is patched in does nothing but look at a file, and count.  An armed
file says "MOMENT COUNT": the process is gone when it comes to that moment for the COUNT-th time since it was armed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "DYING_IN"
"""Names the variable with the folder where a process looks for what is armed; and it writes there what it opened."""
OPENED, PASSED = "opened.bin", "passed"
_counting = threading.Lock()
_seen: dict[str, int] = {}


def arm(folder: Path, moment: str, count: int = 1) -> None:
    """Have the process that looks into this folder die there."""
    (folder / PASSED).unlink(missing_ok=True)
    _write(folder / "armed", f"{moment} {count} {os.urandom(8).hex()}")


def disarm(folder: Path) -> None:
    """Have it live."""
    (folder / "armed").unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def moment(name: str) -> None:
    """Come to a moment: die, if it is armed and is the one."""
    folder = Path(os.environ[FOLDER])
    try:
        wanted, count, token = (folder / "armed").read_text().split()
    except (OSError, ValueError):
        return
    if wanted != name:
        return
    with _counting:
        _seen[token] = _seen.get(token, 0) + 1
        if _seen[token] == int(count):
            (folder / PASSED).write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, method: str, name: str | Callable[..., str]) -> None:
    """Come to `NAME` before a method, and to `NAME-done` behind it."""
    plain = getattr(owner, method)

    @functools.wraps(plain)
    def watched(*args: Any, **kwargs: Any) -> Any:
        said = name if isinstance(name, str) else name(*args, **kwargs)
        moment(said)
        found = plain(*args, **kwargs)
        moment(f"{said}-done")
        return found

    setattr(owner, method, watched)


def _parts(payload: bytes) -> list[bytes]:
    """Cut what is opened into parts of eight words: of uniform words none comes twice."""
    return [payload[at : at + 64] for at in range(0, len(payload) - 63, 64)]


def of_a_party() -> None:
    """Watch what a party writes, sends and is dealt."""
    from mpc.interpret.party import PartyRun
    from parties.party import kept_run, online
    from parties.party.kept_run import KeptRun
    from parties.party.ledger.sessions import Ledger
    from parties.party.supply import LiveSupply
    from parties.party.vault.keeps import Making

    around(Ledger, "open_session", "session")
    around(Ledger, "close_session", "closing")
    around(Ledger, "advance", lambda ledger, session, run, state, *also, **more: str(state))
    around(PartyRun, "prepare", "preparing")
    around(LiveSupply, "fetch", "dealing")
    around(Making, "write", "writing")
    around(Making, "complete", "existing")
    around(kept_run, "tell", "telling")
    around(KeptRun, "settle", "settling")
    exchange = online.exchange

    def sent(links: Any, run: int, step: int, payload: Any, seconds: float) -> Any:
        moment("opening")
        with (Path(os.environ[FOLDER]) / OPENED).open("ab") as file:
            file.write(b"".join(hashlib.sha256(part).digest() for part in _parts(bytes(payload))))
        found = exchange(links, run, step, payload, seconds)
        moment("opening-done")
        return found

    online.exchange = sent


def of_a_provider() -> None:
    """Watch what a provider deals."""
    from parties.provider import dealing
    from parties.provider.bundles import DealtBundle
    from parties.provider.dealing import Dealing

    around(Dealing, "fetch", "asked")
    around(Dealing, "_deal_parts", "dealt")
    around(DealtBundle, "add", "part")
    around(dealing.manifest, "sign", "signing")


def of_a_client() -> None:
    """Watch what a client asks for."""
    from parties.client.at_rest import catalogue
    from parties.client.running.coordinated import CoordinatedSession
    from parties.client.running.participant import Participant
    from parties.client.running.pipeline import Pipeline

    around(CoordinatedSession, "_open", "opening")
    around(CoordinatedSession, "close", "closing")
    around(Pipeline, "next", "next")
    around(Pipeline, "entered", "ahead")
    around(Participant, "enter", "entering")
    around(Participant, "receive", "receiving")
    around(catalogue, "describe", "describing")


def main(words: list[str]) -> None:
    """Run a daemon, or a client that trains, and watch it."""
    {"party": of_a_party, "provider": of_a_provider, "client": of_a_client}[words[0]]()
    if words[0] == "client":
        from tests.support.killing import train_alone

        train_alone(*words[1:])
        return
    from parties.cli import main as run

    run(words)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(sys.argv[1:])
