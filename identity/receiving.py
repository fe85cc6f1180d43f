"""The door: takes a call's one message whole and in time, or refuses it before anybody waits.

gRPC hands a call to a thread as soon as its headers are there, and for a unary method that thread
then waits for the message, for ever if the caller gave no deadline: some callers who send headers
and nothing else would hold every thread. So here unary methods are received as streams of one
message. On the wire the two are the same; but the handler runs at once, and a watchman ends calls
whose message does not come. It also means that size and form are judged here, with a reason for the
caller, before a slot is taken: gRPC's own limit (COARSE_LIMIT times as high) cuts without one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from identity.admission import Gate
from identity.errors import InvalidRequestError
from identity.rpc_status import CONTRACT

COARSE_LIMIT = 4
TICK_S = 0.5


class ReceivingInterceptor(grpc.ServerInterceptor):
    """Inside the status interceptor, outside the one that authenticates.

    Args:
        gate: shut while the server drains.
        max_message_bytes: of a message, before it is parsed.
        watchman: ends calls whose message does not come.
    """

    def __init__(self, gate: Gate, max_message_bytes: int, watchman: Watchman) -> None:
        self._gate = gate
        self._max_message_bytes = max_message_bytes
        self._watchman = watchman

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(CONTRACT):
            return handler
        if handler.stream_unary is not None:
            streamed = handler.stream_unary

            def stream(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
                with self._gate.entered():
                    return streamed(messages, context)

            return grpc.stream_unary_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )
        inner, parse = handler.unary_unary, handler.request_deserializer
        if inner is None or parse is None:
            return handler
        answer, parsed = inner, parse

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with self._gate.entered():
                return answer(self._message(messages, context, parsed), context)

        return grpc.stream_unary_rpc_method_handler(call, None, handler.response_serializer)

    def _message(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        parse: Callable[[bytes], Any],
    ) -> Any:
        try:
            with self._watchman.waiting_for(context):
                data = next(messages)
        except (StopIteration, grpc.RpcError) as error:
            # The watchman, gRPC's own limit, or the caller ended it.
            raise InvalidRequestError(
                "MESSAGE_UNFINISHED", "the call ended before its message was whole"
            ) from error
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


class Watchman:
    """Cancels calls whose message has not come within ``patience_s`` seconds. Thread-safe.

    One thread for all of them; a call is ended up to half a second late.
    """

    def __init__(self, patience_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._waiting: dict[int, tuple[float, grpc.ServicerContext]] = {}
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
    def waiting_for(self, context: grpc.ServicerContext) -> Iterator[None]:
        """For the time that a call's message is waited for."""
        with self._lock:
            self._waiting[id(context)] = (self._monotonic() + self._patience_s, context)
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[id(context)]

    def look(self) -> None:
        """End the calls that have been waited for too long."""
        now = self._monotonic()
        with self._lock:
            late = [context for end, context in self._waiting.values() if end <= now]
        for context in late:
            context.cancel()

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S):
            self.look()
