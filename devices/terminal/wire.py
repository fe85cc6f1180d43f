"""gRPC for clients: the channel, calls with retry, errors, and messages <-> plain values."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from anju.v1 import (
    common_pb2,
    enrolment_pb2,
    enrolment_pb2_grpc,
    operators_pb2,
    operators_pb2_grpc,
    terminals_pb2,
    terminals_pb2_grpc,
)
from devices import credentials
from devices.authority import SERVER_NAME
from devices.errors import (
    CertificateInvalidError,
    CredentialsError,
    RemoteError,
    ServerUntrustedError,
    SubmissionInvalidError,
    UnreachableError,
)
from devices.terminal.retry import DEFAULT_POLICY, RetryPolicy, retrying
from devices.terminal.types import (
    Application,
    ApplicationState,
    FingerFile,
    MissingFinger,
    Permit,
    Person,
    Sample,
)
from devices.types import Equipment, OperatorRole, Provisioned
from devices.wire import equipment_message

Request = TypeVar("Request", bound=Message | bytes)
Response = TypeVar("Response", bound=Message)
Metadata = Sequence[tuple[str, str | bytes]]

_OPTIONS: list[tuple[str, str | int]] = [
    # The constant name in every server certificate of this authority; see devices.authority.
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.enable_http_proxy", 0),
    # gRPC's own pause between connections grows to two minutes; ours is in retry.py.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 20),
]
# With an idempotency key in every change, each of these may be tried again. CANCELLED is what a
# server that shuts down makes of calls in progress.
_TRY_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)
CHUNK_BYTES = 65_536
INLINE_BYTES = CHUNK_BYTES
"""A portrait that fits one chunk travels in the request itself: there is nothing to resume."""
_BUSY = "BUSY"  # refused before anything was done, with the time to come back after


class Connection:
    """A channel to the register, and calls over it. Thread-safe.

    Attributes:
        channel: for a service's stub.
        address: host:port.
    """

    def __init__(
        self,
        address: str,
        channel_credentials: grpc.ChannelCredentials,
        policy: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        self.address = address
        self.channel = grpc.secure_channel(address, channel_credentials, options=_OPTIONS)
        self._policy = policy

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        deadline_s: float = 30.0,
        metadata: Metadata = (),
    ) -> Response:
        """The method's answer. Tries again, with the same request, while nobody answers.

        Args:
            method: of a stub over :attr:`channel`.
            deadline_s: seconds for everything, retries included.
            metadata: sent with each attempt, e.g. who is logged in.

        Raises:
            RemoteError: the register refused.
            UnreachableError: no answer within the deadline.
            ServerUntrustedError: the server's certificate is not from our authority.
        """

        def attempt(timeout_s: float) -> Response:
            with self._translation():
                return method(request, timeout=timeout_s, metadata=tuple(metadata))

        return retrying(attempt, deadline_s, self._policy)

    def upload(
        self,
        content: bytes,
        deadline_s: float = 60.0,
        seen: Callable[[int], None] = lambda received: None,
    ) -> None:
        """Make the register have these bytes, for an application that names their SHA-256.

        Goes on where an earlier attempt was cut, of this process or another.

        Args:
            deadline_s: seconds for everything, retries included.
            seen: told how many bytes the register has, at the start of each attempt.

        Raises:
            RemoteError, UnreachableError, ServerUntrustedError: as of :meth:`call`.
        """
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(self.channel)
        digest = hashlib.sha256(content).digest()
        ask = enrolment_pb2.GetUploadRequest(sha256=digest)

        def attempt(timeout_s: float) -> None:
            with self._translation():
                standing = stub.GetUpload(ask, timeout=timeout_s)
                seen(standing.received)
                if not standing.complete:
                    stub.Upload(_parts(content, digest, standing.received), timeout=timeout_s)

        retrying(attempt, deadline_s, self._policy)

    @contextmanager
    def _translation(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: grpc.RpcError) -> Exception:
        """gRPC's error as one of ours."""
        if not isinstance(error, grpc.Call):
            return UnreachableError("UNKNOWN", "", f"the call to {self.address} failed")
        code, text = error.code(), error.details() or ""
        reason, retry_after_s = _told(error)
        if "CERTIFICATE_VERIFY_FAILED" in text and not reason:
            return ServerUntrustedError(
                f"the server at {self.address} does not have a certificate that our authority "
                "vouches for today; check the address, and this machine's clock"
            )
        if code not in _TRY_AGAIN and reason != _BUSY:
            return RemoteError(code.name, reason, text, retry_after_s)
        if not reason:
            text = f"no answer from the register at {self.address}: {text}"
        return UnreachableError(code.name, reason, text, retry_after_s)

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def connect(
    directory: Path, address: str | None = None, policy: RetryPolicy = DEFAULT_POLICY
) -> Connection:
    """A connection with mutual TLS under the credentials in a directory.

    Args:
        address: host:port, instead of the one in the directory.

    Raises:
        CredentialsError: the directory is incomplete, or the address malformed.
        CertificateInvalidError: the certificate has expired.
    """
    mine = credentials.load(directory)
    not_after = certificate_expiry(mine)
    if not_after <= datetime.now(UTC):
        raise CertificateInvalidError(
            f"the certificate in {directory} expired on {not_after:%Y-%m-%d}; ask an operator for "
            "a new provisioning token"
        )
    tls = grpc.ssl_channel_credentials(mine.ca_pem, mine.key_pem, mine.certificate_pem)
    target = mine.address if address is None else credentials.check_address(address)
    return Connection(target, tls, policy)


