"""A folder that capture software drops submissions into.

The software writes the records first and the JSON last, under another name and then renamed to
``<name>.json`` (see :mod:`devices.terminal.submission`). From then on the files are ours. A name is
used once. What became of it is told in ``<name>.state``, JSON again, for the software to read.

A drop is taken in steps that may each be the last before a crash::

    queue it durably │ write .state │ rename .json to .taken │ delete records │ delete .taken

Up to the third, the next start takes the same drop again, and its content gives the same
idempotency key: it is one submission. From the third on, the next start only cleans up.

Images become templates before anything is queued, and what is doubtful about a capture is told in
``.state`` (``findings``, in the languages of :mod:`devices.terminal.feedback`) while the person is
still at the counter: the software captures again and writes the drop anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from devices.errors import (
    CaptureDoubtfulError,
    ExtractorMissingError,
    QueueError,
    SubmissionInvalidError,
)
from devices.terminal.check import (
    Capture,
    Examiner,
    Finger,
    findings,
    finger_from,
    require_explained,
    require_undoubted,
)
from devices.terminal.disk import Disk
from devices.terminal.feedback import LANGUAGES, Finding
from devices.terminal.queue import MAX_PICTURE_BYTES, Entry, SubmissionQueue
from devices.terminal.submission import MAX_JSON_BYTES, SampleFile, Submission, read_submission
from devices.terminal.types import FingerFile
from devices.terminal.wire import enrol_request, packed_enrolment, pictures

MAX_RECORD_BYTES = 65_536
_REMEMBERED = 64
_NOT_TAKEN = "not taken"
_DROP, _TAKEN, _STATE = ".json", ".taken", ".state"


class Spool:
    """The folder; one process at a time takes from it."""

    def __init__(
        self,
        directory: Path,
        queue: SubmissionQueue,
        now: Callable[[], datetime],
        disk: Callable[[Path], Disk] = Disk,
        examiner: Examiner | None = None,
        fingers_asked: int = 1,
    ) -> None:
        self._examiner = examiner
        self._fingers_asked = fingers_asked
        # A drop that must wait is looked at every second; its images need not be, again.
        self._looked: dict[str, _Looked] = {}
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
                entry, looked = self._queued(stem)
                told = {**_state(entry), **_told(looked)}
            except (SubmissionInvalidError, QueueError, ExtractorMissingError) as error:
                # Until it is corrected; or, when the queue is full, until there is room.
                looked_at = isinstance(error, (CaptureDoubtfulError, QueueError))
                told = _not_taken(error.reason, str(error))
                self._tell(stem, {**told, **_told(self._looked[stem])} if looked_at else told)
            else:
                self._looked.pop(stem, None)
                self._tell(stem, told)
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

    def _queued(self, stem: str) -> tuple[Entry, _Looked]:
        content = self._read(f"{stem}{_DROP}", MAX_JSON_BYTES)
        submission = read_submission(content)
        files = {name: self._read(name, MAX_PICTURE_BYTES) for name in submission.files}
        key = self._queue.key_for(stem.encode(errors="surrogateescape"), content, *files.values())
        looked = self._looked.get(stem)
        if looked is None or looked.key != key:
            looked = self._looked_at(key, submission, files)
            if len(self._looked) >= _REMEMBERED:
                self._looked.clear()
            self._looked[stem] = looked
        if not submission.accept_findings:
            require_undoubted(looked.findings)
        portrait = files.get(submission.portrait, b"")
        images = [
            FingerFile(files[one.file], one.position, one.resolution_ppi or 0)
            for one in submission.samples
            if one.at_register
        ]
        request = enrol_request(
            submission.person,
            [capture.finger.sample for capture in looked.captures],
            submission.permit_requested,
            submission.captured_at or self._now(),
            key,
            portrait,
            submission.missing_fingers,
            images,
        )
        packed = packed_enrolment(request)
        return self._queue.put(key, stem, packed, pictures(portrait, images)), looked

    def _looked_at(self, key: str, submission: Submission, files: Mapping[str, bytes]) -> _Looked:
        require_explained(len(submission.samples), submission.missing_fingers, self._fingers_asked)
        captures = tuple(
            Capture(
                _finger(one, one.file, files), _finger(one, one.again, files) if one.again else None
            )
            for one in submission.samples
            if not one.at_register
        )
        return _Looked(key, captures, tuple(findings(captures, self._examiner)))

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
            self._disk.remove(*submission.files)
        self._disk.remove(taken)

    def _tell(self, stem: str, told: Mapping[str, Any]) -> None:
        name = f"{stem}{_STATE}"
        if stem not in self._told:
            with contextlib.suppress(FileNotFoundError):
                self._told[stem] = self._disk.read(name)
        before = self._told.get(stem)
        if before is not None and told["state"] != _NOT_TAKEN and "fingers" not in told:
            told = {**told, **_fingers_in(before)}
        content = json.dumps(told, ensure_ascii=False, indent=1).encode() + b"\n"
        if before != content:
            self._disk.replace(name, content)
            self._told[stem] = content


@dataclass(frozen=True)
class _Looked:
    """What a drop's files turned out to be."""

    key: str
    captures: tuple[Capture, ...]
    findings: tuple[Finding, ...]


def _finger(stated: SampleFile, file: str, files: Mapping[str, bytes]) -> Finger:
    finger = finger_from(files[file], stated.position, stated.format, stated.resolution_ppi)
    if len(finger.sample.record) > MAX_RECORD_BYTES:
        raise SubmissionInvalidError(f"{file[:100]!r} is larger than {MAX_RECORD_BYTES} bytes")
    return finger


def _state(entry: Entry) -> dict[str, Any]:
    application = entry.application
    return {
        "state": entry.state.value,
        "key": entry.key,
        "changed_at": entry.changed_at.isoformat(),
        "reason": entry.reason or entry.status,
        "message": entry.message,
        "application_id": application.application_id if application else "",
        "application_state": application.state.name if application else "",
        "case_id": application.case_id if application else "",
    }


def _not_taken(reason: str, message: str) -> dict[str, Any]:
    return {"state": _NOT_TAKEN, "reason": reason, "message": message}


def _told(looked: _Looked) -> dict[str, Any]:
    """Quality and findings, for the software to show at once."""
    return {
        "fingers": [
            {
                "position": capture.finger.sample.position,
                **({} if capture.finger.quality < 0 else {"quality": capture.finger.quality}),
            }
            for capture in looked.captures
        ],
        "findings": [
            {
                "position": one.position,
                "problem": one.problem.value,
                "doubtful": one.doubtful,
                **{language: one.text(language) for language in LANGUAGES},
            }
            for one in looked.findings
        ],
    }


def _fingers_in(state: bytes) -> dict[str, Any]:
    """What an earlier state file said of the captures, which do not change any more."""
    try:
        told = json.loads(state)
        return {name: told[name] for name in ("fingers", "findings") if name in told}
    except (ValueError, TypeError):
        return {}  # somebody else's file: it is written anew
