"""Every row of the table, and what becomes of an exception that has none."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NoReturn, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from structlog.testing import capture_logs

from devices import errors as devices_errors
from identity import errors as identity_errors
from identity.rpc_status import INTERNAL_TEXT, STATUS, StatusInterceptor, status_of
from issuance import errors as issuance_errors
from matcher import errors as matcher_errors

Code = grpc.StatusCode

# One error as it is raised, its status, its reason and, where there is one, its finer detail.
ROWS: list[tuple[Exception, grpc.StatusCode, str, str]] = [
    (identity_errors.InvalidRequestError("A", "m"), Code.INVALID_ARGUMENT, "A", ""),
    (identity_errors.NotFoundError("A", "m"), Code.NOT_FOUND, "A", ""),
    (identity_errors.StateError("A", "m"), Code.FAILED_PRECONDITION, "A", ""),
    (
        identity_errors.IdempotencyConflictError(),
        Code.ALREADY_EXISTS,
        "IDEMPOTENCY_CONFLICT",
        "",
    ),
    (identity_errors.PermissionDeniedError("A", "m"), Code.PERMISSION_DENIED, "A", ""),
    (identity_errors.UnauthenticatedError("A", "m"), Code.UNAUTHENTICATED, "A", ""),
    (identity_errors.DeadlineError(), Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", ""),
    (identity_errors.UnavailableError("A", "m"), Code.UNAVAILABLE, "A", ""),
    (identity_errors.OverloadError("BUSY", "m", 2.0), Code.RESOURCE_EXHAUSTED, "BUSY", ""),
    (identity_errors.StorageFullError(), Code.RESOURCE_EXHAUSTED, "DISK_FULL", ""),
    (identity_errors.SealError("ERASED", "m"), Code.FAILED_PRECONDITION, "ERASED", ""),
    (
        matcher_errors.DecodeError("TRUNCATED", "m", 7),
        Code.INVALID_ARGUMENT,
        "DECODE_FAILED",
        "TRUNCATED",
    ),
    (
        matcher_errors.FailureToEnrolError("TOO_FEW_MINUTIAE", "m"),
        Code.INVALID_ARGUMENT,
        "FAILURE_TO_ENROL",
        "TOO_FEW_MINUTIAE",
    ),
    (matcher_errors.UnknownSubjectError("R-1"), Code.NOT_FOUND, "REGISTRANT_UNKNOWN", ""),
    (devices_errors.TokenInvalidError("m"), Code.UNAUTHENTICATED, "TOKEN_INVALID", ""),
    (devices_errors.CsrInvalidError("m"), Code.INVALID_ARGUMENT, "CSR_INVALID", ""),
    (devices_errors.StationInvalidError("m"), Code.INVALID_ARGUMENT, "STATION_INVALID", ""),
    (devices_errors.ArgumentInvalidError("m"), Code.INVALID_ARGUMENT, "ARGUMENT_INVALID", ""),
    (devices_errors.ImageInvalidError("m"), Code.INVALID_ARGUMENT, "IMAGE_INVALID", ""),
    (devices_errors.TerminalUnknownError("t"), Code.NOT_FOUND, "TERMINAL_UNKNOWN", ""),
    (devices_errors.TerminalExistsError("t", "s"), Code.ALREADY_EXISTS, "TERMINAL_EXISTS", ""),
    (devices_errors.TerminalBusyError("m"), Code.ABORTED, "TERMINAL_BUSY", ""),
    (devices_errors.TooManyAttemptsError(30), Code.RESOURCE_EXHAUSTED, "TOO_MANY_ATTEMPTS", ""),
    (
        devices_errors.CertificateInvalidError("m"),
        Code.UNAUTHENTICATED,
        "CERTIFICATE_INVALID",
        "",
    ),
    (
        devices_errors.CertificateRevokedError("m"),
        Code.PERMISSION_DENIED,
        "CERTIFICATE_REVOKED",
        "",
    ),
    (devices_errors.OperatorUnknownError("o"), Code.NOT_FOUND, "OPERATOR_UNKNOWN", ""),
    (devices_errors.OperatorBusyError("m"), Code.ABORTED, "OPERATOR_BUSY", ""),
    (devices_errors.OperatorRevokedError("m"), Code.PERMISSION_DENIED, "OPERATOR_REVOKED", ""),
    (devices_errors.OperatorRequiredError("m"), Code.PERMISSION_DENIED, "OPERATOR_REQUIRED", ""),
    (devices_errors.LoginRefusedError("o"), Code.UNAUTHENTICATED, "LOGIN_REFUSED", ""),
    (
        devices_errors.PasswordChangeRequiredError("m"),
        Code.FAILED_PRECONDITION,
        "PASSWORD_CHANGE_REQUIRED",
        "",
    ),
    (devices_errors.SessionInvalidError("m"), Code.UNAUTHENTICATED, "SESSION_INVALID", ""),
    (
        issuance_errors.UnprintableCharacterError("䶮"),
        Code.FAILED_PRECONDITION,
        "CHARACTER_UNPRINTABLE",
        "",
    ),
    (
        issuance_errors.StatusTransitionError("m"),
        Code.FAILED_PRECONDITION,
        "PERMIT_REVOKED",
        "",
    ),
    (issuance_errors.CardError("m"), Code.FAILED_PRECONDITION, "CARD_NOT_DRAWN", ""),
    (issuance_errors.ProfileError("m"), Code.FAILED_PRECONDITION, "PERMIT_NOT_ALLOWED", ""),
    (issuance_errors.KeyUseError("m"), Code.UNAVAILABLE, "ISSUING_STOPPED", ""),
    (issuance_errors.JournalError("m"), Code.UNAVAILABLE, "ISSUING_STOPPED", ""),
]


def details(status: Status) -> tuple[ErrorInfo, RetryInfo | None]:
    info, retry = ErrorInfo(), None
    for detail in status.details:
        if detail.Is(ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        if detail.Is(RetryInfo.DESCRIPTOR):
            retry = RetryInfo()
            detail.Unpack(retry)
    return info, retry


def test_each_row_of_the_table_is_tested_here() -> None:
    assert {type(error) for error, *_ in ROWS} == STATUS.keys()


@pytest.mark.parametrize(("error", "code", "reason", "detail"), ROWS)
def test_an_exception_becomes_its_status(
    error: Exception, code: grpc.StatusCode, reason: str, detail: str
) -> None:
    status = status_of(error)
    info, retry = details(status)
    assert status.code == code.value[0]
    assert status.message == str(error)
    assert (info.domain, info.reason) == ("anju", reason)
    assert info.metadata.get("detail", "") == detail
    assert (retry is not None) is (code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED))


def test_who_knows_when_to_come_back_says_so() -> None:
    _, retry = details(status_of(devices_errors.TooManyAttemptsError(30)))
    assert retry is not None
    assert retry.retry_delay.seconds == 30


def test_who_does_not_know_still_asks_for_a_pause() -> None:
    _, retry = details(status_of(identity_errors.UnavailableError("A", "m")))
    assert retry is not None
    assert retry.retry_delay.seconds >= 1


def test_a_new_child_of_a_known_error_inherits_its_row() -> None:
    class NewlyMadeError(identity_errors.NotFoundError):
        pass

    assert status_of(NewlyMadeError("NEW", "m")).code == Code.NOT_FOUND.value[0]
    locked = status_of(issuance_errors.JournalLockedError("m"))
    assert locked.code == Code.UNAVAILABLE.value[0]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("张示例 999999199001010014"),
        KeyError("张示例"),
        identity_errors.ConfigError("/srv/secret/path"),
        issuance_errors.KeyStoreError("key"),
        matcher_errors.IndexStateError("path"),
    ],
)
def test_an_exception_without_a_row_says_nothing_of_what_went_wrong(error: Exception) -> None:
    status = status_of(error)
    info, _ = details(status)
    assert status.code == Code.INTERNAL.value[0]
    assert status.message == INTERNAL_TEXT
    assert (info.domain, info.reason) == ("anju", "INTERNAL")
    assert str(error.args[0]) not in str(status)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_to_be_full_whoever_met_it(number: int) -> None:
    try:
        try:
            raise OSError(number, "No space left on device")
        except OSError as error:
            raise issuance_errors.JournalError("cannot write") from error
    except issuance_errors.JournalError as error:
        status = status_of(error)
    assert status.code == Code.RESOURCE_EXHAUSTED.value[0]
    assert details(status)[0].reason == "DISK_FULL"
    assert status_of(OSError(errno.EACCES, "x")).code == Code.INTERNAL.value[0]


@pytest.mark.parametrize("quoted", ["x" * 100_000, "号" * 100_000, "\U0001f600" * 9_999])
def test_a_message_never_outgrows_what_trailers_can_carry(quoted: str) -> None:
    status = status_of(identity_errors.NotFoundError("PERMIT_UNKNOWN", f"no permit {quoted!r}"))
    message = status.message.encode()
    assert status.message.startswith("no permit '")
    assert 3 * len(message) + len(status.SerializeToString()) * 4 / 3 < 7_000


class Aborted(Exception):  # noqa: N818 - stands for gRPC's own
    pass


class FakeContext:
    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def is_active(self) -> bool:
        return True

    def abort_with_status(self, status: Any) -> NoReturn:
        self.status = status
        raise Aborted


def intercepted(handler: Callable[[Any, Any], Any]) -> tuple[FakeContext, Callable[[], Any]]:
    inner: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(handler)
    call_details = cast(Any, type("Details", (), {"method": "/anju.v1.PermitService/GetPermit"}))
    wrapped = StatusInterceptor().intercept_service(lambda _: inner, call_details)
    assert wrapped is not None
    context = FakeContext()
    call = wrapped.unary_unary
    assert call is not None
    return context, lambda: call("request", cast(Any, context))


def test_what_a_handler_answers_passes_through() -> None:
    _, call = intercepted(lambda request, context: request + "!")
    assert call() == "request!"


def test_an_unknown_exception_is_logged_by_type_and_place_only() -> None:
    def fail(_request: Any, _context: Any) -> None:
        raise RuntimeError("张示例 lives at 样板路1号")

    context, call = intercepted(fail)
    with capture_logs() as logs, pytest.raises(Aborted):
        call()
    assert context.status.code is Code.INTERNAL
    assert context.status.details == INTERNAL_TEXT
    entry, seen = logs
    assert (seen["event"], seen["status"], seen["reason"]) == ("call", "INTERNAL", "INTERNAL")
    assert entry["error"] == "RuntimeError"
    assert entry["method"] == "/anju.v1.PermitService/GetPermit"
    assert "test_status_table.py:fail" in entry["place"]
    assert "张示例" not in str(logs)
    assert "样板路" not in str(logs)


def test_an_expected_refusal_is_not_logged_as_a_failure() -> None:
    def refuse(_request: Any, _context: Any) -> None:
        raise identity_errors.NotFoundError("PERMIT_UNKNOWN", "no permit")

    context, call = intercepted(refuse)
    with capture_logs() as logs, pytest.raises(Aborted):
        call()
    assert context.status.code is Code.NOT_FOUND
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("call", "info")
    assert (entry["status"], entry["reason"]) == ("NOT_FOUND", "PERMIT_UNKNOWN")


def test_a_stream_that_its_caller_breaks_off_is_no_fault_of_ours() -> None:
    def broken(_request: Any, _context: Any) -> None:
        raise grpc.RpcError

    _, call = intercepted(broken)
    with capture_logs() as logs, pytest.raises(grpc.RpcError):
        call()
    (entry,) = logs
    assert (entry["event"], entry["status"]) == ("call", "CANCELLED")
