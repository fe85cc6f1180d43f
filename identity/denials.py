"""Calls that are refused for who makes them, in the audit log, without filling the disk.

The first denial of a caller is written at once. Those that follow within a minute are counted, and
make one entry with their number when the minute is over.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc

from devices.errors import TooManyAttemptsError
from devices.types import Principal
from identity.ports import Clock
from identity.rpc_status import status_of
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
_MAX_OUTCOME, _MAX_SUBJECT = 64, 40


@dataclass
class _Repeated:
    since: datetime
    action: str = ""
    reason: str = ""
    count: int = 0


class DenialLog:
    """Thread-safe. Callers are bounded by certificates, so what is remembered is, too."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: dict[tuple[str, str], _Repeated] = {}

    def note(self, caller: Principal | None, method: str, error: Exception) -> None:
        """Write or count a refusal; errors of another kind are none of its business."""
        status = status_of(error)
        if status.code not in _DENIED and not isinstance(error, TooManyAttemptsError):
            return
        who = ANONYMOUS if caller is None else caller.who
        # Whom a failed login claimed to be; failed logins are throttled, so those are few.
        subject = str(getattr(error, "subject_id", ""))[:_MAX_SUBJECT]
        reason = str(getattr(error, "reason", type(error).__name__))
        now = self._clock.now()
        with self._lock:
            known = self._recent.get((who, subject))
            if known is not None and now < known.since + WINDOW:
                known.action, known.reason = method, reason
                known.count += 1
                return
            due = self._take_due(now)
            self._recent[who, subject] = _Repeated(now)
        self._write(due, now)
        with self._database.write() as tx:
            tx.audit.append(now, who, method, subject, outcome=reason[:_MAX_OUTCOME])

    def flush(self, everything: bool = False) -> None:
        """Write the counts whose minute is over."""
        now = self._clock.now()
        with self._lock:
            due = self._take_due(now, everything)
        self._write(due, now)

    def _take_due(
        self, now: datetime, everything: bool = False
    ) -> dict[tuple[str, str], _Repeated]:
        due = {
            key: one for key, one in self._recent.items() if everything or now >= one.since + WINDOW
        }
        for key in due:
            del self._recent[key]
        return {key: one for key, one in due.items() if one.count}

    def _write(self, due: dict[tuple[str, str], _Repeated], now: datetime) -> None:
        if not due:
            return
        with self._database.write() as tx:
            for (who, subject), one in due.items():
                outcome = f"{one.count} more: {one.reason}"[:_MAX_OUTCOME]
                tx.audit.append(now, who, one.action, subject, outcome=outcome)
