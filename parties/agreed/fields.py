"""Fields that what is signed about data at rest has: names, digests, times and texts, each in its one form."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from mpc.errors import PlanError
from mpc.text import check_name, label_fault
from parties.addresses import ANY
from parties.addresses import check_name as check_process

OBJECT_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def as_text(value: str) -> str:
    """Return a line of text that can be read as what it is; `ValueError` if it is none."""
    try:
        check_name(value, "the text")
    except PlanError as error:
        raise ValueError(error.cause) from None
    return value


def as_prose(value: str) -> str:
    """Return lines of such text; `ValueError` if one is none."""
    for line in value.split("\n"):
        as_text(line)
    return value


def as_label(value: str) -> str:
    """Return a label that can be printed; `ValueError` if it cannot."""
    fault = label_fault(value)
    if fault is not None:
        raise ValueError(fault)
    return value


def check_readers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of clients, or the word for all of them; `ValueError` if one is none."""
    if names != (ANY,):
        for name in names:
            check_process(name)
    return names


def as_dataset(name: str) -> str:
    """Return a dataset's name, OWNER/NAME; `ValueError` if it is none."""
    owner, _, rest = name.partition("/")
    if not owner or not OBJECT_NAME.fullmatch(rest):
        raise ValueError("a dataset's name is OWNER/NAME")
    return name


Text = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(as_text)]
Prose = Annotated[str, Field(max_length=4096), AfterValidator(as_prose)]
Category = Annotated[str, Field(max_length=256), AfterValidator(as_label)]
Process = Annotated[str, AfterValidator(check_process)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Cluster = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Moment = Annotated[int, Field(ge=0, lt=1 << 40)]
"""Seconds since 1970."""
Size = Annotated[int, Field(ge=1, le=1 << 27)]
DatasetName = Annotated[str, Field(max_length=320), AfterValidator(as_dataset)]
