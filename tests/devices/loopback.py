"""A small register over loopback: two real gRPC ports with TLS, and a proxy that cuts connections.

The interceptor is like identity's in spirit: it admits the caller and turns errors into statuses.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc, operators_pb2_grpc, terminals_pb2_grpc
from devices import errors
from devices.authority import Authority
from devices.certificates import principal_from_auth_context
from devices.operators import Operators
from devices.provisioning import Provisioning
from devices.servicer import OperatorServicer, TerminalServicer
from devices.types import Principal

CODES: dict[type[errors.DevicesError], grpc.StatusCode] = {
    errors.TokenInvalidError: grpc.StatusCode.UNAUTHENTICATED,
    errors.CertificateInvalidError: grpc.StatusCode.UNAUTHENTICATED,
    errors.CertificateRevokedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.TooManyAttemptsError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TerminalUnknownError: grpc.StatusCode.NOT_FOUND,
    errors.TerminalExistsError: grpc.StatusCode.ALREADY_EXISTS,
}
_caller: contextvars.ContextVar[Principal] = contextvars.ContextVar("caller")


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    text: str,
    retry_s: int = 0,
) -> None:
    details = [AnyMessage()]
    details[0].Pack(ErrorInfo(reason=reason, domain="anju"))
    if retry_s:
        retry = RetryInfo()
        retry.retry_delay.seconds = retry_s
        details.append(AnyMessage())
        details[1].Pack(retry)
    status = Status(code=code.value[0], message=text, details=details)
    context.abort_with_status(rpc_status.to_status(status))


class Frame(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    def __init__(self, provisioning: Provisioning, named: bool) -> None:
        self._provisioning = provisioning
        self._named = named

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                if self._named:
                    principal = principal_from_auth_context(cast(Any, context.auth_context()))
                    self._provisioning.admit(principal)
                    _caller.set(principal)
                return (handler.stream_unary or handler.unary_unary)(request, context)
            except errors.DevicesError as error:
                code = CODES.get(type(error), grpc.StatusCode.INVALID_ARGUMENT)
                refuse(context, code, error.reason, str(error))

        streamed = handler.stream_unary is not None
        kind = (
            grpc.stream_unary_rpc_method_handler
            if streamed
            else grpc.unary_unary_rpc_method_handler
        )
        return kind(call, handler.request_deserializer, handler.response_serializer)


@dataclass
class Enrolments(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Takes two applications with the same first record for the same person; remembers by key.

    Attributes:
        at_chunk: called before each chunk of an upload is kept, with its number in the stream, and
            with -1 before the answer.
        hook: called at the beginning of every Enrol, with the call's number from 0.
        forgetful: forgets every application at once.
        careless: takes a repeated key for a new application.
        blind: never recognises anybody.
    """

    hook: Callable[[int, grpc.ServicerContext], None] = lambda number, context: None
    at_chunk: Callable[[int, grpc.ServicerContext], None] = lambda number, context: None
    forgetful: bool = False
    careless: bool = False
    blind: bool = False
    requests: list[enrolment_pb2.EnrolRequest] = field(default_factory=list)
    answers: dict[str, enrolment_pb2.Application] = field(default_factory=dict)
    by_id: dict[str, enrolment_pb2.Application] = field(default_factory=dict)
    people: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    uploads: dict[bytes, bytearray] = field(default_factory=dict)
    portraits: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def Enrol(
        self, request: enrolment_pb2.EnrolRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.EnrolResponse:
        with self.lock:
            self.requests.append(request)
            number = len(self.requests) - 1
        self.hook(number, context)
        with self.lock:
            known = self.answers.get(request.idempotency_key)
            if known is None or self.careless:
                self._use_portrait(request, context)
                known = self._judge(request)
                self.answers[request.idempotency_key] = known
                if not self.forgetful:
                    self.by_id[known.application_id] = known
            return enrolment_pb2.EnrolResponse(application=known)

    def _judge(self, request: enrolment_pb2.EnrolRequest) -> enrolment_pb2.Application:
        number = request.details.document_number
        application = enrolment_pb2.Application(application_id=f"a-{len(self.requests)}-{number}")
        found = None if self.blind else self.people.get(request.samples[0].data)
        if found is None:
            registrant_id = f"r-{len(self.requests)}-{number}"
            self.people[request.samples[0].data] = (registrant_id, number)
            application.registrant_id = registrant_id
            application.state = enrolment_pb2.APPLICATION_STATE_ENROLLED
            application.permit.permit_number = f"p-{number}"
            application.permit.qr_text = "6BF"
        elif found[1] == number:
            application.registrant_id = found[0]
            application.state = enrolment_pb2.APPLICATION_STATE_RECOGNISED
        else:
            application.case_id = f"c-{number}"
            application.state = enrolment_pb2.APPLICATION_STATE_IN_ADJUDICATION
        return application

    def _use_portrait(
        self, request: enrolment_pb2.EnrolRequest, context: grpc.ServicerContext
    ) -> None:
        portrait = request.portrait
        if request.portrait_sha256:
            content = self.uploads.get(request.portrait_sha256, bytearray())
            if hashlib.sha256(content).digest() != request.portrait_sha256:
                refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_MISSING", "upload it")
            portrait = bytes(self.uploads.pop(request.portrait_sha256))
        self.portraits[request.details.document_number] = portrait

    def Upload(
        self,
        request_iterator: Iterator[enrolment_pb2.UploadRequest],
        context: grpc.ServicerContext,
    ) -> enrolment_pb2.UploadResponse:
        """As the register's, but every chunk is durable at once."""
        start = next(request_iterator).start
        with self.lock:
            content = self.uploads.setdefault(start.sha256, bytearray())
            if len(content) != start.offset:
                refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_OFFSET", "ask first")
        at = start.offset
        for count, message in enumerate(request_iterator):
            self.at_chunk(count, context)
            with self.lock:
                if len(content) != at:
                    refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_OFFSET", "late")
                content += message.chunk
                at = len(content)
        if at == start.size and hashlib.sha256(content).digest() != start.sha256:
            del self.uploads[start.sha256]
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", "begin anew")
        self.at_chunk(-1, context)
        return enrolment_pb2.UploadResponse(received=at, complete=at == start.size)

    def GetUpload(
        self, request: enrolment_pb2.GetUploadRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.GetUploadResponse:
        with self.lock:
            content = self.uploads.get(request.sha256, bytearray())
            whole = hashlib.sha256(content).digest() == request.sha256
            return enrolment_pb2.GetUploadResponse(received=len(content), complete=whole)

    def GetApplication(
        self, request: enrolment_pb2.GetApplicationRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.GetApplicationResponse:
        if request.application_id not in self.by_id:
            text = "no such application"
            refuse(context, grpc.StatusCode.NOT_FOUND, "APPLICATION_UNKNOWN", text)
        return enrolment_pb2.GetApplicationResponse(application=self.by_id[request.application_id])


@dataclass
class Register:
    """Addresses of a running register, and what stands behind them."""

    main: str
    provisioning: str
    enrolments: Enrolments


@contextmanager
def register(
    authority: Authority,
    provisioning: Provisioning,
    enrolments: Enrolments | None = None,
    operators: Operators | None = None,
) -> Iterator[Register]:
    """Serve both ports until the end of the block; operators only where there are some."""
    enrolments = enrolments or Enrolments()
    servicer = TerminalServicer(provisioning, _caller.get)
    tls = authority.server
    pair = [(tls.key_pem, tls.certificate_pem)]
    main = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[Frame(provisioning, True)])
    first = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[Frame(provisioning, False)])
    for server in (main, first):
        terminals_pb2_grpc.add_TerminalServiceServicer_to_server(servicer, server)
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolments, main)
    if operators is not None:
        operators_pb2_grpc.add_OperatorServiceServicer_to_server(
            OperatorServicer(operators, _caller.get), main
        )
    mutual = grpc.ssl_server_credentials(pair, tls.ca_pem, require_client_auth=True)
    main_port = main.add_secure_port("127.0.0.1:0", mutual)
    first_port = first.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    main.start()
    first.start()
    try:
        yield Register(f"127.0.0.1:{main_port}", f"127.0.0.1:{first_port}", enrolments)
    finally:
        main.stop(0).wait()
        first.stop(0).wait()


class Proxy:
    """Passes TCP on, until it is told to break every connection; the port stays the same."""

    def __init__(self, target: str, source: str = "") -> None:
        """
        Args:
            source: the address that the target sees, e.g. another one of loopback's.
        """
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._source = (source, 0) if source else None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received = bytearray()  # everything clients sent, as seen on the wire
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def target(self, address: str) -> None:
        """Where connections that come in from now on go."""
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))

    def cut(self) -> None:
        """Reset every connection now, as when a server is killed."""
        with self._lock:
            broken, self._open = self._open, []
        for end in broken:
            with contextlib.suppress(OSError):
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # RST instead of FIN
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(self._target, source_address=self._source)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open += [client, server]
            for source, sink, seen in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, seen), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, seen: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                if seen:
                    self.received += chunk
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
