"""From an application to a registrant, a recognition or a case.

Theory of operation. :meth:`Enrolment.accept` makes the application durable, then :meth:`settle`
searches and decides. Two people must never be enrolled as one, nor one as two when two stations
capture the same person in the same second. So the long search runs unlocked, and the decision runs
under one lock: it first searches what was added since the long search began, which is next to
nothing, then commits and lets the index follow. An application that was accepted but not settled
when the process died is settled at the next start.

The fingers decide and the particulars only order: a match under the same document is a recognition,
a match under other particulars is a case for people, whatever the name.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from identity.config import DecisionPolicy
from identity.errors import IdentityError, InvalidRequestError, StateError
from identity.identifiers import new_id
from identity.lookups import check_sample_count, search_thresholds
from identity.observability.metrics import ENROLMENTS
from identity.observability.stages import stage
from identity.particulars import check_particulars, is_late
from identity.ports import Clock, Comparer
from identity.references import ReferenceFollower, template_of
from identity.store import Database, Transaction
from identity.types import (
    Application,
    ApplicationState,
    CapturedSample,
    Case,
    CaseCandidate,
    CaseReason,
    CaseState,
    Once,
    Particulars,
    RegistrantState,
    Verdict,
)
from matcher.errors import MatcherError
from matcher.types import Candidate, CandidateList, FingerPosition

log = structlog.get_logger("anju")


@dataclass(frozen=True)
class UploadedFinger:
    """A finger as an image that was uploaded; ``resolution_ppi`` 0 is what the file says."""

    position: int
    sha256: bytes
    resolution_ppi: int


@dataclass(frozen=True)
class EnrolCommand:
    """What a terminal submits, decoded.

    Attributes:
        portrait: PNG or JPEG that came with the application; empty if none did.
        portrait_sha256: of an uploaded portrait; empty if there is none.
        images: uploaded fingers.
    """

    particulars: Particulars
    samples: tuple[CapturedSample, ...]
    permit_requested: bool
    captured_at: datetime | None
    portrait: bytes = b""
    portrait_sha256: bytes = b""
    images: tuple[UploadedFinger, ...] = ()

    @property
    def uploads(self) -> tuple[bytes, ...]:
        """Digests of everything that was uploaded for it."""
        portrait = (self.portrait_sha256,) if self.portrait_sha256 else ()
        return (*portrait, *(image.sha256 for image in self.images))


@dataclass(frozen=True)
class Outcome:
    """What the search means for one application."""

    state: ApplicationState
    registrant_id: str | None = None
    reason: CaseReason | None = None
    candidates: tuple[CaseCandidate, ...] = ()


class Enrolment:
    """Thread-safe; one object a process, because it owns the decision lock."""

    def __init__(
        self,
        database: Database,
        comparer: Comparer,
        follower: ReferenceFollower,
        policy: DecisionPolicy,
        clock: Clock,
        fingers_asked: int = 1,
    ) -> None:
        """
        Args:
            fingers_asked: of each person; see :class:`identity.config.CaptureConfig`.
        """
        self._fingers_asked = fingers_asked
        self._database = database
        self._comparer = comparer
        self._follower = follower
        self._policy = policy
        self._clock = clock
        self._decision_lock = threading.Lock()

    def earlier(self, once: Once) -> str | None:
        """The id of the application that this very change made before, if it did."""
        with self._database.read() as tx:
            return tx.once.result_of(once)

    @stage("accept")
    def accept(
        self, command: EnrolCommand, once: Once, station_id: str, uploaded_by: str = ""
    ) -> str:
        """Make the application durable and return its id; nothing is searched yet.

        Args:
            command: with the samples and the photo that its pictures became, if it has any.
            uploaded_by: whose those are; they are forgotten with the same transaction.

        Raises:
            InvalidRequestError: particulars or samples are wrong.
            StateError: NO_FINGERS.
            matcher.errors.FailureToEnrolError: a finger is too poor to be a reference.
        """
        earlier = self.earlier(once)
        if earlier is not None:
            return earlier
        now = self._clock.now()
        check_particulars(command.particulars, now)
        _check_fingers(command, self._fingers_asked)
        self._comparer.check([sample.template for sample in command.samples])
        application = Application(
            application_id=new_id("A"),
            state=ApplicationState.ACCEPTED,
            station_id=station_id,
            accepted_by=once.actor,
            permit_requested=command.permit_requested,
            late=is_late(command.particulars.residence, now),
            accepted_at=now,
        )
        with self._database.write() as tx:
            earlier = tx.once.result_of(once)
            if earlier is not None:
                return earlier
            tx.people.add_application(
                application,
                command.particulars,
                [(int(s.template.position), s.record) for s in command.samples],
                command.captured_at,
            )
            for sha256 in command.uploads:
                tx.uploads.remove(uploaded_by, sha256)
            tx.once.record(once, application.application_id, now)
            tx.audit.append(now, once.actor, once.method, application.application_id)
        return application.application_id

    def settle(self, application_id: str) -> Application:
        """Search and decide, unless that has been done; returns the application as it stands."""
        with self._database.read() as tx:
            application = tx.people.application(application_id)
            if application.state is not ApplicationState.ACCEPTED:
                return application
            records = tx.people.application_records(application_id)
            ruled_out = _ruled_out(tx.cases.of_application(application_id))
        probes = [template_of(position, record) for position, record in records]
        limit = self._policy.candidate_limit + len(ruled_out)
        with stage("search"):
            found = self._comparer.identify(probes, limit=limit)
        with self._deciding():
            # Whatever was committed must be in the index, also if following it failed last time.
            self._follower.catch_up()
            searches = [found]
            if self._comparer.sequence != found.sequence:
                searches.append(
                    self._comparer.identify(probes, limit=limit, added_after=found.sequence)
                )
            with self._database.write() as tx:
                application = tx.people.application(application_id)
                if application.state is not ApplicationState.ACCEPTED:
                    return application
                outcome = self._outcome(tx, application_id, searches, ruled_out)
                self._apply(tx, application, outcome)
                application = tx.people.application(application_id)
            ENROLMENTS.labels((outcome.reason or outcome.state).name.lower()).inc()
            enrolled = application.state is ApplicationState.ENROLLED
            new = application.registrant_id if enrolled else None
            self._follower.catch_up(at_hand={new: probes} if new is not None else {})
        return application

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Hold the decision lock, and tell the wait for it from the work under it."""
        with stage("decision_wait"):
            self._decision_lock.acquire()
        try:
            with stage("decide"):
                yield
        finally:
            self._decision_lock.release()

    def settle_waiting(self) -> int:
        """Settle every application that an earlier process accepted but did not answer.

        One that cannot be settled (its data is damaged, say) is logged and goes on waiting: it must
        not keep the service from everybody else.

        Returns:
            How many no longer wait.
        """
        with self._database.read() as tx:
            waiting = tx.people.waiting_applications()
        settled = 0
        for application_id in waiting:
            try:
                state = self.settle(application_id).state
            except (IdentityError, MatcherError) as error:
                log.error(
                    "application cannot be settled",
                    application_id=application_id,
                    error=type(error).__name__,
                )
                continue
            settled += state is not ApplicationState.ACCEPTED
        return settled

    def application(self, application_id: str) -> Application:
        with self._database.read() as tx:
            return tx.people.application(application_id)

    def _outcome(
        self,
        tx: Transaction,
        application_id: str,
        searches: Sequence[CandidateList],
        ruled_out: frozenset[str],
    ) -> Outcome:
        if not all(search.complete for search in searches):
            # Never read an incomplete search as "this person is new": the application waits.
            return Outcome(ApplicationState.ACCEPTED)
        best = _best_of(searches)
        ranked = [c for c in best.values() if c.subject_id not in ruled_out]
        ranked.sort(key=lambda c: (-c.similarity, c.subject_id))
        threshold = search_thresholds(self._comparer, self._policy, searches[0].searched)
        alike = [c for c in ranked if c.similarity >= threshold.grey]
        alike = alike[: self._policy.candidate_limit]
        particulars = tx.people.application_particulars(application_id)
        if particulars is None:
            raise StateError("APPLICATION_EMPTY", "the application's data is gone")
        namesakes = set(
            tx.people.registrants_with_document(particulars.details.document_number)
        ) - set(ruled_out)
        if not alike:
            if namesakes:
                known = [best.get(i, Candidate(i, 0.0)) for i in sorted(namesakes)]
                return _case(CaseReason.SAME_DOCUMENT_OTHER_FINGERS, known)
            return Outcome(ApplicationState.ENROLLED)
        if alike[0].similarity < threshold.same:
            return _case(CaseReason.GREY_ZONE, alike)
        if alike[0].subject_id in namesakes:
            return Outcome(ApplicationState.RECOGNISED, registrant_id=alike[0].subject_id)
        return _case(CaseReason.SAME_FINGERS_OTHER_PARTICULARS, alike)

    def _apply(self, tx: Transaction, application: Application, outcome: Outcome) -> None:
        now = self._clock.now()
        application_id = application.application_id
        who = application.accepted_by
        if outcome.state is ApplicationState.ENROLLED:
            registrant_id = new_id("R")
            tx.people.enrol(registrant_id, application_id, now)
            tx.people.settle_application(application_id, outcome.state, registrant_id)
            tx.audit.append(now, who, "enrolled", registrant_id)
        elif outcome.state is ApplicationState.RECOGNISED and outcome.registrant_id is not None:
            recognise(tx, application_id, outcome.registrant_id)
            tx.audit.append(now, who, "recognised", outcome.registrant_id)
        elif outcome.reason is not None:
            case = Case(
                case_id=new_id("C"),
                application_id=application_id,
                state=CaseState.OPEN,
                reason=outcome.reason,
                station_id=application.station_id,
                opened_at=now,
                candidates=outcome.candidates,
            )
            tx.cases.open(case)
            tx.people.settle_application(
                application_id, ApplicationState.IN_ADJUDICATION, case_id=case.case_id
            )
            tx.audit.append(now, who, "case opened", case.case_id, outcome=outcome.reason.name)
        else:
            tx.audit.append(now, who, "search incomplete", application_id, outcome="waiting")


