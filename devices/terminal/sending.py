"""Sends what is queued, oldest first, and says in a few words why it cannot.

What an answer means for the queue:

=========================================  ======================================================
no answer, or the register says not now    stays queued; the whole queue waits, longer each time
the certificate is refused or has expired  stays queued; an operator must provision the terminal
INTERNAL, or a refusal that is not anju's  stays queued; after 8 of them it needs attention
a picture is missing, or came in pieces    is uploaded, from where it was cut; then as above
the operator's word does not hold          needs attention: another one must answer for it
any other refusal (bad data, poor finger)  needs attention, with the register's reason
an application                             sent
=========================================  ======================================================

Waits are drawn evenly from 0 to a bound that doubles (see :mod:`devices.terminal.retry`), on top of
what the register asks for, so that a city's terminals do not come back in step after an outage.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devices.errors import (
    CertificateInvalidError,
    CredentialsError,
    DevicesError,
    QueueError,
    RemoteError,
    ServerUntrustedError,
    SubmissionInvalidError,
    UnreachableError,
)
from devices.terminal.client import TerminalClient
from devices.terminal.equipment import equipment_of
from devices.terminal.queue import Entry, EntryState, SubmissionQueue
from devices.terminal.retry import ONE_ATTEMPT
from devices.terminal.session import OPERATOR_REASONS
from devices.terminal.types import ApplicationState

_CERTIFICATE_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_NOT_NOW = ("RESOURCE_EXHAUSTED", "ABORTED")
_ITS_OWN_FAULT = ("INTERNAL", "UNKNOWN", "DATA_LOSS")
# The register has something else of a picture than was thought: the next attempt asks first.
_UPLOAD_AGAIN = ("UPLOAD_OFFSET", "DIGEST_MISMATCH", "UPLOAD_MISSING")
HEARTBEAT_S = 600.0
_UNSETTLED = (ApplicationState.ACCEPTED, ApplicationState.IN_ADJUDICATION)


@dataclass(frozen=True)
class SendPolicy:
    """How patiently a terminal sends.

    Attributes:
        deadline_s: for one submission, seconds.
        first_wait_s, longest_wait_s: bounds of the first wait and of every later one, seconds.
        refresh_every_s: how often unsettled applications are asked for again, seconds.
        tries: failures of the register itself after which a submission needs attention.
        monotonic, uniform: replaced in tests.
    """

    deadline_s: float = 60.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    refresh_every_s: float = 600.0
    tries: int = 8
    monotonic: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform


DEFAULT_SENDING = SendPolicy()


class Sender:
    """One at a time for a queue; see :meth:`devices.terminal.outbox.Outbox.send`.

    Attributes:
        problem: why the last attempt to reach the register failed; empty when it did not.
        renewal_problem: why the certificate could not be renewed; empty when it could.
        equipment_problem: why the register did not take what this terminal is made of.
    """

    def __init__(
        self,
        queue: SubmissionQueue,
        directory: Path,
        address: str | None = None,
        policy: SendPolicy = DEFAULT_SENDING,
        sending: Callable[[str], None] = lambda key: None,
    ) -> None:
        """
        Args:
            sending: told the key of each submission before it is sent, and "" when none is.
        """
        self._sending = sending
        self.problem = ""
        self.renewal_problem = ""
        self.equipment_problem = ""
        self._queue = queue
        self._directory = directory
        self._address = address
        self._policy = policy
        self._client: TerminalClient | None = None
        self._failures: Counter[str] = Counter()
        self._uploaded: dict[str, int] = {}
        self._bound_s = policy.first_wait_s
        self._resume_at = 0.0
        self._renew_at = 0.0
        self._refresh_at = 0.0
        self._report_at = 0.0

    def wait_s(self) -> float:
        """How long the next round should wait, in seconds; 0 when it may begin."""
        return max(0.0, self._resume_at - self._policy.monotonic())

    def round(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Try every queued entry once, unless it is too early or somebody says stop.

        Never raises for what the register or the network does: see :attr:`problem`.
        """
        if self.wait_s() > 0:
            return
        try:
            client = self._connected()
            self._renew_when_due(client)
            client = self._connected()
            self._report_when_due(client)
            for entry in self._queue.entries(EntryState.QUEUED):
                if stopping():
                    return
                self._send(client, entry)
            self._refresh(client, stopping)
        except (CredentialsError, CertificateInvalidError, ServerUntrustedError) as error:
            self.close()  # next time with whatever is in the directory then
            self._back_off(str(error), 0.0)
        except RemoteError as error:
            if error.status in _CERTIFICATE_REFUSED:
                self.close()
            self._back_off(_in_words(error), error.retry_after_s)
        else:
            self.problem = ""
            self._bound_s = self._policy.first_wait_s
        finally:
            self._sending("")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _connected(self) -> TerminalClient:
        if self._client is None:
            self._client = TerminalClient(self._directory, self._address, ONE_ATTEMPT)
        return self._client

    def _back_off(self, problem: str, at_least_s: float) -> None:
        self.problem = problem
        wait = at_least_s + self._policy.uniform(0.0, self._bound_s)
        self._resume_at = self._policy.monotonic() + wait
        self._bound_s = min(2 * self._bound_s, self._policy.longest_wait_s)

    def _send(self, client: TerminalClient, entry: Entry) -> None:
        """One attempt. Raises what stops the round."""
        try:
            request = self._queue.request(entry.key)
        except QueueError:
            return  # damaged, or discarded meanwhile: the operator sees which
        self._sending(entry.key)
        try:
            application = client.enrol_packed(
                request,
                self._policy.deadline_s,
                lambda: self._queue.pictures(entry.key),
                lambda received: self._progress(entry.key, received),
            )
        except SubmissionInvalidError as error:
            self._settle_refusal(entry, "INVALID_ARGUMENT", error.reason, str(error))
        except QueueError as error:
            self._settle_refusal(entry, "DATA_LOSS", "DAMAGED", str(error))
        except RemoteError as error:
            self._refused(entry, error)
        else:
            self._queue.contacted()
            self._failures.pop(entry.key, None)
            self._uploaded.pop(entry.key, None)
            _if_still_there(lambda: self._queue.mark_sent(entry.key, application))

    def _progress(self, key: str, received: int) -> None:
        """A line that breaks but brings an upload on is no reason to wait longer each time."""
        if received > self._uploaded.get(key, 0):
            self._queue.contacted()
            self._bound_s = self._policy.first_wait_s
        self._uploaded[key] = received

    def _refused(self, entry: Entry, error: RemoteError) -> None:
        if error.status in _CERTIFICATE_REFUSED and error.reason not in OPERATOR_REASONS:
            raise error  # no contact: such a terminal must not go on capturing for ever
        if error.reason:
            self._queue.contacted()
        if isinstance(error, UnreachableError) or (error.status in _NOT_NOW and error.reason):
            raise error
        # gRPC itself says RESOURCE_EXHAUSTED of a message that is too large, for ever.
        again = error.status in _ITS_OWN_FAULT or error.reason in _UPLOAD_AGAIN
        if again or not error.reason:
            self._failures[entry.key] += 1
            if self._failures[entry.key] < self._policy.tries:
                self._resume_at = self._policy.monotonic() + self._policy.first_wait_s
                return
        self._settle_refusal(entry, error.status, error.reason, error.message)

    def _settle_refusal(self, entry: Entry, status: str, reason: str, message: str) -> None:
        self._failures.pop(entry.key, None)
        self._uploaded.pop(entry.key, None)
        _if_still_there(lambda: self._queue.mark_attention(entry.key, status, reason, message))

    def _refresh(self, client: TerminalClient, stopping: Callable[[], bool]) -> None:
        """Ask again how applications stand that people, or a search, have not settled yet."""
        now = self._policy.monotonic()
        if now < self._refresh_at:
            return
        self._refresh_at = now + self._policy.refresh_every_s
        for entry in self._queue.entries(EntryState.SENT):
            application = entry.application
            if application is None or application.state not in _UNSETTLED or stopping():
                continue
            try:
                answer = client.application(application.application_id, self._policy.deadline_s)
            except UnreachableError:
                raise
            except RemoteError as error:
                if error.reason:
                    self._queue.contacted()
                continue
            self._queue.contacted()
            _if_still_there(lambda e=entry, a=answer: self._queue.mark_sent(e.key, a))  # type: ignore[misc]

    def _report_when_due(self, client: TerminalClient) -> None:
        """For the inventory; it also tells an idle terminal that it is revoked."""
        now = self._policy.monotonic()
        if now < self._report_at:
            return
        try:
            client.report(equipment_of(self._directory), self._policy.deadline_s)
        except (RemoteError, CredentialsError) as error:
            if isinstance(error, UnreachableError) or (
                isinstance(error, RemoteError) and error.status in _CERTIFICATE_REFUSED
            ):
                raise
            # A text that is not taken is no reason to hold people's applications up.
            self._report_at = now + HEARTBEAT_S
            self.equipment_problem = str(error)
            return
        self._report_at = now + HEARTBEAT_S
        self.equipment_problem = ""
        self._queue.contacted()

    def _renew_when_due(self, client: TerminalClient) -> None:
        """A certificate that was not renewed in time sends nothing, so this comes first.

        A refusal is told to the operator and tried again after a while; the present certificate
        goes on working meanwhile.
        """
        if not client.renewal_due():
            self.renewal_problem = ""
            return
        now = self._policy.monotonic()
        if now < self._renew_at:
            return
        self._renew_at = now + self._policy.refresh_every_s
        try:
            client.renew(self._policy.deadline_s)
        except DevicesError as error:
            self.renewal_problem = _in_words(error)
            if isinstance(error, UnreachableError):
                self._renew_at = now
                raise
        else:
            self._queue.contacted()
            self.renewal_problem = ""
            self._renew_at = now
            self.close()


def _if_still_there(change: Callable[[], Entry]) -> None:
    """An operator may discard an entry while its answer is on the way."""
    try:
        change()
    except QueueError:
        return


def _in_words(error: DevicesError) -> str:
    if isinstance(error, RemoteError) and error.status in _CERTIFICATE_REFUSED:
        return (
            f"the register refuses this terminal's certificate ({error.reason or error.status}); "
            "ask an operator for a new provisioning token"
        )
    return str(error)
