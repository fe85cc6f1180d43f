"""The register's port on ``issuance``: particulars in, permit records and cards out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from identity.config import PermitConfig
from identity.errors import StateError
from identity.types import Gender, Particulars, PermitRecord, PermitState
from issuance import types as issuance_types
from issuance.card import CardFormat, draw_card
from issuance.issuer import Issuer
from issuance.profile import PHOTO, PermitKind
from issuance.types import Holder, PermitStatus, Photo, StatusRef

STATUS = {
    PermitState.VALID: PermitStatus.VALID,
    PermitState.SUSPENDED: PermitStatus.SUSPENDED,
    PermitState.REVOKED: PermitStatus.REVOKED,
}
KIND = "temporary-residence"


class IssuerPort:
    """Implements :class:`identity.ports.PermitIssuer`."""

    def __init__(self, issuer: Issuer, config: PermitConfig) -> None:
        self._issuer = issuer
        self._config = config
        self._unpublished = False

    def issue(self, registrant_id: str, particulars: Particulars, now: datetime) -> PermitRecord:
        issued = self._issuer.issue(
            _holder(particulars, self._kind()), kind=KIND, validity_days=self._config.validity_days
        )
        permit = issued.permit
        return PermitRecord(
            permit_number=permit.number,
            registrant_id=registrant_id,
            state=PermitState.VALID,
            kid=issued.kid,
            status_list=permit.status.list_number,
            status_index=permit.status.index,
            issued_at=permit.issued_at.astimezone(UTC),
            expires_at=permit.expires_at.astimezone(UTC),
            qr_text=issued.qr_text,
        )

    def publish(self, status_list: int, status_index: int, state: PermitState) -> None:
        ref = StatusRef(status_list, status_index)
        if self._issuer.status(ref) is not STATUS[state]:
            self._unpublished = True
            if state is PermitState.REVOKED:
                self._issuer.revoke(ref)
            elif state is PermitState.SUSPENDED:
                self._issuer.suspend(ref)
            else:
                self._issuer.reinstate(ref)
        # Also on a retry: the last attempt may have failed between the change and its publication.
        if self._unpublished:
            self._issuer.publish_trust()
            self._unpublished = False

    def reconcile(self, statuses: Iterable[tuple[int, int, PermitState]]) -> None:
        self._issuer.reconcile((number, index, STATUS[state]) for number, index, state in statuses)
        self.refresh()

    def refresh(self) -> None:
        """Make the next signing key when it is due, and publish the trust material anew."""
        self._issuer.ensure_keys()
        self._issuer.publish_trust(deltas=True)

    def card(self, permit: PermitRecord, pdf: bool) -> bytes:
        kind = CardFormat.PDF if pdf else CardFormat.PNG
        # A name must not cost somebody their card: what no font has is a visible 〓 on paper, and
        # right in the symbol, which is what a department reads.
        return draw_card(permit.qr_text, self._issuer.rules, format=kind, replace_unprintable=True)

    def _kind(self) -> PermitKind:
        return self._issuer.rules.kind(KIND)


def _holder(particulars: Particulars, kind: PermitKind) -> Holder:
    """What the profile's kind carries, and nothing else, leaves the register."""
    details, home = particulars.details, particulars.residence
    if details.gender is Gender.UNSPECIFIED:
        raise StateError("DETAILS_INVALID", "the registrant's gender is not recorded")
    optional = {
        "residence_address": home.address,
        "residence_division": home.division_code,
        "household_division": details.household_division_code,
        "citizen_id": details.document_number,
        "ethnicity": details.ethnicity,
    }
    carried: dict[str, Any] = {
        name: value for name, value in optional.items() if name in kind.carries and value
    }
    return Holder(
        full_name=details.full_name,
        gender=issuance_types.Gender(details.gender),
        birth_date=details.birth_date,
        photo=_photo(particulars) if PHOTO in kind.carries else None,
        **carried,
    )


def _photo(particulars: Particulars) -> Photo | None:
    return Photo("image/webp", particulars.photo) if particulars.photo else None
