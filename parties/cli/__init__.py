"""Command line, `mpc`: results to stdout, everything else to stderr, errors by exit code.

Sub-commands are imported when they are called, so that `mpc ps` does not wait for numba.
"""

from __future__ import annotations

import difflib
import importlib
import io
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import click

import mpc
from mpc.errors import MpcError, MpcWarning, UsageError
from mpc.text import shown
from parties.cli.display import Display, silence
from parties.process.heap import loading
from parties.process.private_memory import keep_private

COMMANDS = {
    "up": ("parties.cli.local", "up", "Start a local cluster: a provider and N parties, real processes."),
    "ps": ("parties.cli.local", "ps", "What runs."),
    "logs": ("parties.cli.local", "logs", "What the processes say."),
    "down": ("parties.cli.local", "down", "Stop the local cluster."),
    "compile": ("parties.cli.model", "compile_", "Compile an ONNX model to a plan."),
    "inspect": (
        "parties.cli.model",
        "inspect",
        "What a plan or model costs and who learns what, before anything runs.",
    ),
    "deal": ("parties.cli.deal", "deal", "Have correlations dealt ahead, so that runs start at once."),
    "run": ("parties.cli.run", "run", "Private inference of a model on your data."),
    "train": ("parties.cli.train", "train", "Train a model on rows at the parties, or on your own; nobody sees it."),
    "bench": ("parties.cli.bench", "bench", "What private inference costs, beside the same model in the clear."),
    "join": ("parties.cli.join", "join", "Take part in a run that somebody else coordinates."),
    "data": ("parties.cli.data", "data", "Tables at the parties: put yours, find, describe and sample others."),
    "model": ("parties.cli.models", "model", "Models at the parties: put yours, say who may use it, find others."),
    "collect": ("parties.cli.collect", "collect", "One noised sum of rows that many clients enter, one each."),
    "grant": ("parties.cli.consent", "grant", "What you allow others to compute from your data."),
    "budget": ("parties.cli.budgets", "budget", "What noised answers about a dataset may still tell."),
    "requests": ("parties.cli.requests", "requests", "What waits for somebody's word, an operator's or an owner's."),
    "approve": ("parties.cli.requests", "approve", "Allow one request at your party, as its operator."),
    "deny": ("parties.cli.requests", "deny", "Refuse one request at your party, as its operator."),
    "audit": ("parties.cli.audit", "audit", "What the parties say they have done; shows a ledger put back."),
    "sessions": ("parties.cli.sessions", "sessions", "Which sessions are open; end one with --abort."),
    "doctor": (
        "parties.cli.doctor",
        "doctor",
        "Check certificates, clocks, versions, links, ledgers; each with its fix.",
    ),
    "cert": ("parties.cli.cert", "cert", "A CA of one's own, and certificates for different machines."),
    "policy": ("parties.cli.policy", "policy", "The policy that is in force at your party; read it again."),
    "clock": ("parties.cli.clock", "clock", "Your party's clock beside the latest time that it has shown."),
    "party": ("parties.cli.serve", "party", "The party daemon."),
    "provider": ("parties.cli.serve", "provider", "The crypto-provider daemon."),
}
_AGAIN = 0.05
"""Seconds after which a lost interrupt comes again."""


class _Lazy(click.Group):
    alone = False
    """One command is all that this process runs."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, 1, 0.6)
            meant = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command {name!r}; {meant}", context)
        module, attribute, _ = COMMANDS[name]
        with loading() if self.alone else nullcontext():
            command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(mpc.__version__, prog_name="mpc")
@click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Show a traceback for an internal error.")
@click.pass_context
def cli(context: click.Context, quiet: bool, verbose: bool) -> None:
    """Compute answers from data that nobody may see: secure multi-party computation for machine learning."""
    context.obj = context.obj or Display()
    context.obj.quiet, context.obj.verbose = quiet, verbose


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _again(lost: sys.UnraisableHookArgs) -> None:
    """Send an interrupt again that Python could not raise: it came within a destructor or a library's callback."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        main_thread = threading.main_thread().ident or 0
        timer = threading.Timer(_AGAIN, signal.pthread_kill, (main_thread, signal.SIGINT))
        timer.daemon = True
        timer.start()
        return
    sys.__unraisablehook__(lost)


def _run(words: list[str], display: Display) -> object:
    """Run a command, with that voice.

    Raises:
        BrokenPipeError: nobody reads its output any more, for which click would end with status 1.
    """
    try:
        return cli.main(words, standalone_mode=False, obj=display)
    except SystemExit:
        if type(sys.stdout).__module__.partition(".")[0] == "click":  # what it puts there in that case
            raise BrokenPipeError from None
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status (see mpc/errors.py for the codes).

    arguments: None takes the process's own, and makes the process private: it may hold data, a model, a key.
    """
    if arguments is None:
        cli.alone = True
        keep_private()
    words = list(sys.argv[1:] if arguments is None else arguments)
    display = Display(as_json="--json" in words, verbose="-v" in words or "--verbose" in words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path or a name that this locale cannot write is shown escaped
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    warnings.simplefilter("ignore", MpcWarning)  # commands say what they warn of
    try:
        if arguments is None:
            sys.unraisablehook = _again
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _run(words, display)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except MpcError as error:
        display.error(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        display.say("interrupted")
        sys.exit(130)
    except click.ClickException as error:
        if display.as_json:
            display.json_error(UsageError(error.format_message(), remedy="see --help"))
        click.UsageError(shown(error.format_message(), keep="\n"), getattr(error, "ctx", None)).show()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read it has enough: mpc logs | head
        silence()
        sys.exit(0)
    except Exception as error:
        if display.verbose:
            raise
        display.error(MpcError(f"an internal error ({type(error).__name__})", remedy="run it again with mpc -v"))
        sys.exit(1)
    finally:
        if arguments is None:  # nothing is left to put in order: a second ctrl-C need not wait for Python to end
            signal.signal(signal.SIGINT, signal.SIG_DFL)
