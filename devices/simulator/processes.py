"""The terminals' processes: started, fed, killed and started again."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devices.simulator.worker import TerminalSpec, start_line
from devices.terminal.sending import SendPolicy

STOP_S = 60.0

Event = dict[str, Any]


class TerminalProcess:
    """Several terminals in one process; see :mod:`devices.simulator.worker`.

    Everything it says comes out of ``events``. When it has gone without being told to,
    ``{"is": "died"}`` comes last.
    """

    def __init__(
        self,
        terminals: Sequence[TerminalSpec],
        policy: SendPolicy,
        events: queue.SimpleQueue[Event],
        log: Path,
    ) -> None:
        """
        Args:
            log: gets what the process writes to stderr.
        """
        self.names = tuple(one.name for one in terminals)
        self._start = start_line(terminals, policy)
        self._events = events
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._told_to_go = False

    @property
    def alive(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it. Its terminals are there once each has told that it is ready."""
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from devices.simulator.worker import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        self._told_to_go = False
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self.send(self._start)

    def send(self, command: Event) -> None:
        """Hand a command over. One that is lost because the process dies is nobody's promise."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL. What it said before is in ``events`` once this returns."""
        if self._process is not None:
            self._told_to_go = True
            self._process.kill()
            self._end()

    def stop(self) -> int:
        """Let it finish what it is doing; returns its exit status."""
        if self._process is None:
            return 0
        self._told_to_go = True
        try:
            if self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._end()

    def _end(self) -> int:
        if self._process is None or self._reader is None:
            return 0
        status = self._process.wait()
        self._reader.join()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None
        return status

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            with process.stdout:
                for line in process.stdout:
                    if line.endswith("\n"):  # else it was killed in the middle of a word
                        self._events.put(json.loads(line))
        if not self._told_to_go:
            self._events.put({"is": "died", "status": process.wait(), "log": str(self._log)})
