"""Names that people read: which characters they may have, and how anything else is shown.

A name is what a plan, a ticket or a model calls something.  Whoever writes it may want a reader, or a terminal, to
see something else: a line less, another direction, an invisible difference between two names.  So names have letters,
marks, digits, punctuation and symbols of Unicode and ASCII's space, composed (NFC); nothing that controls, reverses or
cannot be seen.  Names of processes are ASCII altogether.

The labels of classes are what a model answers with, so they have whatever can be printed, in any form and with any
spaces: only what controls, formats, reverses or is no character is refused, since programs print them as they are.
"""

from __future__ import annotations

import re
import unicodedata

from mpc.errors import PlanError

PROCESS_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""A certificate's CN: who owns, receives, coordinates or computes."""
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and symbols that show as nothing."""
_REFUSED = ("C", "Zl", "Zp")  # control, format, surrogate, private, unassigned; line and paragraph separators
_REFUSED_IN_LABELS = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def is_plain(character: str) -> bool:
    """May a name have this character, and may a terminal be sent it?"""
    if " " <= character <= "~":
        return True
    kind = unicodedata.category(character)
    spaces = kind == "Zs" or character in _UNSEEN or "\ufe00" <= character <= "\ufe0f" or character >= "\U000e0000"
    return not (kind.startswith(_REFUSED) or spaces)


def check_name(name: str, what: str) -> None:
    """Raise PlanError unless `name` reads as what it is.

    what: what it is the name of, for the error.
    """
    if name.isascii() and name.isprintable():
        return
    unusual = next((c for c in name if not is_plain(c)), None)
    if unusual is not None:
        raise _refused(what, name, f"it has the character U+{ord(unusual):04X}, which cannot be seen as what it is")
    if unicodedata.category(name[:1] or "x").startswith("M"):
        raise _refused(what, name, "it begins with a mark that belongs to a letter before it")
    if not unicodedata.is_normalized("NFC", name):
        raise _refused(what, name, "it is not in Unicode's composed form: another name can look the same")


def check_distinct(names: list[str], what: str) -> None:
    """Raise PlanError if two names differ only in spaces or in compatibility forms, as a full-width letter from a
    usual one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(" ".join(unicodedata.normalize("NFKC", name).split()), name)
        if other != name:
            raise _refused(what, name, f"it looks like {shown(other)!r}")


def label_fault(label: str) -> str | None:
    """Say what is wrong with a class label, as a sentence's end; None if it can be printed as it is."""
    if label.isascii() and label.isprintable():
        return None
    wrong = next((c for c in label if unicodedata.category(c) in _REFUSED_IN_LABELS), None)
    return None if wrong is None else f"it has the character U+{ord(wrong):04X}, which steers what is printed"


def check_process(name: str) -> None:
    """Raise PlanError unless this can be a certificate's name."""
    if not PROCESS_NAME.fullmatch(name):
        raise PlanError(
            f"the plan names {shown(name)!r}, which cannot be anybody's certificate",
            cause="such names have 1 to 63 of ASCII's letters, digits, '.', '_' and '-'",
            remedy="compile with the names of certificates: mpc compile --client NAME --owner INPUT=NAME",
        )


def shown(text: str, keep: str = "") -> str:
    r"""Return `text` with each character that is not plain as an escape (`\x1b`, `\u202e`), but for those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or is_plain(c) else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _refused(what: str, name: str, why: str) -> PlanError:
    return PlanError(f"{what} {shown(name[:80])!r} is refused", cause=why, remedy="rename it in the model")
