"""A terminal machine as a process of its own: the real client library and its queue on disk.

One JSON object a line, commands in and events out. The first command says which terminals there
are; then the counter hands in submissions, and the events tell what became of them. The process may
be killed at any time: whoever started it hands in again, under the same key, what was not confirmed
as kept. At the end of the commands it stops.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

from devices.errors import QueueError
from devices.terminal.disk import Disk
from devices.terminal.outbox import POLL_S, Outbox
from devices.terminal.queue import QUEUE_FOLDER, Entry, EntryState
from devices.terminal.sending import SendPolicy
from devices.terminal.submission import person_from
from devices.terminal.types import MissingFinger, MissingReason, Person, Sample, SampleFormat

FINGERS_ASKED = 2
LOOK_S = 0.25
NOTICES_S = 2.0
_CLOCK_TICK_NS = 50_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class TerminalSpec:
    """A terminal of a worker.

    Attributes:
        home: its credentials and queue.
        address: where it finds the register, host:port.
        skew_s: by how much its clock is ahead, seconds.
    """

    name: str
    home: str
    address: str
    skew_s: float


# --- lines, written by the simulator and read here -----------------------------------------------


def start_line(terminals: Sequence[TerminalSpec], policy: SendPolicy) -> dict[str, Any]:
    numbers = ("deadline_s", "first_wait_s", "longest_wait_s", "refresh_every_s")
    return {
        "terminals": [vars(one) for one in terminals],
        "policy": {name: getattr(policy, name) for name in numbers},
    }


def submit_line(
    terminal: str,
    key: str,
    label: str,
    person: Person,
    samples: Iterable[Sample],
    missing: Iterable[MissingFinger],
    permit: bool,
) -> dict[str, Any]:
    return {
        "do": "submit",
        "terminal": terminal,
        "key": key,
        "label": label,
        "person": {field.name: _plain(getattr(person, field.name)) for field in fields(person)},
        "samples": [
            [base64.b64encode(one.record).decode(), one.position, int(one.format)]
            for one in samples
        ],
        "missing": [[one.position, int(one.reason)] for one in missing],
        "permit": permit,
    }


def _plain(value: object) -> object:
    if isinstance(value, IntEnum):
        return value.name.lower()
    return value.isoformat() if isinstance(value, date) else value


# --- the process ---------------------------------------------------------------------------------


class Terminal:
    """One terminal's outbox, the thread that sends, and a disk that can be full."""

    def __init__(
        self, spec: TerminalSpec, policy: SendPolicy, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self._name = spec.name
        self._tell = tell
        self._full = threading.Event()
        self._work = threading.Event()
        self._stop = threading.Event()
        self._told: dict[str, str] = {}
        self._folder = Path(spec.home) / QUEUE_FOLDER
        self._changed_ns = 0
        self._waiting = 0
        self._notices_at = 0.0
        self._seen = (-1, "")
        ahead = timedelta(seconds=spec.skew_s)
        self.outbox = Outbox(
            Path(spec.home),
            policy=policy,
            address=spec.address,
            now=lambda: datetime.now(UTC) + ahead,
            disk=lambda directory: FillableDisk(directory, self._full),
            fingers_asked=FINGERS_ASKED,
        )
        self._thread = threading.Thread(target=self._send, name=f"send {spec.name}", daemon=True)

    def start(self) -> None:
        self._tell({"is": "ready", "terminal": self._name})
        self._thread.start()

    def submit(self, command: dict[str, Any]) -> None:
        samples = [
            Sample(base64.b64decode(record), position, SampleFormat(form))
            for record, position, form in command["samples"]
        ]
        key = command["key"]
        try:
            self.outbox.submit(
                person_from(command["person"]),
                samples,
                command["label"],
                permit_requested=command["permit"],
                idempotency_key=key,
                missing_fingers=[
                    MissingFinger(position, MissingReason(reason))
                    for position, reason in command["missing"]
                ],
            )
        except QueueError as error:
            self._tell({"is": "not kept", "key": key, "reason": error.reason})
        else:
            self._tell({"is": "kept", "key": key})
            self._work.set()

    def discard(self, key: str) -> None:
        """Forget a refused entry. It is gone already where this is asked for again."""
        if any(one.key == key for one in self.outbox.queue.entries(EntryState.ATTENTION)):
            self.outbox.queue.discard(key)

    def fill_disk(self, full: bool) -> None:
        if full:
            self._full.set()
        else:
            self._full.clear()

    def look(self) -> None:
        """Tell which entries came into another state since the last look, and how many wait."""
        changed_ns = self._folder.stat().st_mtime_ns
        if changed_ns != self._changed_ns:  # each change of an entry replaces its file
            # What changes in the same tick of the file system's clock is looked at once more.
            settled = time.time_ns() - changed_ns > _CLOCK_TICK_NS
            self._changed_ns = changed_ns if settled else 0
            self._waiting = 0
            for entry in self.outbox.queue.entries():
                self._waiting += entry.state not in (EntryState.SENT, EntryState.ATTENTION)
                if self._told.get(entry.key) != entry.state.name:
                    self._told[entry.key] = entry.state.name
                    self._tell(_event(entry))
        problem = self._seen[1]
        if time.monotonic() >= self._notices_at:
            self._notices_at = time.monotonic() + NOTICES_S
            problem = next(iter(self.outbox.notices()), "")
        if self._seen != (self._waiting, problem):
            self._seen = (self._waiting, problem)
            self._tell(
                {
                    "is": "queue",
                    "terminal": self._name,
                    "waiting": self._waiting,
                    "problem": problem,
                }
            )

    def stop(self) -> None:
        self._stop.set()
        self._work.set()
        self._thread.join()
        self.look()
        self.outbox.close()

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                self.outbox.send(self._stop.is_set)
            except OSError as error:
                # What the register acknowledged stays queued here, and is sent again under its key.
                if error.errno not in _FULL:
                    _die()
            except BaseException:
                _die()
            self._work.wait(POLL_S)
            self._work.clear()


class FillableDisk(Disk):
    """A disk that is full for as long as somebody says so."""

    def __init__(self, directory: Path, full: threading.Event) -> None:
        super().__init__(directory)
        self._full = full

    def write(self, name: str, content: bytes) -> None:
        if self._full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory / name))
        super().write(name, content)


