"""What a running server does on its own: chores, each when it is due, none in another's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from identity.observability.metrics import CHORE_SECONDS, CHORES

TICK_S = 5.0

log = structlog.get_logger("anju")


@dataclass(frozen=True)
class Chore:
    """Work that is due ``every_s`` seconds after it last succeeded; 0 means at every tick."""

    name: str
    every_s: float
    work: Callable[[], object]


class Housekeeper:
    """Runs chores on a thread of its own, one after the other.

    A chore that fails (the disk is full, say) is logged by the type of its error and tried again at
    the next tick; the others are not held up by it.
    """

    def __init__(
        self,
        chores: Sequence[Chore],
        tick_s: float = TICK_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chores = chores
        self._tick_s = tick_s
        self._monotonic = monotonic
        self._done_at = {chore.name: monotonic() for chore in chores}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the chore that is running finish; none begins after this returns."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def tick(self) -> None:
        """Run what is due."""
        for chore in self._chores:
            if self._monotonic() - self._done_at[chore.name] < chore.every_s:
                continue
            try:
                with CHORE_SECONDS.labels(chore.name).time():
                    chore.work()
                self._done_at[chore.name] = self._monotonic()
                CHORES.labels(chore.name, "ok").inc()
            except Exception as error:
                log.error("chore failed", chore=chore.name, error=type(error).__name__)
                CHORES.labels(chore.name, "failed").inc()

    def _run(self) -> None:
        while not self._stopping.wait(self._tick_s):
            self.tick()