def recognise(tx: Transaction, application_id: str, registrant_id: str) -> None:
    """The applicant is this registrant: renew their residence, forget the application's copies.

    The registrant's identity details stand; only where they live now comes from the application.
    """
    stated = tx.people.application_particulars(application_id)
    registrant = tx.people.registrant(registrant_id)
    if stated is None or registrant.particulars is None:
        raise StateError("REGISTRANT_ERASED", "one of the two records was erased meanwhile")
    tx.people.update_registrant(
        registrant_id,
        RegistrantState.RESIDENT,
        replace(registrant.particulars, residence=stated.residence),
    )
    tx.people.settle_application(application_id, ApplicationState.RECOGNISED, registrant_id)
    tx.people.drop_application_data(application_id)


def _ruled_out(cases: Sequence[Case]) -> frozenset[str]:
    """Registrants whom people have found different from this applicant."""
    return frozenset(
        candidate.registrant_id
        for case in cases
        if case.state is CaseState.DECIDED
        and case.decisions[-1].verdict is Verdict.DIFFERENT_PERSON
        for candidate in case.candidates
    )


def _case(reason: CaseReason, candidates: Sequence[Candidate]) -> Outcome:
    return Outcome(
        ApplicationState.IN_ADJUDICATION,
        reason=reason,
        candidates=tuple(
            CaseCandidate(c.subject_id, c.similarity, c.finger_similarities) for c in candidates
        ),
    )


