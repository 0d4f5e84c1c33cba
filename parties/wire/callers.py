"""Decide who may call a server at all: every call's certificate is looked at before its handler is.

TLS has verified that the certificate leads to our CA and is valid.  What TLS does not ask is asked here, on each
call: does the CN stand among the DNS names, is it no other process's name, has it expired meanwhile, was it revoked, or
one of the intermediates that lead to it.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from mpc.errors import ConfigError
from parties.trust import pem
from parties.trust.chains import Clock, Trust, common_name
from parties.wire.transport import shown_by

_REMEMBERED = 1024
_KINDS: dict[tuple[bool, bool], tuple[Callable[[Any], Any], Callable[..., Any]]] = {
    (False, False): (lambda handler: handler.unary_unary, grpc.unary_unary_rpc_method_handler),
    (False, True): (lambda handler: handler.unary_stream, grpc.unary_stream_rpc_method_handler),
    (True, False): (lambda handler: handler.stream_unary, grpc.stream_unary_rpc_method_handler),
    (True, True): (lambda handler: handler.stream_stream, grpc.stream_stream_rpc_method_handler),
}
"""(do requests come as a stream, do replies): (a handler's behaviour, a maker of such a handler)."""


class Callers(grpc.ServerInterceptor):
    """A thread-safe interceptor that refuses callers whose certificate `trust` does not accept.

    Args:
        refuse: ends the call, by raising; it is given the call's context, the caller's name and what is wrong.
        lasting: methods whose calls stand for several: the certificate is looked at again behind each message.
    """

    def __init__(
        self,
        trust: Trust,
        refuse: Callable[[grpc.ServicerContext, str, str], None],
        clock: Clock = time.time,
        lasting: Collection[str] = (),
    ) -> None:
        self._trust, self._refuse, self._clock, self._lasting = trust, refuse, clock, lasting
        self._known: OrderedDict[tuple[bytes, bytes, int], tuple[str, str | None, datetime]] = OrderedDict()
        self._lock = threading.Lock()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Put the check before the call's handler."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        behaviour_of, make = _KINDS[handler.request_streaming, handler.response_streaming]
        behaviour = behaviour_of(handler)
        lasts = handler_call_details.method in self._lasting

        @functools.wraps(behaviour)
        def guarded(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            self.check(context)
            return behaviour(self._checked(request, context) if lasts else request, context, *more)

        guarding: grpc.RpcMethodHandler[Any, Any] = make(
            guarded, handler.request_deserializer, handler.response_serializer
        )
        return guarding

    def _checked(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Pass on a caller's messages as long as its certificate is accepted."""
        for request in requests:
            self.check(context)
            yield request

    def check(self, context: grpc.ServicerContext) -> None:
        """Refuse the call if its certificate is not accepted."""
        shown = shown_by(context, "x509_pem_cert")
        if len(shown) != 1:
            self._refuse(context, "", "is not here: there is no single one")
            return
        name, fault, end = self._judge(shown[0], b"".join(shown_by(context, "x509_pem_cert_chain")))
        if fault is None and datetime.fromtimestamp(self._clock(), UTC) > end:
            fault = f"expired on {end:%Y-%m-%d}"
        if fault is not None:
            self._refuse(context, name, fault)

    def _judge(self, own: bytes, between: bytes) -> tuple[str, str | None, datetime]:
        """Return the CN, what is wrong if anything is, and the end of its validity; remember them until revocation
        lists change.

        Args:
            own, between: the caller's certificate, and those that it showed behind it (PEM).
        """
        if self._trust.revoked is None:
            between = b""
        key = (own, hashlib.sha256(between).digest(), self._trust.lists)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        leaf = x509.load_pem_x509_certificate(own)
        now = datetime.fromtimestamp(self._clock(), UTC)
        fault = self._trust.fault_in_use([leaf, *_readable(between)], None, now)
        found = (common_name(leaf), fault, leaf.not_valid_after_utc)
        with self._lock:
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found


def _readable(certificates: bytes) -> list[x509.Certificate]:
    """Return the intermediates that a caller showed; none if they cannot be read, and then they lead nowhere."""
    try:
        return pem.certificates(certificates, Path("chain")) if certificates else []
    except ConfigError:
        return []
