"""Lookups and changes of registrants. Every lookup names a purpose and leaves an entry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime

from identity.config import LookupConfig
from identity.errors import InvalidRequestError, StateError
from identity.particulars import SHANGHAI, check_residence
from identity.permits import PermitDesk, ShownPermit
from identity.ports import Clock
from identity.references import ReferenceFollower
from identity.store import Database, Transaction
from identity.types import (
    AuditEntry,
    Once,
    Purpose,
    Registrant,
    RegistrantState,
    Residence,
)

MAX_REFERENCE_CHARS = 64


@dataclass(frozen=True)
class RegistrantFile:
    registrant: Registrant
    permits: tuple[ShownPermit, ...]


class Register:
    def __init__(
        self,
        database: Database,
        desk: PermitDesk,
        follower: ReferenceFollower,
        lookup: LookupConfig,
        clock: Clock,
    ) -> None:
        self._database = database
        self._desk = desk
        self._follower = follower
        self._lookup = lookup
        self._clock = clock

    def look_up(
        self, registrant_id: str, permit_number: str, purpose: Purpose, who: str, action: str
    ) -> RegistrantFile:
        """One registrant by id, or by permit number if no id is given. Logged as a disclosure.

        Raises:
            InvalidRequestError: PURPOSE_UNKNOWN, or neither id nor permit number.
            NotFoundError: REGISTRANT_UNKNOWN, PERMIT_UNKNOWN.
        """
        check_purpose(purpose, self._lookup)
        if not registrant_id and not permit_number:
            raise InvalidRequestError("WHO_MISSING", "name a registrant_id or a permit_number")
        with self._database.write() as tx:
            if not registrant_id:
                registrant_id = tx.permits.get(permit_number).registrant_id
            registrant = tx.people.registrant(registrant_id)
            tx.audit.append(self._clock.now(), who, action, registrant_id, purpose)
            return RegistrantFile(registrant, self._permits(tx, registrant))

    def disclosures(self, registrant_id: str, before: int | None, limit: int) -> list[AuditEntry]:
        """Who has looked at this person, newest first."""
        with self._database.read() as tx:
            tx.people.registrant(registrant_id)
            # Before they were a registrant, they were known by their applications.
            ids = [registrant_id, *tx.people.applications_of(registrant_id)]
            return tx.audit.about(ids, before, limit)

    def change_residence(
        self, registrant_id: str, residence: Residence, once: Once
    ) -> RegistrantFile:
        """Raises InvalidRequestError (``DETAILS_INVALID``), StateError (``NOT_RESIDENT``)."""
        now = self._clock.now()
        check_residence(residence, now.astimezone(SHANGHAI).date())
        with self._database.write() as tx:
            if tx.once.result_of(once) is None:
                registrant = tx.people.registrant(registrant_id)
                if registrant.state is not RegistrantState.RESIDENT or not registrant.particulars:
                    raise StateError(
                        "NOT_RESIDENT", f"registrant {registrant_id} is not resident; register anew"
                    )
                tx.people.update_registrant(
                    registrant_id,
                    RegistrantState.RESIDENT,
                    replace(registrant.particulars, residence=residence),
                )
                tx.once.record(once, registrant_id, now)
                tx.audit.append(now, once.caller, once.method, registrant_id)
            registrant = tx.people.registrant(registrant_id)
            return RegistrantFile(registrant, self._permits(tx, registrant))

    def record_departure(self, registrant_id: str, departed: date, once: Once) -> RegistrantFile:
        """End a registration and revoke its permit.

        References stay enrolled until erasure, so that who comes back is recognised and need not
        prove themselves again.
        """
        now = self._clock.now()
        if departed > now.astimezone(SHANGHAI).date():
            raise InvalidRequestError("DETAILS_INVALID", "departure_date must not be in the future")
        with self._database.write() as tx:
            if tx.once.result_of(once) is None:
                registrant = tx.people.registrant(registrant_id)
                if registrant.state is not RegistrantState.RESIDENT or not registrant.particulars:
                    raise StateError(
                        "ALREADY_DEPARTED", f"registrant {registrant_id} is not resident"
                    )
                tx.people.update_registrant(
                    registrant_id, RegistrantState.DEPARTED, registrant.particulars
                )
                self._desk.revoke_all(tx, registrant_id)
                tx.once.record(once, registrant_id, now)
                tx.audit.append(
                    now, once.caller, once.method, registrant_id, outcome=f"departed {departed}"
                )
            registrant = tx.people.registrant(registrant_id)
            shown = self._permits(tx, registrant)
        self._desk.publish([permit.permit.permit_number for permit in shown])
        return RegistrantFile(registrant, shown)

    def erase(self, registrant_id: str, once: Once) -> datetime:
        """Destroy a departed registrant's data key. Raises StateError (``NOT_DEPARTED``)."""
        now = self._clock.now()
        with self._database.write() as tx:
            earlier = tx.once.result_of(once)
            if earlier is not None:
                return datetime.fromisoformat(earlier)
            registrant = tx.people.registrant(registrant_id)
            if registrant.state is not RegistrantState.DEPARTED:
                raise StateError(
                    "NOT_DEPARTED",
                    f"registrant {registrant_id} is {registrant.state.name.lower()}; "
                    "record the departure first",
                )
            tx.people.erase_registrant(registrant_id)
            tx.once.record(once, now.isoformat(), now)
            tx.audit.append(now, once.caller, once.method, registrant_id)
        self._follower.catch_up()
        return now

    def _permits(self, tx: Transaction, registrant: Registrant) -> tuple[ShownPermit, ...]:
        if registrant.state is RegistrantState.ERASED:
            return ()  # the signed texts went with the data key
        return tuple(self._desk.of_registrant(tx, registrant.registrant_id))


def check_purpose(purpose: Purpose, lookup: LookupConfig) -> None:
    """Raises InvalidRequestError (``PURPOSE_UNKNOWN``)."""
    if purpose.code not in lookup.purposes:
        raise InvalidRequestError(
            "PURPOSE_UNKNOWN",
            f"a lookup needs a purpose, one of: {', '.join(lookup.purposes)}",
        )
    if not 1 <= len(purpose.case_reference) <= MAX_REFERENCE_CHARS:
        raise InvalidRequestError(
            "PURPOSE_UNKNOWN",
            f"purpose.case_reference must have 1 to {MAX_REFERENCE_CHARS} characters",
        )
