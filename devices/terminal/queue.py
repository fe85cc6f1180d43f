"""What the terminal has captured and the register has not acknowledged yet.

Theory of operation. One submission is one file, ``<number>-<idempotency key>.entry``, and its state
is inside, so that every change of state is one atomic replacement of one file::

    queued ──sent──▶ sent (a receipt: outcome and ids, the person's data is gone from this machine)
      │ ▲
      ▼ │ retry
    needs attention (the register refused it, with its reason) ──discard──▶ gone

The file holds the very bytes of the request with its idempotency key, written before the first
attempt. Whatever dies afterwards, the same bytes are sent again under the same key, and the
register makes the change once. A receipt is kept a while, because whoever handed the submission in
may do so again: see :func:`SubmissionQueue.key_for`.

Pictures that go with a submission (``<idempotency key>-<number>.picture``) are written before its
entry and deleted after it became a receipt or was discarded; whatever dies in between leaves
pictures of nobody, and the next start deletes those.

Files are sealed with AES-256-GCM under a key beside them (``queue-key``, 0600), bound to their
names. That keeps a copy of the queue (a backup, a sold disk whose key file was shredded) from being
read; it does not keep out somebody who can read the key, for which the terminal's disk should be
encrypted as a whole. A file that does not open is shown as damaged, and disturbs no other.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
import secrets
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from devices import credentials
from devices.errors import (
    CredentialsError,
    OfflineTooLongError,
    QueueError,
    QueueFullError,
    SubmissionInvalidError,
)
from devices.terminal.disk import Disk, locked
from devices.terminal.types import Application, ApplicationState

KEY_FILE = "queue-key"
QUEUE_FOLDER = "queue"
MAX_REQUEST_BYTES = 1_000_000
"""The register takes messages of up to 1 MiB (``server.max_message_bytes``)."""
MAX_PICTURE_BYTES = 8 << 20
"""``capture.max_upload_bytes`` of the register."""
MAX_PICTURES = 11
"""A portrait and ten fingers."""
CONTACT_EVERY = timedelta(minutes=1)
MAX_LABEL = 100

_ENTRY = re.compile(r"([0-9]{12})-([A-Za-z0-9_-]{16,64})\.entry", re.ASCII)
_PICTURE = re.compile(r"([A-Za-z0-9_-]{16,64})-[0-9]{2}\.picture", re.ASCII)
_CONTACT_FILE = "contact"
_LOCK_FILE = "lock"
_MAGIC = b"anjuqu1\0"
_LENGTH = struct.Struct(">I")
_NONCE_BYTES = 12


class EntryState(Enum):
    """What an operator is told. ``SENDING`` is not stored: it ends with the process that sends."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    ATTENTION = "needs attention"


@dataclass(frozen=True)
class Limits:
    """How much a terminal may hold back, and for how long.

    Attributes:
        max_entries, max_bytes: of everything that is not acknowledged; beyond, nothing is taken.
        offline_limit: without an answer from the register for this long, nothing is taken.
        offline_warning: the operator is warned from here on.
        keep_receipts: how long an acknowledged submission is remembered.
    """

    max_entries: int = 2_000
    max_bytes: int = 512 << 20
    offline_limit: timedelta = timedelta(days=7)
    offline_warning: timedelta = timedelta(days=5)
    keep_receipts: timedelta = timedelta(days=30)

    def __post_init__(self) -> None:
        if self.max_entries < 1 or self.max_bytes < MAX_REQUEST_BYTES:
            raise QueueError(
                f"a queue must hold at least one submission and {MAX_REQUEST_BYTES} bytes"
            )
        if not timedelta(0) < self.offline_warning <= self.offline_limit:
            raise QueueError("the warning about missing contact must come before its limit")