def certificate_expiry(mine: credentials.Credentials) -> datetime:
    """When a client's certificate expires, UTC.

    Raises:
        CredentialsError: it is unreadable.
    """
    try:
        return x509.load_pem_x509_certificate(mine.certificate_pem).not_valid_after_utc
    except ValueError as error:
        raise CredentialsError("the client certificate is unreadable") from error


def connect_pinned(address: str, certificate: x509.Certificate, policy: RetryPolicy) -> Connection:
    """A connection to the holder of exactly that server certificate, without one of our own."""
    anchor = certificate.public_bytes(Encoding.PEM)
    return Connection(address, grpc.ssl_channel_credentials(anchor), policy)


def new_idempotency_key() -> str:
    """A fresh key for one intended change."""
    return uuid.uuid4().hex


def provision(connection: Connection, token: str, csr: bytes, deadline_s: float) -> Provisioned:
    request = terminals_pb2.ProvisionRequest(token=token, certificate_signing_request=csr)
    stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
    response = connection.call(stub.Provision, request, deadline_s)
    return Provisioned(
        response.certificate, response.ca_certificate, response.terminal_id, response.station_id
    )


def create_token(
    connection: Connection, station_id: str, terminal_id: str, deadline_s: float = 30.0
) -> str:
    """A provisioning token for a terminal. Administrators only."""
    request = terminals_pb2.CreateProvisioningTokenRequest(
        idempotency_key=new_idempotency_key(), station_id=station_id, terminal_id=terminal_id
    )
    stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
    return connection.call(stub.CreateProvisioningToken, request, deadline_s).token


def renew(connection: Connection, csr: bytes, deadline_s: float) -> bytes:
    request = terminals_pb2.RenewCertificateRequest(
        idempotency_key=new_idempotency_key(), certificate_signing_request=csr
    )
    stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
    return connection.call(stub.RenewCertificate, request, deadline_s).certificate


def heartbeat(connection: Connection, equipment: Equipment, deadline_s: float) -> datetime:
    """Report what this terminal is made of; returns the register's time."""
    request = terminals_pb2.HeartbeatRequest(equipment=equipment_message(equipment))
    stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
    return connection.call(stub.Heartbeat, request, deadline_s).server_time.ToDatetime(tzinfo=UTC)


