"""How often provisioning, or a login, may fail: a sliding window for each peer, and one over all.

Only refusals count, so a hall full of new terminals behind one address is never held up. The limit
over all peers also bounds the memory kept here; it is set high, because whoever reaches it shuts
everybody else out.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from devices.errors import DevicesError, TokenInvalidError, TooManyAttemptsError
from devices.ports import Clock


class AttemptLimiter:
    """Counts failed attempts. Thread-safe."""

    def __init__(
        self,
        clock: Clock,
        window: timedelta = timedelta(minutes=10),
        per_peer: int = 10,
        overall: int = 1_000,
        counted: type[DevicesError] = TokenInvalidError,
    ) -> None:
        self._clock = clock
        self._counted = counted
        self._window = window
        self._per_peer = per_peer
        self._overall = overall
        self._lock = threading.Lock()
        self._all: deque[tuple[datetime, str]] = deque()
        self._by_peer: dict[str, deque[datetime]] = {}

    @contextmanager
    def attempt(self, peer: str) -> Iterator[None]:
        """Run one attempt, which counts if it ends in the error that is counted.

        It is counted before it is judged and taken back after, so that simultaneous attempts cannot
        slip past the limit.

        Raises:
            TooManyAttemptsError: the peer, or all peers together, are at their limit. Such an
                attempt is not counted again.
        """
        mark = self._begin(peer)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, self._counted):
                self._take_back(peer, mark)
            raise
        self._take_back(peer, mark)

    def _begin(self, peer: str) -> datetime:
        with self._lock:
            now = self._clock.now()
            self._forget_before(now - self._window)
            mine = self._by_peer.get(peer, deque())
            if len(mine) >= self._per_peer:
                raise TooManyAttemptsError((mine[0] + self._window - now).total_seconds())
            if len(self._all) >= self._overall:
                raise TooManyAttemptsError((self._all[0][0] + self._window - now).total_seconds())
            mine.append(now)
            self._by_peer[peer] = mine
            self._all.append((now, peer))
            return now

    def _take_back(self, peer: str, mark: datetime) -> None:
        with self._lock:
            mine = self._by_peer.get(peer)
            if mine is None or mark not in mine:
                return  # it has left the window already
            mine.remove(mark)
            self._all.remove((mark, peer))
            if not mine:
                del self._by_peer[peer]

    def _forget_before(self, start: datetime) -> None:
        while self._all and self._all[0][0] <= start:
            at, peer = self._all.popleft()
            mine = self._by_peer[peer]
            mine.remove(at)
            if not mine:
                del self._by_peer[peer]
