"""Applications, registrants and their references: sealed on the way in, opened on the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from identity.errors import NotFoundError, SealError
from identity.schema import (
    application_samples,
    applications,
    data_keys,
    reference_changes,
    reference_samples,
    registrants,
)
from identity.types import (
    Application,
    ApplicationState,
    Gender,
    MissingFinger,
    MissingReason,
    Particulars,
    PersonalDetails,
    Registrant,
    RegistrantState,
    Residence,
)
from identity.vault import Vault, seal, unseal


@dataclass(frozen=True)
class ReferenceChange:
    """One step that the search index has to follow, in order of ``sequence``."""

    sequence: int
    kind: str  # "add" or "withdraw"
    registrant_id: str


class People:
    """One transaction's view of people.

    An application's row and a data key are read once in a transaction: one enrolment asks for them
    half a dozen times. Whatever writes such a row forgets it here.
    """

    def __init__(self, connection: Connection, vault: Vault) -> None:
        self._connection = connection
        self._vault = vault
        self._applications: dict[str, Row[Any]] = {}
        self._keys: dict[str, bytes] = {}

    # -- data keys -----------------------------------------------------------------------------

    def data_key(self, key_id: str) -> bytes:
        """Raises SealError (``ERASED``) once the person's data was erased."""
        key = self._keys.get(key_id)
        if key is None:
            wrapped = self._connection.execute(
                select(data_keys.c.wrapped).where(data_keys.c.key_id == key_id)
            ).scalar_one()
            key = self._keys[key_id] = self._vault.unwrap(key_id, wrapped)
        return key

    def key_of_registrant(self, registrant_id: str) -> bytes:
        return self.data_key(self._registrant_row(registrant_id).key_id)

    def key_of_application(self, application_id: str) -> bytes:
        return self.data_key(self._application_row(application_id).key_id)

    def key_of_application_unless_erased(self, application_id: str) -> bytes | None:
        row = self._application_row(application_id)
        wrapped = self._connection.execute(
            select(data_keys.c.wrapped).where(data_keys.c.key_id == row.key_id)
        ).scalar_one()
        return None if wrapped is None else self._vault.unwrap(row.key_id, wrapped)

    # -- applications --------------------------------------------------------------------------

    def add_application(
        self,
        application: Application,
        particulars: Particulars,
        records: list[tuple[int, bytes]],
        captured_at: datetime | None,
    ) -> None:
        """Keep a new application under a data key of its own; records are (position, bytes)."""
        key_id = application.application_id
        key, wrapped = self._vault.new_data_key(key_id)
        self._connection.execute(insert(data_keys).values(key_id=key_id, wrapped=wrapped))
        self._connection.execute(
            insert(applications).values(
                application_id=application.application_id,
                state=application.state,
                accepted_by=application.accepted_by,
                station_id=application.station_id,
                key_id=key_id,
                sealed_particulars=seal(key, _pack(particulars), f"particulars/{key_id}"),
                permit_requested=application.permit_requested,
                late=application.late,
                captured_at=captured_at,
                accepted_at=application.accepted_at,
            )
        )
        self._connection.execute(
            insert(application_samples),
            [
                {
                    "application_id": application.application_id,
                    "ordinal": ordinal,
                    "position": position,
                    "sealed_record": seal(key, record, f"sample/{key_id}/{ordinal}"),
                }
                for ordinal, (position, record) in enumerate(records)
            ],
        )

    def application(self, application_id: str) -> Application:
        """Raises NotFoundError (``APPLICATION_UNKNOWN``)."""
        row = self._application_row(application_id)
        return Application(
            application_id=row.application_id,
            state=ApplicationState(row.state),
            station_id=row.station_id,
            accepted_by=row.accepted_by,
            permit_requested=row.permit_requested,
            late=row.late,
            accepted_at=row.accepted_at,
            registrant_id=row.registrant_id,
            case_id=row.case_id,
        )

    def application_particulars(self, application_id: str) -> Particulars | None:
        """What the applicant stated; None once the application no longer needs it."""
        row = self._application_row(application_id)
        if row.sealed_particulars is None:
            return None
        key = self.data_key(row.key_id)
        return _unpack(unseal(key, row.sealed_particulars, f"particulars/{row.key_id}"))

    def application_records(self, application_id: str) -> list[tuple[int, bytes]]:
        """The samples as (position, record), in the order they were given."""
        row = self._application_row(application_id)
        return self._records(application_samples, "application_id", application_id, row.key_id)

    def waiting_applications(self) -> list[str]:
        """Applications whose search has not been answered yet, oldest first."""
        return list(
            self._connection.execute(
                select(applications.c.application_id)
                .where(applications.c.state == ApplicationState.ACCEPTED)
                .order_by(applications.c.accepted_at, applications.c.application_id)
            ).scalars()
        )

    def applications_of(self, registrant_id: str) -> list[str]:
        """Ids of the applications that led to this registrant."""
        return list(
            self._connection.execute(
                select(applications.c.application_id).where(
                    applications.c.registrant_id == registrant_id
                )
            ).scalars()
        )

    def settle_application(
        self,
        application_id: str,
        state: ApplicationState,
        registrant_id: str | None = None,
        case_id: str | None = None,
    ) -> None:
        values: dict[str, Any] = {"state": state}
        if registrant_id is not None:
            values["registrant_id"] = registrant_id
        if case_id is not None:
            values["case_id"] = case_id
        self._applications.pop(application_id, None)
        self._connection.execute(
            update(applications)
            .where(applications.c.application_id == application_id)
            .values(**values)
        )

    def drop_application_data(self, application_id: str) -> None:
        """Forget the copies an answered application no longer needs (data minimisation)."""
        self._applications.pop(application_id, None)
        self._connection.execute(
            delete(application_samples).where(
                application_samples.c.application_id == application_id
            )
        )
        self._connection.execute(
            update(applications)
            .where(applications.c.application_id == application_id)
            .values(sealed_particulars=None)
        )

    # -- registrants ---------------------------------------------------------------------------

    def enrol(self, registrant_id: str, application_id: str, now: datetime) -> None:
        """Make the applicant a registrant: the application's key and data become theirs."""
        row = self._application_row(application_id)
        particulars = self.application_particulars(application_id)
        if particulars is None:
            raise SealError("ERASED", "the application's data is gone")
        self._connection.execute(
            insert(registrants).values(
                registrant_id=registrant_id,
                state=RegistrantState.RESIDENT,
                key_id=row.key_id,
                sealed_particulars=row.sealed_particulars,
                document_index=self._vault.document_index(particulars.details.document_number),
                station_id=row.station_id,
                registered_at=now,
            )
        )
        samples = self._connection.execute(
            select(application_samples).where(
                application_samples.c.application_id == application_id
            )
        )
        self._connection.execute(
            insert(reference_samples),
            [
                {
                    "registrant_id": registrant_id,
                    "ordinal": sample.ordinal,
                    "position": sample.position,
                    "sealed_record": sample.sealed_record,
                }
                for sample in samples
            ],
        )
        self.drop_application_data(application_id)
        self._change("add", registrant_id)

    def registrant(self, registrant_id: str) -> Registrant:
        """Raises NotFoundError (``REGISTRANT_UNKNOWN``)."""
        row = self._registrant_row(registrant_id)
        particulars = None
        if row.sealed_particulars is not None:
            key = self.data_key(row.key_id)
            particulars = _unpack(unseal(key, row.sealed_particulars, f"particulars/{row.key_id}"))
        fingers = self._connection.execute(
            select(reference_samples.c.position)
            .where(reference_samples.c.registrant_id == registrant_id)
            .order_by(reference_samples.c.ordinal)
        ).scalars()
        return Registrant(
            registrant_id=row.registrant_id,
            state=RegistrantState(row.state),
            registered_at=row.registered_at,
            station_id=row.station_id,
            particulars=particulars,
            fingers=tuple(fingers),
        )

    def registrants_with_document(self, document_number: str) -> list[str]:
        """Ids of the registrants enrolled under this document, oldest first."""
        return list(
            self._connection.execute(
                select(registrants.c.registrant_id)
                .where(registrants.c.document_index == self._vault.document_index(document_number))
                .order_by(registrants.c.registered_at, registrants.c.registrant_id)
            ).scalars()
        )

    def update_registrant(
        self, registrant_id: str, state: RegistrantState, particulars: Particulars
    ) -> None:
        row = self._registrant_row(registrant_id)
        key = self.data_key(row.key_id)
        self._connection.execute(
            update(registrants)
            .where(registrants.c.registrant_id == registrant_id)
            .values(
                state=state,
                sealed_particulars=seal(key, _pack(particulars), f"particulars/{row.key_id}"),
                document_index=self._vault.document_index(particulars.details.document_number),
            )
        )

    def erase_registrant(self, registrant_id: str) -> None:
        """Destroy the data key and every row under it; the index follows the withdrawal."""
        row = self._registrant_row(registrant_id)
        self._connection.execute(
            delete(reference_samples).where(reference_samples.c.registrant_id == registrant_id)
        )
        self._connection.execute(
            update(registrants)
            .where(registrants.c.registrant_id == registrant_id)
            .values(state=RegistrantState.ERASED, sealed_particulars=None, document_index=None)
        )
        # The application they enrolled with shares the key; later ones have keys of their own.
        keys = self._connection.execute(
            select(applications.c.key_id).where(applications.c.registrant_id == registrant_id)
        ).scalars()
        for key_id in {row.key_id, *keys}:
            self._keys.pop(key_id, None)
            self._connection.execute(
                update(data_keys).where(data_keys.c.key_id == key_id).values(wrapped=None)
            )
        for application_id in self.applications_of(registrant_id):
            self.drop_application_data(application_id)
        self._change("withdraw", registrant_id)

    # -- references ----------------------------------------------------------------------------

    def changes_after(self, sequence: int, limit: int) -> list[ReferenceChange]:
        """The next steps for an index that has seen everything up to ``sequence``."""
        rows = self._connection.execute(
            select(reference_changes)
            .where(reference_changes.c.sequence > sequence)
            .order_by(reference_changes.c.sequence)
            .limit(limit)
        )
        return [ReferenceChange(**row._mapping) for row in rows]

    def last_change(self) -> int:
        return (
            self._connection.execute(select(func.max(reference_changes.c.sequence))).scalar() or 0
        )

    def reference_records(self, registrant_id: str) -> list[tuple[int, bytes]]:
        """The enrolled references as (position, record); empty once erased."""
        row = self._registrant_row(registrant_id)
        return self._records(reference_samples, "registrant_id", registrant_id, row.key_id)

    # -- inside --------------------------------------------------------------------------------

    def _change(self, kind: str, registrant_id: str) -> None:
        self._connection.execute(
            insert(reference_changes).values(kind=kind, registrant_id=registrant_id)
        )

    def _records(
        self, table: Any, owner_column: str, owner_id: str, key_id: str
    ) -> list[tuple[int, bytes]]:
        rows = self._connection.execute(
            select(table.c.ordinal, table.c.position, table.c.sealed_record)
            .where(table.c[owner_column] == owner_id)
            .order_by(table.c.ordinal)
        ).all()
        if not rows:
            return []
        key = self.data_key(key_id)
        return [
            (row.position, unseal(key, row.sealed_record, f"sample/{key_id}/{row.ordinal}"))
            for row in rows
        ]

    def _application_row(self, application_id: str) -> Row[Any]:
        row = self._applications.get(application_id)
        if row is None:
            row = self._connection.execute(
                select(applications).where(applications.c.application_id == application_id)
            ).one_or_none()
        if row is None:
            raise NotFoundError("APPLICATION_UNKNOWN", f"no application {application_id!r}")
        self._applications[application_id] = row
        return row

    def _registrant_row(self, registrant_id: str) -> Row[Any]:
        row = self._connection.execute(
            select(registrants).where(registrants.c.registrant_id == registrant_id)
        ).one_or_none()
        if row is None:
            raise NotFoundError("REGISTRANT_UNKNOWN", f"no registrant {registrant_id!r}")
        return row