def main() -> None:
    writing = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        with writing:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()

    start = json.loads(sys.stdin.readline())
    policy = SendPolicy(**start["policy"])
    terminals = {
        spec["name"]: Terminal(TerminalSpec(**spec), policy, tell) for spec in start["terminals"]
    }
    for terminal in terminals.values():
        terminal.start()
    stop = threading.Event()

    def report() -> None:
        try:
            while not stop.wait(LOOK_S):
                for terminal in terminals.values():
                    terminal.look()
        except BaseException:
            _die()

    reporter = threading.Thread(target=report, name="report", daemon=True)
    reporter.start()
    for line in sys.stdin:
        command = json.loads(line)
        terminal = terminals[command["terminal"]]
        match command["do"]:
            case "submit":
                terminal.submit(command)
            case "discard":
                terminal.discard(command["key"])
            case "disk":
                terminal.fill_disk(command["full"])
            case other:
                raise ValueError(f"no such command: {other!r}")
    stop.set()
    reporter.join()
    for terminal in terminals.values():
        terminal.stop()


def _event(entry: Entry) -> dict[str, Any]:
    application = entry.application
    return {
        "is": "entry",
        "key": entry.key,
        "state": entry.state.name,
        "reason": entry.reason or entry.status,
        "took_s": (entry.changed_at - entry.queued_at).total_seconds(),
        "application_id": application.application_id if application else "",
        "application_state": int(application.state) if application else 0,
        "registrant_id": application.registrant_id if application else "",
    }


def _die() -> None:
    """A thread found a bug: the whole process ends, with the traceback on stderr."""
    sys.excepthook(*sys.exc_info())
    sys.stderr.flush()
    os._exit(1)
