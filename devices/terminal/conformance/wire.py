"""The calls a check makes. None of them enrols anybody or changes what the register knows.

What is uploaded is announced under a digest that its bytes do not have, so the register forgets all
of it at the end; should the check die before, within a day. That refusal (DIGEST_MISMATCH) is the
one trace of a check in the audit log, beside the terminal's last contact.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import grpc
from cryptography import x509
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc, terminals_pb2, terminals_pb2_grpc
from devices import credentials
from devices.errors import RemoteError
from devices.terminal.retry import ONE_ATTEMPT
from devices.terminal.wire import Connection, connect_pinned

SERVING = 1  # of grpc.health.v1.HealthCheckResponse.ServingStatus
CHUNK = 65_536
PIECES = 3
SETTLE_S = 5.0


@dataclass(frozen=True)
class Answer:
    """How a call ended: ``OK`` without a reason, or a status and anju's own reason, if any."""

    status: str
    reason: str
    message: str
    took_s: float

    @property
    def fine(self) -> bool:
        return self.status == "OK" and not self.reason

    def __str__(self) -> str:
        token = f"{self.status}/{self.reason}" if self.reason else self.status
        return f"{token} ({self.message})" if self.message else token


class Line:
    """Single attempts over one connection. Close it, or use it in ``with``."""

    def __init__(self, connection: Connection, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._stub = enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)

    def close(self) -> None:
        self._connection.close()

    def health(self) -> Answer:
        """``OK`` without a reason if the server says it serves."""
        method: grpc.UnaryUnaryMultiCallable[bytes, Int64Value]
        method = self._connection.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=None,
            # Field 1 a varint, as in HealthCheckResponse, whose package a terminal need not have.
            response_deserializer=Int64Value.FromString,
        )
        begun = time.monotonic()
        try:
            said = self._connection.call(method, b"", self._deadline_s).value
        except RemoteError as error:
            return _answer(error, begun)
        serving = said == SERVING
        return Answer(
            "OK",
            "" if serving else "NOT_SERVING",
            "" if serving else "the server says that it is not serving",
            time.monotonic() - begun,
        )

    def register_time(self) -> datetime:
        """The register's clock.

        Raises:
            RemoteError: refused, or not answered.
        """
        stub = terminals_pb2_grpc.TerminalServiceStub(self._connection.channel)
        answer = self._connection.call(
            stub.Heartbeat, terminals_pb2.HeartbeatRequest(), self._deadline_s
        )
        return answer.server_time.ToDatetime(tzinfo=UTC)

    def unknown_application(self) -> Answer:
        request = enrolment_pb2.GetApplicationRequest(application_id="A-conformance-check")
        return self._ask(self._stub.GetApplication, request)

    def message_of(self, size: int) -> Answer:
        """A message of so many bytes, asking for an application that there is not."""
        framing = enrolment_pb2.GetApplicationRequest(application_id="A" * size).ByteSize() - size
        request = enrolment_pb2.GetApplicationRequest(application_id="A" * (size - framing))
        return self._ask(self._stub.GetApplication, request)

    def _ask(self, method: grpc.UnaryUnaryMultiCallable[Any, Any], request: Message) -> Answer:
        begun = time.monotonic()
        try:
            self._connection.call(method, request, self._deadline_s)
        except RemoteError as error:
            return _answer(error, begun)
        return Answer("OK", "", "", time.monotonic() - begun)

    def upload(self) -> Upload:
        return Upload(self._connection, self._deadline_s)

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The states that the connection has left READY for, as they come."""
        left: list[str] = []
        ready = threading.Event()

        def changed(state: grpc.ChannelConnectivity) -> None:
            if state is grpc.ChannelConnectivity.READY:
                ready.set()
            elif ready.is_set():
                left.append(state.name)

        self._connection.channel.subscribe(changed, try_to_connect=True)
        try:
            if not ready.wait(self._deadline_s):
                left.append("NEVER_READY")
            yield left
        finally:
            self._connection.channel.unsubscribe(changed)


class Upload:
    """An upload in pieces that can never become complete."""

    def __init__(self, connection: Connection, deadline_s: float) -> None:
        self._connection = connection
        self._stub = enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)
        self._deadline_s = deadline_s
        self._sha256 = secrets.token_bytes(32)

    def send(self, first: int, last: int, hold_s: float = 0.0) -> Answer:
        """Send pieces ``first`` to ``last`` (exclusive) in a stream.

        Args:
            hold_s: then leave the stream open until a deadline that is so far away.
        """
        done = threading.Event()
        deadline_s = hold_s or self._deadline_s

        def parts() -> Iterator[enrolment_pb2.UploadRequest]:
            start = enrolment_pb2.UploadStart(
                sha256=self._sha256, size=PIECES * CHUNK, offset=first * CHUNK
            )
            yield enrolment_pb2.UploadRequest(start=start)
            for _ in range(first, last):
                yield enrolment_pb2.UploadRequest(chunk=bytes(CHUNK))
            if hold_s:
                done.wait()

        begun = time.monotonic()
        try:
            # One attempt, so that a stream does where a message is expected.
            self._connection.call(cast(Any, self._stub.Upload), cast(Any, parts()), deadline_s)
        except RemoteError as error:
            return _answer(error, begun)
        finally:
            done.set()
        return Answer("OK", "", "", time.monotonic() - begun)

    def received(self, expected: int) -> int:
        """How many bytes the register has; waits a little for the expected number.

        Raises:
            RemoteError: refused, or not answered.
        """
        request = enrolment_pb2.GetUploadRequest(sha256=self._sha256)
        end = time.monotonic() + SETTLE_S
        while True:
            has = self._connection.call(self._stub.GetUpload, request, self._deadline_s).received
            if has == expected or time.monotonic() >= end:
                return has
            time.sleep(0.1)


def line(mine: credentials.Credentials, address: str, deadline_s: float) -> Line:
    """Over mutual TLS. Nothing is sent before the first call."""
    tls = grpc.ssl_channel_credentials(mine.ca_pem, mine.key_pem, mine.certificate_pem)
    return Line(Connection(address, tls, ONE_ATTEMPT), deadline_s)


def pinned_line(address: str, certificate: x509.Certificate, deadline_s: float) -> Line:
    """To the holder of exactly that certificate, without one of our own."""
    return Line(connect_pinned(address, certificate, ONE_ATTEMPT), deadline_s)


def _answer(error: RemoteError, begun: float) -> Answer:
    return Answer(error.status, error.reason, error.message, time.monotonic() - begun)