def _best_of(searches: Sequence[CandidateList]) -> dict[str, Candidate]:
    """The strongest candidate per subject over several searches."""
    best: dict[str, Candidate] = {}
    for search in searches:
        for candidate in search.candidates:
            seen = best.get(candidate.subject_id)
            if seen is None or candidate.similarity > seen.similarity:
                best[candidate.subject_id] = candidate
    return best


def _check_fingers(command: EnrolCommand, asked: int) -> None:
    """Each finger once, captured or missing; as many as are asked for, and one to search with."""
    missing = [int(one.position) for one in command.particulars.missing_fingers]
    if command.samples or not missing:
        check_sample_count(len(command.samples))
    positions = [sample.template.position for sample in command.samples]
    known = [int(position) for position in positions if position is not FingerPosition.UNKNOWN]
    if len(set(known)) != len(known):
        raise InvalidRequestError("SAMPLES_REPEATED", "each finger position may appear only once")
    if len({*known, *missing}) != len(known) + len(missing):
        raise InvalidRequestError(
            "MISSING_FINGERS_INVALID", "a finger is either captured or missing, and named once"
        )
    if len(positions) + len(missing) < asked:
        raise InvalidRequestError(
            "FINGERS_UNEXPLAINED",
            f"{asked} fingers are asked for and {len(positions)} were captured; capture the "
            "others, or give a reason for each",
        )
    if not positions:
        raise StateError(
            "NO_FINGERS",
            "none of this person's fingers can be captured, and this register cannot search "
            "without one yet. Do not turn them away and do not send them back: keep this "
            "submission, register them on paper by their document, and tell your supervisor",
        )