def _pack(particulars: Particulars) -> bytes:
    details, residence = particulars.details, particulars.residence
    return json.dumps(
        {
            "details": {
                "full_name": details.full_name,
                "gender": int(details.gender),
                "birth_date": details.birth_date.isoformat(),
                "document_number": details.document_number,
                "household_division_code": details.household_division_code,
                "ethnicity": details.ethnicity,
            },
            "residence": {
                "division_code": residence.division_code,
                "address": residence.address,
                "arrival_date": residence.arrival_date.isoformat(),
            },
            "photo": particulars.photo and particulars.photo.hex(),
            "missing_fingers": [[one.position, one.reason] for one in particulars.missing_fingers],
        },
        ensure_ascii=False,
    ).encode()


def _unpack(packed: bytes) -> Particulars:
    plain = json.loads(packed)
    details, residence = plain["details"], plain["residence"]
    return Particulars(
        PersonalDetails(
            full_name=details["full_name"],
            gender=Gender(details["gender"]),
            birth_date=date.fromisoformat(details["birth_date"]),
            document_number=details["document_number"],
            household_division_code=details["household_division_code"],
            ethnicity=details["ethnicity"],
        ),
        Residence(
            division_code=residence["division_code"],
            address=residence["address"],
            arrival_date=date.fromisoformat(residence["arrival_date"]),
        ),
        # Absent from what was sealed before there were photographs.
        photo=bytes.fromhex(plain["photo"]) if plain.get("photo") else None,
        missing_fingers=tuple(
            MissingFinger(position, MissingReason(reason))
            for position, reason in plain.get("missing_fingers", ())
        ),
    )
