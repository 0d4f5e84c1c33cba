"""Addresses and names: HOST:PORT, what a host name is, what a process may be called."""

from __future__ import annotations

import ipaddress
import re
from typing import Self

from pydantic_core import core_schema

from mpc.text import PROCESS_NAME

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")


class Endpoint(str):
    """`host:port` (IPv6 as `[::1]:port`), port 1 to 65535; a str, so gRPC takes it as it is."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
            raise ValueError("must be host:port with a port from 1 to 65535")
        if host.startswith("[") and host.endswith("]"):
            try:
                ipaddress.IPv6Address(host[1:-1])
            except ValueError:
                raise ValueError("the host in brackets must be an IPv6 address") from None
        elif not _HOST.fullmatch(host):
            raise ValueError("must be host:port; the host is a DNS name, an IPv4 address or [IPv6]")
        return super().__new__(cls, text)

    @property
    def host(self) -> str:
        """Without the brackets of IPv6."""
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def check_name(name: object) -> str:
    """A name that can be a certificate's CN and DNS name; ValueError if it is none, or no text."""
    if not isinstance(name, str) or not PROCESS_NAME.fullmatch(name):
        raise ValueError("must be 1 to 63 letters, digits, '.', '_' or '-', starting and ending with a letter or digit")
    if name.lower() == ANY:
        raise ValueError(f"{name!r} is reserved: it means everyone in a policy")
    return name


def is_host_name(text: str) -> bool:
    """Can this be the DNS name of one host?  A dot may end it; no wildcard, and nothing that no host is called."""
    return _HOST.fullmatch(text.removesuffix(".")) is not None


ANY = "any"
