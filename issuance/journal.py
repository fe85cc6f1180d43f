"""Append-only record of what was promised and what was decided; on disk before it takes effect.

Theory of operation. A permit exists from the moment its signature does, whatever happens to the
machine a millisecond later. So the journal takes a serial number out of circulation and is on disk
*before* anything is signed with it, and a status change is on disk before it is published. Permit
numbers and status indexes are permutations of the serial, so one counter keeps both unique.

The journal is a directory of segments, `00000001.log` onwards. Each line is the CRC-32 of a JSON
object and the object. The first line of a segment is a checkpoint with everything that must be
remembered from before, so opening reads the newest segment only. Older ones stay as a record.

A backup is older than what happened after it, and nothing in it says so. So at every opening the
counter jumps ahead by as many serials as could have been used since the last line that is there
(`BACKUP_RATE`): whoever restores a backup reuses nothing, and after an ordinary restart the jump is
as short as the pause. Serials are plentiful and lists without permits are not published.

After a crash the last line may be torn. It was never acknowledged, so it is cut off, and the
counter jumps ahead by `TORN_SKIP` in case the disk lied about what it had kept. A damaged line
that is not the last is no crash: the journal refuses to open, since a guess could reuse a number.

Writers share one fsync: whoever waits for the disk is covered by the next one that starts after its
line was written. No personal data is ever written here.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from issuance.errors import JournalError, JournalLockedError, StatusTransitionError
from issuance.types import PermitStatus, Reservation, StatusRef

# Far more than the lines that can be in flight at once; serials are plentiful.
TORN_SKIP: Final = 1_024
# Serials a second that may have been used after a backup was taken; one machine with a synced disk
# reserves fewer (benchmarks/issuance.py).
BACKUP_RATE: Final = 1_000


class Journal:
    """The open journal of one authority. Safe for use by several threads, by one process only.

    Args:
        directory: made if missing.
        segment_lines: after this many lines a new segment begins.
        now: when it is opened, to jump over what a restored backup does not know; None for no jump.

    Raises:
        JournalLockedError: another process has it open.
        JournalError: it is damaged or cannot be read.
    """

    def __init__(
        self, directory: Path, *, segment_lines: int = 200_000, now: datetime | None = None
    ) -> None:
        self._directory = directory
        self._segment_lines = segment_lines
        self._state = _State()
        self._claimable: set[int] = set()
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._written = self._synced = self._lines = 0
        self._broken = False
        self.recovered_bytes = 0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise JournalError(f"cannot open the journal: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_file)
            raise JournalLockedError("the journal is open in another process") from error
        try:
            self._open_newest()
            if now is not None:
                self._jump_over_lost_time(now)
        except BaseException:
            os.close(self._lock_file)
            raise

    def close(self) -> None:
        """Sync and close. Further calls raise `JournalError`."""
        with self._sync_lock, self._lock:
            if self._lock_file < 0:
                return
            if not self._broken:
                os.fsync(self._file)
            os.close(self._file)
            os.close(self._lock_file)
            self._lock_file = -1
            self._broken = True

    @property
    def next_serial(self) -> int:
        return self._state.next_serial

    @property
    def lists(self) -> Mapping[int, datetime]:
        """List number -> when an entry of it was last reserved; lists without one are absent."""
        with self._lock:
            return MappingProxyType(dict(self._state.lists))

    @property
    def statuses(self) -> Mapping[StatusRef, PermitStatus]:
        """A copy of every status that is not VALID."""
        with self._lock:
            return MappingProxyType(dict(self._state.statuses))

    def status(self, ref: StatusRef) -> PermitStatus:
        with self._lock:
            return self._state.statuses.get(ref, PermitStatus.VALID)

    @property
    def unfinished(self) -> tuple[Reservation, ...]:
        """Reservations not known to have been signed, oldest first."""
        with self._lock:
            return tuple(self._state.unfinished.values())

    def reserve(self, describe: Callable[[int], Reservation], at: datetime) -> Reservation:
        """Take the next serial; durable when this returns.

        Args:
            describe: serial -> what it stands for. Called under the lock; must be quick.
        """
        with self._lock:
            reservation = describe(self._state.next_serial)
            record = {
                "t": "intent",
                "serial": reservation.serial,
                "number": reservation.permit_number,
                "list": reservation.status.list_number,
                "index": reservation.status.index,
                "at": at.isoformat(),
            }
            ticket = self._append(record)
            self._claimable.add(reservation.serial)
        self._sync(ticket)
        return reservation

    def claim(self, reservation: Reservation) -> None:
        """Take `reservation` for one signature; call before signing.

        Raises `JournalError` if it was claimed before, or reserved before the journal was opened:
        a crash may have come after its signature, so it is never signed again.
        """
        with self._lock:
            if self._state.unfinished.get(reservation.serial) != reservation:
                raise JournalError(f"serial {reservation.serial} is not reserved, or was signed")
            if reservation.serial not in self._claimable:
                raise JournalError(f"serial {reservation.serial} was claimed before; reserve anew")
            self._claimable.remove(reservation.serial)

    def record_signed(self, reservation: Reservation, kid: str, digest: str) -> None:
        """Note the signature made under `reservation`. Not synced: losing it loses no safety."""
        record = {"t": "signed", "serial": reservation.serial, "kid": kid, "sha256": digest}
        with self._lock:
            self._append(record)

    def set_status(self, ref: StatusRef, status: PermitStatus, at: datetime) -> bool:
        """Change a status; durable when this returns. False if it was so already.

        Raises `StatusTransitionError` when the permit is revoked: revocation is final.
        """
        with self._lock:
            current = self._state.statuses.get(ref, PermitStatus.VALID)
            if current is status:
                return False
            if current is PermitStatus.REVOKED:
                raise StatusTransitionError("the permit is revoked, and revocation is final")
            ticket = self._append_status(ref, status, at)
        self._sync(ticket)
        return True

    def adopt(
        self,
        statuses: Mapping[StatusRef, PermitStatus],
        next_serial: int,
        lists: Iterable[int],
        at: datetime,
    ) -> None:
        """Make a register's truth ours: exactly these statuses, and no serial below `next_serial`.

        Unlike `set_status` this may undo a revocation that the register does not have.

        Args:
            lists: numbers of lists with permits; one that is new here counts as last used now.
        """
        with self._lock:
            ticket = self._written
            for number in sorted(set(lists) - self._state.lists.keys()):
                ticket = self._append({"t": "list", "list": number, "at": at.isoformat()})
            for ref in self._state.statuses.keys() - statuses.keys():
                ticket = self._append_status(ref, PermitStatus.VALID, None)
            for ref, status in statuses.items():
                if self._state.statuses.get(ref, PermitStatus.VALID) is not status:
                    ticket = self._append_status(ref, status, None)
            if next_serial > self._state.next_serial:
                ticket = self._append({"t": "skip", "next": next_serial})
        self._sync(ticket)

    def _jump_over_lost_time(self, now: datetime) -> None:
        last = self._state.last_at
        if last is None:
            return
        lost_s = (now - last).total_seconds()
        # A last line of tomorrow bounds nothing; the torn end's allowance must do.
        skip = TORN_SKIP if lost_s < 0 else int(lost_s * BACKUP_RATE)
        if skip:
            record = {"t": "skip", "next": self.next_serial + skip, "at": now.isoformat()}
            self._sync(self._append(record))

    def _append_status(self, ref: StatusRef, status: PermitStatus, at: datetime | None) -> int:
        record = {"t": "status", "list": ref.list_number, "index": ref.index, "to": int(status)}
        return self._append(record if at is None else {**record, "at": at.isoformat()})

    def _append(self, record: dict[str, Any]) -> int:
        """Write a line and apply it; the caller holds the lock. Returns a ticket for `_sync`."""
        if self._broken:
            raise JournalError("the journal is closed or failed to write; reopen it")
        try:
            if self._lines >= self._segment_lines:
                self._start_segment(self._segment + 1)
            _write_all(self._file, _line(record))
        except OSError as error:
            # What is on disk is unknown now. Going on could reuse a number.
            self._broken = True
            raise JournalError(f"cannot write the journal: {error.strerror}") from error
        self._state.apply(record)
        self._lines += 1
        self._written += 1
        return self._written

    def _sync(self, ticket: int) -> None:
        with self._sync_lock:
            if self._synced >= ticket:
                return
            with self._lock:
                if self._broken:
                    raise JournalError("the journal is closed or failed to write; reopen it")
                # A duplicate descriptor: a new segment may begin while we wait for the disk.
                upto, file = self._written, os.dup(self._file)
            try:
                os.fsync(file)
            except OSError as error:
                self._broken = True
                raise JournalError(f"cannot sync the journal: {error.strerror}") from error
            finally:
                os.close(file)
            self._synced = upto

    def _open_newest(self) -> None:
        try:
            names = sorted(self._directory.glob("[0-9]*.log"))
            if not names:
                self._start_segment(1)
                return
            path = names[-1]
            self._segment = int(path.stem)
            data = path.read_bytes()
            good = self._replay(data, path.name)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
            if good < len(data):
                self.recovered_bytes = len(data) - good
                os.ftruncate(self._file, good)
                self._sync(self._append({"t": "skip", "next": self.next_serial + TORN_SKIP}))
        except (OSError, ValueError) as error:
            raise JournalError(f"cannot open the journal: {type(error).__name__}") from error

    def _replay(self, data: bytes, name: str) -> int:
        """Apply the lines of a segment; returns the length of the part that is whole."""
        lines = data.split(b"\n")
        good = 0
        for number, line in enumerate(lines[:-1], start=1):
            record = _record(line)
            if record is None or (number == 1) is not (record.get("t") == "checkpoint"):
                if number > 1 and number == len(lines) - 1 and not lines[-1]:
                    return good
                raise JournalError(
                    f"{name} is damaged at line {number}; reconcile from the register"
                )
            self._state.apply(record)
            good += len(line) + 1
            self._lines = number
        if not good:
            raise JournalError(f"{name} has no checkpoint; reconcile from the register")
        return good

    def _start_segment(self, number: int) -> None:
        """Begin a segment with a checkpoint, durable before its first line can be written."""
        path = self._directory / f"{number:08d}.log"
        partial = path.with_suffix(".new")
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        records = self._state.checkpoint()
        _write_all(file, b"".join(map(_line, records)))
        os.fsync(file)
        os.rename(partial, path)
        directory = os.open(self._directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        if number > 1:
            os.fsync(self._file)
            os.close(self._file)
        self._segment, self._file, self._lines = number, file, len(records)


class _State:
    """What the lines add up to."""

    def __init__(self) -> None:
        self.next_serial = 0
        self.statuses: dict[StatusRef, PermitStatus] = {}
        self.unfinished: dict[int, Reservation] = {}
        self.lists: dict[int, datetime] = {}
        self.last_at: datetime | None = None

    def apply(self, record: Mapping[str, Any]) -> None:
        at = datetime.fromisoformat(record["at"]) if "at" in record else None
        self.last_at = at or self.last_at
        match record["t"]:
            case "intent":
                serial = record["serial"]
                ref = StatusRef(record["list"], record["index"])
                self.unfinished[serial] = Reservation(serial, record["number"], ref)
                self.next_serial = max(self.next_serial, serial + 1)
                self._use_list(ref.list_number, at)
            case "list":
                self._use_list(record["list"], at)
            case "signed":
                self.unfinished.pop(record["serial"], None)
            case "status":
                self._apply_status(record["list"], record["index"], record["to"])
            case "skip":
                self.next_serial = max(self.next_serial, record["next"])
            case "checkpoint":
                self.next_serial = record["next"]
                for entry in record["statuses"]:
                    self._apply_status(*entry)
                for number, used_at in record.get("lists", ()):
                    self._use_list(number, datetime.fromisoformat(used_at))
            case unknown:
                raise JournalError(f"the journal has a record of unknown type {unknown!r}")

    def _use_list(self, number: int, at: datetime | None) -> None:
        # Intents repeated in a checkpoint have no time; the list's own entry there has.
        if at is not None:
            self.lists[number] = at

    def _apply_status(self, list_number: int, index: int, value: int) -> None:
        ref, status = StatusRef(list_number, index), PermitStatus(value)
        if status is PermitStatus.VALID:
            self.statuses.pop(ref, None)
        else:
            self.statuses[ref] = status

    def checkpoint(self) -> list[dict[str, Any]]:
        statuses = [[ref.list_number, ref.index, int(to)] for ref, to in self.statuses.items()]
        head: dict[str, Any] = {
            "t": "checkpoint",
            "next": self.next_serial,
            "statuses": statuses,
            "lists": [[number, at.isoformat()] for number, at in sorted(self.lists.items())],
        }
        if self.last_at is not None:
            head["at"] = self.last_at.isoformat()
        return [
            head,
            *(
                {
                    "t": "intent",
                    "serial": reservation.serial,
                    "number": reservation.permit_number,
                    "list": reservation.status.list_number,
                    "index": reservation.status.index,
                }
                for reservation in self.unfinished.values()
            ),
        ]


def _line(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _record(line: bytes) -> dict[str, Any] | None:
    if len(line) < 10 or line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(line[9:]):
        return None
    record: dict[str, Any] = json.loads(line[9:])
    return record


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