def enrol_operator(
    connection: Connection,
    operator_id: str,
    roles: Iterable[OperatorRole],
    login_key: bytes = b"",
    new_password: bool = False,
    deadline_s: float = 30.0,
) -> str:
    """Add or change an operator; returns the first password, if one was asked for.

    Administrators only.

    Args:
        login_key: SubjectPublicKeyInfo, DER.
    """
    request = operators_pb2.EnrolOperatorRequest(
        idempotency_key=new_idempotency_key(),
        operator_id=operator_id,
        roles=[operators_pb2.OperatorRole.ValueType(role) for role in roles],
        login_key=login_key,
        new_password=new_password,
    )
    stub = operators_pb2_grpc.OperatorServiceStub(connection.channel)
    return connection.call(stub.EnrolOperator, request, deadline_s).first_password


@dataclass(frozen=True)
class LoggedIn:
    """What the register says to a login; see :class:`devices.terminal.session.OperatorSession`."""

    session_id: str
    token: str = field(repr=False)
    opened_at: datetime
    expires_at: datetime
    idle: timedelta


def login_challenge(connection: Connection, operator_id: str, deadline_s: float) -> bytes:
    request = operators_pb2.GetLoginChallengeRequest(operator_id=operator_id)
    stub = operators_pb2_grpc.OperatorServiceStub(connection.channel)
    return connection.call(stub.GetLoginChallenge, request, deadline_s).challenge


def log_in(
    connection: Connection,
    operator_id: str,
    session_key: bytes,
    *,
    password: str,
    new_password: str,
    challenge: bytes,
    signature: bytes,
    deadline_s: float,
) -> LoggedIn:
    """Log in with a signed challenge, or with a password where there is none."""
    request = operators_pb2.LogInRequest(operator_id=operator_id, session_key=session_key)
    if signature:
        request.key.challenge = challenge
        request.key.signature = signature
    else:
        request.password = password
        request.new_password = new_password
    stub = operators_pb2_grpc.OperatorServiceStub(connection.channel)
    answer = connection.call(stub.LogIn, request, deadline_s)
    return LoggedIn(
        answer.session_id,
        answer.token,
        answer.opened_at.ToDatetime(tzinfo=UTC),
        answer.expires_at.ToDatetime(tzinfo=UTC),
        timedelta(seconds=answer.idle_timeout_s),
    )


def log_out(connection: Connection, token: str, deadline_s: float) -> None:
    stub = operators_pb2_grpc.OperatorServiceStub(connection.channel)
    connection.call(stub.LogOut, operators_pb2.LogOutRequest(token=token), deadline_s)


def application(connection: Connection, application_id: str, deadline_s: float) -> Application:
    request = enrolment_pb2.GetApplicationRequest(application_id=application_id)
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)
    return _application(connection.call(stub.GetApplication, request, deadline_s).application)


def enrol_request(
    person: Person,
    samples: Iterable[Sample | bytes],
    permit_requested: bool,
    captured_at: datetime | None,
    idempotency_key: str,
    portrait: bytes = b"",
    missing_fingers: Iterable[MissingFinger] = (),
    images: Iterable[FingerFile] = (),
) -> enrolment_pb2.EnrolRequest:
    """The request for an application; its pictures (:func:`pictures`) are uploaded beside it."""
    request = enrolment_pb2.EnrolRequest(
        idempotency_key=idempotency_key,
        details=common_pb2.PersonalDetails(
            full_name=person.full_name,
            gender=common_pb2.Gender.ValueType(person.gender),
            birth_date=_date(person.birth_date),
            document_number=person.document_number,
            household_division_code=person.household_division_code,
            ethnicity=person.ethnicity,
        ),
        residence=common_pb2.Residence(
            division_code=person.residence_division_code,
            address=person.residence_address,
            arrival_date=_date(person.arrival_date),
        ),
        samples=[_sample(sample) for sample in samples],
        permit_requested=permit_requested,
        missing_fingers=[
            common_pb2.MissingFinger(
                position=common_pb2.FingerPosition.ValueType(one.position),
                reason=common_pb2.MissingReason.ValueType(one.reason),
            )
            for one in missing_fingers
        ],
        images=[
            enrolment_pb2.FingerImage(
                position=common_pb2.FingerPosition.ValueType(one.position),
                sha256=hashlib.sha256(one.content).digest(),
                resolution_ppi=one.resolution_ppi,
            )
            for one in images
        ],
    )
    if len(portrait) > INLINE_BYTES:
        request.portrait_sha256 = hashlib.sha256(portrait).digest()
    else:
        request.portrait = portrait
    if captured_at is not None:
        request.captured_at.FromDatetime(captured_at)
    return request


