"""The server's numbers, in Prometheus' terms.

One registry a process. Every label takes its values from a fixed set of ours (methods of the
contract, gRPC statuses, stages, outcomes): no caller can make a new time series, and none of them
tells of a person.
"""

from __future__ import annotations

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.process_collector import ProcessCollector

# Another time series for each of ours, of no use to anybody.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

# From an empty call (about 1 ms) to what a terminal's deadline allows.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

CALLS = Counter(
    "anju_rpc_calls", "Calls answered, by method and status.", ["method", "status"],
    registry=REGISTRY,
)  # fmt: skip
CALL_SECONDS = Histogram(
    "anju_rpc_duration_seconds", "From the call's arrival to its answer.", ["method"],
    buckets=SECONDS, registry=REGISTRY,
)  # fmt: skip
IN_FLIGHT = Gauge("anju_rpc_in_flight", "Calls that have no answer yet.", registry=REGISTRY)
REFUSALS = Counter(
    "anju_refusals", "Calls and connections that were not let in, by why.", ["reason"],
    registry=REGISTRY,
)  # fmt: skip
STAGE_SECONDS = Histogram(
    "anju_stage_duration_seconds", "What the steps inside a call take.", ["stage"],
    buckets=SECONDS, registry=REGISTRY,
)  # fmt: skip
ENROLMENTS = Counter(
    "anju_enrolments", "Applications settled, by what came of them.", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip
CHORES = Counter(
    "anju_housekeeping_runs", "Chores run, by whether they succeeded.", ["chore", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
CHORE_SECONDS = Histogram(
    "anju_housekeeping_duration_seconds", "What a chore takes.", ["chore"],
    buckets=SECONDS, registry=REGISTRY,
)  # fmt: skip

Code = grpc.StatusCode

_BY_REASON = {
    "QUOTA": "quota",
    "BUSY": "backpressure",
    "DRAINING": "draining",
    "DISK_FULL": "disk",
    "TOO_MANY_ATTEMPTS": "attempts",
    "MESSAGE_TOO_LARGE": "size",
    "MESSAGE_MALFORMED": "malformed",
    "MESSAGE_UNFINISHED": "unfinished",
    "MESSAGE_LATE": "unfinished",
    "DECODE_FAILED": "malformed",
    "UPLOAD_INVALID": "malformed",
    "DIGEST_MISMATCH": "malformed",
    "PORTRAIT_INVALID": "malformed",
    "UPLOAD_TOO_LARGE": "size",
    "UPLOADS_FULL": "quota",
    "IDEMPOTENCY_CONFLICT": "replay",
}
AUTHORISATION = "authorisation"
_BY_STATUS = {
    Code.UNAUTHENTICATED.name: "authentication",
    Code.PERMISSION_DENIED.name: AUTHORISATION,
}
TLS_HANDSHAKE = "tls_handshake"
REFUSAL_REASONS = sorted({*_BY_REASON.values(), *_BY_STATUS.values(), TLS_HANDSHAKE})
# A series that is absent until the first attack cannot be alarmed on.
for _reason in REFUSAL_REASONS:
    REFUSALS.labels(_reason)


def refusal(status: str, reason: str) -> str | None:
    """Why a call was not let in; None for what is an ordinary answer, NOT_FOUND for one.

    Args:
        status: name of the gRPC status.
        reason: of the google.rpc.ErrorInfo.
    """
    return _BY_REASON.get(reason) or _BY_STATUS.get(status)
