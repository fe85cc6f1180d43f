"""What surrounds each call: who is calling, may they, by when, and is it the first time?

The caller is known by the client certificate of the connection; who works at a terminal, by what
the call's metadata shows (see operators.proto). The standing of both is looked up on every call, so
that a revocation takes effect on open connections too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import grpc

from devices.operators import Operators
from devices.types import Principal, Role
from devices.wire import CAPTURE_PROOF_METADATA, SESSION_METADATA, capture_proof
from identity.admission import Quotas, Slots
from identity.authorisation import ANONYMOUS_METHODS, operator_needed, require_allowed
from identity.contract import CONTRACT, certified, method_name
from identity.denials import DenialLog
from identity.errors import DeadlineError, UnauthenticatedError
from identity.rpc_status import answering_once
from identity.store.once import check_key
from identity.types import Once

SHORTEST_DEADLINE_S = 0.005


class Standing(Protocol):
    """Whether a caller's certificate is still accepted; see ``devices.provisioning``."""

    def admit(self, principal: Principal) -> None: ...


@dataclass(frozen=True)
class Call:
    principal: Principal | None
    method: str  # e.g. "EnrolmentService.Enrol"
    context: grpc.ServicerContext


_current: ContextVar[Call] = ContextVar("anju_call")


def caller() -> Principal:
    """The authenticated caller of the call being served.

    Raises:
        UnauthenticatedError: the call came without a client certificate.
    """
    principal = _current.get().principal
    if principal is None:
        raise UnauthenticatedError("CERTIFICATE_MISSING", "this call needs a client certificate")
    return principal


def method() -> str:
    """The method being served, e.g. ``EnrolmentService.Enrol``."""
    return _current.get().method


def require_time() -> None:
    """Raises DeadlineError once the caller's deadline has passed or the caller has gone."""
    context = _current.get().context
    remaining = context.time_remaining()
    if not context.is_active() or (remaining is not None and remaining < SHORTEST_DEADLINE_S):
        raise DeadlineError


class Keyed(Protocol):
    """A request that carries an idempotency key."""

    idempotency_key: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...


def once(request: Keyed) -> Once:
    """The intended change that a request with an ``idempotency_key`` names.

    Raises:
        InvalidRequestError: the key is missing or malformed.
    """
    key = request.idempotency_key
    check_key(key)
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return Once(str(caller()), method(), key, digest, caller().who)


class CallInterceptor(grpc.ServerInterceptor):
    """Authenticates, authorises and sets the current call. Inside the status interceptor.

    Args:
        standing: refuses revoked certificates; None on the provisioning port, whose callers have
            no certificate and may call the anonymous methods only.
        slots, quotas: how much is let in, and of each terminal; None sets no bound.
        streams: as ``slots``, for calls that go on for as long as their caller sends.
        operators: who operators are, and who works at a terminal; None admits terminals alone.
        denials: told of every call that is refused for who makes it.
    """

    def __init__(
        self,
        standing: Standing | None,
        slots: Slots | None = None,
        quotas: Quotas | None = None,
        streams: Slots | None = None,
        operators: Operators | None = None,
        denials: DenialLog | None = None,
    ) -> None:
        self._standing = standing
        self._slots = slots
        self._streams = streams
        self._quotas = quotas
        self._operators = operators
        self._denials = denials

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None or not path.startswith(CONTRACT):
            return handler
        if handler.response_streaming:
            raise NotImplementedError(f"nobody would be authenticated for {path}")
        name = method_name(path)
        inner: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        slots = self._streams if handler.request_streaming else self._slots

        def call(request: Any, context: grpc.ServicerContext, data: bytes = b"") -> Any:
            principal: Principal | None = None
            try:
                with _slot(slots, context):
                    principal = self._certified(context, name)
                    if principal is not None:
                        principal = self._authorised(principal, context, name, data)
                    token = _current.set(Call(principal, name, context))
                    try:
                        require_time()
                        return inner(request, context)
                    finally:
                        _current.reset(token)
            except Exception as error:
                if self._denials is not None:
                    self._denials.note(principal, name, error)
                raise

        parse = handler.request_deserializer
        if handler.request_streaming or parse is None:
            return answering_once(handler, call)
        # A capture proof is over the bytes as they came: no two libraries need write them alike.
        return grpc.unary_unary_rpc_method_handler(
            lambda arrived, context: call(arrived.message, context, arrived.data),
            lambda data: _Arrived(data, parse(data)),
            handler.response_serializer,
        )

    def _certified(self, context: grpc.ServicerContext, name: str) -> Principal | None:
        """Whom the client certificate names; None where callers have none."""
        if self._standing is None:
            if name not in ANONYMOUS_METHODS:
                raise UnauthenticatedError(
                    "CERTIFICATE_MISSING",
                    f"{name} is served on the main port, with a client certificate",
                )
            return None
        return certified(context)

    def _authorised(
        self, principal: Principal, context: grpc.ServicerContext, name: str, data: bytes
    ) -> Principal:
        """The caller with all that they have shown, if they may call this."""
        if self._standing is not None:
            self._standing.admit(principal)
        if self._quotas is not None and principal.role is Role.TERMINAL:
            self._quotas.spend(str(principal))
        if self._operators is not None:
            if principal.role is Role.OPERATOR:
                roles = self._operators.roles_of(principal.id)
                principal = replace(principal, roles=roles)
            elif operator_needed(principal, name):
                principal = _with_operator(self._operators, principal, context, name, data)
        require_allowed(principal, name)
        return principal


class _Arrived(NamedTuple):
    data: bytes
    message: Any


def _with_operator(
    operators: Operators, terminal: Principal, context: grpc.ServicerContext, name: str, data: bytes
) -> Principal:
    """The terminal with who works at it, or worked there when this was captured."""
    shown = dict(context.invocation_metadata() or ())
    proof, token = shown.get(CAPTURE_PROOF_METADATA), shown.get(SESSION_METADATA)
    if isinstance(proof, bytes):
        return operators.vouched_for(terminal, capture_proof(proof), name, data)
    if isinstance(token, str):
        return operators.working_at(terminal, token)
    return terminal


def _slot(slots: Slots | None, context: grpc.ServicerContext) -> AbstractContextManager[None]:
    return nullcontext() if slots is None else slots.held(context.time_remaining())
