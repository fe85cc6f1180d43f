"""Permits of registrants: first issue, renewal, status.

A registrant holds at most one permit that is valid or suspended. The register's row decides about a
permit's status; the published list follows it and is reconciled from it at start.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from identity.errors import InvalidRequestError, StateError
from identity.observability.stages import stage
from identity.ports import Clock, PermitIssuer
from identity.store import Database, Transaction
from identity.types import (
    Application,
    ApplicationState,
    Once,
    PermitChange,
    PermitRecord,
    PermitState,
    Purpose,
    Registrant,
    RegistrantState,
)

MAX_REASON_CHARS = 200
STANDING = (PermitState.VALID, PermitState.SUSPENDED)
ISSUED_WITH = "EnrolmentService.Enrol/permit"
# A permit's text holds its holder's particulars: whoever is shown it is a disclosure to the holder.
PERMIT_PURPOSE = "permit-service"


@dataclass(frozen=True)
class ShownPermit:
    """A permit with its state at the moment it was read."""

    permit: PermitRecord
    state: PermitState


class PermitDesk:
    """Thread-safe; one object a process, because it owns the issuing lock."""

    def __init__(self, database: Database, issuer: PermitIssuer, clock: Clock) -> None:
        self._database = database
        self._issuer = issuer
        self._clock = clock
        self._issuing = threading.Lock()
        self._publishing = threading.Lock()

    def show(self, permit_number: str, who: str, action: str) -> ShownPermit:
        """One permit. Logged as a disclosure. Raises NotFoundError (``PERMIT_UNKNOWN``)."""
        with self._database.write() as tx:
            permit = tx.permits.get(permit_number)
            self._log_disclosure(tx, permit, who, action)
            return self._shown(permit)

    def of_registrant(self, tx: Transaction, registrant_id: str) -> list[ShownPermit]:
        """Newest first."""
        return [self._shown(permit) for permit in tx.permits.of_registrant(registrant_id)]

    def issue(self, registrant_id: str, once: Once) -> ShownPermit:
        """A permit for a registrant who has none that stands.

        Raises:
            StateError: NOT_RESIDENT, UNDER_ADJUDICATION, PERMIT_STILL_VALID.
        """
        with self._issuing:
            with self._database.read() as tx:
                earlier = tx.once.result_of(once)
                if earlier is not None:
                    return self._shown(tx.permits.get(earlier))
                registrant = tx.people.registrant(registrant_id)
                self._check_issuable(tx, registrant)
            return self._sign_and_keep(registrant, once)

    @stage("issue")
    def issue_for(self, application: Application) -> ShownPermit | None:
        """The permit an application asked for: the standing one, a new one, or None.

        None where no permit was asked for, the application has not led to a registrant, people are
        still deciding about that registrant, or they have left. The answer is recorded: an
        application leads to one permit at most, however often and however late it is asked about.
        """
        settled = (ApplicationState.ENROLLED, ApplicationState.RECOGNISED)
        registrant_id = application.registrant_id
        if (
            not application.permit_requested
            or registrant_id is None
            or application.state not in settled
        ):
            return None
        once = Once(
            application.accepted_by,
            ISSUED_WITH,
            application.application_id,
            registrant_id.encode(),
        )
        with self._issuing:
            with self._database.read() as tx:
                registrant = tx.people.registrant(registrant_id)
                if registrant.state is RegistrantState.ERASED:
                    return None
                earlier = tx.once.result_of(once)
                if earlier is not None:
                    return self._shown(tx.permits.get(earlier))
                standing = self._standing(tx, registrant_id)
                if standing is None and (
                    registrant.state is not RegistrantState.RESIDENT
                    or tx.cases.undecided_about(registrant_id)
                ):
                    return None
            if standing is None:
                return self._sign_and_keep(registrant, once)
            with self._database.write() as tx:
                tx.once.record(once, standing.permit.permit_number, self._clock.now())
            return standing

    def card(self, permit_number: str, pdf: bool, who: str, action: str) -> bytes:
        """The printable card of a valid permit. Raises StateError (``PERMIT_NOT_VALID``)."""
        with self._database.write() as tx:
            shown = self._shown(tx.permits.get(permit_number))
            if shown.state is not PermitState.VALID:
                raise StateError(
                    "PERMIT_NOT_VALID",
                    f"permit {permit_number} is {shown.state.name.lower()}; "
                    "a card is drawn for valid permits only",
                )
            self._log_disclosure(tx, shown.permit, who, action)
        return self._issuer.card(shown.permit, pdf)

    def change_status(
        self, permit_number: str, wanted: PermitState, reason: str, once: Once
    ) -> ShownPermit:
        """Suspend, reinstate or revoke; published before this returns.

        Raises:
            InvalidRequestError: REASON_MISSING, STATE_INVALID.
            StateError: PERMIT_REVOKED (revocation is final).
        """
        if wanted not in (PermitState.VALID, PermitState.SUSPENDED, PermitState.REVOKED):
            raise InvalidRequestError("STATE_INVALID", "state must be VALID, SUSPENDED or REVOKED")
        if not 1 <= len(reason.strip()) <= MAX_REASON_CHARS:
            raise InvalidRequestError(
                "REASON_MISSING", f"a reason of 1 to {MAX_REASON_CHARS} characters is needed"
            )
        with self._database.write() as tx:
            permit = tx.permits.get(permit_number)
            if tx.once.result_of(once) is None:
                self._change(tx, permit, wanted, reason, once)
            permit = tx.permits.get(permit_number)
        self.publish([permit_number])
        return self._shown(permit)

    def revoke_all(self, tx: Transaction, registrant_id: str) -> None:
        """Revoke whatever stands; :meth:`publish` the registrant's permits after the commit."""
        for permit in tx.permits.of_registrant(registrant_id):
            if permit.state in STANDING:
                tx.permits.set_state(permit.permit_number, PermitState.REVOKED)

    def publish(self, permit_numbers: Iterable[str]) -> None:
        """Make the published statuses of these permits what the register says now.

        One caller at a time, and each reads the register anew: two changes that were committed in
        one order are never published in the other.
        """
        with self._publishing:
            for permit_number in permit_numbers:
                with self._database.read() as tx:
                    status_list, status_index, state = tx.permits.status_of(permit_number)
                self._issuer.publish(status_list, status_index, state)

    def reconcile(self) -> None:
        """At start: bring the published lists in line with the register."""
        with self._database.read() as tx:
            self._issuer.reconcile(list(tx.permits.statuses()))

    def _check_issuable(self, tx: Transaction, registrant: Registrant) -> None:
        registrant_id = registrant.registrant_id
        if registrant.state is not RegistrantState.RESIDENT:
            raise StateError(
                "NOT_RESIDENT",
                f"registrant {registrant_id} is {registrant.state.name.lower()}; register anew",
            )
        if tx.cases.undecided_about(registrant_id):
            raise StateError(
                "UNDER_ADJUDICATION", f"a case about registrant {registrant_id} is undecided"
            )
        standing = self._standing(tx, registrant_id)
        if standing is not None:
            raise StateError(
                "PERMIT_STILL_VALID",
                f"permit {standing.permit.permit_number} still stands; "
                "revoke it first or wait until it expires",
            )

    def _standing(self, tx: Transaction, registrant_id: str) -> ShownPermit | None:
        for shown in self.of_registrant(tx, registrant_id):
            if shown.state in STANDING:
                return shown
        return None

    def _sign_and_keep(self, registrant: Registrant, once: Once) -> ShownPermit:
        if registrant.particulars is None:
            raise StateError("REGISTRANT_ERASED", "the registrant's record was erased")
        now = self._clock.now()
        permit = self._issuer.issue(registrant.registrant_id, registrant.particulars, now)
        with self._database.write() as tx:
            # They may have left while the permit was signed; it has been shown to nobody yet.
            if tx.people.registrant(registrant.registrant_id).state is not RegistrantState.RESIDENT:
                raise StateError("NOT_RESIDENT", "the registrant has left; register anew")
            tx.permits.add(permit)
            tx.once.record(once, permit.permit_number, now)
            tx.audit.append(now, once.caller, "permit issued", registrant.registrant_id)
        return self._shown(permit)

    def _change(
        self, tx: Transaction, permit: PermitRecord, wanted: PermitState, reason: str, once: Once
    ) -> None:
        if permit.state is PermitState.REVOKED and wanted is not PermitState.REVOKED:
            raise StateError(
                "PERMIT_REVOKED",
                f"permit {permit.permit_number} is revoked for good; issue a new one",
            )
        now = self._clock.now()
        tx.permits.change(permit, PermitChange(wanted, reason, once.caller, now))
        tx.once.record(once, permit.permit_number, now)
        tx.audit.append(
            now, once.caller, once.method, permit.registrant_id, outcome=wanted.name.lower()
        )

    def _log_disclosure(self, tx: Transaction, permit: PermitRecord, who: str, action: str) -> None:
        purpose = Purpose(PERMIT_PURPOSE, permit.permit_number)
        tx.audit.append(self._clock.now(), who, action, permit.registrant_id, purpose)

    def _shown(self, permit: PermitRecord) -> ShownPermit:
        return ShownPermit(permit, permit.state_at(self._clock.now()))
