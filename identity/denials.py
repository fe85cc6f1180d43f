"""Calls that are refused for who makes them, or as no honest terminal makes them, in the audit log.

Without filling the disk: the first denial of a caller, for one reason, is written at once. Those
that follow within a minute are counted, and make one entry with their number when it is over.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc

from devices.errors import TooManyAttemptsError
from devices.types import Principal
from identity.errors import IdentityError, WithheldError
from identity.observability import metrics
from identity.ports import Clock
from identity.rpc_status import reason_of, status_of
from identity.store import Database

WINDOW = timedelta(minutes=1)
ANONYMOUS = "anonymous"
_DENIED = {
    code.value[0]
    for code in (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    )
}
# Seldom a mistake at a counter: rather a terminal whose software is broken, or not ours.
_HOSTILE = frozenset(
    {
        "MESSAGE_TOO_LARGE",
        "MESSAGE_MALFORMED",
        "MESSAGE_LATE",
        "DECODE_FAILED",
        "PORTRAIT_INVALID",
        "IDEMPOTENCY_CONFLICT",
        "UPLOAD_INVALID",
        "UPLOAD_TOO_LARGE",
        "UPLOADS_FULL",
        "DIGEST_MISMATCH",
    }
)
_MAX_OUTCOME, _MAX_SUBJECT = 64, 40


_Key = tuple[str, str, str]  # who, whom they claimed to be, why


@dataclass
class _Repeated:
    since: datetime
    action: str = ""
    count: int = 0


class DenialLog:
    """Thread-safe. Certificates bound the callers, and with them what is remembered."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: dict[_Key, _Repeated] = {}

    def note(self, caller: Principal | None, method: str, error: Exception) -> None:
        """Write or count a refusal; errors of another kind are none of its business."""
        status = status_of(error)
        withheld = isinstance(error, WithheldError)
        reason = reason_of(status)
        if withheld:
            metrics.REFUSALS.labels(metrics.AUTHORISATION).inc()
            reason = f"WITHHELD: {reason}"
        elif not (
            status.code in _DENIED or reason in _HOSTILE or isinstance(error, TooManyAttemptsError)
        ):
            return
        who = ANONYMOUS if caller is None else caller.who
        # Whom a failed login claimed to be; failed logins are throttled, so those are few.
        subject = str(getattr(error, "subject_id", ""))[:_MAX_SUBJECT]
        key = (who, subject, reason)
        now = self._clock.now()
        with self._lock:
            known = self._recent.get(key)
            if known is not None and now < known.since + WINDOW:
                known.action = method
                known.count += 1
                return
            due = self._take_due(now)
            self._recent[key] = _Repeated(now)
        self._write(due, now, (key, method))

    def flush(self, everything: bool = False) -> None:
        """Write the counts whose minute is over."""
        now = self._clock.now()
        with self._lock:
            due = self._take_due(now, everything)
        self._write(due, now)

    def _take_due(self, now: datetime, everything: bool = False) -> dict[_Key, _Repeated]:
        due = {
            key: one for key, one in self._recent.items() if everything or now >= one.since + WINDOW
        }
        for key in due:
            del self._recent[key]
        return {key: one for key, one in due.items() if one.count}

    def _write(
        self, due: dict[_Key, _Repeated], now: datetime, first: tuple[_Key, str] | None = None
    ) -> None:
        """Counts that are due, and a denial (of this key, by this method) that is no repetition."""
        lines = [
            (key, one.action, one.count, f"{one.count} more: {key[2]}") for key, one in due.items()
        ]
        if first is not None:
            key, method = first
            lines.append((key, method, 1, key[2]))
        if not lines:
            return
        try:
            with self._database.write() as tx:
                for (who, subject, _), action, _, outcome in lines:
                    tx.audit.append(now, who, action, subject, outcome=outcome[:_MAX_OUTCOME])
        except IdentityError:
            # The disk is full, say. What is not written is counted on, and written later.
            with self._lock:
                for key, action, count, _ in lines:
                    known = self._recent.setdefault(key, _Repeated(now))
                    known.action = action
                    known.count += count
            raise
