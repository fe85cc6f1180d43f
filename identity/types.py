"""The nouns of the register. Frozen, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum

from matcher.types import Template


class Gender(IntEnum):
    """As in Claim 169: the numbers are part of the permit."""

    UNSPECIFIED = 0
    MALE = 1
    FEMALE = 2
    OTHER = 3


class ApplicationState(IntEnum):
    ACCEPTED = 1
    ENROLLED = 2
    RECOGNISED = 3
    IN_ADJUDICATION = 4
    REJECTED = 5


class RegistrantState(IntEnum):
    RESIDENT = 1
    DEPARTED = 2
    ERASED = 3


class PermitState(IntEnum):
    VALID = 1
    EXPIRED = 2
    SUSPENDED = 3
    REVOKED = 4


class CaseReason(IntEnum):
    SAME_FINGERS_OTHER_PARTICULARS = 1
    GREY_ZONE = 2
    SAME_DOCUMENT_OTHER_FINGERS = 3


class CaseState(IntEnum):
    OPEN = 1
    AWAITING_SECOND = 2
    DECIDED = 3
    APPEALED = 4


class Verdict(IntEnum):
    DIFFERENT_PERSON = 1
    SAME_PERSON = 2
    REJECT = 3


@dataclass(frozen=True)
class PersonalDetails:
    """What a person states and the station checks against a document."""

    full_name: str
    gender: Gender
    birth_date: date
    document_number: str
    household_division_code: str
    ethnicity: str = ""


@dataclass(frozen=True)
class Residence:
    """Where the person lives now; dates are Asia/Shanghai."""

    division_code: str
    address: str
    arrival_date: date


class MissingReason(IntEnum):
    """Why a finger that was asked for was not captured. Numbers as in anju.v1."""

    AMPUTATED = 1
    BANDAGED = 2
    WORN = 3
    UNREACHABLE = 4
    DECLINED = 5
    EQUIPMENT = 6


@dataclass(frozen=True)
class MissingFinger:
    """``position``: of ISO/IEC 19794-2 table 5, 1 to 10."""

    position: int
    reason: MissingReason


@dataclass(frozen=True)
class Particulars:
    """What is sealed together under a person's data key.

    Attributes:
        missing_fingers: tells of the body, so it is sealed with the rest. Not part of who somebody
            is, either.
        photo: 48 x 60 pixels, WebP, see ``issuance.photo``; None if no portrait was given. Not part
            of who somebody is: two statements that differ in nothing else are the same.
    """

    details: PersonalDetails
    residence: Residence
    photo: bytes | None = field(default=None, compare=False, repr=False)
    missing_fingers: tuple[MissingFinger, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class CapturedSample:
    """One captured finger: its interchange record and what was read from it."""

    record: bytes
    template: Template


@dataclass(frozen=True)
class Once:
    """One intended change, named by its caller.

    Attributes:
        request_hash: SHA-256 of the deterministic request bytes: the same key must mean the same.
        who: for the audit log, where that says more than ``caller``: a terminal's retry is the same
            change, whoever works at it by then.
    """

    caller: str
    method: str
    key: str
    request_hash: bytes
    who: str = ""

    @property
    def actor(self) -> str:
        """Who is answerable for it."""
        return self.who or self.caller


@dataclass(frozen=True)
class Application:
    application_id: str
    state: ApplicationState
    station_id: str
    accepted_by: str
    permit_requested: bool
    late: bool
    accepted_at: datetime
    registrant_id: str | None = None
    case_id: str | None = None


@dataclass(frozen=True)
class Registrant:
    registrant_id: str
    state: RegistrantState
    registered_at: datetime
    station_id: str
    particulars: Particulars | None
    fingers: tuple[int, ...] = ()


@dataclass(frozen=True)
class PermitRecord:
    """A permit as the register knows it; ``state`` is as stored, expiry is up to the clock.

    Attributes:
        kid: which key signed it: the permits to issue anew if that key is ever compromised.
        status_list, status_index: where its status is published.
        qr_text: base45 of the compressed COSE_Sign1, what the QR symbol holds.
    """

    permit_number: str
    registrant_id: str
    state: PermitState
    kid: str
    status_list: int
    status_index: int
    issued_at: datetime
    expires_at: datetime
    qr_text: str

    def state_at(self, now: datetime) -> PermitState:
        if self.state is PermitState.VALID and now >= self.expires_at:
            return PermitState.EXPIRED
        return self.state


@dataclass(frozen=True)
class CaseCandidate:
    """A registrant the applicant may be; similarities are -log10 FMR."""

    registrant_id: str
    similarity: float
    finger_similarities: tuple[float, ...] = ()


@dataclass(frozen=True)
class CaseDecision:
    operator_id: str
    verdict: Verdict
    registrant_id: str | None
    reason: str
    at: datetime
    round: int


@dataclass(frozen=True)
class CaseAppeal:
    """The person's own words; empty once they are erased."""

    statement: str
    taken_by: str
    at: datetime


@dataclass(frozen=True)
class PermitChange:
    """A suspension, reinstatement or revocation, and why."""

    state: PermitState
    reason: str
    changed_by: str
    at: datetime


@dataclass(frozen=True)
class Case:
    case_id: str
    application_id: str
    state: CaseState
    reason: CaseReason
    station_id: str
    opened_at: datetime
    candidates: tuple[CaseCandidate, ...] = ()
    decisions: tuple[CaseDecision, ...] = ()
    appeals: tuple[CaseAppeal, ...] = ()
    round: int = 1


@dataclass(frozen=True)
class Purpose:
    """Why somebody is looked up."""

    code: str
    case_reference: str


@dataclass(frozen=True)
class AuditEntry:
    sequence: int
    at: datetime
    who: str
    action: str
    subject_id: str
    purpose: str
    case_reference: str
    outcome: str
    hash: bytes
