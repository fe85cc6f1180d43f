"""One call after the other, many terminals at once, with the truth kept beside.

The population comes in from outside as visits; who is who (``truth_id``) never leaves this module.
From the truth follows what each visit is: a person's first, a return under the same document, or a
double registration under another one. Some visits are sent twice under one idempotency key, as a
terminal does whose answer got lost. At the end every acknowledged application is asked for again.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from devices.credentials import CERTIFICATE_FILE, KEY_FILE, load_key, new_key
from devices.errors import RemoteError, UnreachableError
from devices.keys import PrivateKey, public_bytes
from devices.simulator.truth import Judged, findings
from devices.terminal.client import TerminalClient, provision
from devices.terminal.retry import DEFAULT_POLICY, RetryPolicy
from devices.terminal.session import log_in
from devices.terminal.types import Application, ApplicationState, Person
from devices.terminal.wire import Connection, create_token, enrol_operator, new_idempotency_key
from devices.types import OperatorRole

State = ApplicationState
T = TypeVar("T")
STAFF = "sim-staff"


@dataclass(frozen=True)
class Visit:
    """One person at a counter. ``truth_id`` says who it really is; it is never sent."""

    person: Person = field(repr=False)
    records: tuple[bytes, ...] = field(repr=False)
    truth_id: str


class Terminal(Protocol):
    """What the simulator needs of :class:`devices.terminal.client.TerminalClient`."""

    def enrol(
        self,
        person: Person,
        samples: Sequence[bytes],
        *,
        idempotency_key: str | None = None,
        deadline_s: float = 60.0,
    ) -> Application: ...

    def application(self, application_id: str, deadline_s: float = 30.0) -> Application: ...


@dataclass(frozen=True)
class Progress:
    """How far a run is; ``elapsed_s`` in seconds since its start."""

    done: int
    unanswered: int
    elapsed_s: float


@dataclass(frozen=True)
class Report:
    """What a run came to. A visit is counted in exactly one of the fields down to ``unanswered``.

    Attributes:
        visits: everything the population offered.
        accepted: durable, but without an outcome at the end.
        refused: visits refused, by reason token (e.g. FAILURE_TO_ENROL: capture again).
        unanswered: no answer within the deadline; whether they were made is not known.
        lost: acknowledged applications that the register no longer knew at the end. Must be 0.
        doubled: visits sent twice under one key that became two applications. Must be 0.
        resent: how many visits were sent twice.
        duplicates_found: later visits of a person that were recognised or went to adjudication.
        duplicates_missed: later visits of a person that were enrolled as somebody new.
        false_alarms: first visits of a person that went to adjudication or were rejected.
        wrongly_recognised: visits recognised as a registrant who is somebody else.
        latencies_s: of answered calls, ascending, seconds, retries included.
        elapsed_s: of the enrolments, seconds, without the check at the end.
    """

    visits: int = 0
    enrolled: int = 0
    recognised: int = 0
    in_adjudication: int = 0
    rejected: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    unanswered: int = 0
    lost: int = 0
    doubled: int = 0
    resent: int = 0
    duplicates_found: int = 0
    duplicates_missed: int = 0
    false_alarms: int = 0
    wrongly_recognised: int = 0
    latencies_s: tuple[float, ...] = field(default=(), repr=False)
    elapsed_s: float = 0.0

    def latency_s(self, quantile: float) -> float:
        """The latency that a fraction of the answered calls did not exceed; NaN without any."""
        if not self.latencies_s:
            return float("nan")
        last = len(self.latencies_s) - 1
        return self.latencies_s[min(last, int(quantile * len(self.latencies_s)))]

    @property
    def p50_s(self) -> float:
        return self.latency_s(0.50)

    @property
    def p99_s(self) -> float:
        return self.latency_s(0.99)


@dataclass
class _Outcome:
    """One visit's story: the last answer, or else the reason why there is none."""

    visit: Visit
    terminal: Terminal
    application: Application | None = None
    reason: str = ""
    unanswered: bool = False
    resent: bool = False
    doubled: bool = False
    lost: bool = False
    latencies_s: list[float] = field(default_factory=list)


def simulate(
    terminals: Sequence[Terminal],
    population: Iterable[Visit],
    progress: Callable[[Progress], None] | None = None,
    resend_fraction: float = 0.05,
    deadline_s: float = 60.0,
    seed: int = 0,
) -> Report:
    """Let every terminal serve one visit after the other until the population is through.

    Args:
        terminals: at least one; a thread each.
        population: read lazily, in order, by whichever terminal is free.
        progress: called after each visit, by one thread at a time.
        resend_fraction: 0 to 1, how many visits are sent a second time under the same key.
        deadline_s: for one enrolment, seconds, retries included.
        seed: decides which visits are sent twice.

    Raises:
        Exception: whatever the population, the callback or a bug in a client raises; the other
            terminals stop after their present visit. Refusals and silence are counted instead.
    """
    if not terminals:
        raise ValueError("a simulation needs at least one terminal")
    run = _Run(population, progress, resend_fraction, deadline_s, seed)
    run.in_parallel(run.serve, terminals)
    elapsed_s = run.elapsed_s()
    settled = [one for one in run.outcomes if one.application is not None]
    by_terminal = [[one for one in settled if one.terminal is terminal] for terminal in terminals]
    run.in_parallel(run.check_again, by_terminal)
    return replace(report_of(run.outcomes), elapsed_s=elapsed_s)


