"""From a case to a decision by people.

A false match harms a person, so the machine decides no case. DIFFERENT_PERSON (the applicant gets
what they asked for) takes one operator; SAME_PERSON and REJECT take two who agree. An operator
decides a case once, also across appeals. Two who want to turn somebody away for different reasons
have not agreed: the case waits for one more.
"""

from __future__ import annotations

from dataclasses import dataclass

from identity.enrolment import Enrolment, recognise
from identity.errors import InvalidRequestError, StateError
from identity.ports import Clock
from identity.store import Database, Transaction
from identity.types import (
    ApplicationState,
    Case,
    CaseAppeal,
    CaseDecision,
    CaseState,
    Once,
    Particulars,
    Purpose,
    Verdict,
)

MAX_REASON_CHARS = 500
MAX_STATEMENT_CHARS = 1_000
CASE_PURPOSE = "adjudication"

DECIDABLE = (CaseState.OPEN, CaseState.AWAITING_SECOND, CaseState.APPEALED)


@dataclass(frozen=True)
class CaseFile:
    """A case with both records side by side; None where one was erased or is no longer kept."""

    case: Case
    applicant: Particulars | None
    candidates: tuple[Particulars | None, ...]


class Adjudication:
    def __init__(self, database: Database, enrolment: Enrolment, clock: Clock) -> None:
        self._database = database
        self._enrolment = enrolment
        self._clock = clock

    def page(self, include_decided: bool, after: str, limit: int) -> list[Case]:
        """Oldest first; ``after`` is the id of the last case seen, or empty."""
        with self._database.read() as tx:
            last = tx.cases.get(after) if after else None
            position = (last.opened_at, last.case_id) if last else None
            return tx.cases.page(include_decided, position, limit)

    def open_file(self, case_id: str, who: str, action: str) -> CaseFile:
        """The case with particulars. Logged as a disclosure of everyone in it."""
        now = self._clock.now()
        with self._database.write() as tx:
            case = tx.cases.get(case_id)
            purpose = Purpose(CASE_PURPOSE, case_id)
            application = tx.people.application(case.application_id)
            for subject in (
                application.registrant_id or case.application_id,
                *(candidate.registrant_id for candidate in case.candidates),
            ):
                tx.audit.append(now, who, action, subject, purpose)
            return CaseFile(
                case,
                tx.people.application_particulars(case.application_id),
                tuple(tx.people.registrant(c.registrant_id).particulars for c in case.candidates),
            )

    def decide(
        self, case_id: str, verdict: Verdict, registrant_id: str, reason: str, once: Once
    ) -> Case:
        """Record one operator's decision and, if it settles the case, carry it out.

        Raises:
            InvalidRequestError: REASON_MISSING, CANDIDATE_UNKNOWN.
            StateError: CASE_CLOSED, SECOND_OPERATOR_REQUIRED.
        """
        _check_text("reason", reason, MAX_REASON_CHARS)
        with self._database.write() as tx:
            case = tx.cases.get(case_id)
            if tx.once.result_of(once) is None:
                self._record(tx, case, verdict, registrant_id, reason, once)
                case = tx.cases.get(case_id)
        if case.state is CaseState.DECIDED:
            # Also on a retry: the first attempt may have died between the decision and this.
            self._enrolment.settle(case.application_id)
        return case

    def appeal(self, case_id: str, statement: str, once: Once) -> Case:
        """Re-open a decided case; whoever decided it before cannot decide it again.

        Raises:
            StateError: CASE_OPEN.
        """
        _check_text("statement", statement, MAX_STATEMENT_CHARS)
        now = self._clock.now()
        with self._database.write() as tx:
            case = tx.cases.get(case_id)
            if tx.once.result_of(once) is None:
                if case.state is not CaseState.DECIDED:
                    raise StateError("CASE_OPEN", f"case {case_id} is still open, decide it first")
                if (
                    tx.people.application(case.application_id).state
                    is not ApplicationState.REJECTED
                ):
                    raise StateError(
                        "NOTHING_TO_APPEAL", f"case {case_id} did not end in a rejection"
                    )
                tx.cases.add_appeal(case, CaseAppeal(statement, once.caller, now))
                tx.people.settle_application(case.application_id, ApplicationState.IN_ADJUDICATION)
                tx.once.record(once, case_id, now)
                tx.audit.append(now, once.caller, once.method, case_id)
            return tx.cases.get(case_id)

    def _record(
        self,
        tx: Transaction,
        case: Case,
        verdict: Verdict,
        registrant_id: str,
        reason: str,
        once: Once,
    ) -> None:
        if case.state not in DECIDABLE:
            raise StateError("CASE_CLOSED", f"case {case.case_id} is decided; it can be appealed")
        if any(decision.operator_id == once.caller for decision in case.decisions):
            raise StateError(
                "SECOND_OPERATOR_REQUIRED",
                f"{once.caller} has decided case {case.case_id} before; another operator must",
            )
        decision = CaseDecision(
            operator_id=once.caller,
            verdict=verdict,
            registrant_id=_chosen(case, verdict, registrant_id),
            reason=reason,
            at=self._clock.now(),
            round=case.round,
        )
        tx.cases.add_decision(case, decision)
        state = _next_state(case, decision)
        tx.cases.set_state(case.case_id, state, case.round)
        tx.once.record(once, case.case_id, decision.at)
        tx.audit.append(
            decision.at, once.caller, once.method, case.case_id, outcome=verdict.name.lower()
        )
        if state is CaseState.DECIDED:
            self._conclude(tx, case, decision)

    def _conclude(self, tx: Transaction, case: Case, decision: CaseDecision) -> None:
        application_id = case.application_id
        if decision.verdict is Verdict.SAME_PERSON and decision.registrant_id is not None:
            recognise(tx, application_id, decision.registrant_id)
        elif decision.verdict is Verdict.REJECT:
            tx.people.settle_application(application_id, ApplicationState.REJECTED)
        else:
            # Back to the search, without those whom people ruled out. Durable before it runs: a
            # crash here leaves an accepted application, which the next start settles.
            tx.people.settle_application(application_id, ApplicationState.ACCEPTED)


def _next_state(case: Case, decision: CaseDecision) -> CaseState:
    """One operator may let somebody in; it takes two who agree to turn somebody away."""
    if decision.verdict is Verdict.DIFFERENT_PERSON:
        return CaseState.DECIDED
    agrees = any(
        earlier.round == case.round
        and earlier.verdict is decision.verdict
        and earlier.registrant_id == decision.registrant_id
        for earlier in case.decisions
    )
    return CaseState.DECIDED if agrees else CaseState.AWAITING_SECOND


def _chosen(case: Case, verdict: Verdict, registrant_id: str) -> str | None:
    """Which candidate a SAME_PERSON decision means."""
    if verdict is not Verdict.SAME_PERSON:
        return None
    candidates = [candidate.registrant_id for candidate in case.candidates]
    if not registrant_id and len(candidates) == 1:
        return candidates[0]
    if registrant_id not in candidates:
        raise InvalidRequestError(
            "CANDIDATE_UNKNOWN",
            f"say which candidate is the same person: {', '.join(candidates)}",
        )
    return registrant_id


def _check_text(what: str, text: str, max_chars: int) -> None:
    if not 1 <= len(text.strip()) <= max_chars:
        raise InvalidRequestError(
            "REASON_MISSING", f"a {what} of 1 to {max_chars} characters is needed"
        )
