"""Permits as the register knows them. The signed text is sealed under the holder's data key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, desc, func, insert, select, update

from identity.errors import NotFoundError, SealError
from identity.schema import permit_changes, permits
from identity.store.people import People
from identity.types import PermitChange, PermitRecord, PermitState
from identity.vault import Vault, seal, unseal

# More than can be issued in the second that an issue date is rounded to, by far.
LATEST = 10_000


class Permits:
    def __init__(self, connection: Connection, vault: Vault) -> None:
        self._connection = connection
        self._people = People(connection, vault)

    def add(self, permit: PermitRecord) -> None:
        key = self._people.key_of_registrant(permit.registrant_id)
        self._connection.execute(
            insert(permits).values(
                permit_number=permit.permit_number,
                registrant_id=permit.registrant_id,
                state=permit.state,
                kid=permit.kid,
                status_list=permit.status_list,
                status_index=permit.status_index,
                issued_at=permit.issued_at,
                expires_at=permit.expires_at,
                sealed_qr_text=seal(key, permit.qr_text.encode(), f"permit/{permit.permit_number}"),
            )
        )

    def get(self, permit_number: str) -> PermitRecord:
        """Raises NotFoundError (``PERMIT_UNKNOWN``), also once the holder is erased."""
        row = self._connection.execute(
            select(permits).where(permits.c.permit_number == permit_number)
        ).one_or_none()
        if row is None:
            raise NotFoundError("PERMIT_UNKNOWN", f"no permit {permit_number!r}")
        try:
            return self._permit(row)
        except SealError as error:
            if error.reason != "ERASED":
                raise
            raise NotFoundError(
                "PERMIT_UNKNOWN", f"the holder of permit {permit_number!r} was erased"
            ) from error

    def of_registrant(self, registrant_id: str) -> list[PermitRecord]:
        """Newest first."""
        rows = self._connection.execute(
            select(permits)
            .where(permits.c.registrant_id == registrant_id)
            .order_by(desc(permits.c.issued_at), desc(permits.c.permit_number))
        )
        return [self._permit(row) for row in rows]

    def set_state(self, permit_number: str, state: PermitState) -> None:
        self._connection.execute(
            update(permits).where(permits.c.permit_number == permit_number).values(state=state)
        )

    def change(self, permit: PermitRecord, change: PermitChange) -> None:
        """Set the state and keep why."""
        ordinal = len(self.changes(permit))
        key = self._people.key_of_registrant(permit.registrant_id)
        self._connection.execute(
            insert(permit_changes).values(
                permit_number=permit.permit_number,
                ordinal=ordinal,
                state=change.state,
                sealed_reason=seal(
                    key, change.reason.encode(), f"permit-change/{permit.permit_number}/{ordinal}"
                ),
                changed_by=change.changed_by,
                at=change.at,
            )
        )
        self.set_state(permit.permit_number, change.state)

    def changes(self, permit: PermitRecord) -> list[PermitChange]:
        """What operators did to a permit, oldest first."""
        rows = self._connection.execute(
            select(permit_changes)
            .where(permit_changes.c.permit_number == permit.permit_number)
            .order_by(permit_changes.c.ordinal)
        ).all()
        if not rows:
            return []
        key = self._people.key_of_registrant(permit.registrant_id)
        return [
            PermitChange(
                state=PermitState(row.state),
                reason=unseal(
                    key, row.sealed_reason, f"permit-change/{row.permit_number}/{row.ordinal}"
                ).decode(),
                changed_by=row.changed_by,
                at=row.at,
            )
            for row in rows
        ]

    def status_of(self, permit_number: str) -> tuple[int, int, PermitState]:
        """(status list, index, state), as the register has it, for a permit that exists."""
        row = self._connection.execute(
            select(permits.c.status_list, permits.c.status_index, permits.c.state).where(
                permits.c.permit_number == permit_number
            )
        ).one()
        return row.status_list, row.status_index, PermitState(row.state)

    def statuses(self) -> Iterator[tuple[int, int, PermitState]]:
        """(status list, index, state) as far as they say anything: rebuilds the published lists.

        Those are the permits that do not stand, the last ones issued, which tell how far the
        numbering has come even if the permit journal was lost, and one of every list, so that a
        list whose permits all stand is published too.
        """
        columns = select(permits.c.status_list, permits.c.status_index, permits.c.state)
        fallen = columns.where(permits.c.state != PermitState.VALID)
        latest = columns.order_by(desc(permits.c.issued_at)).limit(LATEST)
        first = select(func.min(permits.c.permit_number)).group_by(permits.c.status_list)
        one_each = columns.where(permits.c.permit_number.in_(first))
        for query in (fallen, latest, one_each):
            for row in self._connection.execute(query):
                yield row.status_list, row.status_index, PermitState(row.state)

    def _permit(self, row: Row[Any]) -> PermitRecord:
        key = self._people.key_of_registrant(row.registrant_id)
        return PermitRecord(
            permit_number=row.permit_number,
            registrant_id=row.registrant_id,
            state=PermitState(row.state),
            kid=row.kid,
            status_list=row.status_list,
            status_index=row.status_index,
            issued_at=row.issued_at,
            expires_at=row.expires_at,
            qr_text=unseal(key, row.sealed_qr_text, f"permit/{row.permit_number}").decode(),
        )
