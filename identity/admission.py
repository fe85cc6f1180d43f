"""How much is let in: a quota for each terminal, and a bound on calls that wait.

Under more load than it can carry, a server that queues everything answers nobody in time. So a call
either runs soon or is refused at once with RESOURCE_EXHAUSTED and the time to come back after
(``RetryInfo``); terminals keep what they have and come back with jitter.

* **Slots**: so many calls run at a time, so many wait, each for a short while. One more is
  ``BUSY``.
* **Gate**: shut while the server drains, see :class:`Gate`. One more is UNAVAILABLE, ``DRAINING``.
* **Shares**: so many at a time of what each caller may hold open for as long as it likes. One more
  is ``BUSY``.
* **Quota**: a token bucket a terminal (refilled evenly, holding one minute's worth), so that one
  terminal in a loop cannot take the others' place. One more is ``QUOTA``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from identity.errors import OverloadError, UnavailableError

PATIENCE_S = 2.0
"""A call that has not begun by then would mostly miss its deadline anyway."""
BUSY_RETRY_S = 2.0


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class Quotas:
    """Calls a minute for each caller. Thread-safe; ``per_minute`` of 0 sets no limit."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, caller: str) -> None:
        """Count one call of a caller.

        Raises:
            OverloadError: QUOTA, with the time until the next call is heard.
        """
        if not self._per_minute:
            return
        rate = self._per_minute / 60.0
        with self._lock:
            now = self._monotonic()
            bucket = self._buckets.setdefault(caller, _Bucket(self._per_minute, now))
            refilled = bucket.tokens + (now - bucket.filled_at) * rate
            bucket.tokens = min(float(self._per_minute), refilled)
            bucket.filled_at = now
            if bucket.tokens < 1.0:
                raise OverloadError(
                    "QUOTA",
                    f"this terminal made more than {self._per_minute} calls in a minute; what it "
                    "holds back can be sent later",
                    (1.0 - bucket.tokens) / rate,
                )
            bucket.tokens -= 1.0


class Slots:
    """So many calls at a time, so many waiting. Thread-safe.

    Args:
        running, waiting: how many of each.
        patience_s: how long one may wait, in seconds.
    """

    def __init__(self, running: int, waiting: int, patience_s: float = PATIENCE_S) -> None:
        self._running = threading.Semaphore(running)
        self._may_wait = waiting
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return self._waiting

    @contextmanager
    def held(self, remaining_s: float | None) -> Iterator[None]:
        """Hold a slot for the length of the block.

        Args:
            remaining_s: until the caller's deadline; it waits no longer than that.

        Raises:
            OverloadError: BUSY.
        """
        if not self._running.acquire(blocking=False):
            self._wait(remaining_s)
        try:
            yield
        finally:
            self._running.release()

    def _wait(self, remaining_s: float | None) -> None:
        with self._lock:
            if self._waiting >= self._may_wait:
                raise _busy()
            self._waiting += 1
        patience_s = self._patience_s if remaining_s is None else min(self._patience_s, remaining_s)
        try:
            if not self._running.acquire(timeout=max(0.0, patience_s)):
                raise _busy()
        finally:
            with self._lock:
                self._waiting -= 1


class Shares:
    """So many at a time of each caller's, so that nobody takes the others' place. Thread-safe."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, caller: str) -> Iterator[None]:
        """Hold one of a caller's for the length of the block.

        Raises:
            OverloadError: BUSY.
        """
        with self._lock:
            if self._held[caller] >= self._each:
                raise OverloadError(
                    "BUSY",
                    f"this caller holds {self._each} such calls open; let one end first",
                    BUSY_RETRY_S,
                )
            self._held[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[caller] -= 1
                if not self._held[caller]:
                    del self._held[caller]


class Gate:
    """Counts the calls inside; once shut, lets no other in and tells when the last has left.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside for the length of the block.

        Raises:
            UnavailableError: DRAINING.
        """
        with self._changed:
            if self._shut:
                raise UnavailableError(
                    "DRAINING", "this server is being stopped; call again, nothing is lost"
                )
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def shut(self, timeout_s: float) -> int:
        """Let nobody in any more and wait for those inside; returns how many are left."""
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: not self._inside, timeout_s)
            return self._inside


def _busy() -> OverloadError:
    return OverloadError(
        "BUSY", "the register has more calls than it can answer now; come back", BUSY_RETRY_S
    )
