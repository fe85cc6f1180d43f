"""The door: takes a call's one message whole and in time, or refuses it before anybody waits.

gRPC hands a call to a thread as soon as its headers are there, and for a unary method that thread
then waits for the message, for ever if the caller gave no deadline: some callers who send headers
and nothing else would hold every thread. So here unary methods are received as streams of one
message. On the wire the two are the same; but the handler runs at once, and a watchman ends calls
whose message does not come. It also means that size and form are judged here, with a reason for the
caller, before a slot is taken: gRPC's own limit (COARSE_LIMIT times as high) cuts without one.

A message that does not come holds a thread until the watchman ends its call, and an upload one for
as long as it lasts. So each caller has a share of both: with all of it taken, others are served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from devices.errors import CertificateInvalidError
from devices.types import Principal
from devices.wire import peer_address
from identity.admission import Gate, Shares
from identity.contract import CONTRACT, certified, method_name
from identity.denials import DenialLog
from identity.errors import InvalidRequestError

COARSE_LIMIT = 4
MESSAGES_EACH = 32
TICK_S = 0.5


class ReceivingInterceptor(grpc.ServerInterceptor):
    """Inside the status interceptor, outside the one that authenticates.

    Args:
        gate: shut while the server drains.
        max_message_bytes: of a message, before it is parsed.
        watchman: ends calls whose message does not come.
        denials: told of messages that are not as a terminal makes them.
        streams_each: uploads of one caller at a time.
    """

    def __init__(
        self,
        gate: Gate,
        max_message_bytes: int,
        watchman: Watchman,
        denials: DenialLog | None = None,
        streams_each: int = 1,
    ) -> None:
        self._gate = gate
        self._max_message_bytes = max_message_bytes
        self._watchman = watchman
        self._denials = denials
        self._messages, self._streams = Shares(MESSAGES_EACH), Shares(streams_each)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(CONTRACT):
            return handler
        streaming, parse = handler.request_streaming, handler.request_deserializer
        inner: Any = handler.stream_unary if streaming else handler.unary_unary
        if inner is None or parse is None:
            return handler
        parsed = parse
        method = method_name(handler_call_details.method)

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            caller = _certified_or_none(context)
            who = peer_address(context.peer()) if caller is None else caller.who
            with self._gate.entered():
                if streaming:
                    with self._streams.held(who):
                        return inner((self._parsed(one, parsed) for one in messages), context)
                try:
                    with self._messages.held(who):
                        data = self._message(messages, context)
                    message = self._parsed(data, parsed)
                except InvalidRequestError as error:
                    if self._denials is not None:
                        self._denials.note(caller, method, error)
                    raise
                return inner(message, context)

        return grpc.stream_unary_rpc_method_handler(call, None, handler.response_serializer)

    def _message(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with self._watchman.waiting_for(context) as waited:
            try:
                return next(messages)
            except (StopIteration, grpc.RpcError) as error:
                if waited.ended:
                    raise InvalidRequestError(
                        "MESSAGE_LATE", "the call's message did not come in time"
                    ) from error
                # gRPC's own limit, or the caller ended it.
                raise InvalidRequestError(
                    "MESSAGE_UNFINISHED", "the call ended before its message was whole"
                ) from error

    def _parsed(self, data: bytes, parse: Callable[[bytes], Any]) -> Any:
        if len(data) > self._max_message_bytes:
            raise InvalidRequestError(
                "MESSAGE_TOO_LARGE",
                f"the message has {len(data)} bytes; at most {self._max_message_bytes} are taken",
            )
        try:
            return parse(data)
        except DecodeError as error:
            raise InvalidRequestError(
                "MESSAGE_MALFORMED", "the bytes are no message of this method"
            ) from error


def _certified_or_none(context: grpc.ServicerContext) -> Principal | None:
    try:
        return certified(context)
    except CertificateInvalidError:
        return None


@dataclass
class Waited:
    """A call whose message is waited for.

    Attributes:
        until: on the monotonic clock.
        ended: by the watchman.
    """

    until: float
    context: grpc.ServicerContext
    ended: bool = False


class Watchman:
    """Cancels calls whose message has not come within ``patience_s`` seconds. Thread-safe.

    One thread for all of them; a call is ended up to half a second late.
    """

    def __init__(self, patience_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._waiting: dict[int, Waited] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchman", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def waiting_for(self, context: grpc.ServicerContext) -> Iterator[Waited]:
        """For the time that a call's message is waited for."""
        waited = Waited(self._monotonic() + self._patience_s, context)
        with self._lock:
            self._waiting[id(context)] = waited
        try:
            yield waited
        finally:
            with self._lock:
                del self._waiting[id(context)]

    def look(self) -> None:
        """End the calls that have been waited for too long."""
        now = self._monotonic()
        with self._lock:
            late = [one for one in self._waiting.values() if one.until <= now]
            for one in late:
                one.ended = True
        for one in late:
            one.context.cancel()

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S):
            self.look()