class _Run:
    """What the threads of one simulation share."""

    def __init__(
        self,
        population: Iterable[Visit],
        progress: Callable[[Progress], None] | None,
        resend_fraction: float,
        deadline_s: float,
        seed: int,
    ) -> None:
        self.outcomes: list[_Outcome] = []
        self._visits: Iterator[Visit] = iter(population)
        self._progress = progress
        self._resend_fraction = resend_fraction
        self._deadline_s = deadline_s
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._unanswered = 0
        self._failure: BaseException | None = None
        self._start = time.perf_counter()

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._start

    def in_parallel(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Do the work for every item, a thread each; the first failure is raised at the end."""

        def guarded(item: T) -> None:
            try:
                work(item)
            except BaseException as error:
                self._failure = self._failure or error

        threads = [threading.Thread(target=guarded, args=(item,), daemon=True) for item in items]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def serve(self, terminal: Terminal) -> None:
        while self._failure is None:
            with self._lock:
                visit = next(self._visits, None)
                resend = self._random.random() < self._resend_fraction
            if visit is None:
                return
            outcome = _Outcome(visit, terminal, resent=resend)
            self._enrol(outcome)
            with self._lock:
                self.outcomes.append(outcome)
                self._unanswered += outcome.unanswered
                if self._progress is not None:
                    self._progress(Progress(len(self.outcomes), self._unanswered, self.elapsed_s()))

    def _enrol(self, outcome: _Outcome) -> None:
        key = new_idempotency_key()
        for _ in range(2 if outcome.resent else 1):
            start = time.perf_counter()
            try:
                answer = outcome.terminal.enrol(
                    outcome.visit.person,
                    outcome.visit.records,
                    idempotency_key=key,
                    deadline_s=self._deadline_s,
                )
            except RemoteError as error:
                outcome.unanswered = isinstance(error, UnreachableError)
                outcome.reason = error.reason or error.status
                return
            outcome.latencies_s.append(time.perf_counter() - start)
            before = outcome.application
            outcome.doubled = before is not None and before.application_id != answer.application_id
            outcome.application = answer

    def check_again(self, outcomes: Sequence[_Outcome]) -> None:
        for outcome in outcomes:
            known = outcome.application
            if known is None:
                continue
            try:
                outcome.application = outcome.terminal.application(
                    known.application_id, self._deadline_s
                )
            except RemoteError as error:
                if error.status != "NOT_FOUND":
                    raise
                outcome.lost = True


def report_of(outcomes: Sequence[_Outcome]) -> Report:
    """Hold the outcomes against the truth; times are the caller's."""
    judged = [(one, one.application) for one in outcomes if one.application is not None]
    states = Counter(application.state for _, application in judged)
    found = findings(
        [
            Judged(
                one.visit.truth_id,
                one.visit.person.document_number,
                application.state,
                application.registrant_id,
            )
            for one, application in judged
        ]
    )
    return Report(
        visits=len(outcomes),
        enrolled=states[State.ENROLLED],
        recognised=states[State.RECOGNISED],
        in_adjudication=states[State.IN_ADJUDICATION],
        rejected=states[State.REJECTED],
        accepted=states[State.ACCEPTED] + states[State.UNSPECIFIED],
        refused=dict(
            Counter(
                one.reason for one in outcomes if one.application is None and not one.unanswered
            )
        ),
        unanswered=sum(one.application is None and one.unanswered for one in outcomes),
        lost=sum(one.lost for one in outcomes),
        doubled=sum(one.doubled for one in outcomes),
        resent=sum(one.resent for one in outcomes),
        duplicates_found=found.duplicates_found,
        duplicates_missed=found.duplicates_missed,
        false_alarms=found.false_alarms,
        wrongly_recognised=found.wrongly_recognised,
        latencies_s=tuple(sorted(latency for one in outcomes for latency in one.latencies_s)),
    )


def staff_key(directory: Path, administrator: Connection) -> PrivateKey:
    """Register the operator who works at simulated terminals; returns the key to log in with.

    Args:
        directory: keeps the key.
    """
    home = directory / STAFF
    known = (home / KEY_FILE).exists()
    key = load_key(home) if known else new_key(home)
    enrol_operator(administrator, STAFF, [OperatorRole.STATION], public_bytes(key))
    return key


def fleet(
    directory: Path,
    operator: Connection,
    station_id: str,
    count: int,
    provisioning_address: str,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> list[TerminalClient]:
    """Provision simulated terminals ``sim-0001`` and on, as real ones are, and connect them.

    Credentials that are in the directory from an earlier run are used again.

    Args:
        directory: gets one sub-directory a terminal.
        operator: makes the tokens; its address is also the terminals'.

    Raises:
        DevicesError: what provisioning and connecting raise.
    """
    clients = []
    login_key = staff_key(directory, operator)
    for number in range(1, count + 1):
        terminal_id = f"sim-{number:04}"
        home = directory / terminal_id
        if not (home / CERTIFICATE_FILE).exists():
            token = create_token(operator, station_id, terminal_id)
            provision(provisioning_address, token, home, operator.address, policy=policy)
        log_in(home, STAFF, login_key=login_key, address=operator.address, policy=policy)
        clients.append(TerminalClient(home, operator.address, policy))
    return clients
