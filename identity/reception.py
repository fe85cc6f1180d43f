"""The counter: what one enrolment call does from the terminal's first byte to the permit.

Accept, settle, issue. Each step is durable and repeatable on its own, so a retry with the same
idempotency key continues where the last attempt stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devices.types import Principal, Role
from identity.enrolment import EnrolCommand, Enrolment
from identity.errors import NotFoundError
from identity.permits import PermitDesk, ShownPermit
from identity.types import Application, Once

ASKED_WITH = "EnrolmentService.GetApplication"


@dataclass(frozen=True)
class Answer:
    application: Application
    permit: ShownPermit | None


class Reception:
    def __init__(self, enrolment: Enrolment, desk: PermitDesk) -> None:
        self._enrolment = enrolment
        self._desk = desk

    def enrol(
        self,
        command: EnrolCommand,
        once: Once,
        caller: Principal,
        require_time: Callable[[], None],
    ) -> Answer:
        """Accept, settle and, if asked for, issue.

        Args:
            require_time: raises when the caller's deadline has passed. Asked between the steps: a
                caller who has gone is not worth a search, and what is accepted is settled anyway
                by a retry or at the next start.
        """
        application_id = self._enrolment.accept(command, once, caller.station_id)
        require_time()
        application = self._enrolment.settle(application_id)
        require_time()
        return Answer(application, self._desk.issue_for(application))

    def application(self, application_id: str, caller: Principal) -> Answer:
        """An application as it stands. Terminals see those of their own station only.

        A permit that an operator is shown this way is a disclosure like any other.
        """
        application = self._enrolment.application(application_id)
        if caller.role is Role.TERMINAL and caller.station_id != application.station_id:
            raise NotFoundError("APPLICATION_UNKNOWN", f"no application {application_id!r}")
        shown = self._desk.issue_for(application)
        if shown is not None and caller.role is Role.OPERATOR:
            shown = self._desk.show(shown.permit.permit_number, str(caller), ASKED_WITH)
        return Answer(application, shown)