def pictures(portrait: bytes, images: Iterable[FingerFile]) -> list[bytes]:
    """What has to be uploaded for a request that was made of these."""
    large = [portrait] if len(portrait) > INLINE_BYTES else []
    return large + [one.content for one in images]


def packed_enrolment(request: enrolment_pb2.EnrolRequest) -> bytes:
    """The request as bytes that can be kept and sent later, unchanged by newer versions."""
    return request.SerializeToString(deterministic=True)


def _parts(content: bytes, digest: bytes, offset: int) -> Iterator[enrolment_pb2.UploadRequest]:
    yield enrolment_pb2.UploadRequest(
        start=enrolment_pb2.UploadStart(sha256=digest, size=len(content), offset=offset)
    )
    for at in range(offset, len(content), CHUNK_BYTES):
        yield enrolment_pb2.UploadRequest(chunk=content[at : at + CHUNK_BYTES])


def enrol_packed(
    connection: Connection, request: bytes, deadline_s: float, metadata: Metadata = ()
) -> Application:
    """Send what :func:`packed_enrolment` made, byte for byte: an operator has signed it so.

    Raises:
        SubmissionInvalidError: it is no request.
    """
    try:
        enrolment_pb2.EnrolRequest.FromString(request)
    except DecodeError as error:
        raise SubmissionInvalidError("the kept bytes are no enrolment request") from error
    send: grpc.UnaryUnaryMultiCallable[bytes, enrolment_pb2.EnrolResponse]
    send = connection.channel.unary_unary(
        "/anju.v1.EnrolmentService/Enrol",
        request_serializer=None,
        response_deserializer=enrolment_pb2.EnrolResponse.FromString,
    )
    return _application(connection.call(send, request, deadline_s, metadata).application)


def _sample(sample: Sample | bytes) -> common_pb2.Sample:
    if isinstance(sample, bytes):
        sample = Sample(sample)
    return common_pb2.Sample(
        format=common_pb2.SampleFormat.ValueType(sample.format),
        data=sample.record,
        position=common_pb2.FingerPosition.ValueType(sample.position),
    )


def _date(value: date) -> common_pb2.Date:
    return common_pb2.Date(year=value.year, month=value.month, day=value.day)


def _application(message: enrolment_pb2.Application) -> Application:
    permit = None
    if message.HasField("permit"):
        permit = Permit(
            message.permit.permit_number,
            message.permit.expires_at.ToDatetime(tzinfo=UTC),
            message.permit.qr_text,
        )
    number = int(message.state)
    known = number in set(ApplicationState)
    return Application(
        message.application_id,
        ApplicationState(number) if known else ApplicationState.UNSPECIFIED,
        message.registrant_id,
        message.case_id,
        permit,
        message.late,
    )


def _told(call: grpc.Call) -> tuple[str, float]:
    """What a refusal by anju says: the ErrorInfo's reason, and in how many seconds to try again.

    Empty and 0 when gRPC itself or a stranger answered.
    """
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # the details contradict the status: not ours
        return "", 0.0
    reason, retry_after_s = "", 0.0
    for detail in status.details if status is not None else ():
        info, retry = ErrorInfo(), RetryInfo()
        if detail.Is(ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == "anju":
            reason = str(info.reason)
        elif detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(retry):
            retry_after_s = max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    return (reason, retry_after_s) if reason else ("", 0.0)
