"""Cases for people to decide, with their candidates and decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from identity.errors import NotFoundError
from identity.schema import case_appeals, case_candidates, case_decisions, cases
from identity.store.people import People
from identity.types import (
    Case,
    CaseAppeal,
    CaseCandidate,
    CaseDecision,
    CaseReason,
    CaseState,
    Verdict,
)
from identity.vault import Vault, seal, unseal

UNDECIDED = (CaseState.OPEN, CaseState.AWAITING_SECOND, CaseState.APPEALED)


class Cases:
    def __init__(self, connection: Connection, vault: Vault) -> None:
        self._connection = connection
        self._people = People(connection, vault)

    def open(self, case: Case) -> None:
        self._connection.execute(
            insert(cases).values(
                case_id=case.case_id,
                application_id=case.application_id,
                state=case.state,
                reason=case.reason,
                station_id=case.station_id,
                opened_at=case.opened_at,
                round=case.round,
            )
        )
        self._connection.execute(
            insert(case_candidates),
            [
                {
                    "case_id": case.case_id,
                    "rank": rank,
                    "registrant_id": candidate.registrant_id,
                    "similarity": candidate.similarity,
                    # JSON has no infinities: a finger that could not be compared is null.
                    "finger_similarities": [
                        value if value > float("-inf") else None
                        for value in candidate.finger_similarities
                    ],
                }
                for rank, candidate in enumerate(case.candidates)
            ],
        )

    def get(self, case_id: str) -> Case:
        """Raises NotFoundError (``CASE_UNKNOWN``)."""
        row = self._connection.execute(
            select(cases).where(cases.c.case_id == case_id)
        ).one_or_none()
        if row is None:
            raise NotFoundError("CASE_UNKNOWN", f"no case {case_id!r}")
        return self._case(row)

    def page(
        self, include_decided: bool, after: tuple[datetime, str] | None, limit: int
    ) -> list[Case]:
        """Oldest first; ``after`` is (opened_at, case id) of the last one seen."""
        query = select(cases).order_by(cases.c.opened_at, cases.c.case_id).limit(limit)
        if not include_decided:
            query = query.where(cases.c.state.in_(UNDECIDED))
        if after is not None:
            opened, case_id = after
            query = query.where(
                (cases.c.opened_at > opened)
                | ((cases.c.opened_at == opened) & (cases.c.case_id > case_id))
            )
        return [self._case(row) for row in self._connection.execute(query)]

    def of_application(self, application_id: str) -> list[Case]:
        """Oldest first."""
        rows = self._connection.execute(
            select(cases)
            .where(cases.c.application_id == application_id)
            .order_by(cases.c.opened_at, cases.c.case_id)
        )
        return [self._case(row) for row in rows]

    def undecided_about(self, registrant_id: str) -> list[str]:
        """Ids of the undecided cases in which this registrant is a candidate."""
        return list(
            self._connection.execute(
                select(cases.c.case_id)
                .join(case_candidates, case_candidates.c.case_id == cases.c.case_id)
                .where(
                    case_candidates.c.registrant_id == registrant_id,
                    cases.c.state.in_(UNDECIDED),
                )
            ).scalars()
        )

    def set_state(self, case_id: str, state: CaseState, round_: int) -> None:
        self._connection.execute(
            update(cases).where(cases.c.case_id == case_id).values(state=state, round=round_)
        )

    def add_decision(self, case: Case, decision: CaseDecision) -> None:
        ordinal = len(case.decisions)
        key = self._people.key_of_application(case.application_id)
        self._connection.execute(
            insert(case_decisions).values(
                case_id=case.case_id,
                ordinal=ordinal,
                operator_id=decision.operator_id,
                verdict=decision.verdict,
                registrant_id=decision.registrant_id,
                sealed_reason=seal(
                    key, decision.reason.encode(), f"decision/{case.case_id}/{ordinal}"
                ),
                at=decision.at,
                round=decision.round,
            )
        )

    def add_appeal(self, case: Case, appeal: CaseAppeal) -> None:
        """Keep the statement and begin the next round."""
        round_ = case.round + 1
        key = self._people.key_of_application(case.application_id)
        self._connection.execute(
            insert(case_appeals).values(
                case_id=case.case_id,
                round=round_,
                sealed_statement=seal(
                    key, appeal.statement.encode(), f"appeal/{case.case_id}/{round_}"
                ),
                taken_by=appeal.taken_by,
                at=appeal.at,
            )
        )
        self.set_state(case.case_id, CaseState.APPEALED, round_)

    def _case(self, row: Row[Any]) -> Case:
        candidate_rows = self._connection.execute(
            select(case_candidates)
            .where(case_candidates.c.case_id == row.case_id)
            .order_by(case_candidates.c.rank)
        )
        decision_rows = self._connection.execute(
            select(case_decisions)
            .where(case_decisions.c.case_id == row.case_id)
            .order_by(case_decisions.c.ordinal)
        ).all()
        appeal_rows = self._connection.execute(
            select(case_appeals)
            .where(case_appeals.c.case_id == row.case_id)
            .order_by(case_appeals.c.round)
        ).all()
        # Once the applicant is erased the free text of their case is unreadable, as it should be.
        key = (
            self._people.key_of_application_unless_erased(row.application_id)
            if decision_rows
            else None
        )

        def opened(sealed: bytes, context: str) -> str:
            return "" if key is None else unseal(key, sealed, context).decode()

        return Case(
            case_id=row.case_id,
            application_id=row.application_id,
            state=CaseState(row.state),
            reason=CaseReason(row.reason),
            station_id=row.station_id,
            opened_at=row.opened_at,
            round=row.round,
            candidates=tuple(
                CaseCandidate(
                    candidate.registrant_id,
                    candidate.similarity,
                    tuple(
                        float("-inf") if value is None else value
                        for value in candidate.finger_similarities
                    ),
                )
                for candidate in candidate_rows
            ),
            decisions=tuple(
                CaseDecision(
                    operator_id=decision.operator_id,
                    verdict=Verdict(decision.verdict),
                    registrant_id=decision.registrant_id,
                    reason=opened(
                        decision.sealed_reason, f"decision/{row.case_id}/{decision.ordinal}"
                    ),
                    at=decision.at,
                    round=decision.round,
                )
                for decision in decision_rows
            ),
            appeals=tuple(
                CaseAppeal(
                    statement=opened(
                        appeal.sealed_statement, f"appeal/{row.case_id}/{appeal.round}"
                    ),
                    taken_by=appeal.taken_by,
                    at=appeal.at,
                )
                for appeal in appeal_rows
            ),
        )
