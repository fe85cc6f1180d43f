"""Store and forward for a capture terminal: the queue, its sender, and the spool folder.

As a library::

    with Outbox(directory) as outbox:
        entry = outbox.submit(person, [record], label="ticket 17")  # on disk from here on
        outbox.send()  # now, if the register is there
        print(outbox.entry(entry.key).state.value, outbox.notices())

or for good, as ``anju terminal run`` does: :meth:`Outbox.run`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from devices import credentials
from devices.errors import CredentialsError
from devices.terminal.check import Examiner, require_explained
from devices.terminal.disk import Disk, LockNote, locked
from devices.terminal.queue import QUEUE_FOLDER, Entry, EntryState, Limits, SubmissionQueue
from devices.terminal.sending import DEFAULT_SENDING, Sender, SendPolicy
from devices.terminal.session import OPERATOR_REASONS, OperatorSession, opened
from devices.terminal.settings import read_settings
from devices.terminal.spool import Spool
from devices.terminal.types import FingerFile, MissingFinger, Person, Sample
from devices.terminal.wire import (
    certificate_expiry,
    enrol_request,
    new_idempotency_key,
    packed_enrolment,
    pictures,
)

POLL_S = 1.0
NEARLY_FULL = 0.8
EXPIRY_WARNING = timedelta(days=14)  # renewal is tried from 30 days before


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Outbox:
    """Everything a terminal holds back until the register has acknowledged it. Thread-safe."""

    def __init__(
        self,
        directory: Path,
        spool: Path | None = None,
        limits: Limits | None = None,
        policy: SendPolicy = DEFAULT_SENDING,
        address: str | None = None,
        now: Callable[[], datetime] = _utc_now,
        disk: Callable[[Path], Disk] = Disk,
        examiner: Examiner | None = None,
        fingers_asked: int | None = None,
    ) -> None:
        """
        Args:
            directory: the terminal's credentials, see :func:`devices.terminal.provision`.
            spool: a folder to take submissions from, created if missing.
            address: host:port, instead of the one in the directory.
            now, disk: replaced in tests.
            limits, fingers_asked: instead of those in the directory; see
                :mod:`devices.terminal.settings`.
            examiner: compares captures before they are kept; see :mod:`devices.terminal.check`.

        Raises:
            CredentialsError: the directory is not that of a provisioned terminal, or its settings
                are wrong.
            QueueError: the queue in it cannot be opened.
        """
        credentials.load(directory)
        settings = read_settings(directory)
        self._directory = directory
        self._now = now
        self.queue = SubmissionQueue(directory, limits or settings.limits, now, disk, self._vouched)
        self._sending = threading.Lock()
        self._sender_lock = directory / QUEUE_FOLDER / "sender-lock"
        self._being_sent = LockNote(self._sender_lock)
        self._sender = Sender(self.queue, directory, address, policy, self._being_sent.write)
        self._fingers_asked = fingers_asked or settings.fingers_asked
        self._spool = (
            None
            if spool is None
            else Spool(spool, self.queue, now, disk, examiner, self._fingers_asked)
        )

    def submit(
        self,
        person: Person,
        samples: Sequence[Sample | bytes],
        label: str,
        permit_requested: bool = True,
        captured_at: datetime | None = None,
        idempotency_key: str | None = None,
        portrait: bytes = b"",
        missing_fingers: Sequence[MissingFinger] = (),
        images: Sequence[FingerFile] = (),
    ) -> Entry:
        """Keep an application until the register has it. Durable once this returns.

        Args:
            samples, missing_fingers, portrait, images: see
                :meth:`devices.terminal.client.TerminalClient.enrol`.
            label: what the counter calls it, 1 to 100 characters; shown in lists, so no name.
            captured_at: aware; now if left out.
            idempotency_key: give one to be able to hand the same application in twice.

        Raises:
            QueueFullError, OfflineTooLongError, NotLoggedInError: nothing was kept.
            SubmissionInvalidError: the label or key is malformed, or the records too large.
            FingersUnexplainedError: fewer fingers than asked, and no reason.
        """
        require_explained(len(samples) + len(images), missing_fingers, self._fingers_asked)
        key = idempotency_key or new_idempotency_key()
        request = enrol_request(
            person,
            samples,
            permit_requested,
            captured_at or self._now(),
            key,
            portrait,
            missing_fingers,
            images,
        )
        packed = packed_enrolment(request)
        return self.queue.put(key, label, packed, pictures(portrait, images))

    def retry(self, key: str) -> Entry:
        """Queue a submission that needs attention once more.

        If it was refused for who captured it, whoever is logged in now answers for it.

        Raises:
            QueueError: there is no such entry, or it needs none.
            NotLoggedInError: nobody is logged in to answer for it.
        """
        if self.queue.entry(key).reason not in OPERATOR_REASONS:
            return self.queue.retry(key)
        return self.queue.retry(key, lambda kept: self._vouched(opened(kept)[1]))

    def take(self) -> None:
        """Queue what lies in the spool folder, and tell there what became of earlier drops."""
        if self._spool is not None:
            self._spool.take()
            self._spool.tell(self.queue.entries())

    def send(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Try to send what is queued, once; renews the certificate first when that is due.

        Returns:
            Whether it was tried: not while another thread or process of this terminal sends, nor
            before a pause is over.
        """
        if not self._sending.acquire(blocking=False):
            return False
        try:
            with locked(self._sender_lock, wait=False) as mine:
                if not mine or self._sender.wait_s() > 0:
                    return False
                self._sender.round(stopping)
                self.queue.prune()
                return True
        finally:
            self._sending.release()

    def entry(self, key: str) -> Entry:
        """One submission as it stands. Raises QueueError if there is none under that key."""
        return self.queue.entry(key)

    def entries(self) -> list[Entry]:
        """All submissions in their order; one that a process of this terminal sends now says so."""
        being_sent = self._being_sent.read()
        return [
            replace(one, state=EntryState.SENDING)
            if one.key == being_sent and one.state is EntryState.QUEUED
            else one
            for one in self.queue.entries()
        ]

    def notices(self) -> list[str]:
        """What an operator should know now, the most pressing first; empty when all is well."""
        limits, silence, fill = self.queue.limits, self.queue.silence(), self.queue.fill()
        notices = []
        if silence >= limits.offline_limit:
            notices.append(
                f"no contact with the register for {silence.days} days: nothing more is taken "
                "until there is"
            )
        elif silence >= limits.offline_warning:
            left = limits.offline_limit - silence
            notices.append(
                f"no contact with the register for {silence.days} days; in {_in_days(left)} this "
                "terminal stops taking submissions"
            )
        used = max(fill.entries / limits.max_entries, fill.bytes / limits.max_bytes)
        if used >= NEARLY_FULL:
            notices.append(f"the queue is {used:.0%} full")
        refused = len(self.queue.entries(EntryState.ATTENTION))
        if refused:
            notices.append(f"{refused} submissions need attention; see `anju terminal queue`")
        if self._sender.problem:
            notices.append(self._sender.problem)
        if self._sender.equipment_problem:
            notices.append(self._sender.equipment_problem)
        notices += self._certificate_notices()
        return notices

    def run(
        self, stop: threading.Event, seen: Callable[[Outbox], None] = lambda outbox: None
    ) -> None:
        """Take and send until told to stop.

        Args:
            seen: called about once a second, to show how things stand.

        Raises:
            Exception: what the disk or a bug raises, also in the thread that sends.
        """
        failure: list[BaseException] = []

        def forward() -> None:
            try:
                while not stop.is_set():
                    self.send(stop.is_set)
                    stop.wait(POLL_S)
            except BaseException as error:
                failure.append(error)
                stop.set()

        thread = threading.Thread(target=forward, name="sender", daemon=True)
        thread.start()
        try:
            while not stop.is_set():
                self.take()
                seen(self)
                stop.wait(POLL_S)
        finally:
            stop.set()
            thread.join()
        if failure:
            raise failure[0]
        self.take()
        seen(self)

    def close(self) -> None:
        self._sender.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _vouched(self, request: bytes) -> bytes:
        session = OperatorSession.current(self._directory, self._now())
        return session.vouched("EnrolmentService.Enrol", request, self._now())

    def _certificate_notices(self) -> list[str]:
        try:
            left = certificate_expiry(credentials.load(self._directory)) - self._now()
        except CredentialsError as error:
            return [str(error)]
        if left > EXPIRY_WARNING:
            return []
        why = f": {self._sender.renewal_problem}" if self._sender.renewal_problem else ""
        return [f"this terminal's certificate expires in {_in_days(left)} and is not renewed{why}"]


def _in_days(left: timedelta) -> str:
    return (
        f"{left.days} days" if left >= timedelta(days=2) else f"{left.total_seconds() / 3600:.0f} h"
    )
