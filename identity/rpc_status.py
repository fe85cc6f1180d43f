"""Exception type -> gRPC status: one table and the interceptor that reads it.

A child class inherits its nearest ancestor's row. Anything without a row becomes INTERNAL with a
fixed text: what went wrong inside is for the log, not for the caller.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from typing import Any

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from devices import errors as devices_errors
from identity import errors as identity_errors
from identity.contract import CONTRACT
from identity.observability.watch import request_id, watched
from issuance import errors as issuance_errors
from matcher import errors as matcher_errors

DOMAIN = "anju"
INTERNAL_TEXT = "an internal error occurred; it was logged, please call an operator"
RETRY_AFTER_S = 1
# A message may quote what the caller sent. gRPC limits trailers to 8 KiB, and this travels in them
# twice: percent-encoded (three characters a byte) and in the base64 of the status.
MAX_MESSAGE_BYTES = 1_200

Code = grpc.StatusCode

STATUS: dict[type[Exception], grpc.StatusCode] = {
    identity_errors.InvalidRequestError: Code.INVALID_ARGUMENT,
    identity_errors.NotFoundError: Code.NOT_FOUND,
    identity_errors.StateError: Code.FAILED_PRECONDITION,
    identity_errors.IdempotencyConflictError: Code.ALREADY_EXISTS,
    identity_errors.PermissionDeniedError: Code.PERMISSION_DENIED,
    identity_errors.UnauthenticatedError: Code.UNAUTHENTICATED,
    identity_errors.DeadlineError: Code.DEADLINE_EXCEEDED,
    identity_errors.UnavailableError: Code.UNAVAILABLE,
    identity_errors.OverloadError: Code.RESOURCE_EXHAUSTED,
    identity_errors.StorageFullError: Code.RESOURCE_EXHAUSTED,
    identity_errors.SealError: Code.FAILED_PRECONDITION,
    matcher_errors.DecodeError: Code.INVALID_ARGUMENT,
    matcher_errors.FailureToEnrolError: Code.INVALID_ARGUMENT,
    matcher_errors.UnknownSubjectError: Code.NOT_FOUND,
    devices_errors.TokenInvalidError: Code.UNAUTHENTICATED,
    devices_errors.CsrInvalidError: Code.INVALID_ARGUMENT,
    devices_errors.StationInvalidError: Code.INVALID_ARGUMENT,
    devices_errors.ArgumentInvalidError: Code.INVALID_ARGUMENT,
    devices_errors.ImageInvalidError: Code.INVALID_ARGUMENT,
    devices_errors.TerminalUnknownError: Code.NOT_FOUND,
    devices_errors.TerminalExistsError: Code.ALREADY_EXISTS,
    devices_errors.TerminalBusyError: Code.ABORTED,
    devices_errors.TooManyAttemptsError: Code.RESOURCE_EXHAUSTED,
    devices_errors.CertificateInvalidError: Code.UNAUTHENTICATED,
    devices_errors.CertificateRevokedError: Code.PERMISSION_DENIED,
    devices_errors.OperatorUnknownError: Code.NOT_FOUND,
    devices_errors.OperatorBusyError: Code.ABORTED,
    devices_errors.OperatorRevokedError: Code.PERMISSION_DENIED,
    devices_errors.OperatorRequiredError: Code.PERMISSION_DENIED,
    devices_errors.LoginRefusedError: Code.UNAUTHENTICATED,
    devices_errors.PasswordChangeRequiredError: Code.FAILED_PRECONDITION,
    devices_errors.SessionInvalidError: Code.UNAUTHENTICATED,
    issuance_errors.UnprintableCharacterError: Code.FAILED_PRECONDITION,
    issuance_errors.CardError: Code.FAILED_PRECONDITION,
    issuance_errors.StatusTransitionError: Code.FAILED_PRECONDITION,
    issuance_errors.ProfileError: Code.FAILED_PRECONDITION,
    issuance_errors.KeyUseError: Code.UNAVAILABLE,
    issuance_errors.JournalError: Code.UNAVAILABLE,
}

# The contract's reasons for errors whose own token is finer or that have none.
REASONS: dict[type[Exception], str] = {
    matcher_errors.DecodeError: "DECODE_FAILED",
    matcher_errors.FailureToEnrolError: "FAILURE_TO_ENROL",
    matcher_errors.UnknownSubjectError: "REGISTRANT_UNKNOWN",
    issuance_errors.UnprintableCharacterError: "CHARACTER_UNPRINTABLE",
    issuance_errors.CardError: "CARD_NOT_DRAWN",
    issuance_errors.StatusTransitionError: "PERMIT_REVOKED",
    issuance_errors.ProfileError: "PERMIT_NOT_ALLOWED",
    issuance_errors.KeyUseError: "ISSUING_STOPPED",
    issuance_errors.JournalError: "ISSUING_STOPPED",
}

log = structlog.get_logger("anju.rpc")


def status_of(error: Exception) -> Status:
    """The google.rpc.Status, with ErrorInfo, that a caller gets for this exception."""
    if _disk_is_full(error):
        error = identity_errors.StorageFullError()
    for kind in type(error).__mro__:
        code = STATUS.get(kind)
        if code is None:
            continue
        own = getattr(error, "reason", "")
        reason = REASONS.get(kind, own) or kind.__name__
        info = ErrorInfo(domain=DOMAIN, reason=reason)
        if own and own != reason:
            info.metadata["detail"] = own
        return _status(code, str(error), info, getattr(error, "retry_after_s", None))
    return _status(Code.INTERNAL, INTERNAL_TEXT, ErrorInfo(domain=DOMAIN, reason="INTERNAL"), None)


def _status(
    code: grpc.StatusCode, message: str, info: ErrorInfo, retry_after_s: float | None
) -> Status:
    shortened = message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    status = Status(code=code.value[0], message=shortened)
    details: list[Any] = [info]
    if request_id():  # what a caller can quote, so that we find the call in the log
        details.append(RequestInfo(request_id=request_id()))
    if code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED):
        retry = RetryInfo()
        retry.retry_delay.seconds = max(1, math.ceil(retry_after_s or RETRY_AFTER_S))
        details.append(retry)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


class StatusInterceptor(grpc.ServerInterceptor):
    """Turns exceptions of the handlers inside it into statuses, and watches every call.

    The outermost interceptor.
    """

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        if (
            handler is None
            or handler.response_streaming
            or not handler_call_details.method.startswith(CONTRACT)
        ):
            return handler
        inner: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        method = handler_call_details.method

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with watched(method, context) as seen:
                try:
                    return inner(request, context)
                except grpc.RpcError:
                    # Of the stream that the caller sends: it broke off, and nobody listens.
                    seen.status = Code.CANCELLED.name
                    raise
                except Exception as error:
                    status = status_of(error)
                    seen.status = _NAMES[status.code]
                    seen.reason = reason_of(status)
                    if status.code == Code.INTERNAL.value[0]:
                        # The type and place only: a message may quote personal data.
                        log.error("rpc failed", method=method, **_where(error))
                    context.abort_with_status(rpc_status.to_status(status))

        return answering_once(handler, call)


def answering_once(
    handler: grpc.RpcMethodHandler[Any, Any], call: Callable[[Any, grpc.ServicerContext], Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler like another one, of a message or of a stream of them, that does this instead."""
    kind = (
        grpc.stream_unary_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return kind(call, handler.request_deserializer, handler.response_serializer)


_NAMES = {code.value[0]: code.name for code in Code}


def reason_of(status: Status) -> str:
    """The contract's reason in a status; empty if it has none."""
    info = ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether a file refused a write for lack of space, whoever wrapped that."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _where(error: BaseException) -> dict[str, str]:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_filename.rsplit('/', 2)[-1]}:{code.co_name}:{trace.tb_lineno}"
    return {"error": type(error).__name__, "place": place}