@dataclass(frozen=True)
class Entry:
    """One submission as the operator sees it; nothing in it is personal data but the label.

    Attributes:
        key: the idempotency key, which also names the entry.
        label: what the counter calls it; the operator's choice.
        changed_at: when it came into its present state.
        application: the register's latest answer, once sent; without the permit's QR text.
        pictures: bytes of each picture that goes with it.
        status, reason, message: of the refusal, while it needs attention: gRPC status name, token
            of the contract, and what a person can do.
    """

    key: str
    label: str
    state: EntryState
    queued_at: datetime
    changed_at: datetime
    application: Application | None = None
    status: str = ""
    reason: str = ""
    message: str = field(default="", repr=False)
    pictures: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fill:
    """How full the queue is: entries and bytes that are not acknowledged."""

    entries: int
    bytes: int


@dataclass(frozen=True)
class _File:
    name: str
    signature: tuple[int, int, int]
    entry: Entry


class SubmissionQueue:
    """The queue of one terminal. Threads and processes may share it."""

    def __init__(
        self,
        directory: Path,
        limits: Limits | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        disk: Callable[[Path], Disk] = Disk,
        vouch: Callable[[bytes], bytes] = lambda request: request,
    ) -> None:
        """
        Args:
            directory: the terminal's credentials; the queue is a folder in it.
            disk: replaced in tests.
            vouch: gives a request the word of the operator who is logged in, or raises.

        Raises:
            QueueError: entries are there but their key is missing, unusable or open to others.
        """
        self.limits = limits or Limits()
        self._now = now
        self._vouch = vouch
        home = directory / QUEUE_FOLDER
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._disk = disk(home)
        self._lock_path = home / _LOCK_FILE
        self._known: dict[str, _File] = {}
        with self._locked():
            secret = _secret(directory / KEY_FILE, fresh=not self._entry_names())
            self._seal_key = AESGCM(_derived(secret, b"anju queue: seal"))
            self._name_key = _derived(secret, b"anju queue: names")
            self._disk.sweep()
            self._sweep_pictures()
            if _CONTACT_FILE not in self._disk.names():
                # A terminal that was just provisioned has just spoken to the register.
                self._write_contact(self._now())

    # -- handing in --

    def key_for(self, *parts: bytes) -> str:
        """The idempotency key of a submission, made from its content.

        The same parts give the same key on this terminal, so that a submission which is handed in
        again, because the first time was interrupted, is the same submission.
        """
        digest = hmac.new(self._name_key, digestmod=hashlib.sha256)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()[:32]

    def put(self, key: str, label: str, request: bytes, pictures: Sequence[bytes] = ()) -> Entry:
        """Keep a submission until the register has acknowledged it. Durable once this returns.

        A key that is there already changes nothing.

        Args:
            request: as :func:`devices.terminal.wire.packed_enrolment` makes it, under that key.
            pictures: what the request names by its SHA-256.

        Returns:
            The entry as it stands.

        Raises:
            QueueFullError: too many, too much, or the disk is full.
            OfflineTooLongError: there was no contact for longer than allowed.
            NotLoggedInError: nobody answers for it.
            SubmissionInvalidError: the label or key is malformed, or request or pictures too large.
        """
        self._check(key, label, request, pictures)
        with self._locked():
            files = self._files()
            for file in files:
                if file.entry.key == key:
                    return file.entry
            self._require_room(files, len(request) + sum(map(len, pictures)))
            self._require_contact()
            now = self._now()
            sizes = tuple(len(picture) for picture in pictures)
            entry = Entry(key, label, EntryState.QUEUED, now, now, pictures=sizes)
            number = 1 + max((int(file.name[:12]) for file in files), default=0)
            try:
                request = self._vouch(request)
                for count, picture in enumerate(pictures):
                    name = _picture_name(key, count)
                    self._disk.replace(name, self._sealed(name, picture))
                self._write(f"{number:012}-{key}.entry", entry, request)
            except OSError as error:
                self._remove_pictures(key)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise QueueFullError(
                        "this terminal's disk is full; make room, or connect it to the register"
                    ) from error
                raise
            return entry

    def _check(self, key: str, label: str, request: bytes, pictures: Sequence[bytes]) -> None:
        if not _ENTRY.fullmatch(f"{0:012}-{key}.entry"):
            raise SubmissionInvalidError("an idempotency key is 16 to 64 of A-Z, a-z, 0-9, _ and -")
        if not 1 <= len(label) <= MAX_LABEL or not label.isprintable():
            raise SubmissionInvalidError(f"a label is 1 to {MAX_LABEL} printable characters")
        if len(request) > MAX_REQUEST_BYTES:
            raise SubmissionInvalidError(
                f"the submission has {len(request)} bytes; at most {MAX_REQUEST_BYTES} are accepted"
            )
        if len(pictures) > MAX_PICTURES:
            raise SubmissionInvalidError(f"at most {MAX_PICTURES} pictures go with a submission")
        largest = max(map(len, pictures), default=0)
        if largest > MAX_PICTURE_BYTES:
            raise SubmissionInvalidError(
                f"a picture has {largest} bytes; at most {MAX_PICTURE_BYTES} are accepted"
            )

    def _require_room(self, files: list[_File], request_bytes: int) -> None:
        fill = _fill(files)
        if fill.entries >= self.limits.max_entries:
            raise QueueFullError(
                f"{fill.entries} submissions wait for the register, and no more are kept; connect "
                "this terminal, or settle those that need attention"
            )
        if fill.bytes + request_bytes > self.limits.max_bytes:
            raise QueueFullError(
                f"submissions of {fill.bytes >> 20} MiB wait for the register, and no more are "
                "kept; connect this terminal, or settle those that need attention"
            )

    def _require_contact(self) -> None:
        silent = self.silence()
        if silent >= self.limits.offline_limit:
            raise OfflineTooLongError(
                f"this terminal has not reached the register for {silent.days} days; it takes "
                "submissions again once it has"
            )

    # -- looking --

    def entries(self, state: EntryState | None = None) -> list[Entry]:
        """All entries, or those in a state, in the order they were handed in."""
        entries = [file.entry for file in self._files()]
        return [entry for entry in entries if state is None or entry.state is state]

    def entry(self, key: str) -> Entry:
        """One entry.

        Raises:
            QueueError: there is none under that key.
        """
        return self._file(key).entry

    def request(self, key: str) -> bytes:
        """The request to be sent; empty once it was acknowledged.

        Raises:
            QueueError: there is no such entry, or its file is damaged.
        """
        file = self._file(key)
        opened = self._open(file.name)
        if opened is None:
            raise QueueError(f"the file of submission {key} is damaged")
        return opened[1]

    def pictures(self, key: str) -> list[bytes]:
        """What goes with the request, in the order it was handed in.

        Raises:
            QueueError: there is no such entry, or a picture is damaged.
        """
        found = []
        for count, size in enumerate(self.entry(key).pictures):
            name = _picture_name(key, count)
            try:
                picture = self._unsealed(name)
            except FileNotFoundError:
                picture = None
            if picture is None or len(picture) != size:
                raise QueueError(f"a picture of submission {key} is damaged; capture it again")
            found.append(picture)
        return found

    def fill(self) -> Fill:
        return _fill(self._files())

    def last_contact(self) -> datetime:
        """When the register last answered; when the queue was made, if it never has."""
        content = self._unsealed(_CONTACT_FILE)
        try:
            return datetime.fromisoformat((content or b"").decode())
        except ValueError:
            return datetime.fromtimestamp(0, UTC)  # damaged: be careful

    def silence(self) -> timedelta:
        """How long ago that was; zero when the clock was put back since."""
        return max(timedelta(0), self._now() - self.last_contact())

    # -- what became of it --

    def contacted(self) -> None:
        """The register answered, whatever it said."""
        now = self._now()
        with self._locked():
            if not timedelta(0) <= now - self.last_contact() < CONTACT_EVERY:
                self._write_contact(now)

    def mark_sent(self, key: str, application: Application) -> Entry:
        """The register acknowledged it: keep the receipt, forget the person's data."""
        bare = replace(application, permit=None)

        def sent(entry: Entry) -> Entry:
            if entry.application == bare:
                return entry
            return replace(
                entry,
                state=EntryState.SENT,
                changed_at=self._now(),
                application=bare,
                status="",
                reason="",
                message="",
                pictures=(),
            )

        entry = self._change(key, sent, lambda request: b"")
        with self._locked():
            self._remove_pictures(key)
        return entry

    def mark_attention(self, key: str, status: str, reason: str, message: str) -> Entry:
        """The register refused it; asking again in the same words will not help."""

        def refused(entry: Entry) -> Entry:
            if entry.state is EntryState.SENT:
                return entry
            return replace(
                entry,
                state=EntryState.ATTENTION,
                changed_at=self._now(),
                status=status,
                reason=reason,
                message=message[:1_000],
            )

        return self._change(key, refused)

    def retry(
        self, key: str, again_vouched: Callable[[bytes], bytes] = lambda request: request
    ) -> Entry:
        """Queue an entry that needs attention once more, as it is.

        Args:
            again_vouched: gives what was kept the word of another operator.

        Raises:
            QueueError: there is no such entry, it needs none, or it is damaged.
        """

        def again(entry: Entry) -> Entry:
            if entry.state is not EntryState.ATTENTION:
                raise QueueError(f"submission {key} is {entry.state.value}: nothing to repeat")
            return replace(
                entry,
                state=EntryState.QUEUED,
                changed_at=self._now(),
                status="",
                reason="",
                message="",
            )

        return self._change(key, again, again_vouched)

    def discard(self, key: str) -> None:
        """Forget an entry that needs attention, for good: it was captured anew, say.

        Raises:
            QueueError: there is no such entry, or it needs none.
        """
        with self._locked():
            file = self._file(key)
            if file.entry.state is not EntryState.ATTENTION:
                raise QueueError(f"submission {key} is {file.entry.state.value}: it stays")
            self._disk.remove(file.name)
            self._remove_pictures(key)

    def prune(self) -> int:
        """Delete receipts that are past their time; returns how many."""
        horizon = self._now() - self.limits.keep_receipts
        with self._locked():
            old = [
                file.name
                for file in self._files()
                if file.entry.state is EntryState.SENT and file.entry.changed_at < horizon
            ]
            if old:
                self._disk.remove(*old)
        return len(old)

    # -- files --

    def _locked(self) -> Any:
        return locked(self._lock_path)

    def _change(
        self,
        key: str,
        change: Callable[[Entry], Entry],
        kept: Callable[[bytes], bytes] = lambda request: request,
    ) -> Entry:
        with self._locked():
            file = self._file(key)
            changed = change(file.entry)
            opened = self._open(file.name)
            if opened is None:
                raise QueueError(f"the file of submission {key} is damaged; it can be discarded")
            if changed != file.entry:
                self._write(file.name, changed, kept(opened[1]))
            return changed

    def _remove_pictures(self, key: str) -> None:
        names = [_picture_name(key, count) for count in range(MAX_PICTURES)]
        there = set(self._disk.names()).intersection(names)
        if there:
            self._disk.remove(*sorted(there))

    def _sweep_pictures(self) -> None:
        """Delete the pictures that an earlier process left when it died."""
        live = {file.entry.key for file in self._files() if file.entry.state is not EntryState.SENT}
        found = [(name, _PICTURE.fullmatch(name)) for name in self._disk.names()]
        orphans = [name for name, match in found if match and match[1] not in live]
        if orphans:
            self._disk.remove(*orphans)

    def _entry_names(self) -> list[str]:
        return [name for name in self._disk.names() if _ENTRY.fullmatch(name)]

    def _files(self) -> list[_File]:
        """What is on the disk now; a file that has not changed is not opened again."""
        looked = [self._look(name) for name in self._entry_names()]
        files = [file for file in looked if file is not None]
        self._known = {file.name: file for file in files}
        return files

    def _look(self, name: str) -> _File | None:
        known = self._known.get(name)
        try:
            stat = os.stat(self._disk.directory / name)
            signature = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if known is not None and known.signature == signature:
                return known
            opened = self._open(name)
        except FileNotFoundError:  # another process was faster
            return None
        entry = _damaged(name, stat.st_mtime) if opened is None else opened[0]
        return _File(name, signature, entry)

    def _file(self, key: str) -> _File:
        for name in self._entry_names():
            if name[13:] == f"{key}.entry":
                file = self._look(name)
                if file is not None:
                    return file
        raise QueueError(f"there is no submission {key[:64]!r} in this queue")

    def _write(self, name: str, entry: Entry, request: bytes) -> None:
        head = json.dumps(_to_json(entry), ensure_ascii=False).encode()
        self._disk.replace(name, self._sealed(name, _LENGTH.pack(len(head)) + head + request))

    def _write_contact(self, at: datetime) -> None:
        self._disk.replace(_CONTACT_FILE, self._sealed(_CONTACT_FILE, at.isoformat().encode()))

    def _open(self, name: str) -> tuple[Entry, bytes] | None:
        """Entry and request of a file; ``None`` when it is damaged."""
        plain = self._unsealed(name)
        if plain is None or len(plain) < _LENGTH.size:
            return None
        head_bytes: int = _LENGTH.unpack_from(plain)[0]
        head = plain[_LENGTH.size : _LENGTH.size + head_bytes]
        try:
            return _from_json(json.loads(head)), plain[_LENGTH.size + head_bytes :]
        except (ValueError, KeyError, TypeError):
            return None

    def _sealed(self, name: str, plain: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _MAGIC + nonce + self._seal_key.encrypt(nonce, plain, _MAGIC + name.encode())

    def _unsealed(self, name: str) -> bytes | None:
        content = self._disk.read(name)
        start = len(_MAGIC) + _NONCE_BYTES
        if not content.startswith(_MAGIC) or len(content) < start + 16:
            return None
        try:
            return self._seal_key.decrypt(
                content[len(_MAGIC) : start], content[start:], _MAGIC + name.encode()
            )
        except InvalidTag:
            return None


def _secret(path: Path, fresh: bool) -> bytes:
    try:
        if not path.exists():
            if not fresh:
                raise QueueError(
                    f"{path} is missing: what waits in this queue cannot be read without it"
                )
            credentials.write_new(path, secrets.token_bytes(32), 0o600)
        credentials.check_private(path)
    except CredentialsError as error:
        raise QueueError(str(error)) from error
    secret = path.read_bytes()
    if len(secret) != 32:
        raise QueueError(f"{path} is no key: it has {len(secret)} bytes, expected 32")
    return secret


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _fill(files: list[_File]) -> Fill:
    waiting = [file for file in files if file.entry.state is not EntryState.SENT]
    return Fill(len(waiting), sum(file.signature[2] + sum(file.entry.pictures) for file in waiting))


def _picture_name(key: str, count: int) -> str:
    return f"{key}-{count:02}.picture"


def _damaged(name: str, modified: float) -> Entry:
    at = datetime.fromtimestamp(modified, UTC)
    return Entry(
        key=name[13:].removesuffix(".entry"),
        label="(unreadable)",
        state=EntryState.ATTENTION,
        queued_at=at,
        changed_at=at,
        status="DATA_LOSS",
        reason="DAMAGED",
        message="the file is damaged; capture the person again, then discard this entry",
    )


def _to_json(entry: Entry) -> dict[str, Any]:
    application = entry.application
    return {
        "key": entry.key,
        "label": entry.label,
        "state": entry.state.name,
        "queued_at": entry.queued_at.isoformat(),
        "changed_at": entry.changed_at.isoformat(),
        "status": entry.status,
        "reason": entry.reason,
        "message": entry.message,
        "pictures": list(entry.pictures),
        "application": None
        if application is None
        else {
            "application_id": application.application_id,
            "state": int(application.state),
            "registrant_id": application.registrant_id,
            "case_id": application.case_id,
            "late": application.late,
        },
    }


def _from_json(stored: dict[str, Any]) -> Entry:
    application = stored["application"]
    return Entry(
        key=stored["key"],
        label=stored["label"],
        state=EntryState[stored["state"]],
        queued_at=datetime.fromisoformat(stored["queued_at"]),
        changed_at=datetime.fromisoformat(stored["changed_at"]),
        status=stored["status"],
        reason=stored["reason"],
        message=stored["message"],
        pictures=tuple(stored.get("pictures", ())),
        application=None
        if application is None
        else Application(
            application_id=application["application_id"],
            state=ApplicationState(application["state"]),
            registrant_id=application["registrant_id"],
            case_id=application["case_id"],
            permit=None,
            late=application["late"],
        ),
    )
