"""What surrounds each call: who is calling, may they, by when, and is it the first time?

The caller is known by the client certificate of the connection. Terminals' and operators' standing
is looked up on every call, so that a revocation takes effect on open connections too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, cast

import grpc

from devices.certificates import principal_from_auth_context
from devices.types import Principal, Role
from identity.admission import Quotas, Slots
from identity.authorisation import ANONYMOUS_METHODS, require_allowed
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
    return Once(str(caller()), method(), key, digest)


class CallInterceptor(grpc.ServerInterceptor):
    """Authenticates, authorises and sets the current call. Inside the status interceptor.

    Args:
        standing: refuses revoked certificates; None on the provisioning port, whose callers have
            no certificate and may call the anonymous methods only.
        slots, quotas: how much is let in, and of each terminal; None sets no bound.
        streams: as ``slots``, for calls that go on for as long as their caller sends.
    """

    def __init__(
        self,
        standing: Standing | None,
        slots: Slots | None = None,
        quotas: Quotas | None = None,
        streams: Slots | None = None,
    ) -> None:
        self._standing = standing
        self._slots = slots
        self._streams = streams
        self._quotas = quotas

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        path = handler_call_details.method.lstrip("/")
        if handler is None or not path.startswith("anju.v1."):
            return handler  # health and reflection: nothing about a person
        if handler.response_streaming:
            raise NotImplementedError(f"nobody would be authenticated for {path}")
        name = path.removeprefix("anju.v1.").replace("/", ".")
        inner: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        slots = self._streams if handler.request_streaming else self._slots

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with _slot(slots, context):
                principal = self._authenticate(context, name)
                token = _current.set(Call(principal, name, context))
                try:
                    require_time()
                    return inner(request, context)
                finally:
                    _current.reset(token)

        return answering_once(handler, call)

    def _authenticate(self, context: grpc.ServicerContext, name: str) -> Principal | None:
        if self._standing is None:
            if name not in ANONYMOUS_METHODS:
                raise UnauthenticatedError(
                    "CERTIFICATE_MISSING",
                    f"{name} is served on the main port, with a client certificate",
                )
            return None
        # The stubs say bytes, gRPC hands out tuples of bytes.
        identities = cast("Mapping[str, Iterable[bytes]]", context.auth_context())
        principal = principal_from_auth_context(identities)
        self._standing.admit(principal)
        require_allowed(principal, name)
        if self._quotas is not None and principal.role is Role.TERMINAL:
            self._quotas.spend(str(principal))
        return principal


def _slot(slots: Slots | None, context: grpc.ServicerContext) -> AbstractContextManager[None]:
    return nullcontext() if slots is None else slots.held(context.time_remaining())
