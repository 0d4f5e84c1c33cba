"""Write files whole or not at all, and keep folders private."""

from __future__ import annotations

import os
from pathlib import Path

from mpc.errors import ConfigError

DEFAULT_FOLDER = Path(".mpc")
"""Where a local cluster lives unless its user says otherwise."""


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` durably: after a crash there is the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # the umask may have taken bits away
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut too
    finally:
        os.close(folder)


def private_folder(folder: Path) -> None:
    """Make `folder` (and its parents) if it is not there; only its owner may enter it."""
    what, remedy = "made", "choose a folder you may write to"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        what, remedy = "changed", "let its disk be written to and the folder be your own, or choose another one"
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"folder {folder} cannot be {what}", cause=error.strerror, remedy=remedy, local=True
        ) from None
