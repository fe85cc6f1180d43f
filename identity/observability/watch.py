"""One call as the operator of the server sees it: a line in the log, its numbers, its span."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from devices.errors import CertificateInvalidError
from identity.contract import certified, method_name
from identity.observability import metrics, tracing

log = structlog.get_logger("anju.rpc")

_request_id: ContextVar[str] = ContextVar("anju_request_id", default="")


def request_id() -> str:
    """The id of the call being served, ours: callers may not choose what is in our log."""
    return _request_id.get()


@dataclass
class Watched:
    """What came of a call, for whoever turns its error into a status."""

    status: str = grpc.StatusCode.OK.name
    reason: str = ""


@contextmanager
def watched(path: str, context: grpc.ServicerContext) -> Iterator[Watched]:
    """Watch one call of the contract, e.g. ``/anju.v1.EnrolmentService/Enrol``, to its end.

    The block sets status and reason of what it refuses. What it raises otherwise, gRPC's own
    abortion included, passes through.
    """
    method = method_name(path)
    seen = Watched()
    start = time.perf_counter()
    token = _request_id.set(secrets.token_hex(8))
    metrics.IN_FLIGHT.inc()
    try:
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id()),
            tracing.span(method, server=True) as span,
        ):
            try:
                yield seen
            finally:
                seconds = time.perf_counter() - start
                if seen.status == grpc.StatusCode.OK.name and not context.is_active():
                    seen.status = grpc.StatusCode.CANCELLED.name  # nobody was there to hear it
                caller = _caller(context)
                _count(method, seen, seconds)
                _log(method, seen, seconds, caller)
                if span is not None:
                    span.set_attributes(
                        {
                            "rpc.system": "grpc",
                            "rpc.method": method,
                            "rpc.grpc.status_code": seen.status,
                            "anju.request_id": request_id(),
                            "anju.caller": caller,
                        }
                    )
    finally:
        metrics.IN_FLIGHT.dec()
        _request_id.reset(token)


def _count(method: str, seen: Watched, seconds: float) -> None:
    metrics.CALLS.labels(method, seen.status).inc()
    metrics.CALL_SECONDS.labels(method).observe(seconds)
    why = metrics.refusal(seen.status, seen.reason)
    if why is not None:
        metrics.REFUSALS.labels(why).inc()


def _log(method: str, seen: Watched, seconds: float, caller: str) -> None:
    fields: dict[str, Any] = {"method": method, "status": seen.status, "caller": caller}
    if seen.reason:
        fields["reason"] = seen.reason
    log.info("call", **fields, ms=round(seconds * 1e3, 1))


def _caller(context: grpc.ServicerContext) -> str:
    """Who the client certificate names, e.g. ``terminal:east-gate/hall-1``; or why nobody."""
    try:
        return str(certified(context))
    except CertificateInvalidError:
        return "unidentified"
