"""A folder that capture software drops submissions into.

The software writes the records first and the JSON last, under another name and then renamed to
``<name>.json`` (see :mod:`devices.terminal.submission`). From then on the files are ours. A name is
used once. What became of it is told in ``<name>.state``, JSON again, for the software to read.

A drop is taken in steps that may each be the last before a crash::

    queue it durably │ write .state │ rename .json to .taken │ delete records │ delete .taken

Up to the third, the next start takes the same drop again, and its content gives the same
idempotency key: it is one submission. From the third on, the next start only cleans up.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from devices.errors import QueueError, SubmissionInvalidError
from devices.terminal.disk import Disk
from devices.terminal.queue import Entry, SubmissionQueue
from devices.terminal.submission import MAX_JSON_BYTES, Submission, read_submission
from devices.terminal.types import Sample
from devices.terminal.wire import packed_enrolment

MAX_RECORD_BYTES = 65_536
_DROP, _TAKEN, _STATE = ".json", ".taken", ".state"


class Spool:
    """The folder; one process at a time takes from it."""

    def __init__(
        self,
        directory: Path,
        queue: SubmissionQueue,
        now: Callable[[], datetime],
        disk: Callable[[Path], Disk] = Disk,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._disk = disk(directory)
        self._queue = queue
        self._now = now
        self._told: dict[str, bytes] = {}
        self._disk.sweep()
        names = self._disk.names()
        for name in names:
            if name.endswith(_TAKEN):
                self._clear(name.removesuffix(_TAKEN))

    def take(self) -> None:
        """Queue every drop that is complete; the others are told what is wrong with them."""
        names = self._disk.names()
        for name in names:
            if not name.endswith(_DROP):
                continue
            stem = name.removesuffix(_DROP)
            try:
                entry = self._queued(stem)
            except (SubmissionInvalidError, QueueError) as error:
                # Until it is corrected; or, when the queue is full, until there is room.
                self._tell(stem, _not_taken(error.reason, str(error)))
            else:
                self._tell(stem, _state(entry))
                self._disk.move(name, f"{stem}{_TAKEN}")
                self._clear(stem)

    def tell(self, entries: Iterable[Entry]) -> None:
        """Bring the state files of earlier drops up to date; forget those of forgotten entries."""
        by_label = {entry.label: entry for entry in entries}
        names = set(self._disk.names())
        for name in sorted(names):
            if not name.endswith(_STATE):
                continue
            stem = name.removesuffix(_STATE)
            if f"{stem}{_DROP}" in names:
                continue
            if stem in by_label:
                self._tell(stem, _state(by_label[stem]))
            else:
                self._told.pop(stem, None)
                self._disk.remove(name)

    def _queued(self, stem: str) -> Entry:
        content = self._read(f"{stem}{_DROP}", MAX_JSON_BYTES)
        submission = read_submission(content)
        records = [self._read(one.file, MAX_RECORD_BYTES) for one in submission.samples]
        key = self._queue.key_for(stem.encode(errors="surrogateescape"), content, *records)
        request = packed_enrolment(
            submission.person,
            [
                Sample(record, one.position, one.format)
                for record, one in zip(records, submission.samples, strict=True)
            ],
            submission.permit_requested,
            submission.captured_at or self._now(),
            key,
        )
        return self._queue.put(key, stem, request)

    def _read(self, name: str, max_bytes: int) -> bytes:
        path = self._disk.directory / name
        if path.is_symlink() or not path.is_file():
            raise SubmissionInvalidError(
                f"there is no file {name[:100]!r} beside the JSON; write the records before it"
            )
        if path.stat().st_size > max_bytes:
            raise SubmissionInvalidError(f"{name[:100]!r} is larger than {max_bytes} bytes")
        return self._disk.read(name)

    def _clear(self, stem: str) -> None:
        """Delete a drop that is in the queue."""
        taken = f"{stem}{_TAKEN}"
        submission: Submission | None = None
        with contextlib.suppress(SubmissionInvalidError):
            submission = read_submission(self._disk.read(taken))
        if submission is not None:
            self._disk.remove(*(one.file for one in submission.samples))
        self._disk.remove(taken)

    def _tell(self, stem: str, content: bytes) -> None:
        name = f"{stem}{_STATE}"
        if stem not in self._told:
            with contextlib.suppress(FileNotFoundError):
                self._told[stem] = self._disk.read(name)
        if self._told.get(stem) != content:
            self._disk.replace(name, content)
            self._told[stem] = content


def _state(entry: Entry) -> bytes:
    application = entry.application
    told = {
        "state": entry.state.value,
        "key": entry.key,
        "changed_at": entry.changed_at.isoformat(),
        "reason": entry.reason or entry.status,
        "message": entry.message,
        "application_id": application.application_id if application else "",
        "application_state": application.state.name if application else "",
        "case_id": application.case_id if application else "",
    }
    return json.dumps(told, ensure_ascii=False, indent=1).encode() + b"\n"


def _not_taken(reason: str, message: str) -> bytes:
    told = {"state": "not taken", "reason": reason, "message": message}
    return json.dumps(told, ensure_ascii=False, indent=1).encode() + b"\n"
